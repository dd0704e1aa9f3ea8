"""Another Ray node on this machine, for a cluster that keeps to loopback: `ray start` refuses a second one there.

    python -m cluster.node --address 127.0.0.1:6379 --cpus 2 --temp-dir /tmp/ray-x/node-2

Started by `cluster.local --nodes N`, which ends it. Ends when its raylet does.
"""

import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.haproxy import HOST
from refiner.command import log, parse

LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    address: str
    """Address of the head, host:port."""
    cpus: int
    """CPUs that Ray is told of."""
    store_bytes: int = 500_000_000
    """Size of the object store."""
    temp_dir: Path
    """Folder of this node's sockets, logs and spilled objects: a node of its own has a disk of its own."""


def command(options: Options) -> list[str]:
    """Runs a node with this interpreter."""
    return [
        *(sys.executable, "-m", "cluster.node", "--address", options.address, "--cpus", str(options.cpus)),
        *("--store-bytes", str(options.store_bytes), "--temp-dir", str(options.temp_dir)),
    ]


def main() -> int:
    """The command: runs a node until it is told to end or one of its processes ends; hands back the exit status."""
    options = parse(Options)
    _wait_for(options.address)
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(0))
    params = RayParams(
        gcs_address=options.address,
        node_ip_address=HOST,
        num_cpus=options.cpus,
        object_store_memory=options.store_bytes,
        temp_dir=str(options.temp_dir),
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        dashboard_agent_listen_port=0,
    )
    node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=True)
    while not (dead := node.dead_processes()):
        time.sleep(LOOK_S)
    log(f"{', '.join(kind for kind, _ in dead)} ended")
    return 1


def _wait_for(address: str) -> None:
    """Until the head listens: Ray would give up after half a minute."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), 5).close()
            return
        except OSError:
            time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
