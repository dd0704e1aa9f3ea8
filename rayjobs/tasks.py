"""Work that needs no actor, spread over a cluster: one task for each piece, as many at once as there are cores."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray


def over_tasks(work: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], at_once: int) -> Iterator[Any]:
    """What `work(*piece)` returns, for each piece as it is done.

    Args:
        work: a function of a module, which runs on any machine of the cluster.
        pieces: its arguments.
        at_once: how many run at a time.
    """
    remote = ray.remote(num_cpus=1, max_retries=2)(work)
    todo = list(reversed(pieces))
    running: set[ray.ObjectRef] = set()
    while todo or running:
        while todo and len(running) < at_once:
            running.add(remote.remote(*todo.pop()))
        done, _ = ray.wait(list(running), num_returns=1)
        running -= set(done)
        yield from ray.get(done)
