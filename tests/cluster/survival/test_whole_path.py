"""The demo's whole path on four Ray nodes, runs in PostgreSQL, data in an object store: once undisturbed, once with a node
killed in each phase. The same figures. `make cluster-test`.
"""

import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cluster.running import CHECKOUT, Cluster
from rayjobs import train
from rayjobs.demo.__main__ import clips
from refiner import files, registry
from refiner.data import records
from serve.client import Client, Retries
from tests.nodes import NODES, Nodes, children
from tests.stores import Stores, needs_postgresql
from tests.waiting import wait_for

pytestmark = [pytest.mark.survival, needs_postgresql]
SEQUENCES, EPOCHS, CAMERAS = 10, 8, 3
REPLICAS = 2


@dataclass
class Walk:
    """One walk along the path: submits its jobs, and kills a node in each if it is to."""

    nodes: Nodes
    cluster: Cluster
    environment: dict[str, str]
    name: str
    folder: Path
    disturbed: bool
    killed: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        return f"s3://poses/{self.name}"

    def submit(self, job: str, *arguments: object, doomed: Callable[[], int | None]) -> dict[str, Any]:
        """A job's summary; a node is killed meanwhile, if that is to be."""
        command = shlex.join(["python", "-m", f"rayjobs.{job}", *map(str, arguments)])
        with self.one_lost(job, doomed):
            return self.cluster.submit(command, env=self.environment) or {}

    @contextmanager
    def one_lost(self, phase: str, doomed: Callable[[], int | None]) -> Iterator[None]:
        """In this block a node is killed, as soon as `doomed` names its raylet; after it all nodes live."""
        if not self.disturbed:
            yield
            return
        over, failures = threading.Event(), []

        def kill() -> None:
            try:
                raylet = wait_for(lambda: over.is_set() or doomed(), pause_s=0.2)
                assert raylet is not True, f"{phase} was over before a node was killed"
                self.nodes.kill(raylet)
                self.killed.append(phase)
            except BaseException as failure:
                failures.append(failure)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()
        if failures:
            raise failures[0]
        wait_for(lambda: len(self.nodes.raylets()) == NODES - 1 and self.nodes.alive() >= NODES, pause_s=1)

    def epochs(self) -> list[int]:
        """Those that MLflow has of the training."""
        run = registry.find_run(train.RESUME_TAG, self.name)
        client = registry.runs.mlflow_client()
        return sorted(m.step for m in client.get_metric_history(run, "train/depth")) if run else []

    def at_work(self, title: str = "^ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent)") -> int | None:
        """The raylet of a node, not the head's, on which such a process runs."""
        for raylet in self.nodes.raylets().values():
            if any(re.search(title, command) for command in children(raylet)):
                return raylet
        return None


def walked(walk: Walk) -> dict[str, Any]:
    """Studio, extraction, pairing, training, evaluation, endpoint: the figures at the end."""
    root, nodes = walk.root, walk.nodes
    walk.submit(
        *("studio", "--out", root, "--sequences", SEQUENCES, "--seconds", 0.4, "--fps", 15, "--size", 640, 480),
        *("--cameras", CAMERAS),
        doomed=lambda: files.find(f"{root}/videos", {".mp4"}) and walk.at_work(),
    )
    extracted = walk.submit(
        *("extract", "--videos", f"{root}/videos", "--out", f"{root}/observations", "--actors", 3),
        doomed=lambda: len(files.find(f"{root}/observations", {".parquet"})) >= 2 and walk.at_work("MapWorker"),
    )
    paired = walk.submit(
        *("pair", "--observations", f"{root}/observations", "--dataset", root, "--out", f"{root}/pairs"),
        doomed=lambda: min(nodes.raylets().values()),  # it works on the head alone
    )
    trained = walk.submit(
        *("train", "--pairs", f"{root}/pairs", "--storage", f"{root}/checkpoints", "--name", walk.name),
        *("--workers", NODES, "--preset", "baseline", "--epochs", EPOCHS, "--patience", EPOCHS, "--batch-size", 64),
        *("--model-name", walk.name),
        doomed=lambda: len(walk.epochs()) >= 2 and walk.at_work("RayTrainWorker"),
    )
    model = f"models:/{walk.name}/{trained['version']}"
    evaluated = walk.submit(
        *("evaluate", "--pairs", f"{root}/pairs", "--workers", 3, "--model", model),
        doomed=lambda: walk.at_work("MapWorker"),
    )
    return {
        "videos": extracted["extracted"],
        "failed": extracted["failed"],
        "pairs": sum(paired["pairs"].values()),
        "fingerprint": paired["fingerprint"],
        "epochs": walk.epochs(),
        "val_depth_cm": trained["val_depth_cm"],
        "mediapipe_depth_cm": evaluated["mediapipe"]["depth_cm"],
        "depth_cm": evaluated["refined"]["depth_cm"],
        "http_depth_cm": asked(walk, trained["version"]),
    }


def asked(walk: Walk, version: str) -> float:
    """The depth error of what an endpoint with two replicas on two nodes answers, one of which is killed meanwhile."""
    config = yaml.safe_load((CHECKOUT / "serve/config.yaml").read_text())
    (application,) = config["applications"]
    application["args"]["model"] = f"models:/{walk.name}/{version}"
    application["runtime_env"] = {"env_vars": {**walk.environment, "MLFLOW_TRACKING_URI": walk.cluster.mlflow_uri}}
    endpoint = application["deployments"][0]
    del endpoint["autoscaling_config"]
    endpoint |= {"num_replicas": REPLICAS, "max_replicas_per_node": 1}
    (walk.folder / "config.yaml").write_text(yaml.safe_dump(config))
    url = walk.cluster.deploy(walk.folder / "config.yaml", port=0)
    held_out = records.read_pairs(f"{walk.root}/pairs", "test")
    errors: list[float] = []

    def asked_about_all(client: Client) -> bool:
        for clip in clips(held_out):
            answer = client.refine(clip.corrupted, clip.visibility, image_points=clip.image_points)
            assert answer.model == {"name": walk.name, "version": version}
            errors.append(float(np.abs(answer.poses - clip.ground_truth)[..., 2].mean()))
        return True

    with Client(url, retries=Retries(attempts=200)) as client:
        wait_for(lambda: client.refine(held_out.corrupted[0]).model["name"] == walk.name)  # not the one before
        with walk.one_lost("serve", lambda: walk.at_work("RefineEndpoint") if errors else None):
            wait_for(lambda: asked_about_all(client) and (not walk.disturbed or "serve" in walk.killed))
        asked_about_all(client)
    return 100 * float(np.mean(errors))


def test_a_node_killed_in_each_phase_changes_no_figure(nodes: Nodes, stores: Stores, book, monkeypatch, tmp_path):
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)
    cluster = replace(nodes.cluster, mlflow_uri=stores.mlflow.url)
    environment = {name: value for name, value in stores.environment.items() if name.startswith("AWS_")}
    mark = secrets.token_hex(3)
    walks = [
        Walk(nodes, cluster, environment, f"{name}-{mark}", tmp_path, disturbed=name == "disturbed")
        for name in ("undisturbed", "disturbed")
    ]
    started = time.monotonic()
    undisturbed, disturbed = map(walked, walks)
    killed = walks[1].killed
    book(
        f"a node in each phase of the demo's path ({', '.join(killed)})",
        **{name: f"{value:.4g}" if isinstance(value, float) else value for name, value in disturbed.items()
           if name not in ("fingerprint", "epochs")},
        epochs=len(disturbed["epochs"]), twice=len(disturbed["epochs"]) - len(set(disturbed["epochs"])),
        seconds=round(time.monotonic() - started),
    )  # fmt: skip
    assert killed == ["studio", "extract", "pair", "train", "evaluate", "serve"]
    figures = [name for name, value in undisturbed.items() if isinstance(value, float)]
    assert {n: disturbed[n] for n in figures} == pytest.approx({n: undisturbed[n] for n in figures}, abs=0.01)
    assert {n: v for n, v in disturbed.items() if n not in figures} == {
        n: v for n, v in undisturbed.items() if n not in figures
    }
    assert disturbed["epochs"] == list(range(EPOCHS)) and disturbed["failed"] == 0
