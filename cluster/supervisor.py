"""Holds a few servers together, so that none of their processes outlives its purpose. Started by `cluster.local`.

Reads one line of JSON from stdin, `{"processes": {name: {"argv", "env", "log"}}, "scratch": folder}`, starts them, and
ends all of them with every descendant, daemonised or not, when: stdin closes (whoever started it has gone, even by
kill -9), SIGTERM or SIGINT comes, or one of the servers ends. The line "keep" on stdin makes it stay when stdin closes.
Linux: as a "child subreaper" it inherits the processes that Ray's workers and MLflow's leave behind, so the process tree
below it is all there is to end; no names are guessed. Standard library only: it must start at once.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENDED = " ended by itself"
GRACE_S = 8  # Ray's head takes 1-2 s to end its own processes; what is left after this is killed


def die_with_parent() -> None:
    """Makes the kernel send this process SIGTERM when the thread that started it ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def processes_below(root: int) -> dict[int, int]:
    """Every live process below `root`, daemonised or not: its id and its parent's."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # the command's name, in parentheses, may hold anything; what follows the last one is fixed
            state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry))
    found, queue = {}, [root]
    while queue:
        parent = queue.pop()
        for process in children.get(parent, []):
            found[process] = parent
            queue.append(process)
    return found


def send(number: signal.Signals, processes: list[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def end_all_below(grace_s: float) -> None:
    """SIGTERM to the direct children, who know best how to end what they started; then SIGKILL to all that stays."""
    own = os.getpid()
    send(signal.SIGTERM, [process for process, parent in processes_below(own).items() if parent == own])
    deadline = time.monotonic() + grace_s
    while left := processes_below(own):
        if time.monotonic() > deadline:
            send(signal.SIGKILL, list(left))
        reap()
        time.sleep(0.05)
    reap()


def reap() -> list[int]:
    """Collects children that ended (orphans handed to this subreaper too) and returns their ids."""
    ended = []
    while True:
        try:
            process, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if process == 0:
            return ended
        ended.append(process)


def start(argv: list[str], env: dict[str, str], log: str) -> int:
    with open(log, "ab") as out:
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent
        )
    return process.pid


def ended_by_itself(text: str) -> list[str]:
    """Names of the servers that ended first, from a supervisor's log."""
    return [name for line in text.splitlines() if line.endswith(ENDED) for name in line.removesuffix(ENDED).split(", ")]


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    spec = json.loads(sys.stdin.buffer.raw.readline())
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopping.append(number))
    status = 0
    try:
        servers = {start(**process): name for name, process in spec["processes"].items()}
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin.buffer.raw, selectors.EVENT_READ)
        while not stopping:
            if selector.select(timeout=0.2):
                if sys.stdin.buffer.raw.readline().strip() != b"keep":
                    break
                selector.unregister(sys.stdin.buffer.raw)
            if ended := [servers[process] for process in reap() if process in servers]:
                # half a cluster serves nobody, so the rest ends too, and that is seen at once
                print(f"{', '.join(ended)}{ENDED}", file=sys.stderr)
                status = 1
                break
    finally:
        end_all_below(GRACE_S)
        shutil.rmtree(spec["scratch"], ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
