"""What an estimator is: it sees videos, frame by frame, and says of each where the person's landmarks are.

`refiner.estimators.ESTIMATORS` lists them by name. The next one is a module with these two classes, and a line there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np

from refiner.data.video import Frame

Smoothing = Literal["mediapipe", "none"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One person in one frame, as MediaPipe sees them. An estimator with other landmarks gives the 17 that
    `skeleton.to_coco` takes out of them; the others, with presence 0, are read by nobody.
    """

    world: np.ndarray  # (33, 3) float32 metres, virtual camera frame, the hips' midpoint at the origin
    image: np.ndarray  # (33, 2) float32 pixels
    visibility: np.ndarray  # (33,) float32, 0 … 1
    presence: np.ndarray  # (33,) float32, 0 … 1
    looks_differ: np.ndarray | None = None  # (33, 3) float32 m, first look minus second; None with one look


@dataclass(frozen=True, slots=True)
class EstimatorInfo:
    """Which estimator made an observation, and all that its errors depend on: written into every file of them."""

    name: str = ""
    version: str = ""
    model_sha256: str = ""
    people: int = 1
    """That it looks for in a frame, at most."""
    looks: int = 1
    """At each person; more than one are averaged, such as the picture and its mirror image."""
    smoothing: str = "mediapipe"
    """Over time: MediaPipe's filters, which lag behind, or none."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "EstimatorInfo":
        """What a file of observations says; what it does not say is as by default."""
        return cls(**{f.name: metadata[f.name] for f in fields(cls) if f.name in metadata})


@dataclass(frozen=True, slots=True)
class Sighting:
    """One of several people in one frame."""

    track: int
    """Sightings of one number are of one person. Where it is doubtful who is who, a number ends and others begin."""
    seen: Observation
    colours: np.ndarray | None = None
    """(P, 3) CIELAB of parts of the body, NaN where a part is not seen; None while others are in the way."""


class CrowdEstimator(Protocol):
    """Watches one video with several people, in order."""

    def everybody(self, frame: Frame) -> list[Sighting]:
        """Finds the people in the next frame of the video."""
        ...

    def scene(self) -> None:
        """Another scene begins with the next frame."""
        ...


class VideoEstimator(Protocol):
    """Watches one video, in order. A context manager: at its end what it holds is freed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def estimate(self, frame: Frame) -> Observation | None:
        """Finds the person in the next frame of the video; None where there is nobody."""
        ...


class Estimator(Protocol):
    """A way of seeing people. Made from the name or the file of its model, opened again for every video."""

    @property
    def model(self) -> Path:
        """The one file that it needs wherever it runs; workers on other machines get a copy."""
        ...

    @property
    def info(self) -> EstimatorInfo: ...

    @property
    def reads_rgb(self) -> bool:
        """Whether it looks at `Frame.rgb`, not at the decoder's planes: converting can then be done ahead of it."""
        ...

    def open(self) -> VideoEstimator:
        """Raises:
        UserError: it cannot run here: a library is missing, or the file is not its model.
        """
        ...

    def crowd(self) -> CrowdEstimator:
        """For a video with as many people as `info` says.

        Raises:
            UserError: as `open`; or it cannot tell people apart.
        """
        ...
