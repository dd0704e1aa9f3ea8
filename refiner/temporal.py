"""Time within clips: Gaussian smoothing, bones of constant length. Numpy; all clips of a table at once."""

import reprlib

import numpy as np

from refiner.errors import UserError
from refiner.skeleton import BONES, root_centred

# Frames a second that a clip may have: beyond, smoothing would look at thousands of neighbours of each.
MOST_FPS = 1000.0
# A frame in a quarter of an hour: whoever says less has not measured in frames a second.
LEAST_FPS = 1e-3
# Seconds that floating-point times may be off by. Whatever hangs on a comparison of times keeps this distance from it, so
# that a part of a clip, whose clock starts elsewhere, is treated as it is within the whole.
CLOCK_S = 1e-6
# Rounds over all bones until each has its length to 0.1 %: the trunk is a closed ring, limbs hang on it.
ROUNDS = 6


def clip_ids(starts: np.ndarray, rows: int) -> np.ndarray:
    """Indices at which clips start (as `Pairs.clip_starts` gives them) -> (rows,) the number of each row's clip."""
    ids = np.zeros(rows, dtype=np.int64)
    ids[starts[1:]] = 1
    return ids.cumsum()


def smooth(values: np.ndarray, seconds: np.ndarray, clips: np.ndarray, sigma_s: float) -> np.ndarray:
    """Gaussian smoothing over time within each clip; true to the time stamps, so gaps are no trouble.

    At a clip's ends the kernel is what fits in and is normalised.

    Args:
        values: (N, …).
        seconds: (N,).
        clips: (N,) non-decreasing numbers of the clips.
        sigma_s: seconds; 0 changes nothing.

    Returns:
        (N, …) of the same type.
    """
    rows = len(values)
    if sigma_s <= 0 or rows < 2:
        return values
    shape = (rows,) + (1,) * (values.ndim - 1)
    total = values.astype(np.float64)
    weights = np.ones(rows)
    for step in range(1, rows):
        near = (clips[step:] == clips[:-step]) & (seconds[step:] - seconds[:-step] < 3 * sigma_s - CLOCK_S)
        if not near.any():
            break
        weight = np.exp(-0.5 * ((seconds[step:] - seconds[:-step]) / sigma_s) ** 2) * near
        total[step:] += weight.reshape(-1, *shape[1:]) * values[:-step]
        total[:-step] += weight.reshape(-1, *shape[1:]) * values[step:]
        weights[step:] += weight
        weights[:-step] += weight
    return (total / weights.reshape(shape)).astype(values.dtype)


def bone_lengths(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) m -> (B,) m: the median of each bone's lengths, in the order of `skeleton.BONES`."""
    ends = poses[:, BONES].astype(np.float64)  # (N, B, 2, 3)
    return np.median(np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1), axis=0)


def clip_bone_lengths(poses: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """The same of several clips: (N, 17, 3) m and (N,) non-decreasing numbers of the clips -> (N, B) m."""
    starts = np.flatnonzero(np.diff(clips, prepend=clips[:1] - 1))
    medians = np.stack([bone_lengths(part) for part in np.split(poses, starts[1:])])
    return np.repeat(medians, np.diff(starts, append=len(clips)), axis=0)


def with_bone_lengths(poses: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Root-centred poses, (N, 17, 3) m, with bones of these lengths, (B,) or (N, B) m; root-centred again."""
    return root_centred(keep_bone_lengths(poses, lengths))


def keep_bone_lengths(poses: np.ndarray, lengths: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Gives each bone its length, with the least displacement of its joints.

    Each bone in turn pulls both its ends along its direction by half of what it lacks (position-based dynamics, Müller et
    al. 2007), over and over, for what one corrects its neighbours disturb.

    Args:
        poses: (N, 17, 3) m.
        lengths: (B,) m, or (N, B) for each pose its own.
        rounds: over all bones; more leave less of what is lacking.

    Returns:
        (N, 17, 3) of the same type.
    """
    moved = poses.astype(np.float64)
    wanted = np.broadcast_to(lengths, (len(poses), len(BONES)))
    for _ in range(rounds):
        for bone, (a, b) in enumerate(BONES):
            along = moved[:, a] - moved[:, b]
            length = np.linalg.norm(along, axis=-1)
            pull = along * ((length - wanted[:, bone]) / np.maximum(length, 1e-6) / 2)[:, None]
            moved[:, a] -= pull
            moved[:, b] += pull
    return moved.astype(poses.dtype)


def check_fps(fps: object) -> float:
    """What a caller gave as frames a second, as a number.

    Raises:
        UserError: it is none, or a clip cannot have that frame rate.
    """
    if isinstance(fps, bool) or not isinstance(fps, int | float | np.integer | np.floating):
        raise UserError(f"fps is {reprlib.repr(fps)}: it must be a number of frames a second")
    try:
        rate = float(fps)
    except OverflowError:  # an integer of more than 308 digits
        rate = np.inf
    if not LEAST_FPS <= rate <= MOST_FPS:
        raise UserError(f"fps is {rate:g}: it must be from {LEAST_FPS:g} to {MOST_FPS:g} frames a second")
    return rate
