"""Videos over HTTP: from an upload on disk to the poses in it. Runs on CPUs, beside the refiner, never in its process.

Uploads are strangers' files and decoders are native code: each is decoded in a child process that may die, whose memory the
kernel bounds, and that is held to a size of picture, a number of frames and a time.
"""

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refiner import UserError
from refiner.data import records
from refiner.data.video import VideoWriter, declared, probe
from refiner.estimators import named, observe
from refiner.estimators.base import Smoothing
from refiner.estimators.isolation import ChildError, ChildKilled, Isolated
from refiner.skeleton import to_coco

logger = logging.getLogger("ray.serve")

# Phones add sound, and a handful of streams of their own.
MOST_STREAMS = 16
# A picture that the health check draws: large enough for every encoder, and quick.
TRIAL_SIZE, TRIAL_FRAMES = (64, 64), 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one upload may take."""

    seconds: float  # of video
    frames: int
    pixels: int  # of one picture
    timeout_s: float  # for everything
    memory_bytes: int  # of the process that decodes it


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What MediaPipe saw, in the frames in which it saw somebody; one person after the other."""

    person: np.ndarray  # (N,) int32, never falling
    frame: np.ndarray  # (N,) int32, rising with each person
    timestamp_us: np.ndarray  # (N,) int64
    poses: np.ndarray  # (N, 17, 3) float32 m, virtual camera frame
    visibility: np.ndarray  # (N, 17) float32
    image_points: np.ndarray  # (N, 17, 2) float32 pixels
    clip: np.ndarray  # (N,) int32 number of the scene
    notes: tuple[str, ...] = ()  # what a user should know of the video, a sentence each


class Lost(Exception):
    """The process that looked at a video was killed by somebody else: the video may well be whole."""


class VideoObserver:
    """Videos into clips, one at a time."""

    def __init__(
        self,
        estimator: str,
        model: str | None,
        limits: Limits,
        *,
        smoothing: Smoothing = "mediapipe",
        looks: int = 1,
        people: int = 1,
    ) -> None:
        """
        Args:
            estimator: its name.
            model: the estimator's file, or None for the usual one.
            limits: of one upload.
            smoothing: see `estimators.named`.
            looks: see there.
            people: see there.
        """
        self._estimator, self._limits = estimator, limits
        self._options = {"smoothing": smoothing, "looks": looks, "people": people}
        chosen = named(estimator, model or "full", smoothing=smoothing, looks=looks, people=people)
        self._model = str(chosen.model)
        self._child = Isolated(
            "serve.video:observe_bounded", stall_s=limits.timeout_s, memory_bytes=limits.memory_bytes
        )
        self._chance = random.Random()

    def clip(self, path: Path, left: threading.Event | None = None) -> Clip:
        """
        Args:
            path: the upload.
            left: set when nobody waits for the clip any more.

        Raises:
            UserError: it is not a video, too long, takes too much, or there is nobody in it.
            Lost: its process was killed.
            Abandoned: `left` was set.
        """
        out = path.with_suffix(".parquet")
        try:
            notes = self._observe(path, out, left)["notes"]
            observed = records.read_table(out, records.OBSERVATIONS)
        finally:
            out.unlink(missing_ok=True)
        seen = records.column(observed, "detected").astype(bool)
        if not seen.any():
            raise UserError(
                f"MediaPipe finds nobody in the {len(np.unique(records.column(observed, 'frame')))} frames of the video"
            )
        return Clip(
            person=records.column(observed, "person")[seen],
            frame=records.column(observed, "frame")[seen],
            timestamp_us=records.column(observed, "timestamp_us")[seen],
            poses=to_coco(records.column(observed, "world")[seen]),
            visibility=to_coco(records.column(observed, "visibility")[seen][..., None])[..., 0],
            image_points=to_coco(records.column(observed, "image")[seen]),
            clip=records.column(observed, "clip")[seen],
            notes=tuple(notes),
        )

    def check(self, folder: Path) -> None:
        """Takes a small clip all the way.

        Args:
            folder: for the clip.

        Raises:
            RuntimeError: the answer is not this clip's.
        """
        path, frames = folder / "trial.mp4", self._chance.randint(1, TRIAL_FRAMES)
        with VideoWriter(path, TRIAL_SIZE, 25) as writer:
            for level in range(frames):
                writer.write(np.full((*TRIAL_SIZE[::-1], 3), 40 * level, np.uint8))
        seen = self._observe(path, path.with_suffix(".parquet"), None)["frames"]
        if seen != frames:
            raise RuntimeError(f"a clip of {frames} frames came back as one of {seen}")

    def close(self) -> None:
        self._child.close()

    def _observe(self, path: Path, out: Path, left: threading.Event | None) -> dict[str, Any]:
        limits = self._limits
        try:
            return self._child(
                lambda frames: None,
                left,
                video=str(path),
                out=str(out),
                model=self._model,
                estimator=self._estimator,
                options=self._options,
                max_s=limits.seconds,
                max_frames=limits.frames,
                max_pixels=limits.pixels,
                timeout_s=limits.timeout_s,
            )
        except UserError as error:
            raise UserError(re.sub(rf"(video )?{re.escape(str(path))}", "the upload", str(error))) from None
        except ChildKilled as error:
            raise Lost(error.reason) from None
        except ChildError as error:
            logger.error("an upload was abandoned: %s\n%s", error.reason, error.trace)
            raise UserError(
                "the video cannot be decoded: it is damaged, or takes more memory or time than it may have"
            ) from None


def observe_bounded(
    *,
    video: str,
    out: str,
    model: str,
    estimator: str,
    options: dict[str, Any],
    max_s: float,
    max_frames: int,
    max_pixels: int,
    timeout_s: float,
    on_progress: Callable[[int], None],
) -> dict[str, Any]:
    """The child's part: `observe.observe` within limits. What a header declares is refused before anything is decoded;
    it may be a lie, so frames and time are counted, too.

    Returns:
        `Observed` as a dict.

    Raises:
        UserError: a limit is passed, or `observe` refuses the video.
    """
    header = declared(video)
    if header.streams > MOST_STREAMS:
        raise UserError(f"the video has {header.streams} streams, more than the {MOST_STREAMS} accepted")
    _check_size(header.width, header.height, max_pixels)
    longest = UserError(f"the video is longer than {max_s:g} s: send it in parts")
    if header.duration_s > max_s:
        raise longest
    most = UserError(f"the video has more than the {max_frames:,} frames accepted: send it in parts")
    if header.frames > max_frames:
        raise most
    info, started = probe(video), time.monotonic()
    _check_size(info.width, info.height, max_pixels)  # as shown, which its pixels' shape may make larger

    def bounded(frames: int) -> None:
        if frames > max_frames:
            raise most
        if frames > max_s * max(info.fps, 1.0) + 1:
            raise longest
        if time.monotonic() - started > timeout_s:
            raise UserError(f"the video took more than {timeout_s:g} s: send a shorter or smaller one")
        on_progress(frames)

    return observe.observe(video=video, out=out, model=model, estimator=estimator, on_progress=bounded, **options)


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise UserError(
            f"the video's pictures are {width}×{height}, larger than the {most:,} pixels accepted: scale it down"
        )
