"""What runs in a child process may raise, hang, or die: the caller gets a reason, and the next call works."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refiner import UserError
from refiner.estimators.isolation import Abandoned, ChildError, ChildKilled, Isolated
from tests.waiting import wait_for


def work(*, what: str, on_progress) -> dict:
    """Called in the child, by name."""
    if what == "raise":
        raise ValueError("not this one")
    if what == "user":
        raise UserError("clip.mp4 is empty: fetch it again")
    if what == "exit":
        sys.exit(3)
    if what == "hang":
        time.sleep(3600)
    while what == "busy":
        time.sleep(0.1)
        on_progress(0)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "slow":  # longer than a stall, but it says that it goes on
        for i in range(14):
            time.sleep(0.25)
            on_progress(i)
    if what == "allocate":
        return {"bytes": len(bytearray(1 << 30))}
    if what == "open files":
        return {"files": len([open(os.devnull) for _ in range(5000)])}
    print("this is no answer")
    return {"pid": os.getpid(), "what": what}


@pytest.fixture
def isolated():
    with Isolated(f"{__name__}:work", stall_s=60) as isolated:
        yield isolated


@pytest.fixture
def impatient():
    """Its limit is short, but long enough for a child that waits for a busy core."""
    with Isolated(f"{__name__}:work", stall_s=3) as isolated:
        yield isolated


def call(isolated, what):
    return isolated(lambda _: None, what=what)


def test_the_child_is_another_process_and_is_kept(isolated):
    first = call(isolated, "work")
    assert first["pid"] != os.getpid() and call(isolated, "work") == first


def test_an_error_of_the_function_costs_one_call_and_not_the_process(isolated):
    first = call(isolated, "work")
    with pytest.raises(ChildError, match="ValueError: not this one") as caught:
        call(isolated, "raise")
    assert "in work" in caught.value.trace
    with pytest.raises(UserError, match="is empty"):
        call(isolated, "user")
    with pytest.raises(ChildError, match="SystemExit: 3"):
        call(isolated, "exit")
    assert call(isolated, "work") == first


@pytest.mark.parametrize(
    ("what", "kind", "reason", "trace"),
    [
        ("segfault", ChildError, "SIGSEGV", "string_at"),
        ("killed", ChildKilled, "SIGKILL", ""),
        ("hang", ChildError, "no progress for 3 s", "in work"),
    ],
)
def test_a_process_that_dies_or_stalls_says_how_and_is_replaced(impatient, what, kind, reason, trace):
    first = call(impatient, "work")
    assert impatient.pid == first["pid"]
    with pytest.raises(ChildError, match=reason) as caught:
        call(impatient, what)
    assert type(caught.value) is kind and trace in caught.value.trace
    with pytest.raises(ProcessLookupError):
        os.kill(first["pid"], 0)
    assert call(impatient, "work") != first


def test_a_process_that_was_killed_while_it_was_idle_costs_no_call(isolated):
    first = call(isolated, "work")
    os.kill(isolated.pid, signal.SIGKILL)
    wait_for(lambda: isolated._process.poll() is not None)  # the last of its threads, too
    assert call(isolated, "work")["pid"] != first["pid"]


def test_calls_from_many_threads_get_their_own_answers(isolated):
    asked = [f"work {i}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda what: call(isolated, what)["what"], asked))
    assert answers == asked


def test_a_caller_that_leaves_ends_the_work_and_the_next_gets_its_own_answer(isolated):
    first = call(isolated, "work")
    for _ in range(3):
        left = threading.Event()
        threading.Timer(0.3, left.set).start()
        with pytest.raises(Abandoned):
            isolated(lambda _: None, left, what="hang")
        assert call(isolated, "mine")["what"] == "mine"
    with pytest.raises(ProcessLookupError):
        os.kill(first["pid"], 0)


def test_a_caller_that_leaves_while_it_waits_for_its_turn_harms_nobody(isolated):
    call(isolated, "work")  # started
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(call, isolated, "slow")
        time.sleep(0.3)
        left = threading.Event()
        left.set()
        with pytest.raises(Abandoned):
            isolated(lambda _: None, left, what="never asked")
        assert slow.result()["what"] == "slow"


def test_an_error_in_the_callers_own_code_leaves_no_answer_behind(isolated):
    """Interrupts and errors of on_progress end the wait, not the child's work."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isolated(interrupt, what="slow")
    assert call(isolated, "mine")["what"] == "mine"


def test_the_kernel_bounds_a_childs_memory_and_files():
    with Isolated(f"{__name__}:work", stall_s=60, memory_bytes=500_000_000) as bounded:
        with pytest.raises(ChildError, match="MemoryError"):
            call(bounded, "allocate")
        with pytest.raises(ChildError, match="Too many open files"):
            call(bounded, "open files")
        assert call(bounded, "work")["what"] == "work"
    with Isolated(f"{__name__}:work", stall_s=60) as free:
        assert call(free, "allocate")["bytes"] == 1 << 30


def test_progress_keeps_a_slow_call_alive(impatient):
    heard = []
    impatient(heard.append, what="slow")
    assert heard and heard == sorted(heard)


def test_a_process_is_recycled_after_its_number_of_calls():
    with Isolated(f"{__name__}:work", stall_s=60, calls_per_process=2) as isolated:
        pids = [call(isolated, "work")["pid"] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_a_child_ends_with_its_parent_even_in_the_middle_of_a_call():
    program = (
        f"from refiner.estimators.isolation import Isolated\nisolated = Isolated('{__name__}:work', stall_s=60)\n"
        "print(isolated(print, what='work')['pid'], flush=True)\nisolated(lambda _: print('at work', flush=True), what='busy')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "at work\n"
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path("/proc", str(child)).exists())
