"""The page for people at `/`: its files, and MediaPipe's model for the browser.

Everything comes from here; a Content-Security-Policy keeps the browser from speaking to anybody else, which MediaPipe's library
would do. What the page takes from npm is put beside it by `make page` and is not in git.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from refiner import UserError
from refiner.estimators.mediapipe_assets import model_path
from refiner.export.page import is_public
from serve import documentation

logger = logging.getLogger("ray.serve")

FOLDER = Path(__file__).parent / "page"
VENDOR = FOLDER / "vendor"
INDEX = FOLDER / "index.html"
STOCK = "/page/pose_landmarker.task"
HEADERS = {
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
STOCK_AGE_S = 30 * 86_400
# Browsers ask each time whether a file is still the one that they have; a proxy before the replicas keeps it for seconds.
ASK_EACH_TIME = "max-age=0, must-revalidate, s-maxage=10"
# What lies packed beside.
PACKED = {".wasm": "application/wasm", ".js": "text/javascript", ".mjs": "text/javascript"}
INCOMPLETE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Pose depth refiner</title>
<p>The page's libraries are not on this server: run <code>make page</code> in the checkout, which needs npm
(<code>apt-get install npm</code>). The endpoint itself is complete: see <a href="docs">its documents</a>.</p></html>
"""


def policy() -> str:
    """The Content-Security-Policy: the page's own, and that nobody may frame it, which a page cannot say of itself."""
    said = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', INDEX.read_text())
    assert said is not None
    return f"{said[1]}; frame-ancestors 'none'"


def takes_gzip(headers: Headers) -> bool:
    """Whether a client's Accept-Encoding names gzip, and not as what it does not take (q=0)."""
    for part in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = (word.strip() for word in part.partition(";"))
        if name == "gzip":
            return not re.fullmatch(r"q\s*=\s*0(\.0*)?", weight)
    return False


def file_response(path: Path, request: Request, headers: dict[str, str], media_type: str | None = None) -> Response:
    """A file, or 304 to who has it already."""
    response = FileResponse(path, headers=headers, media_type=media_type, stat_result=path.stat())
    if StaticFiles().is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    return response


class Files(StaticFiles):
    """The page's public files, packed where they lie packed beside and the browser takes that."""

    def __init__(self, directory: Path, headers: dict[str, str]) -> None:
        super().__init__(directory=directory)
        self._headers = {**headers, "cache-control": ASK_EACH_TIME, "vary": "accept-encoding"}

    async def get_response(self, path: str, scope: Scope) -> Response:
        if not is_public(path):
            raise HTTPException(404)
        response = None
        if takes_gzip(Headers(scope=scope)):
            with contextlib.suppress(HTTPException):  # it does not lie packed
                response = await super().get_response(f"{path}.gz", scope)
                response.headers["content-encoding"] = "gzip"
                response.headers["content-type"] = PACKED[Path(path).suffix]
        if response is None:
            response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def add_page(api: FastAPI, refined_model: Callable[[], Awaitable[Path]]) -> None:
    """
    Args:
        api: gets `/`, `/page/…` and `/v1/refined.task`.
        refined_model: MediaPipe's model file with what is served inside.
    """
    headers = {**HEADERS, "content-security-policy": policy()}

    @api.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if not VENDOR.is_dir():
            return HTMLResponse(INCOMPLETE, 200, headers)
        return file_response(INDEX, request, {**headers, "cache-control": ASK_EACH_TIME})

    async def model_file(path: Awaitable[Path], request: Request, cache_control: str) -> Response:
        try:
            there = await path
        except UserError as error:  # it may name files of this machine
            logger.error("there is no model for browsers: %s", error)
            raise HTTPException(503, "this model is not available now: the server's log says why") from None
        return file_response(there, request, {**headers, "cache-control": cache_control}, "application/octet-stream")

    @api.get(STOCK, include_in_schema=False)
    async def stock(request: Request) -> Response:
        return await model_file(asyncio.to_thread(model_path), request, f"public, max-age={STOCK_AGE_S}")

    @api.get(
        "/v1/refined.task",
        response_class=Response,
        responses={
            200: {"content": {"application/octet-stream": documentation.binary()}},
            **documentation.problems(503),
        },
    )
    async def refined(request: Request) -> Response:
        """MediaPipe's model file with the served refiner inside, for any app of MediaPipe's: as `refiner export --to task`
        writes it.
        """
        # another version may serve; the file's ETag tells
        return await model_file(refined_model(), request, "no-cache")

    api.mount("/page", Files(FOLDER, headers), name="page")
