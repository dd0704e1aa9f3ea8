"""Smooth transitions, and tracks of rotations."""

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 at `low`, 1 at `high` (which may be the lower one), flat at both ends and beyond."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smoothed_tube(grid: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """(R, C) smoothed by standard deviations along its rows, which end, and along its columns, which run around."""
    mode = ("nearest", "wrap")
    return gaussian_filter(grid, (rows, columns), mode=mode)  # pyright: ignore[reportArgumentType] (stubs lack it)


def as_quaternions(rotations: np.ndarray) -> np.ndarray:
    """(T, ..., 3, 3) -> (T, ..., 4) x, y, z, w. q and −q are the same rotation: each keeps to the side of the one before."""
    quaternions = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(*rotations.shape[:-2], 4)
    flips = (quaternions[1:] * quaternions[:-1]).sum(-1) < 0
    quaternions[1:] *= np.where(np.cumsum(flips, axis=0) % 2 == 1, -1.0, 1.0)[..., None]
    return quaternions


def as_rotations(quaternions: np.ndarray) -> np.ndarray:
    """(..., 4) x, y, z, w of any length but 0 -> (..., 3, 3)."""
    return Rotation.from_quat(quaternions.reshape(-1, 4)).as_matrix().reshape(*quaternions.shape[:-1], 3, 3)


def rotation_spline(times: np.ndarray, rotations: np.ndarray) -> CubicSpline:
    """A spline through the quaternions of (T, ..., 3, 3) rotations; what it gives is for `as_rotations`."""
    return CubicSpline(times, as_quaternions(rotations))
