"""MLflow as a cluster has it: runs and registry in PostgreSQL, files in an object store that only the server reaches."""

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from cluster.running import CHECKOUT
from refiner import registry
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from tests.stores import CREDENTIALS, Postgres, mlflow_server, needs_postgresql, object_store, postgresql
from tests.waiting import PATIENCE_S, wait_for

pytestmark = [pytest.mark.cluster, needs_postgresql]
STEPS, JOBS = 60, 3

# One job: a run, its numbers step by step at a pace, the end. Prints the run's id first.
JOB = f"""
import sys, time
from refiner import registry

run = registry.start_run(sys.argv[1], {{"job": sys.argv[1]}})
print(run, flush=True)
log = registry.MetricLog(run)
for step in range({STEPS}):
    log.log({{"loss": step, "error": 2 * step}}, step)
    time.sleep(0.1)
log.close(300)
registry.finish_run(run)
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[dict[str, str]]:
    """What finds an S3 server with the bucket "poses" in the environment."""
    with object_store(tmp_path_factory.mktemp("moto"), "poses") as url:
        yield {"MLFLOW_S3_ENDPOINT_URL": url, **CREDENTIALS}


@pytest.fixture(scope="module")
def server(postgres, store, tmp_path_factory) -> Iterator[str]:
    """URL of an MLflow server on both."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), postgres.uri, store) as mlflow:
        yield mlflow.url


def test_three_jobs_log_at_once_and_lose_nothing_while_postgresql_restarts(server, postgres, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    jobs = [
        subprocess.Popen([sys.executable, "-c", JOB, f"job-{i}"], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(JOBS)
    ]
    runs = [job.stdout.readline().strip() for job in jobs if job.stdout]
    client = registry.runs.mlflow_client()

    def steps(run: str, name: str) -> list[tuple[int, float]]:
        return sorted((m.step, m.value) for m in client.get_metric_history(run, name))

    wait_for(lambda: all(len(steps(run, "loss")) > 5 for run in runs))
    postgres.stop("immediate")  # as if its machine had lost its power
    postgres.start()
    for job in jobs:
        assert job.wait(PATIENCE_S) == 0
    for run in runs:
        assert steps(run, "loss") == [(i, float(i)) for i in range(STEPS)]
        assert steps(run, "error") == [(i, 2.0 * i) for i in range(STEPS)]
        assert client.get_run(run).info.status == "FINISHED"


def test_a_version_has_all_that_a_reader_wants_and_its_files_lie_in_the_store(server, store, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    for name in (*store, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)  # whoever reads reaches the server only
    checkpoint = save_checkpoint(PoseAwareDepthRefiner(), tmp_path / "checkpoint")
    run = registry.start_run("registers", {"pairs": "s3://poses/pairs"})
    registry.log_dataset(run, "s3://poses/pairs", "f" * 64, {"train": 10, "val": 2})
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/loss.png").write_bytes(b"picture")
    registry.log_files(run, tmp_path / "plots", "plots")
    example = np.zeros((1, 17, 3), np.float32), np.ones((1, 17), np.float32)
    version = registry.register(
        checkpoint, run, example=example, metrics={"val_depth_cm": 5.5}, tags={"dataset_fingerprint": "f" * 64}
    )
    registry.finish_run(run)
    client = registry.runs.mlflow_client()
    assert client.get_registered_model(registry.NAME).description
    registered = client.get_model_version_by_alias(registry.NAME, registry.CANDIDATE)
    assert registered.version == version and registered.tags["metric.val_depth_cm"] == "5.5"
    listed = httpx.get(f"{store['MLFLOW_S3_ENDPOINT_URL']}/poses?prefix=mlflow/").text
    for name in ("model.safetensors", "MLmodel", "input_example.json", "loss.png"):
        assert name in listed, name
    (inputs,) = client.get_run(run).inputs.dataset_inputs
    assert inputs.dataset.digest == "f" * 32 and inputs.dataset.source_type == "s3"
    kept = registry.download(f"models:/{registry.NAME}@{registry.CANDIDATE}", tmp_path / "kept")
    assert (
        kept.version == version
        and (kept.path / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    )
    assert registry.origin(registry.NAME, version).pairs == "s3://poses/pairs"
