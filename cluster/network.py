"""A Ray cluster of hosts of its own on this machine: each node in a network namespace, with its own address, ports, loopback
and /tmp, joined by a switch whose cables can be pulled. Needs root and `ip` (iproute2).

For `cluster.local --nodes N --namespaces` and for the tests of what a cluster survives. What lies here (MLflow, an object
store, Redis) the nodes reach at `HERE`, an address that nobody beyond this machine has; of its files they see all but /tmp.
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster import haproxy, quiet, servers, supervisor
from cluster.running import CHECKOUT, Cluster, ray_env
from cluster.supervisor import processes_below, send
from refiner import UserError

# For tests of networks (RFC 2544): nobody's.
SUBNET, HERE, PREFIX = "198.18.254", "198.18.254.254", 24
HEAD = "head"
GCS, DASHBOARD, MLFLOW = 6379, 8265, 5000
DISK_MB = 1_000  # of a node's /tmp, in memory as far as it is filled
STORE_BYTES = 200_000_000  # of a node's objects
START_DEADLINE_S = 600
# How long a node waits for a head that is gone: cluster/kuberay/base/service.yaml has the same.
LOSSES = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600", "RAY_NUM_REDIS_GET_RETRIES": "150"}


def available() -> bool:
    """Whether networks can be made here."""
    return (
        os.geteuid() == 0
        and shutil.which("ip") is not None
        and subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0  # not in every container
    )


def ip(*arguments: str) -> None:
    """Runs `ip`.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run(["ip", *arguments], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"'ip {' '.join(arguments)}' failed: {done.stderr.strip() or done.returncode}")


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
    """The hosts, and their cluster."""

    cluster: Cluster
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def head(self) -> Host:
        return self.hosts[HEAD]

    @property
    def workers(self) -> list[Host]:
        return [host for name, host in self.hosts.items() if name != HEAD]

    def alive(self) -> set[str]:
        """Addresses of the nodes that live, as the head has it."""
        return set(self.cluster.nodes_alive())

    def all_alive(self) -> bool:
        """Whether all are; those that ended are started again, as their service manager would."""
        for host in self.hosts.values():
            if host.ended():
                host.start()
        return self.alive() == {host.address for host in self.hosts.values()}


@contextlib.contextmanager
def switch() -> Iterator[str]:
    """Name of a switch at which this machine has the address `HERE`; unplugged when the block ends.

    Raises:
        UserError: there is one already, or none can be made.
    """
    shown = subprocess.run(["ip", "-o", "address", "show", "to", HERE], capture_output=True, text=True, check=True)
    if shown.stdout:
        there = shown.stdout.split()[1]
        raise UserError(
            f"a network of hosts is up here already: end it, or what is left of it with 'ip link delete {there}'"
        )
    bridge = f"br{secrets.token_hex(2)}"
    ip("link", "add", bridge, "type", "bridge")
    try:
        ip("address", "add", f"{HERE}/{PREFIX}", "dev", bridge)
        ip("link", "set", bridge, "up")
        yield bridge
    finally:
        ip("link", "delete", bridge)


@contextlib.contextmanager
def network(
    bridge: str,
    folder: Path,
    workers: int,
    *,
    cpus: int = 2,
    environment: Mapping[str, str] | None = None,
    redis: str | None = None,
) -> Iterator[Network]:
    """A head without work and so many workers, all of them alive; gone, to the last process, when the block ends.

    Args:
        bridge: name of the switch.
        folder: for logs.
        workers: besides the head.
        cpus: that Ray is told of each worker.
        environment: what each node's processes find there besides.
        redis: address and password of a Redis in which the head keeps its state, "HOST:PORT PASSWORD".

    Raises:
        UserError: a network cannot be made here, or a node does not start.
    """
    mark = secrets.token_hex(2)
    scratch = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
    token_path, balancer = scratch / "token", scratch / "haproxy"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32))
    balancer.mkdir()
    there = Network(
        Cluster(
            ray_address=f"{SUBNET}.1:{GCS}",
            dashboard_url=f"http://{SUBNET}.1:{DASHBOARD}",
            mlflow_uri=f"http://{HERE}:{MLFLOW}",
            token_path=token_path,
        )
    )
    base = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    base |= ray_env(token_path) | servers.SERVE | LOSSES | {"MLFLOW_TRACKING_URI": there.cluster.mlflow_uri}
    base |= {"RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy.install(balancer, "0.0.0.0")), **(environment or {})}
    del base["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]  # these are several machines
    try:
        for number in range(workers + 1):
            name = HEAD if number == 0 else f"worker-{number}"
            there.hosts[name] = _host(name, number, f"{mark}{number}", bridge, scratch, cpus, base, redis)
        for host in there.hosts.values():
            host.start()
            if host is there.head:
                _wait_for(lambda: there.head.address in there.alive() or there.head.ended(), scratch)
        _wait_for(there.all_alive, scratch)
        yield there
    finally:
        for host in there.hosts.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                host.kill()
            subprocess.run(["ip", "netns", "delete", host.namespace])
            shutil.copy(scratch / f"{host.name}.log", folder)
            subprocess.run(["umount", str(host.disk)])
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def cluster_of_hosts(state: Path, nodes: int, cpus: int) -> Iterator[Network]:
    """So many nodes in all and an MLflow, for `cluster.local --namespaces`.

    Args:
        state: folder of the registry's database, the artifacts and the logs.
        nodes: with the head, which does no work.
        cpus: that Ray is told of each node but the head.

    Raises:
        UserError: a network cannot be made here, or a server does not start.
    """
    if not available():
        raise UserError("--namespaces needs root and the command 'ip' (apt-get install iproute2)")
    if nodes < 2:
        raise UserError("--namespaces needs --nodes 2 or more: a head, which does no work, and others")
    state.mkdir(parents=True, exist_ok=True)
    with switch() as bridge:
        server = servers.mlflow_server(state, HERE, MLFLOW)
        mlflow = supervisor.start(server)
        try:
            with network(bridge, state, nodes - 1, cpus=cpus) as there:
                _wait_for(lambda: mlflow.poll() is not None or _answers(f"{there.cluster.mlflow_uri}/health"), state)
                if mlflow.poll() is not None:
                    raise UserError(f"mlflow ended at once: {server['log']} says why")
                yield there
        finally:
            send(signal.SIGTERM, [mlflow.pid, *processes_below(mlflow.pid)])
            mlflow.wait()


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=5, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def _wait_for(condition: Callable[[], object], logs: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise UserError(f"the cluster is not up after {START_DEADLINE_S} s: the logs in {logs} say why")
        time.sleep(0.5)


def _host(
    name: str,
    number: int,
    mark: str,
    bridge: str,
    scratch: Path,
    cpus: int,
    environment: Mapping[str, str],
    redis: str | None,
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
    start = [sys.executable, quiet.__file__, "start", "--block", "--node-ip-address", address]
    start += ["--disable-usage-stats", "--object-store-memory", str(STORE_BYTES)]
    if number == 0:
        start += ["--head", "--port", str(GCS), "--dashboard-host", address, "--num-cpus", "0"]
    else:
        start += ["--address", f"{SUBNET}.1:{GCS}", "--num-cpus", str(cpus)]
    if redis and number == 0:
        where, _, password = redis.partition(" ")
        environment = {
            **environment,
            "RAY_REDIS_ADDRESS": where,
            "RAY_REDIS_PASSWORD": password,
            "RAY_external_storage_namespace": mark,
        }
        start += ["--redis-password", password]
    return Host(name, namespace, address, disk, start, dict(environment))
