"""Refined motions as files for other tools: `/v1/export`, what the page's downloads are made of.

Reading a large motion's JSON keeps Python's lock, and placing it in a room takes long: a process of its own does it.
"""

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from refiner import UserError, formats
from refiner.estimators.isolation import ChildError, Isolated
from refiner.formats import FORMATS, NEEDED, Motion
from refiner.geometry import to_room
from refiner.inference import room
from refiner.inference.validation import check_pixels, validate_poses
from refiner.skeleton import NUM_JOINTS, NUM_LANDMARKS, to_coco
from serve import documentation
from serve.bodies import Body
from serve.codec.messages import JSON, shown
from serve.decoding import make_way
from serve.live import rounded, standing_poses
from serve.schemas import FrameRate
from serve.threads import until_left

# Some 2,000 frames with everything.
EXPORT_BYTES = 5_000_000
# Frames at even times, which bridge the gaps between those that are sent; microseconds of a video; its picture's sides.
MOST_FRAMES, MOST_US, MOST_PIXELS = 20_000, 10**13, 100_000
# How far outside the picture a point may lie, in pictures.
OUTSIDE = 10
STALL_S = 60.0  # the largest takes 3 s on a quiet core
MEMORY_BYTES = 1_500_000_000


Side = Annotated[int, Field(ge=1, le=MOST_PIXELS)]
Moment = Annotated[int, Field(ge=0, le=MOST_US)]


class ExportBody(BaseModel):
    """A refined motion; N frames with a person."""

    model_config = ConfigDict(extra="forbid")

    refined: list[list[list[float]]] = Field(min_length=1, description="N × 17 × 3, metres, virtual camera frame")
    confidence: list[list[float]] | None = Field(default=None, description="N × 17")
    timestamp_us: list[Annotated[int, Field(ge=0, le=MOST_US)]] | None = Field(
        default=None, description="N, rising; else by the frame rate"
    )
    fps: FrameRate = 30.0
    name: str = Field(default="pose", max_length=100)
    image_points: list[list[list[float]]] | None = Field(
        default=None, description="N × 17|33 × 2 pixels: they say where in the room the person is"
    )
    visibility: list[list[float]] | None = Field(default=None, description="N × 17|33")
    size: tuple[Side, Side] | None = Field(default=None, description="of the picture, pixels")


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
    confidence = np.ones((count, NUM_JOINTS))
    if body.confidence is not None:
        confidence = to_coco(_array(body.confidence, "confidence", count)[..., None])[..., 0]
    if len(stamps) != count or (np.diff(stamps) <= 0).any() or stamps[0] < 0:
        raise UserError(f'"timestamp_us" must be {count} rising whole numbers, one for each pose')
    if (stamps[-1] - stamps[0]) * 1e-6 * body.fps > MOST_FRAMES:
        raise UserError(
            f"the motion takes more than {MOST_FRAMES:,} frames from the first pose to the last: send it in parts"
        )
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
    check_pixels(points)
    visibility = np.ones((count, NUM_JOINTS), np.float32)
    if body.visibility is not None:
        visibility = to_coco(_array(body.visibility, "visibility", count)[..., None])[..., 0]
    foreign = UserError('"image_points" are not the pixels of these poses in a picture of this "size"')
    if np.abs(points).max() > OUTSIDE * max(body.size):
        raise foreign
    lens = room.Lens.of_fov(body.size)
    try:
        joints = room.stand(poses, points, visibility, lens, seconds, np.zeros(count, np.int64), None).joints
    except (ArithmeticError, np.linalg.LinAlgError):
        raise foreign from None
    if not np.isfinite(joints).all():
        raise foreign
    return joints


def _array(values: list[Any], name: str, count: int, width: int | None = None) -> np.ndarray:
    try:
        array = np.asarray(values, np.float32)
    except ValueError:
        raise UserError(f'"{name}" must be lists of numbers, all of the same length') from None
    wanted = 2 if width is None else 3
    fits = (
        array.ndim == wanted
        and len(array) == count
        and array.shape[1] in (NUM_JOINTS, NUM_LANDMARKS)
        and array.shape[-1] == (width or array.shape[1])
    )
    if not fits or not np.isfinite(array).all():
        raise UserError(f'"{name}" must be finite numbers, for each joint of each of the {count} poses')
    return array


def written(motion: Motion, ending: str) -> bytes:
    """A motion as a file of that format.

    Raises:
        UserError: it has no such form.
    """
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        try:
            return formats.write(motion, Path(scratch, f"motion.{ending}")).read_bytes()
        except (ArithmeticError, ValueError, np.linalg.LinAlgError):  # of the libraries: a body without extent, say
            raise UserError(f"these poses have no form as {ending}: are they of people, in metres?") from None


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


class Exporter:
    """The process that writes, one motion at a time. Starts when the first large one comes."""

    def __init__(self) -> None:
        self._child = Isolated("serve.exports:export_file", stall_s=STALL_S, memory_bytes=MEMORY_BYTES)
        self._one = ThreadPoolExecutor(1, thread_name_prefix="exports")

    async def written(self, body: Body, ending: str) -> bytes:
        """A request's motion as a file of that format.

        Raises:
            UserError: the body is no motion.
        """
        if body.is_small:
            content = body.content()
            return await until_left(self._one, lambda left: written(motion_of(asked(content)), ending))
        return await until_left(self._one, lambda left: self._written(body, ending, left))

    def _written(self, body: Body, ending: str, left: threading.Event) -> bytes:
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            path, out = body.as_file(Path(scratch)), Path(scratch, "motion")
            try:
                self._child(lambda progress: None, left, path=path, out=str(out), ending=ending)
            except ChildError as error:
                raise UserError(f"the motion cannot be written: {error.reason}") from None
            return out.read_bytes()


def export_file(*, path: str, out: str, ending: str, on_progress: Callable[[int], None]) -> None:
    """The child's part: the body that lies at `path` becomes the file `out`.

    Raises:
        UserError: it is no motion.
    """
    make_way()
    Path(out).write_bytes(written(motion_of(asked(Path(path).read_bytes())), ending))


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

    exporter, example = Exporter(), {"refined": rounded(standing_poses(2)), "fps": 25, "name": "turning"}
    schema = ExportBody.model_json_schema(ref_template="#/components/schemas/{model}")

    @api.post(
        "/v1/export",
        response_model=None,
        responses={
            200: {"content": {"application/octet-stream": documentation.binary()}},
            **documentation.problems(413, 429),
        },
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": example}}}},
    )
    async def export(request: Request, to: str = "json") -> Response:
        """Writes refined poses as a file for other tools; `to` is one of `/v1/formats`. The person stands in a room: y up, the
        floor at 0.
        """
        if to not in writable():
            raise UserError(f"there is no format '{shown(to)}' here: choose one of {', '.join(writable())}")
        async with body_of(request, EXPORT_BYTES) as body:
            written_file = await exporter.written(body, to)
        return Response(written_file, media_type="application/octet-stream")
