"""One person through one video: found by the detector, then followed from crop to crop, as MediaPipe's VIDEO mode does.

A tracker runs no landmark network itself: it says which pictures it wants looked at and takes the answers, so that one call
of the network can serve the trackers of many videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from refiner.data.video import Frame
from refiner.estimators.base import Observation
from refiner.estimators.blazepose import landmarks
from refiner.estimators.blazepose.crop import Region, crop
from refiner.estimators.blazepose.detector import SIZE, Detector
from refiner.estimators.blazepose.engine import Engine
from refiner.estimators.blazepose.filters import Filters
from refiner.estimators.blazepose.landmarks import Answer, Look
from refiner.estimators.blazepose.picture import Picture, picture_of


class View(Protocol):
    """A picture that need not be there yet: who looks says where, and that much of it is made."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture, pixels."""
        ...

    def whole(self) -> Picture:
        """All of it, perhaps with less detail than `around` shows: for the detector."""
        ...

    def around(self, region: Region) -> Picture:
        """At least what lies in a region."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A view of a picture that is there."""

    picture: Picture

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.size

    def whole(self) -> Picture:
        return self.picture

    def around(self, region: Region) -> Picture:
        return self.picture


@dataclass(frozen=True, slots=True)
class Sight:
    """What the looks at one frame saw, before any of it is averaged or filtered."""

    looks: list[Look]  # of the crop, and of its mirror image, as it would be in the crop
    region: Region  # that was looked at
    following: (
        Region | None
    )  # where the person will be in the next frame; None where the network's answer makes no sense
    timestamp_us: int  # of the frame, as MediaPipe counts it

    def observed(self, looks: int | None = None) -> Observation:
        """The mean of the first `looks` of them, all by default."""
        used = self.looks[:looks]
        return landmarks.observation(landmarks.mean(used), self.region, used)


class Filtering:
    """MediaPipe's filters behind a tracker. They start again where nobody was seen."""

    def __init__(self) -> None:
        self._filters: Filters | None = None

    def __call__(self, sight: Sight | None, looks: int | None = None) -> Observation | None:
        """The next frame's observation, of the first `looks` looks, all by default."""
        if sight is None:
            self._filters = None
            return None
        seen = sight.observed(looks)
        if sight.following is None:
            return seen
        self._filters = self._filters or Filters()
        return self._filters(seen, sight.timestamp_us, sight.following.side)


class Tracker:
    """Of one video; `pictures` (or `look`) and `observed` (or `seen`) in turns, frame by frame."""

    def __init__(self, detect: Engine, looks: int, filtered: bool) -> None:
        """Args:
        detect: the detector network, run on what is seen where nobody is followed.
        looks: 1, or 2: the crop and its mirror image.
        filtered: through MediaPipe's filters.
        """
        self._detect, self._looks, self._filtered = detect, looks, filtered
        self._detector = Detector()
        self._region: Region | None = None  # where the person is in the frame that is looked at
        self._filtering = Filtering()
        self._size: tuple[int, int] | None = None  # width, height of the frame before
        self._last_ms = -1

    @property
    def region(self) -> Region | None:
        """Where the person is looked for next; None: wherever somebody is."""
        return self._region

    def follow(self, region: Region, size: tuple[int, int]) -> None:
        """Follows who is there, from the next frame on.

        Args:
            region: where.
            size: of the pictures in which that is, width and height.
        """
        self._region, self._size = region, size

    def pictures(self, frame: Frame) -> np.ndarray:
        """What the landmark network is to look at for the next frame of the video.

        Returns:
            (L, 256, 256, 3) float32, 0 … 1; L is the number of looks, or 0 where the detector finds nobody.
        """
        return self.look(Shown(picture_of(frame)), frame.timestamp_us)

    def look(self, view: View, timestamp_us: int) -> np.ndarray:
        """The same of a view, which is asked for no more of its picture than the networks see."""
        if view.size != self._size:  # pixels of before mean other places now
            self._size, self._region, self._filtering = view.size, None, Filtering()
        if self._region is None:
            whole = Region.whole(view.size)
            self._region = next(iter(people_in(view.whole(), self._detect, self._detector, within=whole)), None)
        # MediaPipe counts milliseconds, strictly rising
        self._last_ms = max(round(timestamp_us / 1000), self._last_ms + 1)
        if self._region is None:
            return np.zeros((0, landmarks.SIZE, landmarks.SIZE, 3), dtype=np.float32)
        seen = crop(view.around(self._region), self._region, landmarks.SIZE)
        looks = np.empty((self._looks, *seen.shape), dtype=np.float32)
        np.multiply(seen, np.float32(1 / 255), out=looks[0])
        if self._looks == 2:
            looks[1] = looks[0, :, ::-1]
        return looks

    def seen(self, answers: Sequence[Answer]) -> Sight | None:
        """What the network's answers to these pictures say, look by look; None where there is nobody."""
        region, self._region = self._region, None
        if region is None or np.mean([answer.presence for answer in answers]) <= landmarks.MIN_PRESENCE:
            return None
        looks = [landmarks.decoded(answer) for answer in answers]
        looks[1:] = map(landmarks.unmirrored, looks[1:])
        following = landmarks.next_region(landmarks.mean(looks), region)
        self._region = following if following.usable else None
        return Sight(looks, region, self._region, self._last_ms * 1000)

    def observed(self, answers: Sequence[Answer]) -> Observation | None:
        """The same as an observation: the mean of the looks, filtered where that was wanted."""
        sight = self.seen(answers)
        if self._filtered:
            return self._filtering(sight)
        return None if sight is None else sight.observed()


def people_in(
    picture: Picture, detect: Engine, detector: Detector, most: int = 1, within: Region | None = None
) -> list[Region]:
    """Where people are in a whole picture, or in an upright square of it, the most certain first."""
    within = within or Region.whole(picture.size)
    seen = crop(picture, within, SIZE, black_outside=True).astype(np.float32)
    boxes, scores = detect(seen[None] * np.float32(2 / 255) - 1)
    return detector.regions(boxes[0], scores[0], within, most)
