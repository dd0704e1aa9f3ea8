"""One person through one video: found by the detector, then followed from crop to crop, as MediaPipe's VIDEO mode does.

A tracker runs no landmark network itself: it says which pictures it wants looked at and takes the answers, so that one call
of the network can serve the trackers of many videos.
"""

from collections.abc import Sequence

import numpy as np

from refiner.data.video import Frame
from refiner.estimators.base import Observation
from refiner.estimators.blazepose import detector, landmarks
from refiner.estimators.blazepose.crop import Region, crop
from refiner.estimators.blazepose.engine import Engine
from refiner.estimators.blazepose.filters import Filters
from refiner.estimators.blazepose.landmarks import Answer
from refiner.estimators.blazepose.picture import Picture, picture_of


class Tracker:
    """Of one video; `pictures` and `observed` in turns, frame by frame."""

    def __init__(self, detect: Engine, looks: int, filtered: bool) -> None:
        """Args:
        detect: the detector network, run on what is seen where nobody is followed.
        looks: 1, or 2: the crop and its mirror image.
        filtered: through MediaPipe's filters.
        """
        self._detect, self._looks, self._filtered = detect, looks, filtered
        self._detector = detector.Detector()
        self._region: Region | None = None  # where the person is in the frame that is looked at
        self._filters: Filters | None = None
        self._size: tuple[int, int] | None = None  # width, height of the frame before
        self._last_ms = -1

    def pictures(self, frame: Frame) -> np.ndarray:
        """What the landmark network is to look at for the next frame of the video.

        Returns:
            (L, 256, 256, 3) float32, 0 … 1; L is the number of looks, or 0 where the detector finds nobody.
        """
        picture = picture_of(frame)
        if picture.size != self._size:  # pixels of before mean other places now
            self._size, self._region, self._filters = picture.size, None, None
        if self._region is None:
            self._region = self._found(picture)
        # MediaPipe counts milliseconds, strictly rising
        self._last_ms = max(round(frame.timestamp_us / 1000), self._last_ms + 1)
        if self._region is None:
            return np.zeros((0, landmarks.SIZE, landmarks.SIZE, 3), dtype=np.float32)
        seen = crop(picture, self._region, landmarks.SIZE)
        looks = np.empty((self._looks, *seen.shape), dtype=np.float32)
        np.multiply(seen, np.float32(1 / 255), out=looks[0])
        if self._looks == 2:
            looks[1] = looks[0, :, ::-1]
        return looks

    def observed(self, answers: Sequence[Answer]) -> Observation | None:
        """What the network's answers to these pictures say; None where there is nobody."""
        region, self._region = self._region, None
        if region is None or np.mean([answer.presence for answer in answers]) <= landmarks.MIN_PRESENCE:
            self._filters = None
            return None
        looks = [landmarks.decoded(answer) for answer in answers]
        looks[1:] = map(landmarks.unmirrored, looks[1:])
        look = landmarks.mean(looks)
        following = landmarks.next_region(look, region)
        self._region = following if following.usable else None
        seen = landmarks.observation(look, region, looks)
        if self._filtered and self._region is not None:
            self._filters = self._filters or Filters()
            seen = self._filters(seen, self._last_ms * 1000, following.side)
        return seen

    def _found(self, picture: Picture) -> Region | None:
        whole = Region.whole(picture.size)
        seen = crop(picture, whole, detector.SIZE, black_outside=True).astype(np.float32)
        boxes, scores = self._detect(seen[None] * np.float32(2 / 255) - 1)
        return self._detector.region(boxes[0], scores[0], whole)
