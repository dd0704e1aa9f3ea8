"""What traces cost a request, in this process: without a collector (off) and with one that is away (on), in turns.

python -m benchmarks.tracing
"""

import asyncio
import os
import statistics
import sys
from time import perf_counter
from typing import Any

import httpx

from refiner import telemetry
from refiner.inference.depth_refiner import SHIPPED
from serve.deployments import RefineEndpoint
from serve.live import standing_poses
from serve.schemas import AppArgs

ROUNDS, REQUESTS = 7, 200


def replica(collector: str) -> Any:
    os.environ[telemetry.COLLECTORS[-1]] = collector
    endpoint = RefineEndpoint(AppArgs(model=str(SHIPPED), device="cpu"))
    return endpoint.__serve_build_asgi_app__(), endpoint


async def microseconds(app: Any) -> float:
    """Of a request for one pose, the median."""
    body = {"poses": standing_poses(1).tolist(), "sequence": False}
    taken = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://endpoint") as client:
        for _ in range(REQUESTS):
            start = perf_counter()
            (await client.post("/v1/refine", json=body)).raise_for_status()
            taken.append(perf_counter() - start)
    return statistics.median(taken) * 1e6


async def main() -> None:
    (off, endpoint), (on, _) = replica(""), replica("http://127.0.0.1:1")
    for app in (off, on):
        await microseconds(app)
    rounds = [(await microseconds(off), await microseconds(off), await microseconds(on)) for _ in range(ROUNDS)]
    names = ("off", "off once more", "on")
    for name, times in zip(names, zip(*rounds, strict=True), strict=True):
        print(f"{name:14} {statistics.median(times):7.0f} us a request ({min(times):.0f} ... {max(times):.0f})")
    looks = 1_000_000
    start = perf_counter()
    for _ in range(looks):
        if endpoint.traces is not None:
            raise AssertionError
    print(f"what is left where it is off: one look, {(perf_counter() - start) / looks * 1e9:.0f} ns")
    sys.stdout.flush()
    os._exit(0)  # the exporter would go on trying


if __name__ == "__main__":
    asyncio.run(main())
