"""Time within clips: which rows a temporal window sees, and Gaussian smoothing. Numpy; all clips of a table at once."""

from collections.abc import Sequence

import numpy as np


def clip_ids(starts: np.ndarray, rows: int) -> np.ndarray:
    """Indices at which clips start (as `Pairs.clip_starts` gives them) -> (rows,) the number of each row's clip."""
    ids = np.zeros(rows, dtype=np.int64)
    ids[starts[1:]] = 1
    return ids.cumsum()


def tap_rows(seconds: np.ndarray, clips: np.ndarray, taps_s: Sequence[float]) -> np.ndarray:
    """Which row shows the same clip at (nearly) each moment of a temporal window.

    Beyond the ends of a clip the first or last frame stands still; in a gap the frame nearest in time is taken.

    Args:
        seconds: (N,) when each row was filmed, rising within a clip.
        clips: (N,) non-decreasing numbers of the clips.
        taps_s: T offsets in seconds.

    Returns:
        (N, T) int32 row indices.
    """
    rows = np.arange(len(seconds))
    first = np.searchsorted(clips, clips, side="left")
    last = np.searchsorted(clips, clips, side="right") - 1
    taps = np.empty((len(rows), len(taps_s)), dtype=np.int32)
    # One rising clock for all clips, each far from the next, makes the look-up a single binary search.
    spread = 10.0 + np.ptp(seconds) + 2 * np.max(np.abs(taps_s)) if len(rows) else 0.0
    clock = seconds + clips * spread
    for t, offset in enumerate(taps_s):
        if offset == 0:
            taps[:, t] = rows
            continue
        wanted = clock + offset
        after = np.clip(np.searchsorted(clock, wanted), first, last)
        before = np.clip(after - 1, first, last)
        taps[:, t] = np.where(np.abs(clock[before] - wanted) <= np.abs(clock[after] - wanted), before, after)
    return taps


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
        near = (clips[step:] == clips[:-step]) & (seconds[step:] - seconds[:-step] < 3 * sigma_s)
        if not near.any():
            break
        weight = np.exp(-0.5 * ((seconds[step:] - seconds[:-step]) / sigma_s) ** 2) * near
        total[step:] += weight.reshape(-1, *shape[1:]) * values[:-step]
        total[:-step] += weight.reshape(-1, *shape[1:]) * values[step:]
        weights[step:] += weight
        weights[:-step] += weight
    return (total / weights.reshape(shape)).astype(values.dtype)
