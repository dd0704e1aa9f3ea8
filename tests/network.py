"""A Ray cluster of hosts of its own on this machine: each node in a network namespace, with its own address, ports, loopback
and /tmp, joined by a switch whose cables can be pulled. Needs root and `ip` (iproute2).

What lies here (an object store, MLflow, Redis) the nodes reach at `HERE`; of this machine they see its other files only.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cluster import servers
from cluster.running import CHECKOUT
from cluster.supervisor import send
from refiner import telemetry
from tests.waiting import PATIENCE_S, wait_for

# For tests of networks (RFC 2544): nobody's.
SUBNET, HERE, PREFIX = "198.18.254", "198.18.254.254", 24
HEAD = "head"
GCS, DASHBOARD, SERVE = 6379, 8265, 8000
DISK_MB = 1_000  # of a node's /tmp, in memory as far as it is filled
STORE_BYTES = 200_000_000  # of a node's objects


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass
class Host:
    """A node of Ray's and the machine it thinks it is on."""

    name: str
    namespace: str
    address: str
    disk: Path
    command: list[str]
    env: dict[str, str]
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """As its service manager does: what the last one left on its disk is gone."""
        for left in self.disk.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        # Ray's sockets lie in /tmp, and those of two nodes must not meet
        mounted = f'mount --bind {self.disk} /tmp && mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        inside = ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "sh", "-c", mounted, "sh"]
        with open(self.disk.parent / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [*inside, *self.command], env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=CHECKOUT
            )

    def processes(self) -> list[int]:
        done = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [int(line) for line in done.stdout.split()]

    def kill(self) -> None:
        """kill -9 of everything in it: its plug is pulled."""
        while left := self.processes():
            send(signal.SIGKILL, left)
            time.sleep(0.05)
        if self.process is not None:
            self.process.wait()

    def unplug(self) -> None:
        """Its cable is pulled: no packet comes or goes, and nobody is told."""
        ip("-n", self.namespace, "link", "set", "eth0", "down")

    def plug(self) -> None:
        ip("-n", self.namespace, "link", "set", "eth0", "up")

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


@dataclass
class Network:
    """The hosts, and how one talks to their cluster."""

    hosts: dict[str, Host] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def head(self) -> Host:
        return self.hosts[HEAD]

    @property
    def workers(self) -> list[Host]:
        return [host for name, host in self.hosts.items() if name != HEAD]

    @property
    def url(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, path: str, method: str = "GET", **options: Any) -> Any:
        answer = httpx.request(method, f"{self.url}{path}", headers=self.headers, timeout=PATIENCE_S, **options)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.text else None

    def alive(self) -> set[str]:
        """Addresses of the nodes that live, as the head has it; none while it does not answer."""
        try:
            nodes = self.ask("/api/v0/nodes")["data"]["result"]["result"]
        except (httpx.TransportError, AssertionError, KeyError):
            return set()
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}

    def all_alive(self) -> bool:
        """Whether all are; those that ended are started again, as their service manager would."""
        for host in self.hosts.values():
            if host.ended():
                host.start()
        return self.alive() == {host.address for host in self.hosts.values()}

    def submit(self, program: str, env: dict[str, str]) -> str:
        """A job's id: a program in Python that runs on the head."""
        job = {"entrypoint": f"{sys.executable} -c '{program}'", "runtime_env": {"env_vars": env}}
        return self.ask("/api/jobs/", "POST", json=job)["submission_id"]

    def state(self, job: str) -> str:
        return self.ask(f"/api/jobs/{job}")["status"]

    def logs(self, job: str) -> str:
        return self.ask(f"/api/jobs/{job}/logs")["logs"]

    def ended(self, job: str) -> bool:
        return self.state(job) in ("SUCCEEDED", "FAILED", "STOPPED")

    def deploy(self, config: dict[str, Any]) -> None:
        """Hands in a Serve config and waits until its applications run."""
        self.ask("/api/serve/applications/", "PUT", json=config)
        wait_for(self.serves)

    def serves(self) -> bool:
        try:
            applications = self.ask("/api/serve/applications/")["applications"]
        except (httpx.TransportError, AssertionError):
            return False
        states = [application["status"] for application in applications.values()]
        assert "DEPLOY_FAILED" not in states, applications
        return bool(states) and set(states) == {"RUNNING"}

    def replicas(self) -> set[str]:
        """Ids of the replicas that run."""
        applications = self.ask("/api/serve/applications/")["applications"].values()
        deployments = [deployment for application in applications for deployment in application["deployments"].values()]
        replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
        return {replica["replica_id"] for replica in replicas if replica["state"] == "RUNNING"}


@contextlib.contextmanager
def switch() -> Iterator[str]:
    """Name of a switch at which this machine has the address `HERE`; unplugged when the block ends."""
    bridge = f"br{secrets.token_hex(2)}"
    ip("link", "add", bridge, "type", "bridge")
    try:
        ip("address", "add", f"{HERE}/{PREFIX}", "dev", bridge)
        ip("link", "set", bridge, "up")
        yield bridge
    finally:
        ip("link", "delete", bridge)


@contextlib.contextmanager
def network(bridge: str, folder: Path, workers: int, *, cpus: int = 2, redis: str | None = None) -> Iterator[Network]:
    """A head without work and so many workers, all of them alive; gone, to the last process, when the block ends.

    Args:
        bridge: name of the switch.
        folder: for logs.
        workers: besides the head.
        cpus: that Ray is told of each worker.
        redis: address and password of a Redis in which the head keeps its state, "HOST:PORT PASSWORD".
    """
    there, mark = Network(), secrets.token_hex(2)
    scratch = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
    try:
        for number in range(workers + 1):
            name = HEAD if number == 0 else f"worker-{number}"
            there.hosts[name] = _host(there, name, number, f"{mark}{number}", bridge, scratch, cpus, redis)
        for host in there.hosts.values():
            host.start()
            if host is there.head:
                wait_for(lambda: there.head.address in there.alive() or there.head.ended())
        wait_for(there.all_alive, pause_s=1)
        yield there
    finally:
        for host in there.hosts.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                host.kill()
            subprocess.run(["ip", "netns", "delete", host.namespace])
            shutil.copy(scratch / f"{host.name}.log", folder)
            subprocess.run(["umount", str(host.disk)])
        shutil.rmtree(scratch, ignore_errors=True)


def _host(
    there: Network, name: str, number: int, mark: str, bridge: str, scratch: Path, cpus: int, redis: str | None
) -> Host:
    namespace, cable, address = f"host-{mark}", f"vh{mark}", f"{SUBNET}.{number + 1}"
    ip("netns", "add", namespace)
    ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("link", "set", cable, "master", bridge, "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    ip("-n", namespace, "address", "add", f"{address}/{PREFIX}", "dev", "eth0")
    ip("-n", namespace, "link", "set", "eth0", "up")
    disk = scratch / name
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=1777", "tmpfs", str(disk)], check=True)
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", address]
    start += ["--disable-usage-stats", "--object-store-memory", str(STORE_BYTES)]
    if number == 0:
        start += ["--head", "--port", str(GCS), "--dashboard-host", address, "--num-cpus", "0"]
    else:
        start += ["--address", f"{SUBNET}.1:{GCS}", "--num-cpus", str(cpus)]
    kept = {k: v for k, v in servers.without_ray(os.environ).items() if not k.startswith(("RAY_", "MLFLOW_"))}
    environment = {
        **kept,
        **telemetry.OFF,
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/tests/rayjobs",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": there.token,
        # as cluster/Dockerfile and cluster/kuberay/base/service.yaml have it
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        "RAY_NUM_REDIS_GET_RETRIES": "150",
    }
    if redis and number == 0:
        where, _, password = redis.partition(" ")
        environment |= {"RAY_REDIS_ADDRESS": where, "RAY_REDIS_PASSWORD": password}
        environment |= {"RAY_external_storage_namespace": mark}
        start += ["--redis-password", password]
    return Host(name, namespace, address, disk, start, environment)
