"""Waiting: for what a test waits for, with patience in minutes, so that no busy machine breaks it. Rates and times are
measured in benchmarks/.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import httpx

T = TypeVar("T")
PATIENCE_S = 600.0  # what takes seconds on a quiet machine takes minutes on one that others use, too
# httpx gives up after 5 s by itself. Nothing here speaks TLS, and reading certificates costs 45 ms a call.
get = partial(httpx.get, timeout=PATIENCE_S, verify=False)
post = partial(httpx.post, timeout=PATIENCE_S, verify=False)


def answers(url: str) -> bool:
    """Whether a server is there that answers, whatever it says."""
    try:
        return get(url).status_code > 0
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], T], *, pause_s: float = 0.05) -> T:
    """What the condition gives, as soon as that is true.

    Raises:
        AssertionError: it is not after minutes.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain"
        time.sleep(pause_s)
    return value
