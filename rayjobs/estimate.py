"""What an extraction will take, before it is started: `python -m rayjobs.extract --dry-run`."""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rayjobs.progress import duration
from refiner import UserError, files
from refiner.command import cores, log
from refiner.data import video
from refiner.estimators.base import Estimator

PROBED = 100  # videos whose headers are read; the others' lengths follow from their bytes
TIMED_FRAMES = 150  # looked at to learn what a frame costs here


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    videos: int
    """To do."""
    done: int
    failed_before: int
    bytes: int
    frames: int
    """To do, judged from the headers of some videos and the bytes of all."""
    footage_hours: float
    ms_per_frame: float
    """Decoding and the estimator, measured on this machine on one core."""
    core_hours: float
    cores: int
    """Of the connected cluster."""
    wall_hours: float
    cost: float | None
    """With --price."""


def estimate(
    todo: Sequence[dict[str, Any]],
    done: int,
    failed: int,
    estimator: Estimator,
    stride: int,
    workers: int,
    price: float | None,
) -> Estimate:
    """Args:
        todo: rows with `video` (path or URI) and `size` (bytes), longest first.
        estimator: that will look at them.
        workers: videos at once.
        price: of one core for one hour.

    Raises:
        UserError: none of the videos probed can be read.
    """
    sample = list(todo[:: max(1, len(todo) // PROBED)])
    with ThreadPoolExecutor(4 * cores()) as pool:
        probed = [(row, info) for row, info in zip(sample, pool.map(_probed, sample), strict=True) if info is not None]
    if todo and not probed:
        raise UserError(f"none of {len(sample)} videos can be read, as {sample[0]['video']}: are they videos?")
    size = sum(row["size"] for row in todo)
    share = sum(row["size"] for row, _ in probed) / size if size else 1.0  # of all bytes
    frames = round(sum(info.frames or 0 for _, info in probed) / share / stride)
    hours = sum(info.duration_s for _, info in probed) / share / 3600
    per_frame = _seconds_per_frame(probed[len(probed) // 2][0]["video"], estimator, stride) if probed else 0.0
    core_hours = frames * per_frame / 3600
    # the last video still runs when all others are done
    longest = max((info.frames or 0 for _, info in probed), default=0) / stride * per_frame / 3600
    estimated = Estimate(
        videos=len(todo),
        done=done,
        failed_before=failed,
        bytes=size,
        frames=frames,
        footage_hours=hours,
        ms_per_frame=1000 * per_frame,
        core_hours=core_hours,
        cores=workers,
        wall_hours=max(core_hours / workers, longest),
        cost=None if price is None else core_hours * price,
    )
    log(
        f"to do: {len(todo):,} videos, {size / 1e6:,.0f} MB, about {frames:,} frames ({duration(3600 * hours)} of footage)\n"
        f"about {core_hours:,.1f} core-hours at {1000 * per_frame:.1f} ms a frame, measured here: "
        f"{duration(3600 * estimated.wall_hours)} on {workers} cores"
        + ("" if price is None else f", {estimated.cost:,.2f} in all")
    )
    return estimated


def _probed(row: dict[str, Any]) -> video.VideoInfo | None:
    try:
        with files.opened(row["video"]) as file:  # out of a store, a few hundred kilobytes of each
            return video.probe(row["video"], file)
    except (UserError, OSError):
        return None  # the run will record why


def _seconds_per_frame(where: str, estimator: Estimator, stride: int) -> float:
    """Of decoding one video and looking at every stride-th frame of it, on this thread."""
    with files.fetched(where) as path, estimator.open() as watching:
        started, count = time.perf_counter(), 0
        for frame in itertools.islice(video.frames(path, stride), TIMED_FRAMES):
            watching.estimate(frame)
            count += 1
    return (time.perf_counter() - started) / max(count, 1)
