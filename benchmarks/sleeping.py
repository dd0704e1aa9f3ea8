"""A model that sleeps in place of computing, behind this endpoint and behind bare uvicorn: for benchmarks/replicas.py.

    python -m benchmarks.sleeping PORT WORKERS          # bare uvicorn; SLEEP_MS says for how long

It sleeps on the event loop, so that a replica or worker answers one request at a time, as one that computes does. What is
left is what the way to many replicas costs, on fewer cores than replicas.
"""

import os
import sys
import time

import numpy as np
from ray import serve
from ray.serve import Application

from benchmarks.echo import EchoEndpoint
from refiner.inference.depth_refiner import Refinement
from refiner.inference.validation import validate_poses
from serve.codec import JsonCodec, RefineRequest, RefineResponse
from serve.live import Served
from serve.schemas import AppArgs

SLEEP_MS = "SLEEP_MS"


def sleep() -> None:
    time.sleep(float(os.environ[SLEEP_MS]) / 1e3)


class SleepingEndpoint(EchoEndpoint):
    async def refine(self, served: Served, request: RefineRequest) -> Refinement:
        sleep()
        return await super().refine(served, request)


def app(args: AppArgs) -> Application:
    return serve.deployment(serve.ingress()(SleepingEndpoint)).bind(args)  # pyright: ignore[reportFunctionMemberAccess] (Ray's stubs)


def bare() -> object:
    """The control: the project's own codec and checks without anything around them."""
    from fastapi import FastAPI, Request, Response

    api = FastAPI()

    @api.post("/v1/refine")
    async def refine(request: Request) -> Response:
        codec = JsonCodec()
        content = codec.decode(await request.body())
        poses, visibility = validate_poses(content.poses, content.visibility)
        sleep()
        response = RefineResponse(
            poses=poses,
            confidence=visibility,
            view_angle=np.zeros(len(poses), np.float32),
            model={"name": "sleeping", "version": "0"},
        )
        payload, headers = codec.encode(response)
        return Response(payload, headers=headers)

    return api


if __name__ == "__main__":
    import uvicorn

    port, workers = int(sys.argv[1]), int(sys.argv[2])
    uvicorn.run(
        "benchmarks.sleeping:bare", factory=True, host="127.0.0.1", port=port, workers=workers,
        log_level="warning", access_log=False,
    )  # fmt: skip
