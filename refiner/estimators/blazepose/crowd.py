"""Several people through one video: each is followed from crop to crop by a tracker of their own, and all crops of a frame go
through the landmark network in one call. The detector looks only while fewer people are followed than there may be.

Two trackers may end on one person: of these one is let go. While two people overlap, their trackers may change places unseen:
when that is over, both get new numbers, and `refiner.estimators.people` decides who is who.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from refiner.data.video import Frame
from refiner.estimators.base import Observation, Sighting
from refiner.estimators.blazepose.crop import Region
from refiner.estimators.blazepose.detector import Detector
from refiner.estimators.blazepose.engine import Engine
from refiner.estimators.blazepose.landmarks import SIZE, answered
from refiner.estimators.blazepose.picture import picture_of
from refiner.estimators.blazepose.tracking import Tracker, people_in
from refiner.estimators.people import colours, size_of
from refiner.skeleton import to_coco

# How often the detector looks for the others while somebody is followed: into the whole picture, where it sees people who fill
# half of its longer side, and into squares of it, one after the other.
DETECT_S = 0.1
SQUARES_OVERLAP = 0.5
NEVER = -1_000_000_000
LONG = 5  # frames; who was followed for longer and is lost is looked for everywhere at once
# The mean distance of joints, in body sizes, below which two trackers follow one person.
SAME = 0.1
# Somebody whose hips are nearer to a followed person's, in sides of the crop, is that person, or stands behind them.
NEAR = 0.1
# Boxes around two people's joints, intersection over union: above, their trackers may change places; below, no longer.
OVERLAPPING, APART = 0.35, 0.1


@dataclass(slots=True, eq=False)
class _Followed:
    tracker: Tracker
    track: int
    seen: Observation | None = None  # in the last frame
    joints: np.ndarray | None = None  # (17, 2) pixels, of it
    moved: float = 0.0  # body sizes, since the frame before
    frames: int = 0
    mixed_up: "set[_Followed]" = field(default_factory=set)  # with whom it may be, at present

    def take(self, seen: Observation) -> None:
        joints = to_coco(seen.image)
        if self.joints is not None:
            self.moved = float(np.linalg.norm(joints - self.joints, axis=-1).mean()) / size_of(joints)
        self.seen, self.joints, self.frames = seen, joints, self.frames + 1


class Crowd:
    """Of one video, in order; on one thread."""

    def __init__(self, people: int, detect: Engine, look: Engine, tracker: Callable[[], Tracker]) -> None:
        """Args:
        people: that are followed, at most.
        detect: the detector network.
        look: the landmark network.
        tracker: makes one.
        """
        self._people, self._detect, self._look, self._tracker = people, detect, look, tracker
        self._detector, self._followed = Detector(), list[_Followed]()
        self._numbers = itertools.count()
        self._size: tuple[int, int] | None = None
        self._detected_us = NEVER
        self._views: Iterator[Region] = iter(())

    def everybody(self, frame: Frame) -> list[Sighting]:
        """Finds the people in the next frame of the video."""
        if frame.size != self._size:
            self._size = frame.size
            self.scene()
        if len(self._followed) < self._people:
            self._find_others(frame)
        crops = [(one, one.tracker.region, one.tracker.pictures(frame)) for one in self._followed]
        if not crops:
            return []
        answers = iter(answered(self._look, np.concatenate([pictures for *_, pictures in crops])))
        worn: dict[_Followed, np.ndarray] = {}
        for one, region, pictures in crops:
            seen = one.tracker.observed([next(answers) for _ in pictures])
            if seen is None:
                self._let_go(one)
                continue
            one.take(seen)
            if region is not None:
                crop = (255 * pictures[0]).astype(np.uint8)
                worn[one] = colours(crop, SIZE * region.to_crop(seen.image), seen.visibility)
        self._let_doubles_go()
        self._mind_overlaps()
        sightings = [
            Sighting(one.track, one.seen, None if one.mixed_up else worn.get(one))
            for one in self._followed
            if one.seen is not None
        ]
        # a person at the edge may be seen, but in no crop that could be cut next
        for one in [one for one in self._followed if one.tracker.region is None]:
            self._let_go(one)
        return sightings

    def scene(self) -> None:
        """Another scene begins: who is where in it says nothing about who they were."""
        self._followed, self._detected_us = [], NEVER

    def _find_others(self, frame: Frame) -> None:
        if self._detected_us == NEVER:  # a scene begins, or somebody was lost who is there
            views = squares(frame.size)
            self._views = itertools.cycle(views)
        elif self._followed and frame.timestamp_us - self._detected_us < DETECT_S * 1e6:
            return
        else:
            views = [next(self._views)]
        self._detected_us = frame.timestamp_us
        picture = picture_of(frame)
        for view in views:
            for region in people_in(picture, self._detect, self._detector, self._people, view):
                known = (one.tracker.region for one in self._followed)
                if len(self._followed) < self._people and not any(_near(region, other) for other in known if other):
                    one = _Followed(self._tracker(), next(self._numbers))
                    one.tracker.follow(region, frame.size)
                    self._followed.append(one)

    def _let_go(self, one: _Followed) -> None:
        self._followed.remove(one)
        if one.frames > LONG:
            self._detected_us = NEVER
        for other in one.mixed_up:  # which of the two is gone cannot be said
            other.mixed_up.discard(one)
            other.track = next(self._numbers)

    def _let_doubles_go(self) -> None:
        for a, b in itertools.combinations(list(self._followed), 2):
            if a not in self._followed or b not in self._followed or a.joints is None or b.joints is None:
                continue
            distance = np.linalg.norm(a.joints - b.joints, axis=-1).mean()
            if distance > SAME * min(size_of(a.joints), size_of(b.joints)):
                continue
            if min(a.frames, b.frames) > 1:
                a.mixed_up.add(b)
                b.mixed_up.add(a)
            # who is new here, or else who has jumped, was following somebody else
            self._let_go(max((a, b), key=lambda one: (one.frames == 1, one.moved)))

    def _mind_overlaps(self) -> None:
        for a, b in itertools.combinations(self._followed, 2):
            if a.joints is None or b.joints is None:
                continue
            overlap = _overlap(a.joints, b.joints)
            if overlap > OVERLAPPING:
                a.mixed_up.add(b)
                b.mixed_up.add(a)
            elif overlap < APART and b in a.mixed_up:
                a.mixed_up.discard(b)
                b.mixed_up.discard(a)
                a.track, b.track = next(self._numbers), next(self._numbers)


def squares(size: tuple[int, int]) -> list[Region]:
    """Where the detector looks: the whole of a picture of that width and height, and the squares that overlap along it."""
    long, short = max(size), min(size)
    count = 1 + math.ceil((long - short) / (short * (1 - SQUARES_OVERLAP)) - 1e-6)
    middles = np.linspace(short / 2, long - short / 2, count) if count > 1 else []
    across = size[0] >= size[1]
    parts = [Region(m if across else short / 2, short / 2 if across else m, short, 0.0) for m in middles]
    return [Region.whole(size), *parts]


def _near(a: Region, b: Region) -> bool:
    return bool(np.hypot(a.x - b.x, a.y - b.y) < NEAR * max(a.side, b.side))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of the boxes around joints (17, 2)."""
    low, high = np.maximum(a.min(0), b.min(0)), np.minimum(a.max(0), b.max(0))
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(float(np.prod(np.ptp(a, axis=0)) + np.prod(np.ptp(b, axis=0))) - shared, 1e-6)
