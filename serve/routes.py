"""The routes of a replica: which path asks it for what, and how that is documented."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from refiner import UserError
from serve import codec, documentation, inference_protocol, metrics, problems
from serve.exports import add_exports
from serve.guard import SUBPROTOCOL, Guard, Origins, across_origins
from serve.live import rounded, standing_poses
from serve.pages import add_page
from serve.refined_models import RefinedModels
from serve.schemas import Health, Info, ModelName, RefineBody, RefineResult, Refused, SequenceInfo, VideoResult

if TYPE_CHECKING:
    from serve.deployments import RefineEndpoint


class Heads:
    """ASGI middleware: HEAD is GET without the body, which the server leaves out. FastAPI's routes know nothing of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)


class Shortcut:
    """ASGI application of one route. FastAPI's way to it (its own middlewares, two exit stacks, dependencies, a second
    exception handler) costs as much as decoding, checking and encoding a pose.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self.answer(request)
        except UserError as error:
            response = await problems.on_user_error(request, error)
        except HTTPException as error:
            response = await problems.on_http_exception(request, error)
        await response(scope, receive, send)


class Api(FastAPI):
    """FastAPI, but for one route."""

    shortcut: tuple[tuple[str, str], ASGIApp] | None = None  # method and path, and what answers them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.shortcut is not None and scope["type"] == "http":
            route, answer = self.shortcut
            if (scope["method"], scope["path"]) == route:
                return await answer(scope, receive, send)
        await super().__call__(scope, receive, send)


def build_api(endpoint: "RefineEndpoint") -> FastAPI:
    """The routes. Their bodies are read by hand: pydantic on a request's poses costs more than refining them."""
    api = Api(
        title="pose-depth-refiner",
        description="Corrects the depth of MediaPipe's 3D poses. Metres, virtual camera frame, COCO-17 or MediaPipe-33.",
        version="1",
        docs_url=None,
        redoc_url=None,
        responses=documentation.problems(*documentation.USUAL),
    )
    documentation.add_documentation(api, tokens=endpoint.tokens.wanted)
    _add_middleware(api, endpoint)
    _add_refining(api, endpoint)
    _add_stream(api, endpoint)
    add_page(api, RefinedModels(endpoint.live, Path(endpoint.args.cache)).current)
    add_exports(api, endpoint.body_of)
    inference_protocol.add_routes(
        api,
        about=endpoint.about,
        infer=lambda request, form, check: endpoint.answer("/v2/models/infer", request, form, check),
    )
    _add_state(api, endpoint)
    return api


def _add_middleware(api: Api, endpoint: "RefineEndpoint") -> None:
    # from the inside to the outside: who is turned away by the guard is told so in a way that a browser lets pass
    around = [Middleware(problems.Defects), Middleware(Origins, named=endpoint.args.cors_origins)]
    if endpoint.tokens.wanted:
        around.append(Middleware(Guard, tokens=endpoint.tokens))
    around += [Middleware(across_origins, origins=endpoint.args.cors_origins), Middleware(Heads)]
    if endpoint.traces is not None:
        around.append(Middleware(endpoint.traces.around))
    quick: ASGIApp = Shortcut(endpoint.refine_poses)
    for one in around:
        api.add_middleware(one.cls, *one.args, **one.kwargs)
        quick = one.cls(quick, *one.args, **one.kwargs)
    api.shortcut = ("POST", "/v1/refine"), quick
    api.add_exception_handler(UserError, problems.on_user_error)
    api.add_exception_handler(HTTPException, problems.on_http_exception)


def _add_refining(api: FastAPI, endpoint: "RefineEndpoint") -> None:
    @api.post(
        "/v1/refine",
        response_model=None,
        responses={
            200: {"model": RefineResult, "content": {codec.ARROW: documentation.binary()}},
            **documentation.problems(413, 415, 429),
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    codec.JSON: {
                        "schema": RefineBody.model_json_schema(ref_template="#/components/schemas/{model}"),
                        "example": {"poses": rounded(standing_poses(1)), "sequence": False},
                    },
                    codec.ARROW: documentation.binary(),
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
            200: {"model": VideoResult, "content": {codec.ARROW: documentation.binary()}},
            **documentation.problems(413, 429),
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": documentation.binary(),
                    "multipart/form-data": documentation.file_in_form("video"),
                },
            }
        },
    )
    async def refine_video(request: Request) -> Response:
        """Finds the person in a video with MediaPipe, and corrects the poses. The body is the file itself, or a form with it
        (`curl -F video=@clip.mp4`); the answer is JSON, or an Arrow IPC stream where the Accept header asks for one.
        """
        return await endpoint.refine_video(request)


def _add_stream(api: FastAPI, endpoint: "RefineEndpoint") -> None:
    @api.get(
        "/v1/stream",
        status_code=426,
        response_class=Response,
        responses=documentation.problems(403, 426, 429),
    )
    async def how_to_stream() -> Response:
        """A WebSocket: live poses in, refined poses out, the newest first (subprotocol `pose-stream.v1`; a browser's token goes
        as a second one, `bearer.` and the token in base64url). A frame is a text message `{"pose", "visibility"?,
        "image_points"?, "timestamp_us"?}`, or a JPEG or WebP as a binary one. Answers are `{"frame", "timestamp_us",
        "dropped", "refined", "confidence", "view_angle"}`, `frame` being the number of the message from 0 on; one that makes
        no sense gets `{"frame", "error"}`. `?smooth=false` leaves out the smoothing.
        """
        headers = {"Upgrade": "websocket", "Sec-WebSocket-Protocol": SUBPROTOCOL}
        return problems.problem(426, "this is a WebSocket: connect to it with a WebSocket client", headers)

    api.add_api_websocket_route("/v1/stream", endpoint.streams.serve)


def _add_state(api: FastAPI, endpoint: "RefineEndpoint") -> None:
    of_this_node = metrics.NodeMetrics()

    @api.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """This node's numbers, in Prometheus' text format."""
        return PlainTextResponse(await of_this_node.text(), media_type="text/plain; version=0.0.4")

    @api.get("/healthz")
    async def healthz() -> Health:
        """The replica is there and its model answers with finite numbers."""
        endpoint.check_health()
        return Health(status="ok")

    @api.get("/info")
    async def info() -> Info:
        """Which model answers, where it comes from, and what became of the others."""
        return _info(endpoint)


def _info(endpoint: "RefineEndpoint") -> Info:
    live = endpoint.live
    served = live.current
    config = served.refiner.model.config
    return Info(
        model=ModelName(**served.model),
        sequence=SequenceInfo(smoothing_s=config.smoothing_s, constant_bones=config.constant_bones),
        run_id=served.run_id,
        tags=dict(served.tags),
        source=problems.without_paths(live.source),
        device=str(served.refiner.device),
        runtime=served.runtime,
        loaded_at=served.loaded_at,
        registry=live.registry,
        refused=[
            Refused(version=version, reason=problems.without_paths(reason)) for version, reason in live.refused.items()
        ],
        input_drift=endpoint.metrics.window.drift(served.trained_on),
    )
