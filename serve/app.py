"""The endpoint: the registry's champion behind HTTP, on Ray Serve.

    serve run serve.app:app                      # defaults
    serve run serve/config.yaml                  # or: serve deploy serve/config.yaml

One deployment holds the model and answers HTTP itself: a hop through a second one costs more than refining a pose. Videos
go through a second one, where MediaPipe runs on CPUs and is scaled by itself.
"""

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import ray
import torch
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from refiner import UserError
from refiner.inference.depth_refiner import Refinement, validate_poses
from serve import codec, inference_protocol, metrics, problems
from serve.batching import Batcher
from serve.guard import Guard, Tokens
from serve.live import LiveModel, Served
from serve.metrics import Metrics
from serve.schemas import AppArgs, Health, Info, Problem, RefineBody, RefineResult, Refused, VideoResult
from serve.video import Clip, VideoObserver

# A request of up to this many poses runs on the event loop (a thread's hand-over costs as much as 8 poses), together with
# others that wait, up to so many poses at once; a longer one runs in a thread, so that single poses do not wait behind clips.
INLINE_POSES, MOST_TOGETHER = 8, 64
# Uploads travel to where they are decoded in pieces of this size.
PIECE_BYTES = 8_000_000


FORMS = {
    codec.JSON: (
        lambda body: (codec.decode_json(body), None),
        lambda response, _: (codec.encode_json(response), {"content-type": codec.JSON}),
    ),
    codec.ARROW: (
        lambda body: (codec.decode_arrow(body), None),
        lambda response, _: (codec.encode_arrow(response), {"content-type": codec.ARROW}),
    ),
}


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
        self.metrics = Metrics()
        self.live = LiveModel(
            args.model,
            device=args.device,
            threads=args.threads,
            poll_s=args.poll_s,
            cache=Path(args.cache).expanduser(),
            now=lambda: datetime.now(UTC),
            on_swap=self.metrics.swapped,
        )
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
        kind = request.headers.get("content-type", codec.JSON).partition(";")[0].strip().lower()
        if kind not in FORMS:
            raise HTTPException(415, f"the body is {kind}: send {codec.JSON} or {codec.ARROW}")
        return await self.answer("/v1/refine", request, *FORMS[kind])

    async def answer(
        self,
        route: str,
        request: Request,
        decode: Callable[[bytes], tuple[codec.RefineRequest, Any]],
        encode: Callable[[codec.RefineResponse, Any], tuple[bytes, dict[str, str]]],
    ) -> Response:
        """One life of a request, whatever its form: read, decode, refine, encode.

        Raises:
            UserError: the body or the poses in it make no sense.
            HTTPException: it is too large.
        """
        body = await read_body(request, int(self.args.max_body_mb * 1e6))
        start = perf_counter()
        content, form = decode(body)
        decoded = perf_counter()
        served = self.live.current  # one version for the whole answer
        found = await self.refine(served, content)
        refined = perf_counter()
        response = codec.RefineResponse(
            poses=found.poses, confidence=found.confidence, view_angle=found.view_angle, model=served.model
        )
        payload, headers = encode(response, form)
        stages = {"decode": decoded - start, "refine": refined - decoded, "encode": perf_counter() - refined}
        self.metrics.refined(route, found, stages)
        return Response(payload, headers={"x-model-version": served.model["version"], **headers})

    async def refine(self, served: Served, request: codec.RefineRequest) -> Refinement:
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

    async def refine_video(self, request: Request) -> tuple[Clip, codec.RefineResponse]:
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
        response = codec.RefineResponse(
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


class Shortcut:
    """ASGI middleware, the innermost: answers one route itself. FastAPI's way to it (two exit stacks, dependencies, a
    second exception handler) costs as much as decoding, checking and encoding a pose."""

    def __init__(self, app: ASGIApp, route: tuple[str, str], answer: Callable[[Request], Awaitable[Response]]) -> None:
        self.app, self.route, self.answer = app, route, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != self.route:
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        try:
            response = await self.answer(request)
        except UserError as error:
            response = await problems.on_user_error(request, error)
        except HTTPException as error:
            response = await problems.on_http_exception(request, error)
        await response(scope, receive, send)


def build_api(endpoint: RefineEndpoint) -> FastAPI:
    """The routes. Their bodies are read by hand: pydantic on a request's poses costs more than refining them."""
    api = FastAPI(
        title="pose-depth-refiner",
        description="Corrects the depth of MediaPipe's 3D poses. Metres, virtual camera frame, COCO-17 or MediaPipe-33.",
        version="1",
        responses={code: {"model": Problem, "content": {"application/problem+json": {}}} for code in (422, 500)},
    )
    api.add_middleware(Shortcut, route=("POST", "/v1/refine"), answer=endpoint.refine_poses)
    if endpoint.args.cors_origins:
        api.add_middleware(CORSMiddleware, allow_origins=endpoint.args.cors_origins, allow_methods=["GET", "POST"])
    if endpoint.tokens.wanted:
        api.add_middleware(Guard, tokens=endpoint.tokens)
    api.add_exception_handler(UserError, problems.on_user_error)
    api.add_exception_handler(HTTPException, problems.on_http_exception)
    api.add_exception_handler(Exception, problems.on_defect)

    @api.post(
        "/v1/refine",
        response_model=None,
        responses={
            200: {"model": RefineResult, "content": {codec.ARROW: {"schema": {"type": "string", "format": "binary"}}}},
            **{code: {"model": Problem} for code in (413, 415)},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    codec.JSON: {"schema": RefineBody.model_json_schema(ref_template="#/components/schemas/{model}")},
                    codec.ARROW: {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
    )
    async def refine(request: Request) -> Response:
        """Corrects poses. JSON or an Arrow IPC stream, in and out, by the body's content type."""
        return await endpoint.refine_poses(request)

    @api.post(
        "/v1/refine/video",
        response_model=None,
        responses={
            200: {"model": VideoResult, "content": {codec.ARROW: {"schema": {"type": "string", "format": "binary"}}}},
            413: {"model": Problem},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def refine_video(request: Request) -> Response:
        """Finds the person in a video with MediaPipe, and corrects the poses. The body is the file itself; the answer is
        JSON, or an Arrow IPC stream where the Accept header asks for one."""
        clip, response = await endpoint.refine_video(request)
        columns = {"frame": clip.frame, "timestamp_us": clip.timestamp_us}
        arrow = codec.ARROW in request.headers.get("accept", "")
        return Response(
            codec.encode_arrow(response, **columns) if arrow else codec.encode_json(response, **columns),
            media_type=codec.ARROW if arrow else codec.JSON,
            headers={"x-model-version": response.model["version"]},
        )

    inference_protocol.add_routes(
        api,
        model=lambda: endpoint.live.current.model,
        infer=lambda request, decode, encode: endpoint.answer("/v2/models/infer", request, decode, encode),
    )

    @api.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """This node's numbers, in Prometheus' text format."""
        return PlainTextResponse(await metrics.of_this_node(), media_type="text/plain; version=0.0.4")

    @api.get("/healthz")
    async def healthz() -> Health:
        """The replica is there and its model answers with finite numbers."""
        endpoint.check_health()
        return Health(status="ok")

    @api.get("/info")
    async def info() -> Info:
        """Which model answers, where it comes from, and what became of the others."""
        live = endpoint.live
        served = live.current
        return Info(
            model=served.model,
            run_id=served.run_id,
            tags=dict(served.tags),
            source=live.source,
            device=str(served.refiner.device),
            runtime=served.runtime,
            loaded_at=served.loaded_at,
            registry=live.registry,
            refused=[Refused(version=version, reason=reason) for version, reason in live.refused.items()],
            input_drift=endpoint.metrics.window.drift(served.trained_on),
        )

    return api


async def chunks_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes, if it has at most `limit` bytes.

    Raises:
        HTTPException: 413.
    """
    too_large = HTTPException(413, f"the body has more than {limit:,} bytes: send the clip in parts")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        yield chunk


async def pieces_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The same, in larger pieces."""
    buffer = bytearray()
    async for chunk in chunks_of(request, limit):
        buffer += chunk
        if len(buffer) >= PIECE_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


async def read_body(request: Request, limit: int) -> bytes:
    chunks = [chunk async for chunk in chunks_of(request, limit)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def app(args: AppArgs) -> Application:
    """Builds the application from a config's `args`."""
    videos = serve.deployment(VideoPoses).bind(args)
    return serve.deployment(serve.ingress()(RefineEndpoint)).bind(args, videos)
