"""A motion as it was captured, in its source's own skeleton, units and axes: what readers of motion files give."""

from dataclasses import dataclass

import numpy as np

from refiner.data.aistpp import FPS


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
        from scipy.interpolate import CubicSpline
        from scipy.spatial.transform import Rotation

        if len(self.times) < 2:
            return self
        times = self.times[0] + np.arange(int((self.times[-1] - self.times[0]) * FPS + 1e-6) + 1) / FPS
        joints = len(self.parents)
        quaternions = Rotation.from_matrix(self.rotations.reshape(-1, 3, 3)).as_quat().reshape(-1, joints, 4)
        # q and −q are the same rotation: keep to one side of the sphere
        flips = (quaternions[1:] * quaternions[:-1]).sum(-1) < 0
        quaternions[1:] *= np.where(np.cumsum(flips, axis=0) % 2 == 1, -1.0, 1.0)[..., None]
        turned = Rotation.from_quat(CubicSpline(self.times, quaternions)(times).reshape(-1, 4)).as_matrix()
        return Capture(
            self.names,
            self.parents,
            times,
            turned.reshape(-1, joints, 3, 3),
            CubicSpline(self.times, self.positions)(times),
        )
