"""What Ray Serve replicates: the endpoint, which holds the model and answers HTTP itself.

A hop from one deployment to another costs more than refining a pose, so poses take none. Videos go through a second one,
`serve.video_replica`.
"""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter, time
from typing import Any

import numpy as np
import ray
import torch
from fastapi import FastAPI
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from refiner import UserError, telemetry
from refiner.inference.depth_refiner import DepthRefiner, Refinement
from refiner.inference.validation import validate_poses
from serve.batching import ROWS, Batcher
from serve.bodies import SMALL_BYTES, Body, ClientLeft, codings, declared_length, inflated, read, video_in
from serve.codec import ARROW, JSON, ArrowCodec, Codec, InferenceCodec, JsonCodec, RefineRequest, RefineResponse
from serve.codec.messages import shown
from serve.decoding import Decoder
from serve.grpc_service import InferenceService
from serve.guard import Tokens
from serve.inference_protocol import About
from serve.intake import BODY
from serve.limits import Budget, Disk, Pace
from serve.live import LiveModel, Served
from serve.metrics import Metrics, Statistics
from serve.routes import build_api
from serve.schemas import AppArgs
from serve.stream.connection import Streams
from serve.stream.hub import Hub
from serve.stream.pictures import Pictures
from serve.threads import until_left
from serve.video import Clip
from serve.video_replica import refusal_of

# A request of up to this many poses runs on the event loop (a thread's hand-over costs as much as 8 poses), together with
# others that wait, up to so many poses at once; a longer one runs in a thread, so that single poses do not wait behind clips.
INLINE_POSES, MOST_TOGETHER = 8, 64
# What a pose of a long request takes: its arrays and, as JSON, its answer.
HELD_BYTES = 3_000
CHECKED_S = 1.0
CODECS: dict[str, type[JsonCodec | ArrowCodec]] = {JSON: JsonCodec, ARROW: ArrowCodec}


class RefineEndpoint(InferenceService):
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
        self.traces = None
        if telemetry.traced(os.environ):
            from serve.tracing import Traces

            self.traces = Traces()
        self.live = LiveModel(
            args.model,
            device=args.device,
            threads=args.threads,
            poll_s=args.poll_s,
            cache=Path(args.cache).expanduser(),
            now=lambda: datetime.now(UTC),
            on_swap=self.metrics.swapped,
        )
        self._checked = -CHECKED_S
        self.uploads, self.memory = Disk(int(args.uploads_mb * 1e6)), Budget(int(args.memory_mb * 1e6))
        self._decoder = Decoder(args.max_poses)
        self.about = About(lambda: self.live.current.model, self.statistics, args.max_poses)
        self._short = Batcher(MOST_TOGETHER, self.metrics.batched)
        hub = Hub(self._short, lambda: self.live.current, self.metrics, self.statistics, max_streams=args.max_streams)
        self.streams = Streams(args, hub, Pictures(args))
        self._clips = ThreadPoolExecutor(1, thread_name_prefix="clips")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decoding")
        self._forms = ThreadPoolExecutor(1, thread_name_prefix="forms")  # decodes and encodes what is large
        # it waits where Ray's object store is full
        self._uploading = ThreadPoolExecutor(1, thread_name_prefix="uploads")
        # how long a thread keeps Python's lock from the event loop, which wants it for a millisecond at a time
        sys.setswitchinterval(0.001)
        # what is loaded now stays: a full collection over it would stop every request for 50 ms, now and then
        gc.collect()
        gc.freeze()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self)

    def check_health(self) -> None:
        """Serve asks this every few seconds and replaces a replica whose model no longer answers. So may anybody, which is
        why it looks but once a second.
        """
        if monotonic() - self._checked < CHECKED_S:
            return
        self.live.check()
        self.metrics.serving(self.live.current.model["version"])
        self.metrics.tell()
        if indices := self.metrics.window.drift(self.live.current.trained_on):
            self.metrics.drifted(indices)
        self._checked = monotonic()

    async def refine_poses(self, request: Request) -> Response:
        """POST /v1/refine.

        Raises:
            UserError: the body or the poses in it make no sense.
            HTTPException: it is too large, or in no form that is known.
        """
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind not in CODECS:
            raise HTTPException(415, f"the body is {shown(kind)}: send {JSON} or {ARROW}")
        return await self.answer("/v1/refine", request, CODECS[kind]())

    async def answer(
        self, route: str, request: Request, codec: Codec, check: Callable[[], object] = lambda: None
    ) -> Response:
        """One life of a request, whatever its form: read, decode, refine, encode.

        Args:
            route: as it is counted.
            request: with its body.
            codec: of the body and the answer.
            check: raises where the model that serves now is not the one that is asked for.

        Raises:
            UserError: the body or the poses in it make no sense.
            HTTPException: it is too large, too slow, or one too many.
        """
        async with self.body_of(request, int(self.args.max_body_mb * 1e6)) as body:
            check()  # with nothing waited for in between
            served = self.live.current  # one version for the whole answer
            start = perf_counter()
            try:
                payload, headers = await self.respond(route, served, body, codec)
            except UserError:
                self.statistics.failed(served.model["version"], perf_counter() - start)
                raise
        return Response(payload, headers={"x-model-version": served.model["version"], **headers})

    @asynccontextmanager
    async def body_of(self, request: Request, limit: int) -> AsyncIterator[Body]:
        """A request's body: whole, and no longer compressed. What was read before the queue is there already.

        Raises:
            UserError: it is damaged.
            HTTPException: it is too large, too slow, one too many, or compressed in another way.
        """
        async with AsyncExitStack() as stack:
            body: Body | None = request.scope.get(BODY)
            if body is None:
                try:
                    body = await read(request.receive, declared_length(request.headers), limit, Pace(), self.uploads)
                except ClientLeft:
                    raise HTTPException(400, "the client left before its body was whole") from None
                stack.callback(body.close)
            encoding = request.headers.get("content-encoding", "")
            if codings(encoding):
                packed = body
                body = await until_left(self._forms, lambda left: inflated(packed, encoding, limit, self.uploads))
                stack.callback(body.close)
            yield body

    async def respond(self, route: str, served: Served, body: Body, codec: Codec) -> tuple[bytes, dict[str, str]]:
        """A body's answer, and the headers that belong to it.

        Raises:
            UserError: the body or the poses in it make no sense.
            HTTPException: 429, too many large ones are under way.
        """
        start = perf_counter()
        content = await self.decode(body, codec)
        decoded = perf_counter()
        with self._held(content):
            refinement = await self.refine(served, content)
            refined = perf_counter()
            payload, headers = await self.encode(_response(refinement, served), codec)
        stages = {"decode": decoded - start, "refine": refined - decoded, "encode": perf_counter() - refined}
        self.metrics.refined(route, refinement, stages, len(payload))
        if self.traces is not None:
            self.traces.stages(stages, poses=len(refinement.poses), model_version=served.model["version"])
        self.statistics.succeeded(served.model["version"], len(refinement.poses), stages, time())
        return payload, headers

    def _held(self, content: RefineRequest) -> AbstractContextManager[None]:
        """The memory of a long request, while it is answered; short ones always have room.

        Raises:
            HTTPException: 413 or 429, there is not so much.
        """
        long = content.poses.ndim == 3 and len(content.poses) > MOST_TOGETHER
        return self.memory.holding(len(content.poses) * HELD_BYTES) if long else nullcontext()

    async def decode(self, body: Body, codec: Codec) -> RefineRequest:
        """Small bodies here, large ones where they stop nobody.

        Raises:
            UserError: it is not in its form.
        """
        if body.is_small:
            return codec.decode(body.content())
        if isinstance(codec, JsonCodec) or (
            isinstance(codec, InferenceCodec) and codec.json_length(body.content()) > SMALL_BYTES
        ):
            return await until_left(self._decoding, lambda left: self._decoder.decode(codec, body, left))
        return await until_left(self._forms, lambda left: codec.decode(body.content()))

    async def encode(
        self, response: RefineResponse, codec: Codec, **columns: np.ndarray
    ) -> tuple[bytes, dict[str, str]]:
        if len(response.poses) <= MOST_TOGETHER:
            return codec.encode(response, **columns)
        return await until_left(self._forms, lambda left: codec.encode(response, **columns))

    async def refine(self, served: Served, request: RefineRequest) -> Refinement:
        """
        Raises:
            UserError: the poses make no sense.
        """
        if not request.poses.size:
            raise UserError('"poses" is empty: send at least one')
        bare = request.poses.ndim == 2  # one pose may come without the first axis
        poses = request.poses[None] if bare else request.poses
        visibility, image_points = (
            array[None] if array is not None and bare else array for array in (request.visibility, request.image_points)
        )
        if poses.ndim != 3 or len(poses) > self.args.max_poses:
            validate_poses(poses, visibility, self.args.max_poses)
        for name, array, axes in (("visibility", visibility, 2), ("image_points", image_points, 3)):
            if array is not None and (array.ndim != axes or len(array) != len(poses)):
                raise UserError(f'"{name}" has the shape {"×".join(map(str, array.shape))}: send a row for each pose')
        options = {"image_points": image_points, "sequence": request.sequence}
        if request.sequence:
            options |= {"keep_bones": request.keep_bones, "bone_lengths": request.bone_lengths}
        if request.fps is not None:
            options["fps"] = request.fps
        refinement = await self._inline_or_aside(served, poses, visibility, options)
        self.metrics.window.add(poses, visibility)
        return refinement

    async def _inline_or_aside(
        self, served: Served, poses: np.ndarray, visibility: np.ndarray | None, options: dict[str, Any]
    ) -> Refinement:
        if len(poses) <= INLINE_POSES and not options["sequence"]:
            return await self._short.predict(served, poses, visibility, options["image_points"])
        return await until_left(
            self._clips, lambda left: served.refiner.predict(poses, visibility, stopped=left.is_set, **options)
        )

    async def refine_video(self, request: Request) -> Response:
        """POST /v1/refine/video: through MediaPipe in its deployment, and refined here.

        Raises:
            UserError: it is not a video, too long, or there is nobody in it.
            HTTPException: it is too large.
        """
        assert self._videos is not None  # the route is there with its deployment only
        kind = request.headers.get("content-type", "")
        try:
            async with self.body_of(request, int(self.args.max_video_mb * 1e6)) as body:
                pieces = await until_left(self._uploading, lambda left: _stored(video_in(body, kind), left))
            sent = perf_counter()
            asked = self._videos.clip.remote(pieces)
            try:
                clip = await asked
            except asyncio.CancelledError:
                asked.cancel()
                raise
        except (RayError, RayServeException) as error:
            raise refusal_of(error) from None
        codec = ArrowCodec() if ARROW in request.headers.get("accept", "") else JsonCodec()
        start = perf_counter()
        served = self.live.current  # one version for the whole answer
        refined = await until_left(self._clips, lambda left: refined_clip(served.refiner, clip, left.is_set))
        self.metrics.window.add(clip.poses, clip.visibility)
        done = perf_counter()
        payload, headers = await self.encode(
            _response(refined, served, clip.notes),
            codec,
            person=clip.person,
            frame=clip.frame,
            timestamp_us=clip.timestamp_us,
        )
        observing, here = start - sent, {"refine": done - start, "encode": perf_counter() - done}
        stages = {"observe": observing, **here}
        self.metrics.refined("/v1/refine/video", refined, stages, len(payload))
        if self.traces is not None:
            self.traces.stages(stages, poses=len(clip.poses), model_version=served.model["version"])
        # for the Open Inference Protocol's clients: what comes before the model
        self.statistics.succeeded(served.model["version"], len(clip.poses), {"decode": observing, **here}, time())
        return Response(payload, headers={"x-model-version": served.model["version"], **headers})


def _stored(pieces: Iterable[bytes], left: threading.Event) -> list[ray.ObjectRef]:
    """An upload in Ray's object store, which spills it to disk, and from which whichever node decodes it gets it."""
    return [ray.put(piece) for piece in pieces if not left.is_set()]


def _response(refined: Refinement, served: Served, notes: Sequence[str] | None = None) -> RefineResponse:
    return RefineResponse(
        poses=refined.poses,
        confidence=refined.confidence,
        view_angle=refined.view_angle,
        model=served.model,
        bone_lengths=refined.bone_lengths,
        notes=notes,
    )


def refined_clip(refiner: DepthRefiner, clip: Clip, stopped: Callable[[], bool]) -> Refinement:
    """As `rayjobs.refine` does it: each person's clips, true to their time stamps, so gaps are no trouble.

    Raises:
        Stopped: `stopped` said so.
    """
    parts = []
    for number in np.unique(clip.person):
        rows = clip.person == number
        parts.append(
            refiner.predict(
                clip.poses[rows],
                clip.visibility[rows],
                image_points=clip.image_points[rows],
                sequence=True,
                timestamps_us=clip.timestamp_us[rows],
                clip=clip.clip[rows],
                recognise=False,
                stopped=stopped,
            )
        )
    if len(parts) == 1:
        return parts[0]
    return Refinement(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in ROWS})
