"""A child process that somebody else ends in the middle of its work, as the kernel does where memory is short."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from refiner.estimators.isolation import Isolated
from tests.waiting import wait_for


@contextlib.contextmanager
def killed_at_work(isolated: Isolated) -> Iterator[None]:
    """The next call's process stops before it can answer, and is killed once it was asked. It must have started already."""
    pid, before = isolated.pid, isolated._number
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    def kill() -> None:
        wait_for(lambda: isolated._number > before)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()
