"""Choreographies: what a dancer's joints do, as dense tracks, out of a seed and within human limits.

Feet come first: a plan of steps, turns, kicks and hops says where each foot stands and when; the pelvis follows the
feet, the legs are solved for (two bones, a hinge), so no foot slides or sinks. The upper body moves between key poses
on the beat. A choreography is a seed: several dancers perform it, each in a way of their own, as in AIST++.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from refiner.geometry import rotation_matrix
from studio.body import Dancer
from studio.rig import (
    HEAD,
    L_ANKLE,
    L_COLLAR,
    L_ELBOW,
    L_FOOT,
    L_HIP,
    L_KNEE,
    L_SHOULDER,
    L_WRIST,
    NECK,
    NUM_BONES,
    PELVIS,
    SPINE1,
    SPINE2,
    SPINE3,
)

RATE = 120  # of the dense tracks, per second: twice the annotations'
_LEAD = 1.5  # seconds planned before and after the clip, so that it starts and ends in the middle of something


@dataclass(frozen=True)
class Motion:
    """Tracks of one dancer's joints; `at` gives any moment in between, so that annotations and videos may differ in rate."""

    times: np.ndarray  # (T,) seconds, rising evenly
    rotations: np.ndarray  # (T, 24, 3, 3) each relative to its parent, the pelvis' to the world
    root: np.ndarray  # (T, 3) the pelvis, world, metres

    @cached_property
    def _splines(self) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        from scipy.interpolate import CubicSpline
        from scipy.spatial.transform import Rotation

        quaternions = Rotation.from_matrix(self.rotations.reshape(-1, 3, 3)).as_quat().reshape(-1, NUM_BONES, 4)
        # q and −q are the same rotation: keep to one side of the sphere
        flips = (quaternions[1:] * quaternions[:-1]).sum(-1) < 0
        signs = np.where(np.cumsum(flips, axis=0) % 2 == 1, -1.0, 1.0)
        quaternions[1:] *= signs[..., None]
        return CubicSpline(self.times, quaternions), CubicSpline(self.times, self.root)

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n, 24, 3, 3), (n, 3)) rotations and root at these times, seconds."""
        from scipy.spatial.transform import Rotation

        quaternions, root = self._splines
        q = quaternions(times)
        return Rotation.from_quat(q.reshape(-1, 4)).as_matrix().reshape(*q.shape[:2], 3, 3), root(times)


# --- arms -------------------------------------------------------------------------------------------------------------

# Left arm: directions of the upper arm and of the forearm; x to the dancer's left, y up, z forwards.
_ARMS = np.array(
    [
        [(0.18, -1, 0.05), (0.08, -1, 0.25)],  # hanging
        [(0.30, -1, 0.10), (0.10, -0.30, 1)],  # loosely bent
        [(0.75, -0.65, -0.25), (-0.62, -0.62, 0.35)],  # hand on the hip
        [(1, 0, 0.10), (1, 0.05, 0.20)],  # to the side
        [(0.35, 1, 0.10), (0.10, 1, 0.10)],  # up
        [(0.80, 0.70, 0.10), (0.70, 0.80, 0.15)],  # V
        [(0.15, -0.10, 1), (0, 0, 1)],  # to the front
        [(0.25, -0.45, 0.85), (-0.95, 0.20, 0.35)],  # crossing the chest
        [(0.55, -0.75, 0.35), (-0.70, 0.40, 0.60)],  # hand on the chest
        [(0.35, -0.90, 0.35), (-0.10, 0.85, 0.50)],  # guard
        [(1, 0.05, 0.05), (0.10, 1, 0.10)],  # bent up
        [(1, 0.05, 0.05), (0.15, -1, 0.30)],  # bent down
        [(0.80, 0.55, 0.25), (-0.60, 0.60, -0.25)],  # behind the head
        [(0.45, 0.80, 0.40), (-0.80, 0.55, 0.25)],  # over the head
        [(0.70, -0.70, 0.05), (0.80, -0.55, 0.20)],  # low to the side
        [(0.40, -0.85, -0.45), (0.30, -0.95, -0.05)],  # backwards
        [(0.80, 0.20, 0.25), (0.30, 0.95, 0.25)],  # waving
        [(0.30, -0.30, 0.90), (-0.25, 0.80, 0.50)],  # before the face
        [(0.60, 0.60, 0.60), (0.60, 0.60, 0.55)],  # pointing up
        [(0.10, -0.75, 0.60), (-0.55, -0.65, 0.55)],  # crossing low
        [(0.50, -0.20, 0.85), (0.30, 0.10, 0.95)],  # offering
        [(0.85, -0.35, 0.40), (-0.30, 0.10, 0.95)],  # rowing
    ]
)


def unit(v: np.ndarray) -> np.ndarray:
    """(..., 3) -> the same direction, length 1."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def arm_rotations(
    upper: np.ndarray, fore: np.ndarray, sign: int, hint: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """An arm's rotations out of where its two bones point.

    Args:
        upper: (..., 3) direction of the upper arm, in the frame of the bone that the shoulder hangs from.
        fore: (..., 3) direction of the forearm, same frame.
        sign: +1 left, −1 right.
        hint: (..., 3) the elbow's axis where the arm is straight and shows none.

    Returns:
        (..., 3, 3) of the shoulder in that frame, (..., 3, 3) of the elbow in the upper arm's.
    """
    upper, fore = unit(upper), unit(fore)
    if hint is None:
        # a straight arm's elbow bends up and forwards
        hint = np.cross(upper, np.broadcast_to(unit(np.array([0.0, 0.45, 1.0])), upper.shape))
    # the axis fades over to the hint as the arm straightens
    axis = np.cross(upper, fore) + 0.06 * unit(hint)
    axis = unit(axis - (axis * upper).sum(-1, keepdims=True) * upper)
    x = sign * upper
    y = -sign * axis
    shoulder = np.stack([x, y, np.cross(x, y)], axis=-1)
    bend = np.minimum(np.arctan2((np.cross(upper, fore) * axis).sum(-1), (upper * fore).sum(-1)), np.radians(150))
    elbow = rotation_matrix(np.stack([np.zeros_like(bend), -sign * bend, np.zeros_like(bend)], -1))
    return shoulder, elbow


# --- legs -------------------------------------------------------------------------------------------------------------


def leg_rotations(
    hip: np.ndarray, ankle: np.ndarray, pole: np.ndarray, thigh: np.ndarray, shank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solves a leg: where hip and ankle are, and which way the knee points.

    Args:
        hip: (..., 3) world.
        ankle: (..., 3) world; if out of reach the leg is stretched towards it.
        pole: (..., 3) direction in which the knee bends, world.
        thigh: (3,) hip to knee in the zero pose.
        shank: (3,) knee to ankle in the zero pose.

    Returns:
        (..., 3, 3), (..., 3, 3) rotations of thigh and shank in the world.
    """
    a, b = np.linalg.norm(thigh), np.linalg.norm(shank)
    reach = ankle - hip
    d = np.clip(np.linalg.norm(reach, axis=-1, keepdims=True), abs(a - b) + 0.05, (a + b) * 0.9995)
    along = unit(reach)
    across = unit(pole - (pole * along).sum(-1, keepdims=True) * along)
    cosine = np.clip((a * a + d * d - b * b) / (2 * a * d), -1, 1)
    knee = hip + a * (cosine * along + np.sqrt(1 - cosine**2) * across)
    hinge = unit(np.cross(across, along))

    def turn(rest: np.ndarray, to: np.ndarray) -> np.ndarray:
        def frame(direction: np.ndarray, axis: np.ndarray) -> np.ndarray:
            direction = unit(direction)
            axis = unit(axis - (axis * direction).sum(-1, keepdims=True) * direction)
            return np.stack([direction, axis, np.cross(direction, axis)], axis=-1)

        return frame(to, hinge) @ frame(rest, np.array([1.0, 0, 0])).T

    return turn(thigh, knee - hip), turn(shank, (hip + d * along) - knee)


# --- a choreography ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Manner:
    """How a genre moves."""

    bpm: tuple[float, float]
    bounce: float  # metres that the pelvis drops on each beat
    crouch: float  # how deep and how often
    energy: float  # of the arms
    turns: float
    kicks: float


_MANNERS = {
    "gBR": _Manner((80, 120), 0.05, 0.9, 1.0, 0.20, 0.25),
    "gPO": _Manner((85, 110), 0.02, 0.4, 1.0, 0.12, 0.05),
    "gLO": _Manner((95, 125), 0.04, 0.6, 1.1, 0.15, 0.20),
    "gMH": _Manner((80, 110), 0.06, 0.7, 0.9, 0.12, 0.10),
    "gLH": _Manner((75, 105), 0.05, 0.7, 1.0, 0.15, 0.10),
    "gHO": _Manner((110, 135), 0.05, 0.4, 0.7, 0.20, 0.15),
    "gWA": _Manner((100, 125), 0.02, 0.2, 1.3, 0.25, 0.08),
    "gKR": _Manner((75, 100), 0.06, 0.8, 1.3, 0.10, 0.15),
    "gJS": _Manner((80, 115), 0.02, 0.5, 1.1, 0.25, 0.20),
    "gJB": _Manner((70, 100), 0.01, 0.4, 1.0, 0.30, 0.25),
}


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(track, seconds * RATE, axis=0, mode="nearest")


def _ease(t: np.ndarray) -> np.ndarray:
    """0 … 1 with minimum jerk (Flash and Hogan 1985): how a hand or a foot travels."""
    t = np.clip(t, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)


def dance(genre: str, choreography: int, dancer: Dancer, performer: int, seconds: float, floor: float) -> Motion:
    """A dancer performs a choreography.

    Args:
        genre: AIST++'s code: it sets tempo, bounce and how often which moves come.
        choreography: its seed: steps and key poses.
        dancer: whose legs must reach the floor.
        performer: seed of what this dancer makes of it: timing, amplitudes, where to face.
        seconds: length of the clip.
        floor: height of the floor in the world, metres.
    """
    # what is drawn from `plan` is common to all who dance this, what is drawn from `way` is this dancer's own
    plan, way = np.random.default_rng([choreography, 0xC402]), np.random.default_rng([performer, 0xDA2C])
    manner = _MANNERS[genre]
    beat, slowest, quickest = 60 / plan.uniform(*manner.bpm), 1.06, 0.94
    # enough beats for the quickest dancer, so that all draw the same
    count = int(np.ceil((seconds + 2 * _LEAD) / (beat * quickest))) + 3
    phase = plan.uniform(0, 1)
    beat *= way.uniform(quickest, slowest)
    times = np.arange(-round(_LEAD * RATE), round((seconds + _LEAD) * RATE) + 1) / RATE
    beats = -_LEAD + (np.arange(count) - phase + way.uniform(-0.1, 0.1)) * beat
    feet, yaw_track, swing = _footwork(manner, plan, way, dancer, times, beats, beat, floor)
    tracks = _upper_body(manner, plan, way, times, beats, beat)
    return _assemble(dancer, times, feet, yaw_track, swing, tracks)


def _footwork(
    manner: _Manner,
    plan: np.random.Generator,
    way: np.random.Generator,
    dancer: Dancer,
    times: np.ndarray,
    beats: np.ndarray,
    beat: float,
    floor: float,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Where the feet are: ((2, T, 3) ankles, (2, T) yaws, (2, T) pitches), heading (T,), and which foot is in the air."""
    scale = dancer.build.height / 1.75
    wide = plan.uniform(0.22, 0.42) * scale
    heading, centre = way.normal(0, 0.45), way.normal(0, 0.12, 2)
    ankle_y = floor + dancer.build.sole

    def stand(side: int, heading: float, centre: np.ndarray, out: float) -> np.ndarray:
        sign = 1 if side == 0 else -1
        across = np.array([np.cos(heading), -np.sin(heading)])  # x and z of the dancer's left
        ahead = np.array([np.sin(heading), np.cos(heading)])
        where = centre + sign * (wide / 2) * across + plan.normal(0, 0.05) * ahead * scale
        return np.array([*where, heading + sign * out])

    out = plan.uniform(0.08, 0.45)
    stance = [stand(0, heading, centre, out), stand(1, heading, centre, out)]
    ankles = np.empty((2, len(times), 3))
    yaws = np.empty((2, len(times)))
    pitch, lifted = np.zeros((2, len(times))), np.zeros((2, len(times)))
    hop = np.zeros(len(times))
    for side in (0, 1):
        ankles[side] = stance[side][0], ankle_y, stance[side][1]
        yaws[side] = stance[side][2]
    side, turning = int(plan.integers(2)), 0
    spin = 0.0
    for start in beats:
        draw = plan.random(8)
        gauss = plan.normal(size=3)
        duration = beat * (0.55 + 0.4 * draw[0])
        t = (times - start) / duration
        now = _ease(t)
        if turning == 0 and draw[1] < manner.turns:
            turning, spin = 4, (1 if draw[2] < 0.5 else -1) * np.pi / 2
        kick = turning == 0 and draw[1] > 1 - manner.kicks
        if turning == 0 and 0.45 < draw[3] < 0.53:  # a hop on the spot
            arc = np.clip(t, 0, 1)
            hop += (0.06 + 0.12 * draw[2]) * scale * (4 * arc * (1 - arc)) ** 1.5
            continue
        if turning == 0 and not kick and draw[3] < 0.25:
            continue  # both feet stay
        if turning:
            heading += spin
            turning -= 1
        else:
            heading += 0.25 * gauss[0]
        centre = 0.85 * (centre + 0.22 * scale * gauss[1:3])
        goal = stand(side, heading, centre, out)
        if turning == 0:
            # a leg does not cross far behind the other
            other = stance[1 - side]
            away = (goal[:2] - other[:2]) @ np.array([np.cos(heading), -np.sin(heading)]) * (1 if side == 0 else -1)
            if away < 0.08:
                goal[:2] += (0.12 - away) * np.array([np.cos(heading), -np.sin(heading)]) * (1 if side == 0 else -1)
        step = goal[:2] - stance[1 - side][:2]
        far = np.linalg.norm(step)
        if far > 0.62 * scale:
            goal[:2] = stance[1 - side][:2] + step * 0.62 * scale / far
        moved = goal - stance[side]
        ankles[side, :, 0] += moved[0] * now
        ankles[side, :, 2] += moved[1] * now
        yaws[side] += moved[2] * now
        arc = np.clip(t, 0, 1)
        bump = (4 * arc * (1 - arc)) ** 1.5
        rise = (0.05 + 0.12 * draw[4] * manner.energy) * scale
        if kick:
            rise = (0.25 + 0.45 * draw[4]) * scale
            ahead = np.array([np.sin(heading + 0.4 * (draw[5] - 0.5)), np.cos(heading + 0.4 * (draw[5] - 0.5))])
            reach = (0.30 + 0.25 * draw[6]) * scale
            ankles[side, :, 0] += reach * ahead[0] * bump
            ankles[side, :, 2] += reach * ahead[1] * bump
        ankles[side, :, 1] += rise * bump
        lifted[side] += bump
        # a lifted foot points down, by no more than keeps its toes clear of the floor
        pitch[side] += np.arcsin(np.clip(0.55 * rise * bump / (0.22 * scale), 0, 0.65))
        stance[side] = goal
        side = 1 - side
    hop = _smooth(hop, 0.03)
    ankles[:, :, 1] += hop
    pitch += np.arcsin(np.clip(0.5 * hop / (0.22 * scale), 0, 0.5))
    return (ankles, yaws, pitch), _smooth(yaws.mean(0), 0.12), lifted


def _keys(values: np.ndarray, key_times: np.ndarray, times: np.ndarray) -> np.ndarray:
    """A track through key values that never overshoots them (PCHIP), so that limits kept by the keys are kept by it."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(key_times, values, axis=0)(np.clip(times, key_times[0], key_times[-1]))


def _upper_body(
    manner: _Manner,
    plan: np.random.Generator,
    way: np.random.Generator,
    times: np.ndarray,
    beats: np.ndarray,
    beat: float,
) -> dict[str, Any]:
    """Tracks of everything above the feet."""
    n = len(beats)
    amplitude = way.uniform(0.8, 1.15)
    # key poses fall on beats, some early, some late; some are held
    hit = beats + way.normal(0, 0.04 * beat, n)
    held = plan.random(n) < 0.35
    key_times = np.sort(np.concatenate([hit, hit[held] + beat * plan.uniform(0.25, 0.5, n)[held]]))
    source = np.searchsorted(np.sort(hit), key_times + 1e-9) - 1
    source = np.clip(source, 0, n - 1)

    def track(values: np.ndarray, smooth: float = 0.045) -> np.ndarray:
        return _smooth(_keys(values[source], key_times, times), smooth)

    favourites = plan.choice(len(_ARMS), 7, replace=False)  # a choreography comes back to its poses
    both = plan.random(n)
    picks = favourites[plan.integers(7, size=(n, 2))]
    loose = plan.random((n, 2)) < 0.12
    picks[loose] = plan.integers(len(_ARMS), size=(n, 2))[loose]
    picks[both < 0.45, 1] = picks[both < 0.45, 0]  # both arms alike
    arms = []
    for side in (0, 1):
        poses = _ARMS[picks[:, side]] + plan.normal(0, 0.16, (n, 2, 3)) + way.normal(0, 0.08, (n, 2, 3))
        calm = _ARMS[0] * 0.25
        poses = unit(poses * np.clip(amplitude * manner.energy, 0.75, 1.0) + calm * (1 - min(manner.energy, 1)))
        # away from the trunk: a forearm does not pass through the belly
        poses[:, 0, 0] = np.maximum(poses[:, 0, 0], np.where(poses[:, 0, 1] < -0.5, 0.22, -0.15))
        inward = (poses[:, 1, 0] < -0.2) & (poses[:, 0, 2] < 0.5) & (poses[:, 1, 1] < 0.5) & (poses[:, 0, 1] < 0.4)
        poses[:, 1, 2] = np.where(inward, np.maximum(poses[:, 1, 2], 0.45), poses[:, 1, 2])
        poses = unit(poses)
        if side == 1:
            poses = poses * (-1, 1, 1)
        shoulder, elbow = arm_rotations(poses[:, 0], poses[:, 1], 1 if side == 0 else -1)
        wrist = np.stack(
            [plan.normal(0, 0.45, n), plan.normal(0, 0.25, n), plan.normal(0, 0.35, n)], axis=1
        ) + way.normal(0, 0.1, (n, 3))
        arms.append((_slerp_track(shoulder, track), _slerp_track(elbow, track), track(np.clip(wrist, -1, 1))))

    lean = plan.normal(0, 1, (n, 3)) * (0.16, 0.13, 0.22) + (0.05, 0, 0)  # forwards, to the side, twist
    deep = plan.random(n) < 0.14 * (0.5 + manner.crouch)  # now and then a bow
    lean[deep, 0] += plan.uniform(0.4, 0.9, n)[deep]
    tilt = plan.normal(0, 1, (n, 3)) * (0.10, 0.07, 0.16)
    head = plan.normal(0, 1, (n, 3)) * (0.20, 0.40, 0.14)
    low = np.clip(plan.beta(1.1, 4.0, n) * manner.crouch - 0.18, 0, 0.45)
    low[plan.random(n) < 0.04] = 0.5
    phase = (times[:, None] - hit[None]) / beat
    bounce = manner.bounce * amplitude * np.exp(-((phase / 0.17) ** 2)).sum(1)
    shrug = np.abs(plan.normal(0, 0.05, (n, 2)))
    return dict(
        arms=arms,
        lean=track(np.clip(lean * amplitude, (-0.45, -0.45, -0.7), (1.2, 0.45, 0.7)), 0.07),
        tilt=track(tilt, 0.08),
        head=track(np.clip(head, (-0.5, -1.0, -0.4), (0.6, 1.0, 0.4)), 0.06),
        low=track(low, 0.09),
        bounce=_smooth(bounce, 0.04),
        shrug=track(shrug),
        sway=track(plan.normal(0, 0.035, (n, 2)), 0.08),
    )


def _slerp_track(rotations: np.ndarray, track: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Key rotations (n, 3, 3) -> (T, 3, 3) along quaternion tracks."""
    from scipy.spatial.transform import Rotation

    q = Rotation.from_matrix(rotations).as_quat()
    for i in range(1, len(q)):
        if q[i] @ q[i - 1] < 0:
            q[i] = -q[i]
    return Rotation.from_quat(track(q)).as_matrix()


def _yaw(angle: np.ndarray) -> np.ndarray:
    return rotation_matrix(np.stack([np.zeros_like(angle), angle, np.zeros_like(angle)], -1))


def _axes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return rotation_matrix(np.stack(np.broadcast_arrays(x, y, z), -1))


def _assemble(
    dancer: Dancer,
    times: np.ndarray,
    feet: tuple[np.ndarray, np.ndarray, np.ndarray],
    heading: np.ndarray,
    lifted: np.ndarray,
    tracks: dict[str, Any],
) -> Motion:
    """Puts a body on the feet."""
    ankles, yaws, pitch = feet
    offsets, steps = dancer.offsets, len(times)
    scale = dancer.build.height / 1.75
    rotations = np.tile(np.eye(3), (steps, NUM_BONES, 1, 1))

    lean, tilt, head = tracks["lean"], tracks["tilt"], tracks["head"]
    pelvis = _yaw(heading + tilt[:, 2]) @ _axes(
        tilt[:, 0] + 0.35 * np.maximum(lean[:, 0], 0), 0.0 * heading, tilt[:, 1]
    )
    # over the feet, towards the one that stands, backwards as the trunk bows
    ahead = np.stack([np.sin(heading), np.cos(heading)], 1)
    middle = ankles[:, :, [0, 2]].mean(0)
    bear = 0.5 * (ankles[0] - ankles[1])[:, [0, 2]] * (np.clip(lifted[1], 0, 1) - np.clip(lifted[0], 0, 1))[:, None]
    place = _smooth(middle + 0.75 * bear, 0.11) + tracks["sway"] * scale
    place = place - ahead * (0.10 * np.sin(np.clip(lean[:, :1], 0, 1.2)) - 0.015) * scale

    thigh, shank = offsets[L_KNEE], offsets[L_ANKLE]
    length = np.linalg.norm(thigh) + np.linalg.norm(shank)
    hips = [np.einsum("tij,j->ti", pelvis, offsets[L_HIP + side]) for side in (0, 1)]
    # as high as the legs reach, less crouch and bounce
    tops = []
    for side in (0, 1):
        away = np.linalg.norm(place + hips[side][:, [0, 2]] - ankles[side][:, [0, 2]], axis=1)
        tops.append(
            ankles[side][:, 1]
            + np.sqrt(np.maximum((0.988 * length) ** 2 - away**2, 0.15 * length**2))
            - hips[side][:, 1]
        )
    hard = np.minimum(*tops)
    soft = -np.logaddexp(-tops[0] / 0.01, -tops[1] / 0.01) * 0.01
    low = tracks["low"] * length + tracks["bounce"] * scale + 0.004
    height = np.minimum(_smooth(soft, 0.05) - low, hard)
    root = np.stack([place[:, 0], height, place[:, 1]], axis=1)
    rotations[:, PELVIS] = pelvis

    rotations[:, SPINE1] = _axes(0.40 * lean[:, 0], 0.25 * lean[:, 2], 0.35 * lean[:, 1])
    rotations[:, SPINE2] = _axes(0.35 * lean[:, 0], 0.35 * lean[:, 2], 0.35 * lean[:, 1])
    rotations[:, SPINE3] = _axes(0.10 * lean[:, 0], 0.40 * lean[:, 2], 0.20 * lean[:, 1])
    # the head keeps looking ahead while the trunk bows
    nod = head[:, 0] - 0.45 * np.maximum(lean[:, 0], 0)
    rotations[:, NECK] = _axes(0.45 * nod, 0.4 * head[:, 1] - 0.2 * lean[:, 2], 0.45 * head[:, 2])
    rotations[:, HEAD] = _axes(0.55 * nod, 0.6 * head[:, 1], 0.55 * head[:, 2])
    for side, sign in ((0, 1), (1, -1)):
        shoulder, elbow, wrist = tracks["arms"][side]
        rotations[:, L_COLLAR + side], rotations[:, L_SHOULDER + side] = collar_and_shoulder(
            shoulder, sign, tracks["shrug"][:, side]
        )
        rotations[:, L_ELBOW + side] = elbow
        rotations[:, L_WRIST + side] = rotation_matrix(wrist * (1, sign, sign))

        # the knee follows the foot, opening as the body sinks
        open_ = yaws[side] + sign * 0.35 * np.clip(low / length, 0, 0.5)
        pole = np.stack([np.sin(open_), np.full_like(open_, 0.25), np.cos(open_)], axis=1)
        hip = root + hips[side]
        thigh_turn, shank_turn = leg_rotations(hip, ankles[side], pole, offsets[L_KNEE + side], offsets[L_ANKLE + side])
        foot = _yaw(yaws[side]) @ _axes(pitch[side], 0.0 * heading, 0.0 * heading)
        rotations[:, L_HIP + side] = np.swapaxes(pelvis, -1, -2) @ thigh_turn
        rotations[:, L_KNEE + side] = np.swapaxes(thigh_turn, -1, -2) @ shank_turn
        rotations[:, L_ANKLE + side] = np.swapaxes(shank_turn, -1, -2) @ foot
    return Motion(times, rotations, root)


def collar_and_shoulder(
    shoulder: np.ndarray, sign: int, shrug: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Shares an upper arm's rotation between collar bone and shoulder: the collar rises with a raised arm.

    Args:
        shoulder: (T, 3, 3) rotation of the upper arm in the chest's frame.
        sign: +1 left, −1 right.
        shrug: further rise of the collar, radians.

    Returns:
        (T, 3, 3) collar in the chest's frame, (T, 3, 3) shoulder in the collar's.
    """
    direction = sign * shoulder[:, :, 0]
    rise = 0.28 * np.clip(direction[:, 1] + 0.15, 0, 1.1) + shrug
    forward = 0.22 * np.clip(direction[:, 2], -0.5, 1)
    collar = _axes(0.0 * rise, -sign * forward, sign * rise)
    return collar, np.swapaxes(collar, -1, -2) @ shoulder


def soles(dancer: Dancer, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """(..., 6, 3) heel, ball and tip of both soles in the world: what must not be below the floor."""
    sole, s = dancer.build.sole, dancer.build.height / 1.75
    points = []
    for side in (0, 1):
        ball = dancer.offsets[L_FOOT + side]
        for local in ((0, -sole, -0.06 * s), (ball[0], -sole, ball[2]), (ball[0], -sole, ball[2] + 0.08 * s)):
            points.append(
                placed[..., L_ANKLE + side, :] + turned[..., L_ANKLE + side, :, :] @ np.array(local, dtype=np.float64)
            )
    return np.stack(points, axis=-2)
