"""Where a dancer's feet stand, step, kick and hop."""

from dataclasses import dataclass

import numpy as np

from studio.bodies.body import Measures
from studio.motion.manners import Beats, Manner
from studio.motion.tracks import calm


def _ease(t: np.ndarray) -> np.ndarray:
    """0 … 1 with minimum jerk (Flash and Hogan 1985): how a hand or a foot travels."""
    t = np.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)


def _bump(t: np.ndarray) -> np.ndarray:
    """0 before and after a step, 1 in its middle."""
    t = np.clip(t, 0, 1)
    return (4 * t * (1 - t)) ** 1.5


@dataclass(frozen=True)
class Feet:
    """Where the feet are, left first. T moments."""

    ankles: np.ndarray  # (2, T, 3) world, metres
    yaws: np.ndarray  # (2, T) radians: 0 points to +z
    pitches: np.ndarray  # (2, T) radians that the toes point down
    lifted: np.ndarray  # (2, T) 0 on the floor … 1 in the middle of a step
    heading: np.ndarray  # (T,) radians: where the body faces


def footwork(
    manner: Manner, plan: np.random.Generator, way: np.random.Generator, build: Measures, beats: Beats, floor: float
) -> Feet:
    """The feet of a choreography.

    Args:
        manner: the genre's.
        plan: what is common to all who dance this is drawn from it.
        way: what is this dancer's own is drawn from it.
        build: the dancer's measures.
        beats: when.
        floor: its height in the world, metres.
    """
    steps = _Steps(manner, plan, way, build, beats, floor)
    for start in beats.starts:
        steps.beat(start)
    return steps.feet()


class _Steps:
    """Feet being planned, one beat after the other."""

    def __init__(
        self,
        manner: Manner,
        plan: np.random.Generator,
        way: np.random.Generator,
        build: Measures,
        beats: Beats,
        floor: float,
    ) -> None:
        self.manner, self.plan, self.beats = manner, plan, beats
        self.scale = build.height / 1.75
        self.wide = plan.uniform(0.22, 0.42) * self.scale  # metres between the feet
        self.heading, self.centre = way.normal(0, 0.45), way.normal(0, 0.12, 2)
        self.out = plan.uniform(0.08, 0.45)  # radians that the toes turn out
        self.stance = [self._stand(side) for side in (0, 1)]  # (3,) x, z and yaw of each foot
        count = len(beats.times)
        self.ankles, self.yaws = np.empty((2, count, 3)), np.empty((2, count))
        self.pitches, self.lifted, self.hop = np.zeros((2, count)), np.zeros((2, count)), np.zeros(count)
        for side in (0, 1):
            self.ankles[side] = self.stance[side][0], floor + build.sole, self.stance[side][1]
            self.yaws[side] = self.stance[side][2]
        self.side = int(plan.integers(2))  # the foot whose turn it is
        self.turning, self.spin = 0, 0.0  # steps left of a turn, and radians in each

    def _ways(self) -> tuple[np.ndarray, np.ndarray]:
        """x and z of the dancer's left and of what is ahead."""
        sine, cosine = np.sin(self.heading), np.cos(self.heading)
        return np.array([cosine, -sine]), np.array([sine, cosine])

    def _stand(self, side: int) -> np.ndarray:
        sign = 1 if side == 0 else -1
        across, ahead = self._ways()
        where = self.centre + sign * (self.wide / 2) * across + self.plan.normal(0, 0.05) * ahead * self.scale
        return np.array([*where, self.heading + sign * self.out])

    def beat(self, start: float) -> None:
        """What happens on a beat: a step, a kick, a step of a turn, a hop, or nothing."""
        draw, gauss = self.plan.random(8), self.plan.normal(size=3)
        t = (self.beats.times - start) / (self.beats.length * (0.55 + 0.4 * draw[0]))
        if self.turning == 0 and draw[1] < self.manner.turns:
            self.turning, self.spin = 4, (1 if draw[2] < 0.5 else -1) * np.pi / 2
        kick = self.turning == 0 and draw[1] > 1 - self.manner.kicks
        if self.turning == 0 and 0.45 < draw[3] < 0.53:  # a hop on the spot
            self.hop += (0.06 + 0.12 * draw[2]) * self.scale * _bump(t)
            return
        if self.turning == 0 and not kick and draw[3] < 0.25:
            return  # both feet stay
        if self.turning:
            self.heading += self.spin
            self.turning -= 1
        else:
            self.heading += 0.25 * gauss[0]
        self.centre = 0.85 * (self.centre + 0.22 * self.scale * gauss[1:3])
        self._step(self._goal(), t, kick, draw)

    def _goal(self) -> np.ndarray:
        """Where the foot whose turn it is goes: x, z and yaw."""
        goal = self._stand(self.side)
        other = self.stance[1 - self.side]
        if self.turning == 0:
            # a leg does not cross far behind the other
            across, sign = self._ways()[0], 1 if self.side == 0 else -1
            away = (goal[:2] - other[:2]) @ across * sign
            if away < 0.08:
                goal[:2] += (0.12 - away) * across * sign
        step = goal[:2] - other[:2]
        far = np.linalg.norm(step)
        if far > 0.62 * self.scale:
            goal[:2] = other[:2] + step * 0.62 * self.scale / far
        return goal

    def _step(self, goal: np.ndarray, t: np.ndarray, kick: bool, draw: np.ndarray) -> None:
        side, scale, now = self.side, self.scale, _ease(t)
        moved = goal - self.stance[side]
        self.ankles[side, :, 0] += moved[0] * now
        self.ankles[side, :, 2] += moved[1] * now
        self.yaws[side] += moved[2] * now
        bump = _bump(t)
        rise = (0.05 + 0.12 * draw[4] * self.manner.energy) * scale
        if kick:
            rise = (0.25 + 0.45 * draw[4]) * scale
            towards = self.heading + 0.4 * (draw[5] - 0.5)
            ahead = np.array([np.sin(towards), np.cos(towards)])
            reach = (0.30 + 0.25 * draw[6]) * scale
            self.ankles[side, :, 0] += reach * ahead[0] * bump
            self.ankles[side, :, 2] += reach * ahead[1] * bump
        self.ankles[side, :, 1] += rise * bump
        self.lifted[side] += bump
        # a lifted foot points down, by no more than keeps its toes clear of the floor
        self.pitches[side] += np.arcsin(np.clip(0.55 * rise * bump / (0.22 * scale), 0, 0.65))
        self.stance[side] = goal
        self.side = 1 - side

    def feet(self) -> Feet:
        """All of it."""
        hop = calm(self.hop, 0.03 * self.beats.rate)
        self.ankles[:, :, 1] += hop
        self.pitches += np.arcsin(np.clip(0.5 * hop / (0.22 * self.scale), 0, 0.5))
        heading = calm(self.yaws.mean(0), 0.12 * self.beats.rate)
        return Feet(self.ankles, self.yaws, self.pitches, self.lifted, heading)
