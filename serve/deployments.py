"""What Ray Serve replicates: the endpoint, which holds the model and answers HTTP itself, and MediaPipe for videos.

A hop from one deployment to another costs more than refining a pose, so poses take none. Videos go through a second one,
where MediaPipe runs on CPUs and is scaled by itself.
"""

import asyncio
import gc
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, time
from typing import Any

import numpy as np
import ray
import torch
from fastapi import FastAPI
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from refiner import UserError
from refiner.inference.depth_refiner import Refinement, validate_poses
from serve.batching import Batcher
from serve.bodies import pieces_of, read_body
from serve.codec import ARROW, JSON, ArrowCodec, Codec, JsonCodec, RefineRequest, RefineResponse
from serve.guard import Tokens
from serve.inference_protocol import About
from serve.live import LiveModel, Served
from serve.metrics import Metrics, Statistics
from serve.routes import build_api
from serve.schemas import AppArgs
from serve.video import Clip, VideoObserver

# A request of up to this many poses runs on the event loop (a thread's hand-over costs as much as 8 poses), together with
# others that wait, up to so many poses at once; a longer one runs in a thread, so that single poses do not wait behind clips.
INLINE_POSES, MOST_TOGETHER = 8, 64
CODECS: dict[str, type[JsonCodec | ArrowCodec]] = {JSON: JsonCodec, ARROW: ArrowCodec}


class RefineEndpoint:
    """A replica: its model, and the routes that use it."""

    def __init__(self, args: AppArgs, videos: DeploymentHandle | None = None) -> None:
        # a registry that is away must cost a poll seconds, not the minutes of MLflow's own defaults
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        # what this replica reserved; torch would take every core and replicas would fight for them
        torch.set_num_threads(args.threads)
        self.args, self._videos = args, videos
        self.tokens = Tokens(args.token_file, os.environ)
        self.metrics, self.statistics = Metrics(), Statistics()
        self.live = LiveModel(
            args.model,
            device=args.device,
            threads=args.threads,
            poll_s=args.poll_s,
            cache=Path(args.cache).expanduser(),
            now=lambda: datetime.now(UTC),
            on_swap=self.metrics.swapped,
        )
        self.about = About(lambda: self.live.current.model, self.statistics, args.max_poses)
        self._short = Batcher(MOST_TOGETHER, self.metrics.batched)
        self._clips = ThreadPoolExecutor(1, thread_name_prefix="clips")
        # what is loaded now stays: a full collection over it would stop every request for 50 ms, now and then
        gc.collect()
        gc.freeze()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self)

    def check_health(self) -> None:
        """Serve asks this every few seconds and replaces a replica whose model no longer answers."""
        self.live.check()
        self.metrics.serving(self.live.current.model["version"])
        self.metrics.tell()
        if found := self.metrics.window.drift(self.live.current.trained_on):
            self.metrics.drifted(found)

    async def refine_poses(self, request: Request) -> Response:
        """POST /v1/refine.

        Raises:
            UserError: the body or the poses in it make no sense.
            HTTPException: it is too large, or in no form that is known.
        """
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind not in CODECS:
            raise HTTPException(415, f"the body is {kind}: send {JSON} or {ARROW}")
        return await self.answer("/v1/refine", request, CODECS[kind]())

    async def answer(self, route: str, request: Request, codec: Codec) -> Response:
        """One life of a request, whatever its form: read, decode, refine, encode.

        Raises:
            UserError: the body or the poses in it make no sense.
            HTTPException: it is too large.
        """
        body = await read_body(request, int(self.args.max_body_mb * 1e6))
        served = self.live.current  # one version for the whole answer
        start = perf_counter()
        try:
            payload, headers = await self.respond(route, served, body, codec)
        except UserError:
            self.statistics.failed(served.model["version"], perf_counter() - start)
            raise
        return Response(payload, headers={"x-model-version": served.model["version"], **headers})

    async def respond(self, route: str, served: Served, body: bytes, codec: Codec) -> tuple[bytes, dict[str, str]]:
        """A body's answer, and the headers that belong to it.

        Raises:
            UserError: the body or the poses in it make no sense.
        """
        start = perf_counter()
        content = codec.decode(body)
        decoded = perf_counter()
        found = await self.refine(served, content)
        refined = perf_counter()
        response = RefineResponse(
            poses=found.poses, confidence=found.confidence, view_angle=found.view_angle, model=served.model
        )
        payload, headers = codec.encode(response)
        stages = {"decode": decoded - start, "refine": refined - decoded, "encode": perf_counter() - refined}
        self.metrics.refined(route, found, stages)
        self.statistics.succeeded(served.model["version"], len(found.poses), stages, time())
        return payload, headers

    async def refine(self, served: Served, request: RefineRequest) -> Refinement:
        """
        Raises:
            UserError: the poses make no sense.
        """
        if not request.poses.size:
            raise UserError('"poses" is empty: send at least one')
        poses, visibility, image_points = (
            array[None] if array is not None and request.poses.ndim == 2 else array  # one pose may come bare
            for array in (request.poses, request.visibility, request.image_points)
        )
        options = {"image_points": image_points, "sequence": request.sequence}
        if request.fps is not None:
            options["fps"] = request.fps
        if len(poses) > self.args.max_poses:
            validate_poses(poses, visibility, self.args.max_poses)
        found = await self._predict(served, poses, visibility, options)
        self.metrics.window.add(poses, visibility)
        return found

    async def _predict(
        self, served: Served, poses: np.ndarray, visibility: np.ndarray | None, options: dict[str, Any]
    ) -> Refinement:
        if len(poses) <= INLINE_POSES and not options["sequence"]:
            return await self._short.predict(served, poses, visibility, options["image_points"])
        return await asyncio.get_running_loop().run_in_executor(
            self._clips, lambda: served.refiner.predict(poses, visibility, **options)
        )

    async def refine_video(self, request: Request) -> tuple[Clip, RefineResponse]:
        """An upload into poses: to disk, through MediaPipe in its deployment, and refined here.

        Raises:
            UserError: it is no video, too long, or there is nobody in it.
            HTTPException: it is too large.
        """
        pieces, limit = [], int(self.args.max_video_mb * 1e6)
        try:
            # Ray's object store holds the upload and spills it to disk, and whichever node decodes it gets it from there
            async for piece in pieces_of(request, limit):
                pieces.append(await asyncio.to_thread(ray.put, piece))
            clip = await self._videos.clip.remote(pieces)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        served = self.live.current  # one version for the whole answer
        loop = asyncio.get_running_loop()
        found = [
            await loop.run_in_executor(
                self._clips,
                lambda rows=rows: served.refiner.predict(
                    clip.poses[rows],
                    clip.visibility[rows],
                    image_points=clip.image_points[rows],
                    sequence=True,
                    fps=clip.fps,
                ),
            )
            for rows in clip.runs()
        ]
        self.metrics.window.add(clip.poses, clip.visibility)
        response = RefineResponse(
            **{
                name: np.concatenate([getattr(part, name) for part in found])
                for name in ("poses", "confidence", "view_angle")
            },
            model=served.model,
        )
        return clip, response


class VideoPoses:
    """A replica that runs MediaPipe, one video at a time."""

    def __init__(self, args: AppArgs) -> None:
        self._observer = VideoObserver(
            args.estimator_model, max_video_s=args.max_video_s, timeout_s=args.video_timeout_s
        )

    def clip(self, pieces: list[ray.ObjectRef]) -> Clip:
        """
        Raises:
            UserError: it is no video, too long, or there is nobody in it.
        """
        with tempfile.TemporaryDirectory(prefix="upload-") as scratch:
            path = Path(scratch, "upload.mp4")
            with path.open("wb") as file:
                for piece in pieces:
                    file.write(ray.get(piece))
            return self._observer.clip(path)
