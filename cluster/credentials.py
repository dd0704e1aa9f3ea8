"""Random passwords and tokens for a cluster: as Kubernetes Secrets, or as the .env of compose.yaml. Nothing is kept here.

    python -m cluster.credentials kubernetes | kubectl apply -f -
    python -m cluster.credentials compose > cluster/.env

Made anew each time it is run: what runs already keeps its old ones until it is restarted, and PostgreSQL its password for good.
"""

import secrets
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
import yaml

from refiner.command import parse

NAMESPACE = "poses"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    form: Annotated[Literal["kubernetes", "compose"], tyro.conf.Positional]
    """Secrets for cluster/kuberay, or lines for cluster/compose.yaml."""


def kubernetes() -> str:
    """The Secrets that the manifests name."""
    database = secrets.token_hex(16)
    contents = {
        "postgresql": {"password": database, "uri": f"postgresql://mlflow:{database}@postgresql/mlflow"},
        "store": {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)},
        "redis": {"password": secrets.token_hex(16)},
        "endpoint": {"POSE_API_TOKENS": secrets.token_hex(32)},
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return yaml.safe_dump_all(
        [namespace]
        + [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "type": "Opaque",
                "stringData": content,
            }
            for name, content in contents.items()
        ],
        sort_keys=False,
    )


def compose() -> str:
    """What compose.yaml asks for."""
    lengths = {
        "RAY_AUTH_TOKEN": 32,
        "POSTGRES_PASSWORD": 16,
        "AWS_ACCESS_KEY_ID": 10,
        "AWS_SECRET_ACCESS_KEY": 20,
        "POSE_API_TOKENS": 32,
        "GRAFANA_PASSWORD": 16,
    }
    return "".join(f"{name}={secrets.token_hex(length)}\n" for name, length in lengths.items())


if __name__ == "__main__":
    sys.stdout.write(kubernetes() if parse(Options).form == "kubernetes" else compose())
