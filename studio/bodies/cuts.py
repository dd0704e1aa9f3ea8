"""Where clothes end on a MakeHuman figure."""

from dataclasses import dataclass

import numpy as np

from studio import rig
from studio.bodies.looks import Look


@dataclass(frozen=True)
class Cut:
    """Where clothes end, as fields over the bind pose (metres, positive where there is cloth)."""

    placed: np.ndarray  # (24, 3) joints in the bind pose
    look: Look
    hem: float  # height at which the top ends
    waist: float  # height at which trousers or skirt begin
    collar: float  # how far below the neck's joint the top ends

    def along(self, points: np.ndarray, weights: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """((P,), (P,)) metres along a limb from its joint `first` (shoulder or hip), and whether a point is on it."""
        a, b, c = self.placed[first], self.placed[_NEXT[first]], self.placed[_NEXT[_NEXT[first]]]
        upper, lower = b - a, c - b
        length = np.linalg.norm(upper)
        u, v = upper / length, lower / np.linalg.norm(lower)
        s, t = (points - a) @ u, (points - b) @ v
        end = _NEXT[_NEXT[first]]
        bones = [first, _NEXT[first], end] + ([end + 3] if end >= rig.L_ANKLE and end < rig.L_FOOT else [])
        return np.where((t > 0) & (s > 0.7 * length), length + t, s), weights[:, bones].sum(1) > 0.35

    def top(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) of the top."""
        field = np.minimum(points[:, 1] - self.hem, self.neckline(points))
        for first in (rig.L_SHOULDER, rig.L_SHOULDER + 1):
            s, on = self.along(points, weights, first)
            field = np.where(on, np.minimum(field, self.length(first, self.look.sleeves) - s), field)
        return field

    def neckline(self, points: np.ndarray) -> np.ndarray:
        """(P,) below the plane in which the neck comes out of the top: higher behind than in front."""
        return -(points - self.placed[rig.NECK] + (0, self.collar, 0)) @ np.array([0.0, 0.84, 0.54])

    def bottom(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) of the trousers."""
        field = self.waist - points[:, 1]
        for first in (rig.L_HIP, rig.L_HIP + 1):
            s, on = self.along(points, weights, first)
            field = np.where(on, np.minimum(field, self.length(first, self.look.trousers) - s), field)
        arms = (
            weights[
                :, [rig.L_SHOULDER, rig.L_SHOULDER + 1, rig.L_ELBOW, rig.L_ELBOW + 1, rig.L_WRIST, rig.L_WRIST + 1]
            ].sum(1)
            > 0.3
        )
        return np.where(arms, -1.0, field)

    def shoes(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) of the shoes: up to the ankles, higher behind."""
        field = np.full(len(points), -1.0)
        for side in (0, 1):
            on = weights[:, [rig.L_ANKLE + side, rig.L_FOOT + side, rig.L_KNEE + side]].sum(1) > 0.5
            ankle = self.placed[rig.L_ANKLE + side]
            low = (ankle - points) @ np.array([0.0, 0.96, 0.28]) + 0.018
            field = np.where(on & (points[:, 0] * (1, -1)[side] > 0), low, field)
        return field

    def length(self, first: int, share: float) -> float:
        """Metres from a limb's first joint to a share of it: 1 is the middle joint, 2 the last."""
        a, b, c = self.placed[first], self.placed[_NEXT[first]], self.placed[_NEXT[_NEXT[first]]]
        return float(np.linalg.norm(b - a) * min(share, 1) + np.linalg.norm(c - b) * max(share - 1, 0))


_NEXT = {bone: bone + step for start, step in ((rig.L_SHOULDER, 2), (rig.L_ELBOW, 2), (rig.L_HIP, 3), (rig.L_KNEE, 3))
         for bone in (start, start + 1)}  # fmt: skip
