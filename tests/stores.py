"""The stores that a cluster has, on this machine: PostgreSQL, an object store (moto's S3), and MLflow on both."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from cluster.running import HOST, free_ports
from tests.forwarder import Forwarder, forwarded
from tests.waiting import PATIENCE_S, answers, wait_for

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
needs_postgresql = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not here: apt-get install postgresql")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}


@contextmanager
def object_store(folder: Path, bucket: str, host: str = HOST) -> Iterator[str]:
    """URL of an S3 server with one empty bucket, on a free port; `folder` is for its log."""
    said = folder / "moto.log"
    with open(said, "w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        listening = wait_for(
            lambda: process.poll() is not None or re.search(rf"Running on (http://{host}:\d+)", said.read_text())
        )
        assert isinstance(listening, re.Match), said.read_text()
        httpx.put(f"{listening[1]}/{bucket}", timeout=PATIENCE_S).raise_for_status()
        yield listening[1]
    finally:
        process.terminate()
        process.wait()


@dataclass
class Postgres:
    """A PostgreSQL server on loopback, which may be ended and started again."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow@{HOST}:{self.port}/postgres"

    def control(self, program: str, *arguments: str) -> None:
        # it refuses to run as root
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []
        command = [*user, str(PROGRAMS[-1].with_name(program)), "-D", str(self.folder / "data"), *arguments]
        with open(self.folder / "said", "a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses={HOST} -c unix_socket_directories={self.folder} -c fsync=off"
        self.control("pg_ctl", "-o", options, "-w", "-l", str(self.folder / "log"), "start")

    def stop(self, how: str = "fast") -> None:
        self.control("pg_ctl", "-w", "-m", how, "stop")


@contextmanager
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL that is up when the block begins, and gone with its data when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # its socket's path must be short
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder, free_ports([0])[0])
    try:
        server.control("initdb", "-U", "mlflow", "--auth=trust")
        server.start()
        yield server
        server.stop("immediate")
    finally:
        shutil.rmtree(folder)


@dataclass
class MLflow:
    """An MLflow server, which may be ended and started again."""

    port: int
    environment: dict[str, str]
    log: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """As cluster/kuberay/base/mlflow.yaml does; until it answers."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "2"),
            *("--serve-artifacts", "--artifacts-destination", "s3://poses/mlflow"),
            *("--allowed-hosts", f"{HOST}:{self.port}"),
        ]
        with open(self.log, "a") as log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
        self.processes.append(process)
        wait_for(lambda: answers(f"{self.url}/health") or process.poll() is not None)
        assert process.poll() is None, self.log.read_text()[-3000:]

    def kill(self) -> None:
        """kill -9 of it and all its workers."""
        process = self.processes.pop()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def mlflow_server(folder: Path, database: str, store: Mapping[str, str]) -> Iterator[MLflow]:
    """An MLflow server whose runs are in that database and whose files are in the bucket "poses" of that store."""
    environment = {
        **os.environ,
        **store,
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    server = MLflow(free_ports([0])[0], environment, folder / "mlflow.log")
    server.start()
    try:
        yield server
    finally:
        if server.processes:
            server.kill()


@dataclass
class Stores:
    """What a cluster has beside it, each of which can be away."""

    database: Postgres
    mlflow: MLflow
    objects: Forwarder
    """The way to the object store, which keeps what it has in memory."""

    @property
    def environment(self) -> dict[str, str]:
        """That finds them."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.objects.address}",
            **CREDENTIALS,
            "MLFLOW_TRACKING_URI": self.mlflow.url,
        }

    def away(self, which: str) -> Callable[[], None]:
        """From now on that one does not answer; what is given back ends that."""
        if which == "the object store":
            self.objects.closed()
            return self.objects.opened
        if which == "MLflow":
            self.mlflow.kill()
            return self.mlflow.start
        self.database.stop("immediate")
        return self.database.start


@contextmanager
def all_stores(folder: Path) -> Iterator[Stores]:
    """PostgreSQL, an object store and MLflow on both; `folder` is for their logs."""
    with postgresql() as database, object_store(folder, "poses") as url:
        host, _, port = url.removeprefix("http://").rpartition(":")
        with forwarded(host, (host, int(port))) as way:
            store = {"MLFLOW_S3_ENDPOINT_URL": f"http://{way.address}", **CREDENTIALS}
            with mlflow_server(folder, database.uri, store) as mlflow:
                yield Stores(database, mlflow, way)
