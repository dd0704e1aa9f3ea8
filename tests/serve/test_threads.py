"""Work in threads whose request was cancelled: it ends, and what it held is free only then."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refiner import DepthRefiner
from refiner.inference.depth_refiner import BATCH, Stopped
from serve.live import standing_poses
from serve.threads import until_left


def test_a_cancelled_request_ends_when_its_work_has_ended_and_not_before():
    ended = threading.Event()

    def work(left: threading.Event) -> None:
        assert left.wait(60)
        time.sleep(0.2)
        ended.set()

    async def leave() -> None:
        with ThreadPoolExecutor(1) as pool:
            request = asyncio.ensure_future(until_left(pool, work))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(until_left(pool, lambda left: pytest.fail("it was cancelled before")))
            await asyncio.sleep(0.05)
            waiting.cancel()  # never began: ends at once
            await asyncio.wait([waiting])
            assert waiting.cancelled() and not ended.is_set()
            request.cancel()
            await asyncio.wait([request])
            assert request.cancelled() and ended.is_set()

    asyncio.run(leave())


def test_results_and_errors_come_through():
    async def ask() -> None:
        with ThreadPoolExecutor(1) as pool:
            assert await until_left(pool, lambda left: 7) == 7
            with pytest.raises(ZeroDivisionError):
                await until_left(pool, lambda left: 1 / 0)

    asyncio.run(ask())


def test_refining_stops_in_mid_clip():
    refiner, asked = DepthRefiner(device="cpu"), []

    def stopped() -> bool:
        asked.append(None)
        return len(asked) == 2

    with pytest.raises(Stopped):
        refiner.predict(np.repeat(standing_poses(1), 3 * BATCH, axis=0), sequence=True, stopped=stopped)
    assert len(asked) == 2
