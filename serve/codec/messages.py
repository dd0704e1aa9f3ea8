"""What travels, whatever its form: poses to refine, and refined poses."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

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


# Numbers that a joint has in each array.
COORDINATES = {"poses": 3, "visibility": 1, "image_points": 2}
KEYS = tuple(field.name for field in dataclasses.fields(RefineRequest))


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineResponse:
    """Refined poses and who refined them."""

    poses: np.ndarray  # (N, 17, 3) float32, m, virtual camera frame; "refined" on the wire
    confidence: np.ndarray  # (N, 17) float32, probability that the joint's depth is within 5 cm
    view_angle: np.ndarray  # (N,) float32, degrees, 0 frontal – 90 profile
    model: Mapping[str, str]  # {"name", "version"}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """By their names on the wire."""
        return {"refined": self.poses, "confidence": self.confidence, "view_angle": self.view_angle}


class Codec(Protocol):
    """The server's side of one form; an instance sees one request and its answer."""

    def decode(self, body: bytes) -> RefineRequest:
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
