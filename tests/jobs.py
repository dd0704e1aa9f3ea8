"""What the tests of a network of hosts ask its head for: jobs that are programs, and an endpoint from a Serve config."""

import sys
from typing import Any

import httpx

from cluster.network import Network
from tests.waiting import PATIENCE_S, wait_for


def ask(there: Network, path: str, method: str = "GET", **options: Any) -> Any:
    url, headers = f"{there.cluster.dashboard_url}{path}", there.cluster.headers()
    answer = httpx.request(method, url, headers=headers, timeout=PATIENCE_S, **options)
    assert answer.status_code == 200, answer.text
    return answer.json() if answer.text else None


def submit(there: Network, program: str, env: dict[str, str]) -> str:
    """A job's id: a program in Python that runs on the head."""
    job = {"entrypoint": f"{sys.executable} -c '{program}'", "runtime_env": {"env_vars": env}}
    return ask(there, "/api/jobs/", "POST", json=job)["submission_id"]


def state(there: Network, job: str) -> str:
    return ask(there, f"/api/jobs/{job}")["status"]


def logs(there: Network, job: str) -> str:
    return ask(there, f"/api/jobs/{job}/logs")["logs"]


def ended(there: Network, job: str) -> bool:
    return state(there, job) in ("SUCCEEDED", "FAILED", "STOPPED")


def deploy(there: Network, config: dict[str, Any]) -> None:
    """Hands in a Serve config and waits until its applications run."""
    ask(there, "/api/serve/applications/", "PUT", json=config)
    wait_for(lambda: serves(there))


def serves(there: Network) -> bool:
    try:
        applications = ask(there, "/api/serve/applications/")["applications"]
    except (httpx.TransportError, AssertionError):
        return False
    states = [application["status"] for application in applications.values()]
    assert "DEPLOY_FAILED" not in states, applications
    return bool(states) and set(states) == {"RUNNING"}


def replicas(there: Network) -> set[str]:
    """Ids of the replicas that run."""
    applications = ask(there, "/api/serve/applications/")["applications"].values()
    deployments = [deployment for application in applications for deployment in application["deployments"].values()]
    replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
    return {replica["replica_id"] for replica in replicas if replica["state"] == "RUNNING"}
