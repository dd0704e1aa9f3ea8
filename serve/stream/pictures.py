"""MediaPipe for streams that send pictures: a process for each of them, whose tracking is that stream's alone.

Pictures are strangers' and decoders are native code: nothing is decoded in the replica, a picture's size is read before its
pixels are, and the kernel bounds the process's memory.
"""

import base64
import functools
import io
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from starlette.exceptions import HTTPException

from refiner import UserError
from refiner.data.video import Frame
from refiner.estimators import named
from refiner.estimators.base import VideoEstimator
from refiner.estimators.isolation import ChildError, Isolated
from serve.schemas import AppArgs
from serve.stream.messages import Landmarks
from serve.threads import until_left

STALL_S = 30.0  # a picture takes 50 ms
NICENESS = 5  # the replica goes first


class Pictures:
    """So many processes, kept for the next stream when one ends: starting one takes seconds."""

    def __init__(self, args: AppArgs) -> None:
        self._args, self._idle, self._busy = args, [], set[Watcher]()

    def take(self) -> "Watcher":
        """A process for a new stream.

        Raises:
            HTTPException: 429, all are taken.
            UserError: the estimator or its model cannot be had here.
        """
        if len(self._busy) >= self._args.max_picture_streams:
            raise HTTPException(
                429, "this endpoint has as many picture streams as it takes: send landmarks, or try again later"
            )
        watcher = self._idle.pop() if self._idle else Watcher(self._args)
        watcher.begin()
        self._busy.add(watcher)
        return watcher

    def give_back(self, watcher: "Watcher") -> None:
        self._busy.discard(watcher)
        self._idle.append(watcher)

    def close(self) -> None:
        for watcher in (*self._idle, *self._busy):
            watcher.close()


class Watcher:
    """A process that follows one person through the pictures of one stream at a time."""

    def __init__(self, args: AppArgs) -> None:
        """
        Raises:
            UserError: the estimator or its model cannot be had here.
        """
        how = {"smoothing": args.estimator_smoothing, "looks": args.estimator_looks}
        model = named(args.estimator, args.estimator_model or "full", **how).model
        self._asked = {
            "estimator": args.estimator,
            "model": str(model),
            "how": how,
            "max_pixels": args.max_picture_pixels,
        }
        self._child = Isolated(
            "serve.stream.pictures:look", stall_s=STALL_S, memory_bytes=int(args.picture_memory_mb * 1e6)
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._streams = itertools.count()

    def begin(self) -> None:
        """What comes now belongs to another stream."""
        self._stream = next(self._streams)

    async def see(self, picture: bytes, timestamp_us: int) -> Landmarks | None:
        """The person in the next picture; None where there is nobody.

        Raises:
            UserError: it is not a picture, too large, or stops the decoder.
        """
        return await until_left(self._thread, lambda left: self._see(picture, timestamp_us))

    def _see(self, picture: bytes, timestamp_us: int) -> Landmarks | None:
        content = base64.b64encode(picture).decode()
        try:
            seen = self._child(
                lambda progress: None,
                None,
                picture=content,
                stream=self._stream,
                timestamp_us=timestamp_us,
                **self._asked,
            )
        except ChildError:
            raise UserError(
                "the picture cannot be decoded: it is damaged, or takes more memory than it may have"
            ) from None
        if seen is None:
            return None
        pose, visibility, image_points = (
            np.array(seen[name], np.float32) for name in ("pose", "visibility", "image_points")
        )
        return Landmarks(pose, visibility, image_points)

    def close(self) -> None:
        self._child.close()


def picture_of(content: bytes, max_pixels: int) -> np.ndarray:
    """(H, W, 3) uint8 of a JPEG or WebP, upright.

    Raises:
        UserError: it is neither, is not complete, or has more pixels.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "WEBP"))  # reads its head
        width, height = image.size
        if width * height > max_pixels:
            raise UserError(
                f"the picture is {width}×{height}, larger than the {max_pixels:,} pixels accepted: scale it down"
            )
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UserError:
        raise
    except Exception:  # of any kind: Pillow's decoders raise what they meet
        raise UserError("the picture cannot be decoded: it is not a complete JPEG or WebP") from None


# --- the child's side -------------------------------------------------------------------------------------------------


class _Eye:
    """What the process keeps between two pictures: the tracking of one stream."""

    def __init__(self) -> None:
        self._stream, self._estimator = -1, None

    def of(self, stream: int, estimator: str, model: str, how: dict[str, Any]) -> VideoEstimator:
        if self._estimator is None or stream != self._stream:
            if self._estimator is not None:
                self._estimator.__exit__(None, None, None)
            self._estimator = named(estimator, model, **how).open().__enter__()
            self._stream = stream
        return self._estimator


@functools.cache
def _eye() -> _Eye:
    """One for this process, made when it is first asked for."""
    os.nice(NICENESS)
    return _Eye()


def look(
    *,
    picture: str,
    stream: int,
    timestamp_us: int,
    estimator: str,
    model: str,
    how: dict[str, Any],
    max_pixels: int,
    on_progress: Callable[[int], None],
) -> dict[str, Any] | None:
    """One picture of a stream.

    Args:
        picture: a JPEG or WebP in base 64.
        stream: another number than before begins another one.
        timestamp_us: rising in each stream.
        estimator: its name.
        model: the estimator's file.
        how: its other options, as `estimators.named` takes them.
        max_pixels: of a picture.
        on_progress: not called.

    Raises:
        UserError: it is not a picture, or too large.
    """
    rgb = picture_of(base64.b64decode(picture), max_pixels)
    eye = _eye().of(stream, estimator, model, how)
    seen = eye.estimate(Frame(index=0, timestamp_us=timestamp_us, _rgb=rgb))
    if seen is None:
        return None
    return {
        "pose": seen.world.tolist(),
        "visibility": seen.visibility.clip(0, 1).tolist(),
        "image_points": seen.image.tolist(),
    }
