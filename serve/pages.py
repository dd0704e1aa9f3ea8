"""The page for people at `/`: its files, what its downloads are made of, and MediaPipe's model for the browser.

Everything comes from here; a Content-Security-Policy keeps the browser from speaking to anybody else, which MediaPipe's library
would do. What the page takes from npm is put beside it by `make page` and is not in git.
"""

import asyncio
import logging
import re
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from refiner import UserError, formats
from refiner.estimators.mediapipe_assets import model_path
from refiner.export.page import is_public
from refiner.formats import FORMATS, Motion
from refiner.geometry import to_room
from refiner.inference import room
from refiner.inference.validation import validate_poses
from refiner.skeleton import NUM_JOINTS, NUM_LANDMARKS, to_coco
from serve import documentation
from serve.bodies import Body
from serve.codec.messages import JSON, shown

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
# Packages without which a format cannot be written.
NEEDED = {"glb": "pygltflib", "c3d": "ezc3d"}
STOCK_AGE_S = 30 * 86_400
# Of a motion that is exported: some 2,000 frames with everything. Its JSON is read in a thread that keeps Python's lock.
EXPORT_BYTES = 5_000_000
INCOMPLETE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Pose depth refiner</title>
<p>The page's libraries are not on this server: run <code>make page</code> in the checkout, which needs npm
(<code>apt-get install npm</code>). The endpoint itself is complete: see <a href="docs">its documents</a>.</p></html>
"""


def policy() -> str:
    """The Content-Security-Policy: the page's own, and that nobody may frame it, which a page cannot say of itself."""
    said = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', INDEX.read_text())
    assert said is not None
    return f"{said[1]}; frame-ancestors 'none'"


class Files(StaticFiles):
    """The page's public files, packed where they lie packed beside and the browser takes that."""

    def __init__(self, directory: Path, headers: dict[str, str]) -> None:
        super().__init__(directory=directory)
        self._headers = {**headers, "cache-control": "no-cache", "vary": "accept-encoding"}

    async def get_response(self, path: str, scope: Scope) -> Response:
        if not is_public(path):
            raise HTTPException(404)
        packed = Path(str(self.directory), f"{path}.gz")
        accepted = next((value for name, value in scope["headers"] if name == b"accept-encoding"), b"")
        if b"gzip" in accepted and ".." not in path and packed.is_file():
            response = await super().get_response(f"{path}.gz", scope)
            response.headers["content-encoding"] = "gzip"
            kinds = {".wasm": "application/wasm", ".js": "text/javascript", ".mjs": "text/javascript"}
            response.headers["content-type"] = kinds[Path(path).suffix]
        else:
            response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


class ExportBody(BaseModel):
    """A refined motion; N frames with a person."""

    model_config = ConfigDict(extra="forbid")

    refined: list[list[list[float]]] = Field(min_length=1, description="N × 17 × 3, metres, virtual camera frame")
    confidence: list[list[float]] | None = Field(default=None, description="N × 17")
    timestamp_us: list[int] | None = Field(default=None, description="N, rising; else by the frame rate")
    fps: float = Field(default=30.0, gt=0, le=1000)
    name: str = Field(default="pose", max_length=100)
    image_points: list[list[list[float]]] | None = Field(
        default=None, description="N × 17|33 × 2 pixels: they say where in the room the person is"
    )
    visibility: list[list[float]] | None = Field(default=None, description="N × 17|33")
    size: tuple[int, int] | None = Field(default=None, description="of the picture, pixels")


def writable() -> dict[str, str]:
    """The formats that this installation can write, and what each is for."""
    return {name: purpose for name, purpose in FORMATS.items() if name not in NEEDED or find_spec(NEEDED[name])}


def motion_of(body: ExportBody) -> Motion:
    """
    Raises:
        UserError: the lists do not fit together, or are not poses.
    """
    poses, _ = validate_poses(body.refined, None, recognise=False)
    count = len(poses)
    stamps = np.arange(count) * 1e6 / body.fps if body.timestamp_us is None else np.array(body.timestamp_us)
    confidence = (
        np.ones((count, NUM_JOINTS)) if body.confidence is None else _array(body.confidence, "confidence", count)
    )
    if len(stamps) != count or (np.diff(stamps) <= 0).any() or stamps[0] < 0:
        raise UserError(f'"timestamp_us" is to be {count} rising whole numbers, one for each pose')
    joints = _placed(body, poses, stamps * 1e-6)
    return Motion(
        name=body.name, fps=body.fps, frames=np.round(stamps * 1e-6 * body.fps).astype(np.int64),
        timestamps_us=stamps.astype(np.int64), joints=joints, confidence=confidence,
    )  # fmt: skip


def _placed(body: ExportBody, poses: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(N, 17, 3) m in the room: as the image points say, or on the spot with the lowest ankle on the floor."""
    count = len(poses)
    if body.image_points is None or body.size is None:
        joints = to_room(poses)
        joints[..., 1] += room.ANKLE_HEIGHT_M - np.quantile(joints[:, room.ANKLES, 1].min(1), 0.1)
        return joints
    points = to_coco(_array(body.image_points, "image_points", count, 2))
    visibility = np.ones((count, NUM_JOINTS), np.float32)
    if body.visibility is not None:
        visibility = to_coco(_array(body.visibility, "visibility", count)[..., None])[..., 0]
    lens = room.Lens.of_fov(body.size)
    return room.stand(poses, points, visibility, lens, seconds, np.zeros(count, np.int64), None).joints


def _array(values: list[Any], name: str, count: int, width: int | None = None) -> np.ndarray:
    try:
        array = np.asarray(values, np.float32)
    except ValueError:
        raise UserError(f'"{name}" is to be lists of numbers, all of the same length') from None
    wanted = 2 if width is None else 3
    fits = (
        array.ndim == wanted
        and len(array) == count
        and array.shape[1] in (NUM_JOINTS, NUM_LANDMARKS)
        and array.shape[-1] == (width or array.shape[1])
    )
    if not fits or not np.isfinite(array).all():
        raise UserError(f'"{name}" is to be finite numbers for each joint of each of the {count} poses')
    return array


def written(motion: Motion, ending: str) -> bytes:
    """A motion as a file of that format."""
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        return formats.write(motion, Path(scratch, f"motion.{ending}")).read_bytes()


def asked(content: bytes | memoryview) -> ExportBody:
    """
    Raises:
        UserError: it is not what the documents say, and where not.
    """
    try:
        return ExportBody.model_validate_json(bytes(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise UserError(f"{shown(where)} is not as /docs describes it: {first['msg']}") from None


BodyOf = Callable[[Request, int], AbstractAsyncContextManager[Body]]


def add_page(api: FastAPI, refined_model: Callable[[], Awaitable[Path]]) -> None:
    """
    Args:
        api: gets `/`, `/page/…` and `/v1/refined.task`.
        refined_model: MediaPipe's model file with what is served inside.
    """
    headers = {**HEADERS, "content-security-policy": policy()}

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        if not VENDOR.is_dir():
            return HTMLResponse(INCOMPLETE, 200, headers)
        return FileResponse(INDEX, headers={**headers, "cache-control": "no-cache"})

    async def model_file(path: Awaitable[Path], cache_control: str) -> Response:
        try:
            there = await path
        except UserError as error:  # it may name files of this machine
            logger.error("a model for browsers is not there: %s", error)
            raise HTTPException(503, "this model cannot be had here now: the server's log says why") from None
        headers_of = {**headers, "cache-control": cache_control}
        return FileResponse(there, media_type="application/octet-stream", headers=headers_of)

    @api.get(STOCK, include_in_schema=False)
    async def stock() -> Response:
        return await model_file(asyncio.to_thread(model_path), f"public, max-age={STOCK_AGE_S}")

    @api.get(
        "/v1/refined.task",
        response_class=Response,
        responses={
            200: {"content": {"application/octet-stream": documentation.binary()}},
            **documentation.problems(503),
        },
    )
    async def refined() -> Response:
        """MediaPipe's model file with the served refiner inside, for any app of MediaPipe's: as `refiner export --to task`
        writes it.
        """
        return await model_file(refined_model(), "no-cache")  # another version may serve; the file's ETag tells

    api.mount("/page", Files(FOLDER, headers), name="page")


def add_exports(api: FastAPI, body_of: BodyOf) -> None:
    """
    Args:
        api: gets `/v1/formats` and `/v1/export`.
        body_of: a request's body, up to so many bytes.
    """

    @api.get("/v1/formats")
    async def known_formats() -> dict[str, str]:
        """The formats that `/v1/export` writes here, and what each is for."""
        return writable()

    schema = ExportBody.model_json_schema(ref_template="#/components/schemas/{model}")

    @api.post(
        "/v1/export",
        response_model=None,
        responses={
            200: {"content": {"application/octet-stream": documentation.binary()}},
            **documentation.problems(413, 429),
        },
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}},
    )
    async def export(request: Request, to: str = "json") -> Response:
        """Writes refined poses as a file for other tools; `to` is one of `/v1/formats`. The person stands in a room: y up, the
        floor at 0.
        """
        if to not in writable():
            raise UserError(f"there is no format '{shown(to)}' here: choose one of {', '.join(writable())}")
        async with body_of(request, EXPORT_BYTES) as body:
            content = body.content()
            written_file = await asyncio.to_thread(lambda: written(motion_of(asked(content)), to))
        return Response(written_file, media_type="application/octet-stream")
