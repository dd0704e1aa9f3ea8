"""Work in threads that ends when nobody waits for it any more."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def until_left(executor: Executor, work: Callable[[threading.Event], T]) -> T:
    """Runs `work` in one of the executor's threads.

    A thread cannot be cancelled. Where the request that awaits this is, `work` is told by its event, and this ends when it
    has: what a request takes (its slot in Serve, a child process) is free only when nothing works on it any more.

    Args:
        executor: whose threads.
        work: takes an event that is set when nobody waits any more, and looks at it now and then.
    """
    left = threading.Event()
    job = executor.submit(work, left)
    try:
        return await asyncio.wrap_future(job)  # cancelled with it, if it did not begin
    except asyncio.CancelledError:
        left.set()
        if not job.done():
            await asyncio.wait([asyncio.wrap_future(job)])
        raise
