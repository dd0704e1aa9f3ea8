"""Dense tracks of a body's joints, which give any moment in between."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from studio.curves import as_rotations, rotation_spline


@dataclass(frozen=True)
class Motion:
    """Tracks of one dancer's joints; `at` gives any moment in between, so that annotations and videos may differ in rate."""

    times: np.ndarray  # (T,) seconds, rising evenly
    rotations: np.ndarray  # (T, 24, 3, 3) each relative to its parent, the pelvis' to the world
    root: np.ndarray  # (T, 3) the pelvis, world, metres

    @cached_property
    def _splines(self) -> tuple[CubicSpline, CubicSpline]:
        return rotation_spline(self.times, self.rotations), CubicSpline(self.times, self.root)

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n, 24, 3, 3), (n, 3)) rotations and root at these times, seconds."""
        quaternions, root = self._splines
        return as_rotations(quaternions(times)), root(times)


def calm(track: np.ndarray, frames: float) -> np.ndarray:
    """(T, ...) -> the same without what is quicker than a standard deviation of so many frames; its ends hold."""
    return gaussian_filter1d(track, frames, axis=0, mode="nearest")
