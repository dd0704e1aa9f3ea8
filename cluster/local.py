"""A whole cluster on this machine: a Ray head with its job server, and an MLflow server. The embedded default.

    python -m cluster.local -- python -m rayjobs.demo       # up, run the command, down again
    python -m cluster.local --keep                          # up, and it stays; prints the addresses
    python -m cluster.local --nodes 4 --keep                # four Ray nodes in place of one, to rehearse their loss
    python -m cluster.local --nodes 4 --namespaces -- bash  # each node a host of its own, whose cable can be pulled
    python -m cluster.local --stop

Used by `make demo`, by the tests and by whoever wants a cluster on a laptop. Everything listens on loopback only, Ray
wants its token, and MLflow answers to its own address only. All state (registry, artifacts, logs) lies in `runs/cluster`.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cluster import servers, supervisor
from cluster.network import cluster_of_hosts
from cluster.running import HOST, Cluster, free_ports
from cluster.servers import cpus_of
from refiner import UserError
from refiner.command import EXIT_USER_ERROR, log, parse

STATE = "runs/cluster"
USUAL_PORTS = (6379, 8265, 5000)  # Ray's head, its dashboard, MLflow
START_DEADLINE_S = 300  # it takes 10 s on two quiet cores, a loaded machine ten times that; a death is noticed at once
# Ray's processes wait 30 s for each other, which no option changes, and a port that was free may be taken by then: a busy
# machine gets another try.
STARTS = 5


@contextlib.contextmanager
def local_cluster(
    state: str | Path = STATE, *, keep: bool = False, usual_ports: bool = True, gpus: int = 0, nodes: int = 1
) -> Iterator[Cluster]:
    """A cluster that is healthy when the block begins, and gone, to the last process, when it ends (but for `keep`).

    Args:
        state: folder of the registry's database, the artifacts and the logs; what lies there is used again.
        keep: leave it up at the end of a block that raised nothing.
        usual_ports: take Ray's and MLflow's usual ports where they are free; else any, which suits a machine on which
            several clusters start at once.
        gpus: that Ray is told of, whether or not there are any: tries a config for GPUs where there are none.
        nodes: of Ray, each with sockets, logs and a share of the cores of its own. All but the head are started again if they
            end.

    Raises:
        UserError: it does not start, or another one is up on the same folder.
    """
    state = Path(state).absolute()
    state.mkdir(parents=True, exist_ok=True)
    if running := _running(state):
        raise UserError(
            f"a cluster is already up on {state} (dashboard {running['dashboard_url']}): "
            "stop it with 'python -m cluster.local --stop', or give this one another --state"
        )
    record = state / "cluster.json"
    kept = False
    cluster, holder, logs = _healthy(state, usual_ports, gpus, nodes)
    try:
        addresses = {name: str(value) for name, value in dataclasses.asdict(cluster).items()}
        record.write_text(json.dumps({"supervisor": holder.pid, "started": _start_time(holder.pid), **addresses}))
        with _shown(logs["supervisor"]):
            yield cluster
        if keep:
            _orders(holder).write(b"keep\n")
            _orders(holder).flush()
            kept = True
    finally:
        with contextlib.suppress(BrokenPipeError):
            _orders(holder).close()
        if not kept:
            holder.wait()
            record.unlink(missing_ok=True)


def _healthy(
    state: Path, usual_ports: bool, gpus: int, nodes: int
) -> tuple[Cluster, subprocess.Popen[bytes], dict[str, Path]]:
    """A cluster that answers, who holds it, and its logs.

    Raises:
        UserError: it does not start.
    """
    log("starting Ray and MLflow: 10 to 30 s, longer where the machine is busy")
    for attempt in range(STARTS):
        cluster, holder, logs = _start(state, usual_ports, gpus, nodes)
        try:
            _wait_until_healthy(cluster, holder, logs)
            return cluster, holder, logs
        except BaseException as failure:
            with contextlib.suppress(BrokenPipeError):
                _orders(holder).close()
            holder.wait()
            if attempt + 1 == STARTS or not isinstance(failure, UserError) or not str(failure).startswith("ray ended"):
                raise
        log(f"Ray ended while it was starting: trying again ({attempt + 2} of {STARTS})")
    raise AssertionError("the last attempt raises")


def _start(
    state: Path, usual_ports: bool, gpus: int, nodes: int
) -> tuple[Cluster, subprocess.Popen[bytes], dict[str, Path]]:
    """Starts a supervisor with Ray and MLflow; they are not up yet."""
    # Ray puts Unix sockets in there, whose paths may have 107 characters at most: so not below `state`
    scratch = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token_path = scratch / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32))
    gcs, dashboard, mlflow = USUAL_PORTS if usual_ports else (0, 0, 0)
    claims: list[socket.socket] = []  # the supervisor keeps them: a server that is started again needs its port
    gcs, dashboard, mlflow, *others = free_ports([gcs, dashboard, mlflow, 0, 0, 0, 0, 0, 0], claims)
    cluster = Cluster(
        ray_address=f"{HOST}:{gcs}",
        dashboard_url=f"http://{HOST}:{dashboard}",
        mlflow_uri=f"http://{HOST}:{mlflow}",
        token_path=token_path,
    )
    started = servers.local(cluster, state, scratch, (gcs, dashboard, mlflow, *others), gpus, nodes)
    logs = {name: Path(server["log"]) for name, server in started.items()} | {"supervisor": state / "supervisor.log"}
    for path in logs.values():
        path.unlink(missing_ok=True)
    spec = {"scratch": str(scratch), "processes": started}
    with open(logs["supervisor"], "ab") as out, contextlib.ExitStack() as claimed:
        for claim in claims:
            claimed.enter_context(claim)
        holder = subprocess.Popen(
            [sys.executable, supervisor.__file__],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            pass_fds=[claim.fileno() for claim in claims],
            start_new_session=True,  # Ctrl-C is for us; the supervisor sees its stdin close
        )
    orders = _orders(holder)
    orders.write(json.dumps(spec).encode() + b"\n")
    orders.flush()
    return cluster, holder, logs


def _orders(holder: subprocess.Popen[bytes]) -> IO[bytes]:
    """Where the supervisor is told what to do; it ends everything when this closes."""
    assert holder.stdin is not None  # a pipe, as asked for
    return holder.stdin


def stop(state: str | Path = STATE) -> None:
    """Ends the cluster that was left up on that folder.

    Raises:
        UserError: there is none.
    """
    state = Path(state).absolute()
    running = _running(state)
    if not running:
        raise UserError(f"no cluster is up on {state}")
    os.kill(running["supervisor"], signal.SIGTERM)
    while _running(state):
        time.sleep(0.1)
    (state / "cluster.json").unlink()


def _running(state: Path) -> dict[str, Any] | None:
    """What cluster.json says, if the process it names is alive and the same (ids are used again)."""
    try:
        record = json.loads((state / "cluster.json").read_text())
        return record if _start_time(record["supervisor"]) == record["started"] else None
    except (OSError, ValueError, KeyError):
        return None


def _start_time(process: int) -> str:
    """When a process started, in the kernel's ticks since boot.

    Raises:
        OSError: it is not there, or ended and was not collected yet.
    """
    fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(process)
    return fields[19]


def _wait_until_healthy(cluster: Cluster, holder: subprocess.Popen, logs: Mapping[str, Path]) -> None:
    import httpx

    waiting = {
        "ray": f"{cluster.dashboard_url}/api/serve/applications/",  # answers once the head's agent is up
        "mlflow": f"{cluster.mlflow_uri}/health",
    }
    token = cluster.headers()  # read now: a supervisor that gives up takes the token's file with it
    deadline = time.monotonic() + START_DEADLINE_S
    client = httpx.Client(timeout=5, verify=False)  # plain HTTP: reading certificates would take 50 ms of each core
    others = [name for name in logs if name.startswith("node-")]
    while waiting:
        for name, url in list(waiting.items()):
            with contextlib.suppress(httpx.TransportError):
                answer = client.get(url, headers={} if name == "mlflow" else token)
                if answer.status_code == 200 and (
                    name != "ray" or not others or len(cluster.nodes_alive()) > len(others)
                ):
                    del waiting[name]
        # One that is restarted later is not now: what keeps it from its first start will keep it from the second. But a node
        # whose first start took longer than Ray waits joins at its second.
        ended = supervisor.ended_by_itself(logs["supervisor"].read_text(errors="replace"))
        ended = [name for name in ended if name not in others]
        if waiting and (ended or holder.poll() is not None or time.monotonic() > deadline):
            why = (
                "ended at once" if ended or holder.poll() is not None else f"is not healthy after {START_DEADLINE_S} s"
            )
            # when Ray ends, the supervisor ends the other, too: its log says which was the first
            name = ended[0] if ended else next(iter(waiting))
            tail = "\n".join(logs[name].read_text(errors="replace").splitlines()[-15:])
            raise UserError(f"{name} {why}; the end of {logs[name]} reads:\n{tail}")
        time.sleep(0.1)


@contextlib.contextmanager
def _shown(path: Path) -> Iterator[None]:
    """Puts what is written to a log meanwhile onto stderr."""
    done = threading.Event()

    def show() -> None:
        with path.open(errors="replace") as lines:
            lines.seek(0, os.SEEK_END)
            while not done.wait(0.5):
                for line in lines:
                    log(line.rstrip())

    thread = threading.Thread(target=show, name="supervisor's log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    keep: bool = False
    """Leave the cluster up."""
    stop: bool = False
    """End the cluster that was left up."""
    state: str = STATE
    """Folder of the registry, the artifacts and the logs."""
    nodes: int = 1
    """Number of Ray nodes."""
    namespaces: bool = False
    """Put each node into a network namespace, with its own address, ports and /tmp (needs root)."""


def main() -> int:
    """The command: hands back the exit status, which is COMMAND's where there is one."""
    # what follows the first `--` is the command's own, flags and all
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, command = sys.argv[1:at], sys.argv[at + 1 :]
    options = parse(Options, args=arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if options.stop:
            stop(options.state)
            return 0
        if not command and not options.keep:
            raise UserError("there is nothing to do: give a COMMAND after '--', or --keep to have a cluster that stays")
        return _run(command, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130


def _run(command: list[str], options: Options) -> int:
    with contextlib.ExitStack() as stack:
        if options.namespaces:
            cluster = stack.enter_context(_apart(options))
        else:
            cluster = stack.enter_context(local_cluster(options.state, keep=options.keep, nodes=options.nodes))
        log(f"Ray {cluster.dashboard_url}   MLflow {cluster.mlflow_uri}")
        status = _run_on(cluster, command) if command else 0
        if options.keep:
            log("The cluster stays up. In a shell that is to use it:")
            for name, value in cluster.env.items():
                if name != "PATH":
                    log(f"    export {name}={value}")
            state = "" if options.state == STATE else f" --state {options.state}"
            log(f"and to end it:\n    python -m cluster.local --stop{state}")
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _apart(options: Options) -> Iterator[Cluster]:
    """A cluster whose nodes are hosts of their own; says how one takes them away."""
    if options.keep:
        raise UserError(
            "--namespaces cannot be combined with --keep: the networks end with COMMAND, which may be a shell ('-- bash')"
        )
    with cluster_of_hosts(Path(options.state).absolute(), options.nodes, cpus_of(options.nodes)) as there:
        for host in there.hosts.values():
            log(f"{host.name} {host.address}   its cable: ip -n {host.namespace} link set eth0 down")
        yield there.cluster


def _run_on(cluster: Cluster, command: list[str]) -> int:
    """The exit status of a command that uses the cluster."""
    try:
        child = subprocess.Popen(command, env={**os.environ, **cluster.env}, preexec_fn=supervisor.die_with_parent)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror}") from None
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise


if __name__ == "__main__":
    sys.exit(main())
