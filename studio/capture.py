"""A motion as it was captured, in its source's own skeleton, units and axes: what readers of motion files give."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from refiner.data.aistpp import FPS
from studio.curves import as_rotations, rotation_spline


@dataclass(frozen=True)
class Capture:
    """A motion as it was captured: a tree of J joints over T moments, in the source's own units and axes."""

    names: tuple[str, ...]
    parents: tuple[int, ...]  # −1: the root; parents come before their children
    times: np.ndarray  # (T,) seconds, rising
    rotations: np.ndarray  # (T, J, 3, 3) relative to the parent
    positions: np.ndarray  # (T, J, 3) relative to the parent, in the parent's frame
    notes: tuple[str, ...] = ()  # what its reader had to put right, a sentence each

    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, J, 3, 3) rotations and (T, J, 3) positions of the joints in the world."""
        turned, placed = np.empty_like(self.rotations), np.empty_like(self.positions)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                turned[:, joint], placed[:, joint] = self.rotations[:, joint], self.positions[:, joint]
            else:
                turned[:, joint] = turned[:, parent] @ self.rotations[:, joint]
                placed[:, joint] = placed[:, parent] + np.einsum(
                    "tij,tj->ti", turned[:, parent], self.positions[:, joint]
                )
        return turned, placed

    def resampled(self) -> "Capture":
        """The same at 60 Hz. Rotations move along splines through their quaternions, so bones keep their lengths."""
        if len(self.times) < 2:
            return self
        times = self.times[0] + np.arange(int((self.times[-1] - self.times[0]) * FPS + 1e-6) + 1) / FPS
        return Capture(
            self.names,
            self.parents,
            times,
            as_rotations(rotation_spline(self.times, self.rotations)(times)),
            CubicSpline(self.times, self.positions)(times),
        )
