"""What holds a cluster's servers together: real processes, small ones; tests/cluster/test_local.py has Ray's and MLflow's."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import supervisor
from cluster.running import free_ports
from tests.waiting import PATIENCE_S, wait_for

STEADY = [sys.executable, "-c", "import time; time.sleep(600)"]
# A server whose port is held by a child of its own that does not notice when it is killed, as MLflow's worker does.
LISTENING = """
import os, socket, sys, time
os.setpgid(0, 0)
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork():
    time.sleep(600)
else:
    os.setsid()
    while True:
        connection, _ = listening.accept()
        connection.sendall(str(os.getppid()).encode())
        connection.close()
"""


@dataclass
class Running:
    process: subprocess.Popen
    log: Path

    def says(self) -> str:
        return self.log.read_text()

    def below(self) -> set[int]:
        return set(supervisor.processes_below(self.process.pid))


@contextmanager
def supervised(folder: Path, **servers: tuple[list[str], bool]) -> Iterator[Running]:
    """The supervisor with servers, each an argv and whether it is restarted; ended with all of them."""
    (scratch := folder / "scratch").mkdir()
    processes = {
        name: {"argv": argv, "env": dict(os.environ), "log": str(folder / f"{name}.log"), "restart": restart}
        for name, (argv, restart) in servers.items()
    }
    log = folder / "supervisor.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, supervisor.__file__], stdin=subprocess.PIPE, stderr=out)
    try:
        process.stdin.write(json.dumps({"scratch": str(scratch), "processes": processes}).encode() + b"\n")
        process.stdin.flush()
        yield Running(process, log)
    finally:
        process.stdin.close()
        process.wait(PATIENCE_S)
    assert not scratch.exists()


def serving(port: int) -> int | None:
    """The process that serves on the port, as its child says; None where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return int(connection.recv(100))
    except (OSError, ValueError):
        return None


def command_of(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_server_is_back_on_its_port_and_the_others_notice_nothing(number, tmp_path):
    (port,) = free_ports([0])
    web = [sys.executable, "-c", LISTENING, str(port)]
    with supervised(tmp_path, steady=(STEADY, False), web=(web, True)) as running:
        wait_for(lambda: serving(port))
        (steady,) = (p for p in running.below() if command_of(p) == STEADY)
        served_by = set()
        for _ in range(3):
            wait_for(lambda: serving(port) not in {None, 1, *served_by})
            before = serving(port)
            served_by.add(before)
            of_web = {p for p in running.below() if command_of(p) == web}
            assert len(of_web) == 2 and before in of_web
            os.kill(before, number)
            wait_for(lambda of_web=of_web: not of_web & running.below())  # the child that held the port, too
        wait_for(lambda: serving(port) not in {None, 1, *served_by})
        assert steady in running.below()
        assert len({p for p in running.below() if command_of(p) == web}) == 2  # one of it, not two
        said = running.says().splitlines()
        assert len(said) == 3
        assert all(
            s.startswith(f"web ended by itself (killed by {number.name}): it is started again in ") for s in said
        )
        everybody = running.below() | {steady}
    assert not any(Path(f"/proc/{p}").exists() for p in everybody)


@pytest.mark.parametrize(
    ("argv", "how"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], "exit status 3"),
        (["/nowhere/mlflow"], "not started: No such file or directory"),
    ],
)
def test_a_server_that_cannot_start_is_tried_later_each_time_and_the_end_interrupts_the_pause(argv, how, tmp_path):
    with supervised(tmp_path, steady=(STEADY, False), web=(argv, True)) as running:
        wait_for(lambda: running.says().count("\n") >= 4)
        assert running.says().splitlines()[:4] == [
            f"web ended by itself ({how}): it is started again in {pause} s; its log is {tmp_path / 'web.log'}"
            for pause in ("0.5", "1", "2", "4")
        ]
        below = running.below()
        assert any(command_of(p) == STEADY for p in below)
        running.process.send_signal(signal.SIGTERM)  # four seconds of pause have just begun
        assert running.process.wait(60) == 0
        assert running.says().count("\n") == 4  # it was not tried once more
    assert not any(Path(f"/proc/{p}").exists() for p in below)


def test_pauses_have_a_longest_and_a_server_that_lived_is_forgiven(tmp_path, monkeypatch):
    server = supervisor.Server(argv=["/nowhere"], env={}, log=str(tmp_path / "log"), restart=True)
    said = []
    monkeypatch.setattr(supervisor, "say", said.append)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 0.2)
    assert not supervisor._run_once("web", server, 100, [])
    monkeypatch.setattr(supervisor, "LIVED_S", -1.0)
    assert supervisor._run_once("web", server, 100, [])
    assert [sentence.partition("again in ")[2].partition(" s")[0] for sentence in said] == ["0.2", "0.5"]


def test_one_that_is_not_restarted_ends_them_all(tmp_path):
    (port,) = free_ports([0])
    web = [sys.executable, "-c", LISTENING, str(port)]
    with supervised(tmp_path, head=(STEADY, False), web=(web, True)) as running:
        wait_for(lambda: serving(port))
        below = running.below()
        (head,) = (p for p in below if command_of(p) == STEADY)
        os.kill(head, signal.SIGKILL)
        assert running.process.wait(60) == 1
        assert running.says() == "head ended by itself (killed by SIGKILL), and so all of the cluster ends\n"
    assert not any(Path(f"/proc/{p}").exists() for p in below)


def test_nothing_outlives_a_killed_supervisor(tmp_path):
    (port,) = free_ports([0])
    web = [sys.executable, "-c", LISTENING, str(port)]
    (tmp_path / "scratch").mkdir()
    processes = {"web": {"argv": web, "env": dict(os.environ), "log": str(tmp_path / "log"), "restart": True}}
    process = subprocess.Popen([sys.executable, supervisor.__file__], stdin=subprocess.PIPE)
    process.stdin.write(json.dumps({"scratch": str(tmp_path / "scratch"), "processes": processes}).encode() + b"\n")
    process.stdin.flush()
    wait_for(lambda: serving(port))
    below = set(supervisor.processes_below(process.pid))
    process.kill()
    process.wait()
    process.stdin.close()
    wait_for(lambda: not any(command_of(p) for p in below))
