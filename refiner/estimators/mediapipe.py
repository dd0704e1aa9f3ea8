"""MediaPipe's PoseLandmarker: one landmarker per video. `mediapipe_assets` has its model."""

import contextlib
import ctypes
import hashlib
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import numpy as np

from refiner.data.video import Frame
from refiner.errors import UserError
from refiner.estimators import mediapipe_reports
from refiner.estimators.base import CrowdEstimator, EstimatorInfo, Observation, Smoothing
from refiner.estimators.mediapipe_assets import model_path
from refiner.skeleton import NUM_LANDMARKS

SEVERAL = "MediaPipe does not say who is who from frame to frame: for several people take --estimator blazepose"


class MediaPipe:
    """The estimator `mediapipe`."""

    reads_rgb = True

    def __init__(
        self, model: str | Path = "full", *, smoothing: Smoothing = "mediapipe", looks: int = 1, people: int = 1
    ) -> None:
        """Args:
        model: lite, full, heavy, or the path of a `.task` file.
        smoothing, looks: as MediaPipe does it: its filters are always on, and it looks once.
        people: one; of several it does not say who is who from frame to frame.

        Raises:
            UserError: there is no such model, and none can be fetched; or it is to do what it cannot.
        """
        if smoothing != "mediapipe" or looks != 1:
            raise UserError(
                "MediaPipe always filters and looks once: for --smoothing none or --looks 2 take --estimator blazepose"
            )
        if people != 1:
            raise UserError(SEVERAL)
        self.model = model_path(str(model))

    @property
    def info(self) -> EstimatorInfo:
        return self._info

    @cached_property
    def _info(self) -> EstimatorInfo:
        sha256 = hashlib.sha256(self.model.read_bytes()).hexdigest()
        return EstimatorInfo("mediapipe.PoseLandmarker", version("mediapipe"), sha256)

    def open(self) -> "PoseEstimator":
        return PoseEstimator(self.model)

    def crowd(self) -> CrowdEstimator:
        raise UserError(SEVERAL)


class PoseEstimator:
    """MediaPipe's PoseLandmarker in VIDEO mode: it tracks, so one estimator sees one video, in order. Or in IMAGE mode, in
    which every picture stands for itself.

        with PoseEstimator(model_path()) as estimator:
            for frame in video.frames("clip.mp4"):
                observation = estimator.estimate(frame)  # None where it finds nobody

    Runs on one thread.
    """

    def __init__(self, model: str | Path, people: int = 1, *, stills: bool = False) -> None:
        """Args:
        model: the `.task` file.
        people: that `estimate_all` finds in a frame, at most. For several MediaPipe has no filters.
        stills: IMAGE mode.

        Raises:
            UserError: a system library is missing, or the file is not a pose landmarker.
        """
        _check_libraries()
        # 0.2 s; whoever only wants `model_path` need not pay it
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.PoseLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            running_mode=vision.RunningMode.IMAGE if stills else vision.RunningMode.VIDEO,
            num_poses=people,
        )
        self._stills = stills
        try:
            mediapipe_reports.turn_off()
            with _quiet_stderr():
                self._landmarker = vision.PoseLandmarker.create_from_options(options)
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"{model} is not a pose landmarker that MediaPipe {version('mediapipe')} loads ({error})"
            ) from None
        self._last_ms, self._first = -1, True

    def estimate(self, frame: Frame) -> Observation | None:
        """Finds the person in the next frame of the video; arguments as of `estimate_all`."""
        return next(iter(self.estimate_all(frame)), None)

    def estimate_all(self, frame: Frame) -> list[Observation]:
        """Finds the people in the next frame of the video, in no order that means anything.

        Args:
            frame: its picture must be contiguous (as `video.frames` gives it): MediaPipe reads on over padded rows.
        """
        import mediapipe

        height, width = frame.rgb.shape[:2]
        if not frame.rgb.flags.c_contiguous:
            raise ValueError("the picture's rows are padded: MediaPipe would see garbage; use np.ascontiguousarray")
        # MediaPipe counts milliseconds, strictly rising
        self._last_ms = max(round(frame.timestamp_us / 1000), self._last_ms + 1)
        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, frame.rgb)
        # the first picture logs a warning, too (about a rectangle that is square here); the others say nothing
        with _quiet_stderr() if self._first else contextlib.nullcontext():
            look = self._landmarker
            seen = look.detect(image) if self._stills else look.detect_for_video(image, self._last_ms)
        self._first = False
        return [
            Observation(
                world=np.array([(p.x, p.y, p.z) for p in world], dtype=np.float32).reshape(NUM_LANDMARKS, 3),
                image=np.array([(p.x * width, p.y * height) for p in points], dtype=np.float32),
                visibility=np.array([p.visibility for p in points], dtype=np.float32),
                presence=np.array([p.presence for p in points], dtype=np.float32),
            )
            for world, points in zip(seen.pose_world_landmarks, seen.pose_landmarks, strict=True)
        ]

    def close(self) -> None:
        with _quiet_stderr():
            self._landmarker.close()

    def __enter__(self) -> "PoseEstimator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _check_libraries() -> None:
    """MediaPipe's own library links OpenGL ES even where it runs on the CPU, and its error names neither cure nor cause."""
    if sys.platform != "linux":
        return
    for library, package in (("libEGL.so.1", "libegl1"), ("libGLESv2.so.2", "libgles2")):
        try:
            ctypes.CDLL(library)
        except OSError:
            raise UserError(
                f"{library}, which MediaPipe needs, is missing on this machine: "
                f"install it ('apt-get install {package}' on Debian and Ubuntu)"
            ) from None


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Sends what native code writes to stderr nowhere: MediaPipe has no switch for the lines it logs when it starts."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
