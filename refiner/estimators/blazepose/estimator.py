"""The estimator `blazepose`: one video at a time, or many whose crops go through the network together."""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from refiner.data.video import Frame
from refiner.errors import UserError
from refiner.estimators.base import EstimatorInfo, Observation, Smoothing
from refiner.estimators.blazepose.crowd import Crowd
from refiner.estimators.blazepose.engine import Engine, LiteRT, MakeEngine
from refiner.estimators.blazepose.landmarks import answered
from refiner.estimators.blazepose.tracking import Tracker
from refiner.estimators.mediapipe_assets import DETECTOR, LANDMARKS, model_path

# Of this code: raise it when its observations change.
VERSION = "1"


class BlazePose:
    """MediaPipe's pose networks in this project's own code."""

    reads_rgb = False  # but of pictures that have no fast way in

    def __init__(
        self,
        model: str | Path = "full",
        *,
        smoothing: Smoothing = "mediapipe",
        looks: int = 1,
        people: int = 1,
        engine: MakeEngine = LiteRT,
        name: str = "blazepose",
    ) -> None:
        """Args:
        model: lite, full, heavy, or the path of a `.task` file: the very file that MediaPipe takes.
        smoothing: MediaPipe's filters, or none: the landmarks as the network gives them.
        looks: 2: at the crop and at its mirror image, and the mean of both.
        people: that are followed in a video, at most; several by `crowd`.
        engine: what runs the landmark network; the detector, which is seldom asked, is LiteRT's.
        name: that its observations bear, another one where the engine gives others than LiteRT does.

        Raises:
            UserError: there is no such model, and none can be fetched; or an option is not one of these.
        """
        if smoothing not in ("mediapipe", "none"):
            raise UserError(f"--smoothing is '{smoothing}': choose mediapipe or none")
        if looks not in (1, 2):
            raise UserError(f"--looks is {looks}: choose 1, or 2 for the picture and its mirror image")
        if people < 1:
            raise UserError(f"--people is {people}: give 1 or more")
        self.model = model_path(str(model))
        self._smoothing, self._looks, self._people, self._engine = smoothing, looks, people, engine
        self._name = name

    @property
    def info(self) -> EstimatorInfo:
        return self._info

    @cached_property
    def _info(self) -> EstimatorInfo:
        sha256 = hashlib.sha256(self.model.read_bytes()).hexdigest()
        return EstimatorInfo(
            self._name, VERSION, sha256, people=self._people, looks=self._looks, smoothing=self._smoothing
        )

    def open(self) -> "Watching":
        """For one video.

        Raises:
            UserError: LiteRT is missing, or the file holds no pose networks.
        """
        return Watching(self)

    def crowd(self) -> Crowd:
        """For one video with several people."""
        detect, look = self.networks
        return Crowd(self._people, detect, look, lambda: self.tracker(detect))

    def watch(self, videos: Sequence[Iterable[Frame]]) -> Iterator[tuple[int, Frame, Observation | None]]:
        """Many videos at once, a frame of each in turn; every turn is one call of the landmark network.

        Yields:
            number of the video, its next frame, and who is seen there; in each video in order, until all are at their end.
        """
        detect, look = self.networks
        trackers = [self.tracker(detect) for _ in videos]
        running = dict(enumerate(map(iter, videos)))
        while running:
            frames = {number: frame for number, video in running.items() if (frame := next(video, None)) is not None}
            running = {number: running[number] for number in frames}
            pictures = [trackers[number].pictures(frame) for number, frame in frames.items()]
            answers = iter(answered(look, np.concatenate(pictures))) if pictures else iter(())
            for (number, frame), asked in zip(frames.items(), pictures, strict=True):
                yield number, frame, trackers[number].observed([next(answers) for _ in asked])

    @cached_property
    def networks(self) -> tuple[Engine, Engine]:
        """The detector and the landmark network, ready to run; they keep nothing of what they saw, so one pair does."""
        cv2.setNumThreads(1)  # of this process: OpenCV would share each crop among all cores, which are others'
        try:
            with zipfile.ZipFile(self.model) as bundle:
                return LiteRT(bundle.read(DETECTOR)), self._engine(bundle.read(LANDMARKS))
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise UserError(
                f"{self.model} is not a pose landmarker: it lacks {DETECTOR} or {LANDMARKS} ({error})"
            ) from None

    def tracker(self, detect: Engine) -> Tracker:
        return Tracker(detect, self._looks, self._smoothing == "mediapipe")


class Watching:
    """One video, in order; on one thread."""

    def __init__(self, estimator: BlazePose) -> None:
        detect, self._look = estimator.networks
        self._tracker = estimator.tracker(detect)

    def estimate(self, frame: Frame) -> Observation | None:
        """Finds the person in the next frame of the video."""
        return self._tracker.observed(answered(self._look, self._tracker.pictures(frame)))

    def __enter__(self) -> "Watching":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass  # the networks go with this object
