"""Errors over HTTP: RFC 9457 problem documents with one sentence that helps, and nothing of the inside."""

import logging
import os
import re

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("ray.serve")

PATH = re.compile(r"(?<![\w./:])/([\w.+@-]+)(?:/[\w.+@~-]*)*")
PROBLEM = "application/problem+json"
DEFECT = "Something is broken here; the request's id (x-request-id) leads to it in the logs."
# Where clients are to come back: a second is what an answer takes that others wait for.
RETRY_AFTER = {429: "1", 503: "1"}
TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Unprocessable content",
    426: "Upgrade required",
    429: "Too many requests",
    500: "Internal server error",
    503: "Service unavailable",
}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem document (RFC 9457), without paths of this machine; Retry-After where coming again helps."""
    headers = {name.lower(): value for name, value in (headers or {}).items()}
    if status in RETRY_AFTER:
        headers.setdefault("retry-after", RETRY_AFTER[status])
    title, detail = TITLES.get(status, "Error"), without_paths(detail)
    # "error" is where clients of the Open Inference Protocol look for the sentence
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail}
    return Response(orjson.dumps(content), status, headers, media_type=PROBLEM)


def messages(response: Response) -> list[Message]:
    """As ASGI's messages."""
    return [
        {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers},
        {"type": "http.response.body", "body": response.body},
    ]


def without_paths(text: str) -> str:
    """Leaves out where files lie on this machine: the folders that it has at its root are no client's business."""
    return PATH.sub(lambda path: "…" if os.path.isdir(f"/{path[1]}") else path[0], text)


async def on_user_error(request: Request, error: Exception) -> Response:
    """422; 400 where the Open Inference Protocol is spoken, as KServe's servers answer."""
    return problem(400 if request.url.path.startswith("/v2") else 422, str(error))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What a route refuses, and what there is no route for."""
    assert isinstance(error, HTTPException)  # what it is registered for
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def on_defect(request: Request, error: Exception) -> Response:
    """A mistake of this program: the log has the traceback, the client only that there was one."""
    logger.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, DEFECT)


class Defects:
    """ASGI middleware: what nobody foresaw is a 500 and a line in the log. Starlette's own handler for that stands outside
    all middlewares, so a browser would not be let to read its answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            response = await on_defect(Request(scope), error)
            await response(scope, receive, send)
