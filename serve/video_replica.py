"""The deployment in which MediaPipe looks at videos: on CPUs, scaled by itself, and never in the process of the refiner."""

import logging
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import ray
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from starlette.exceptions import HTTPException

from refiner import UserError
from serve.schemas import AppArgs
from serve.threads import until_left
from serve.video import Clip, Limits, Lost, VideoObserver

logger = logging.getLogger("ray.serve")

# A replica that took a clip all the way so recently is not tried again.
PROVED_S = 30.0


def refusal_of(error: Exception) -> Exception:
    """What a client is told where Ray or Serve gave no clip: of the video, or to come again. A defect stays what it is."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, UserError):
        return UserError(str(cause))
    if isinstance(cause, BackPressureError):
        return HTTPException(429, "too many videos are under way: send this one again in a second")
    if isinstance(error, RayTaskError) and not isinstance(cause, Lost):
        return error
    logger.error("a video was lost: %r", error)  # a process or its node died, or there is no room for uploads
    return HTTPException(503, "the video could not be looked at now: send it again in a second")


class VideoPoses:
    """A replica that runs MediaPipe, one video at a time."""

    def __init__(self, args: AppArgs) -> None:
        limits = Limits(
            seconds=args.max_video_s,
            frames=args.max_video_frames,
            pixels=args.max_video_pixels,
            timeout_s=args.video_timeout_s,
            memory_bytes=int(args.video_memory_mb * 1e6),
        )
        self._observer = VideoObserver(
            args.estimator,
            args.estimator_model,
            limits,
            smoothing=args.estimator_smoothing,
            looks=args.estimator_looks,
            people=args.estimator_people,
        )
        self._videos = ThreadPoolExecutor(1, thread_name_prefix="videos")
        self._under_way, self._proved = 0, monotonic()

    async def check_health(self) -> None:
        """Serve asks this every few seconds and replaces a replica that no longer takes a clip all the way. It is tried with
        a small one, where none was asked for in the meantime.
        """
        if self._under_way or monotonic() - self._proved < PROVED_S:
            return
        with tempfile.TemporaryDirectory(prefix="upload-") as scratch:
            await until_left(self._videos, lambda left: self._observer.check(Path(scratch)))
        self._proved = monotonic()

    async def clip(self, pieces: list[ray.ObjectRef]) -> Clip:
        """
        Raises:
            UserError: it is not a video, too long, or there is nobody in it.
        """
        self._under_way += 1
        try:
            clip = await until_left(self._videos, lambda left: self._clip(pieces, left))
        finally:
            self._under_way -= 1
        self._proved = monotonic()
        return clip

    def _clip(self, pieces: list[ray.ObjectRef], left: threading.Event) -> Clip:
        with tempfile.TemporaryDirectory(prefix="upload-") as scratch:
            path = Path(scratch, "upload.mp4")
            with path.open("wb") as file:
                for piece in pieces:
                    file.write(ray.get(piece))
            return self._observer.clip(path, left)
