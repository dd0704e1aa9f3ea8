"""MLflow as a cluster has it: runs and registry in PostgreSQL, files in an object store that only the server reaches."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from cluster.running import CHECKOUT, free_ports
from refiner import registry
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from tests.waiting import PATIENCE_S, answers, wait_for

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not here: apt-get install postgresql"),
]
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


def program(name: str) -> str:
    return str(PROGRAMS[-1].with_name(name))


@dataclass
class Postgres:
    """A PostgreSQL server on loopback, which may be ended and started again."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self.port}/postgres"

    def control(self, *arguments: str) -> None:
        # it refuses to run as root
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []
        with open(self.folder / "said", "a") as log:
            subprocess.run([*user, *arguments], check=True, stdout=log, stderr=log, cwd="/")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        said = str(self.folder / "log")
        self.control(program("pg_ctl"), "-D", str(self.folder / "data"), "-o", options, "-w", "-l", said, "start")

    def stop(self, how: str = "fast") -> None:
        self.control(program("pg_ctl"), "-D", str(self.folder / "data"), "-w", "-m", how, "stop")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    folder = Path(
        subprocess.run(["mktemp", "-d", "/tmp/pg-XXXXXX"], capture_output=True, text=True, check=True).stdout.strip()
    )
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder, free_ports([0])[0])
    server.control(program("initdb"), "-D", str(folder / "data"), "-U", "mlflow", "--auth=trust")
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[dict[str, str]]:
    """What finds an S3 server with the bucket "poses" in the environment."""
    said = tmp_path_factory.mktemp("moto") / "log"
    with open(said, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=log, stderr=log
        )
    try:
        wait_for(lambda: re.search(r"Running on (http://127\.0\.0\.1:\d+)", said.read_text()))
        running = re.search(r"Running on (http://127\.0\.0\.1:\d+)", said.read_text())
        assert running
        httpx.put(f"{running[1]}/poses").raise_for_status()
        yield {"MLFLOW_S3_ENDPOINT_URL": running[1], "AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": "secret"}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def server(postgres, store, tmp_path_factory) -> Iterator[str]:
    """URL of an MLflow server on both, started as cluster/kuberay/base/mlflow.yaml starts it."""
    (port,) = free_ports([0])
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"),
        *("--serve-artifacts", "--artifacts-destination", "s3://poses/mlflow", "--allowed-hosts", f"127.0.0.1:{port}"),
    ]
    environment = {
        **os.environ,
        **store,
        "MLFLOW_BACKEND_STORE_URI": postgres.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with open(tmp_path_factory.mktemp("mlflow") / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/health") or process.poll() is not None)
        assert process.poll() is None, Path(log.name).read_text()[-3000:]
        yield url
    finally:
        process.terminate()
        process.wait()


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
