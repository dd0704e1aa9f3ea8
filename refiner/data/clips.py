"""Where one clip ends and the next one begins: scene cuts, joined recordings, gaps in which nobody was seen, jumps to another
person. Nothing that looks along time – smoothing, bone lengths, temporal windows – may look across. `cuts` has what the
picture shows.
"""

import numpy as np
import pyarrow as pa

from refiner.data import records
from refiner.skeleton import HIPS, root_centred, to_coco

# A gap in time or in detection (seconds, and frames): longer ones split. Kernels and windows here are shorter.
GAP_S, GAP_FRAMES = 0.25, 2.5

# Motion that nobody makes: the mean distance of 17 joints from where they were relative to the hips, metres, for a step of
# dt: JUMP_M + JUMP_MPS · dt. In 74 minutes of captured motion (326 BVH files, walking to martial arts; 267,559 poses)
# one in 100,000 moves by more than 0.134 m in 1/60 s, 0.173 in 1/30, 0.267 in 1/15; two random poses lie 0.30 m apart.
JUMP_M, JUMP_MPS = 0.10, 3.0
# The hips' way through the picture, in sizes of the person, for a step of dt: nobody runs 10 m/s, and the size is about 1.5 m.
LEAP, LEAP_PER_S = 0.25, 6.0


def clip_numbers(
    timestamp_us: np.ndarray,
    detected: np.ndarray,
    world: np.ndarray,
    image: np.ndarray,
    begins: np.ndarray | None = None,
) -> np.ndarray:
    """The number of each frame's clip, from 0.

    Args:
        timestamp_us: (N,) rising.
        detected: (N,) whether somebody was seen.
        world: (N, 33 or 17, 3) metres.
        image: (N, 33 or 17, 2) pixels.
        begins: (N,) whether a scene or a take begins with the frame, as far as the picture and the file show it.

    Returns:
        (N,) int32, rising by one with each clip. Frames in which nobody was seen belong to the clip before them.
    """
    starts = np.zeros(len(timestamp_us), dtype=bool) if begins is None else np.array(begins, dtype=bool)
    rows = np.flatnonzero(detected)
    if len(rows) > 1:
        seconds = np.asarray(timestamp_us)[rows] * 1e-6
        step = float(np.median(np.diff(np.asarray(timestamp_us)))) * 1e-6
        known = np.diff(np.cumsum(starts)[rows], prepend=0) > 0  # across these nothing needs to be found
        broken = motion_cuts(world[rows], seconds) | _leaps(image[rows], seconds) | _gaps(seconds, step)
        starts[rows[broken & ~known]] = True
    if len(starts):
        starts[0] = False
    return np.cumsum(starts, dtype=np.int32)


def of_poses(poses: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(N, 33 or 17, 3) metres, (N,) rising -> (N,) the number of each pose's clip, as far as poses alone show it."""
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    return np.cumsum(motion_cuts(poses, seconds) | _gaps(seconds, step), dtype=np.int64)


def of_observations(data: pa.Table) -> np.ndarray:
    """The `clip` column of observations; of a file from before there was one, what the poses show."""
    numbers = records.column(data, "clip")
    if len(numbers) and numbers.min() < 0:
        names = ("timestamp_us", "detected", "world", "image")
        return clip_numbers(*(records.column(data, name) for name in names))
    return numbers


def motion_cuts(poses: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Where poses jump as no body does: all that there is to go by where there is no picture.

    A single frame that is astray (a limb or a whole body that MediaPipe took for another) is no cut: the pose must stay away.

    Args:
        poses: (N, 33 or 17, 3) metres.
        seconds: (N,) rising.

    Returns:
        (N,) bool: another clip begins with this frame; never the first.
    """
    count = len(poses)
    cuts = np.zeros(count, dtype=bool)
    if count < 2:
        return cuts
    poses = root_centred(to_coco(np.asarray(poses, dtype=np.float32)))

    def apart(gap: int) -> np.ndarray:
        """(N − gap,) whether frames so far apart differ by more than one step of a body allows."""
        distance = np.linalg.norm(poses[gap:] - poses[:-gap], axis=-1).mean(-1)
        steps = np.diff(seconds)
        shortest = np.min([steps[i : count - gap + i] for i in range(gap)], axis=0)
        return distance > JUMP_M + JUMP_MPS * shortest

    cuts[1:] = apart(1)
    if count > 2:
        across = apart(2)  # (i, i + 2)
        cuts[1:-1] &= across  # the frame behind is away from the frame before, too
        cuts[2:] &= across  # and so is this frame from the one before that
    return cuts


def _leaps(image: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(N,) bool: the person is somewhere else in the picture than anybody gets in a frame."""
    leaps = np.zeros(len(image), dtype=bool)
    if len(image) < 2:
        return leaps
    points = to_coco(np.asarray(image, dtype=np.float32))
    middle = points[:, HIPS].mean(1)
    size = np.ptp(points, axis=1).max(-1)  # (N,) pixels
    way = np.linalg.norm(np.diff(middle, axis=0), axis=-1)
    person = np.maximum(np.minimum(size[1:], size[:-1]), 1.0)
    leaps[1:] = way > person * (LEAP + LEAP_PER_S * np.diff(seconds))
    return leaps


def _gaps(seconds: np.ndarray, step: float) -> np.ndarray:
    """(N,) bool: so long after the one before that no window or kernel reaches back."""
    return np.diff(seconds, prepend=seconds[:1]) > max(GAP_S, GAP_FRAMES * step)
