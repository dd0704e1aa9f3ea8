"""Holds a few servers together, so that none of their processes outlives its purpose. Started by `cluster.local`.

Reads one line of JSON from stdin, `{"processes": {name: {"argv", "env", "log", "restart"}}, "scratch": folder}`, starts
them, and ends all of them with every descendant, daemonised or not, when: stdin closes (whoever started it has gone, even
by kill -9), SIGTERM or SIGINT comes, or one of the servers ends that is not to be restarted. One that is gets started
again, later each time, and the others do not notice. The line "keep" on stdin makes it stay when stdin closes. What it has
to say goes to stderr, which is its log.
Linux: as a "child subreaper" it inherits the processes that Ray's workers and MLflow's leave behind, so the process tree
below it is all there is to end; no names are guessed. A server that is restarted has such a reaper of its own, so that what
its predecessor left behind is gone, and its port free, before it starts. Standard library only: it must start at once.
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
import traceback
from pathlib import Path
from types import FrameType
from typing import TypedDict

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENDED = " ended by itself"
GRACE_S = 8  # Ray's head takes 1-2 s to end its own processes; what is left after this is killed
POLL_S = 0.2
# Pauses before a server is started again: doubling from the first to the longest, and anew once it has lived for a while.
FIRST_PAUSE_S, LONGEST_PAUSE_S, LIVED_S = 0.5, 30.0, 60.0


class Server(TypedDict):
    argv: list[str]
    env: dict[str, str]
    log: str
    restart: bool
    """Whether the others go on without it, and it is started again."""


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
    below, queue = {}, [root]
    while queue:
        parent = queue.pop()
        for process in children.get(parent, []):
            below[process] = parent
            queue.append(process)
    return below


def send(number: signal.Signals, processes: list[int]) -> None:
    """Signals processes; those that are gone already do not matter."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def end_all_below(grace_s: float) -> None:
    """SIGTERM to the direct children, who know best how to end what they started, and to whom they leave behind; then
    SIGKILL to all that stays.
    """
    own = os.getpid()
    told: set[int] = set()
    deadline = time.monotonic() + grace_s
    while left := processes_below(own):
        untold = {process for process, parent in left.items() if parent == own} - told
        send(signal.SIGTERM, list(untold))
        told |= untold
        if time.monotonic() > deadline:
            send(signal.SIGKILL, list(left))
        reap()
        time.sleep(0.05)
    reap()


def reap() -> dict[int, int]:
    """Collects children that ended (orphans handed to this subreaper too): their ids, and how each ended, as
    `os.waitstatus_to_exitcode` has it.
    """
    ended = {}
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if process == 0:
            return ended
        ended[process] = os.waitstatus_to_exitcode(status)


def start(server: Server) -> subprocess.Popen[bytes]:
    """Starts a server that dies with this process. It appends what it prints to its log."""
    with open(server["log"], "ab") as out:
        return subprocess.Popen(
            server["argv"],
            env=server["env"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=die_with_parent,
        )


def keep_up(name: str, server: Server) -> int:
    """Starts a server again whenever it ends; in a process of its own, whose id comes back at once."""
    supervisor = os.getpid()
    if process := os.fork():
        return process
    try:
        die_with_parent()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        stopping = catch_signals()
        failures = 0
        while not stopping and os.getppid() == supervisor:
            failures = 0 if _run_once(name, server, failures, stopping) else failures + 1
        end_all_below(GRACE_S)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # nothing may unwind into what the supervisor was doing


def _run_once(name: str, server: Server, failures: int, stopping: list[int]) -> bool:
    """Runs a server until it ends or a signal comes, and then waits as long as it should before the next time.

    Returns:
        Whether it lived for a while.
    """
    started = time.monotonic()
    try:
        process, ended = start(server).pid, {}
        while not stopping and process not in (ended := reap()):
            time.sleep(POLL_S)
        if stopping:
            return True
        how = described(ended[process])
    except OSError as error:  # no memory, no descriptors: it may be better later
        how = f"not started: {error.strerror}"
    end_all_below(GRACE_S)
    lived = time.monotonic() - started > LIVED_S
    pause = FIRST_PAUSE_S if lived else min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failures)
    say(f"{name}{ENDED} ({how}): it is started again in {pause:g} s; its log is {server['log']}")
    resume = time.monotonic() + pause
    while not stopping and time.monotonic() < resume:
        time.sleep(min(POLL_S, pause))
    return lived


def described(exitcode: int) -> str:
    """How a process ended, for people; negative exit codes are signals."""
    return f"killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"exit status {exitcode}"


def catch_signals() -> list[int]:
    """From now on SIGTERM and SIGINT only enter this list."""
    stopping: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return stopping


def say(sentence: str) -> None:
    """Tells the one who watches, on stderr."""
    print(sentence, file=sys.stderr, flush=True)


def ended_by_itself(text: str) -> list[str]:
    """Names of the servers that ended, in that order, from a supervisor's log."""
    return [line.partition(ENDED)[0] for line in text.splitlines() if ENDED in line]


def main() -> int:
    """Starts what stdin says (a line of JSON), stops it all when stdin or one of them ends, and hands back the exit status."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 (stdin, unbuffered: what is unread can be waited for)
    spec = json.loads(orders.readline())
    stopping = catch_signals()
    status = 0
    try:
        servers = {
            keep_up(name, server) if server["restart"] else start(server).pid: name
            for name, server in spec["processes"].items()
        }
        selector = selectors.DefaultSelector()
        selector.register(orders, selectors.EVENT_READ)
        while not stopping:
            if selector.select(timeout=POLL_S):
                if orders.readline().strip() != b"keep":
                    break
                selector.unregister(orders)
            ended = {servers[process]: code for process, code in reap().items() if process in servers}
            for name, code in ended.items():
                # half a cluster serves nobody, so the rest ends too, and that is seen at once
                say(f"{name}{ENDED} ({described(code)}), and so all of the cluster ends")
            if ended:
                status = 1
                break
    finally:
        end_all_below(GRACE_S)
        shutil.rmtree(spec["scratch"], ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
