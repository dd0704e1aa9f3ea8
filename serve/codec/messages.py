"""What travels, whatever its form: poses to refine, and refined poses."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from refiner import UserError
from refiner.temporal import check_fps

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
BINARY = "application/octet-stream"  # the Open Inference Protocol's JSON with tensors as bytes behind it


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineRequest:
    poses: np.ndarray  # (N, 17 or 33, 3) m, virtual camera frame; one pose may come without the first axis
    visibility: np.ndarray | None = None  # (N, 17 or 33) 0 … 1
    image_points: np.ndarray | None = None  # (N, 17 or 33, 2) pixels
    sequence: bool = False  # the poses are consecutive frames of one clip
    fps: float | None = None  # of that clip; None is the refiner's default
    keep_bones: bool = True  # a clip's bones get one length each, where the model does that
    bone_lengths: np.ndarray | None = None  # (B,) m, of `skeleton.BONES`: that length; None is the median in this clip


# Numbers that a joint has in each array.
# (All that vary with the poses; `bone_lengths` is one list for all of them.)
COORDINATES = {"poses": 3, "visibility": 1, "image_points": 2}
KEYS = tuple(field.name for field in dataclasses.fields(RefineRequest))


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineResponse:
    """Refined poses and who refined them."""

    poses: np.ndarray  # (N, 17, 3) float32, m, virtual camera frame; "refined" on the wire
    confidence: np.ndarray  # (N, 17) float32, probability that the joint's depth is within 5 cm
    view_angle: np.ndarray  # (N,) float32, degrees, 0 frontal – 90 profile
    model: Mapping[str, str]  # {"name", "version"}
    bone_lengths: np.ndarray | None = None  # (B,) m, medians in this clip before they were kept; None where none are
    notes: Sequence[str] | None = (
        None  # what a user should know of the video, a sentence each; None where there is none
    )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """By their names on the wire."""
        return {"refined": self.poses, "confidence": self.confidence, "view_angle": self.view_angle}


class Codec(Protocol):
    """The server's side of one form; an instance sees one request and its answer."""

    def decode(self, body: bytes | memoryview) -> RefineRequest:
        """
        Raises:
            UserError: the body is not in this form.
        """
        ...

    def encode(self, response: RefineResponse) -> tuple[bytes, dict[str, str]]:
        """
        Returns:
            The body, and the headers that belong to it.

        Raises:
            UserError: the request wants something that there is not.
        """
        ...


def numbers(name: str, values: object) -> np.ndarray:
    """Nested lists as JSON has them -> float32 array.

    Raises:
        UserError: they are ragged, or hold anything but numbers. Booleans and strings are none, though numpy takes them.
    """
    refusal = UserError(f'"{name}" must be lists of numbers, all of the same length')
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise refusal from None
    if array.dtype.kind not in "fiu" or (array.size and _holds_boolean(values)):
        raise refusal
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        return array.astype(np.float32)


def _holds_boolean(values: object) -> bool:
    if isinstance(values, list):
        if values and not isinstance(values[0], list):
            return bool in set(map(type, values))
        return any(map(_holds_boolean, values))
    return isinstance(values, bool)


def frame_rate(value: Any) -> float | None:
    """Of a request, which need not say it.

    Raises:
        UserError: as `check_fps`.
    """
    return None if value is None else check_fps(value)


def boolean(name: str, value: Any, default: bool) -> bool:
    """
    Raises:
        UserError: it is neither true nor false, nor left out.
    """
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(f'"{name}" must be true or false')
    return value


def shown(value: object) -> str:
    """What a stranger sent, short enough for a sentence."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
