"""The nodes of a cluster of several (cluster.local, nodes=4), found by their processes, and killed."""

import re
import signal
from pathlib import Path

from cluster.running import Cluster
from cluster.supervisor import send

NODES = 4


class Nodes:
    """A cluster of several nodes, which may lose one."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def raylets(self) -> dict[str, int]:
        """Process of each node's raylet but the head's, by the node's name."""
        scratch = str(self.cluster.token_path.parent)
        named = {}
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_text().split("\0") if entry.name.isdigit() else [""]
            except OSError:
                continue  # it ended meanwhile
            name = re.search(rf"{re.escape(scratch)}/(node-\d+)", " ".join(words))
            if Path(words[0]).name == "raylet" and name:
                named[name[1]] = int(entry.name)
        return named

    def kill(self, raylet: int) -> None:
        """kill -9, and everything that the node ran with it, as where a machine's plug is pulled."""
        below = [process for process in _processes() if parent(process) == raylet]
        send(signal.SIGKILL, [raylet, *below])

    def alive(self) -> int:
        return len(self.cluster.nodes_alive())


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def parent(process: int) -> int:
    """Its parent's id; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def children(process: int) -> list[str]:
    """Titles of the processes that it started."""
    titles = []
    for other in _processes():
        try:
            if parent(other) == process:
                titles.append(Path(f"/proc/{other}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it ended meanwhile
    return titles


def titled(title: str) -> list[int]:
    """Processes whose title begins so."""
    alive = []
    for process in _processes():
        try:
            if Path(f"/proc/{process}/cmdline").read_text().startswith(title):
                alive.append(process)
        except OSError:
            continue
    return alive
