"""Processes of this machine, found by what they were started with (Linux)."""

import os
import signal
from pathlib import Path


def heed_interrupts() -> None:
    """For `preexec_fn`: a suite that runs in the background of a script ignores Ctrl-C, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def marked(mark: str) -> set[int]:
    """Processes that have `mark` in the environment they were started with."""
    processes = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                processes.add(int(entry.name))
        except OSError:
            continue
    return processes


def command_of(process: int) -> list[str]:
    """What it was started with; an empty word of one that ended meanwhile."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")[:-1] or [""]
    except OSError:
        return [""]


def sockets(process: int) -> set[str]:
    """Inodes of its sockets."""
    inodes = set()
    try:
        for entry in Path("/proc", str(process), "fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:"):
                inodes.add(target.removeprefix("socket:[").rstrip("]"))
    except OSError:
        pass  # it ended meanwhile, or closed one
    return inodes


def listening() -> dict[str, tuple[str, int]]:
    """Address (as the kernel writes it, hexadecimal) and port of every TCP socket that listens, by inode."""
    sockets_by_inode = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                sockets_by_inode[fields[9]] = (address, int(port, 16))
    return sockets_by_inode
