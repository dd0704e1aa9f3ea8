"""What arms, trunk and head do: key poses on the beat, and the tracks through them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from studio.curves import as_quaternions, as_rotations
from studio.motion.limbs import arm_rotations, unit
from studio.motion.manners import Beats, Manner
from studio.motion.tracks import calm

Track = Callable[..., np.ndarray]  # (values at the beats (N, ...), seconds of smoothing = 0.045) -> (T, ...)

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


@dataclass(frozen=True)
class Arm:
    """Tracks of one arm. T moments."""

    shoulder: np.ndarray  # (T, 3, 3) the upper arm in the chest's frame
    elbow: np.ndarray  # (T, 3, 3)
    wrist: np.ndarray  # (T, 3) rotation vector of a left hand


@dataclass(frozen=True)
class UpperBody:
    """Tracks of everything above the feet. T moments; angles in radians."""

    arms: list[Arm]  # left, right
    lean: np.ndarray  # (T, 3) of the trunk: forwards, to the side, twist
    tilt: np.ndarray  # (T, 3) of the pelvis
    head: np.ndarray  # (T, 3) nod, turn, to the side
    low: np.ndarray  # (T,) how deep it crouches, as a share of the leg
    bounce: np.ndarray  # (T,) how far it drops on the beat, metres at 1.75 m
    shrug: np.ndarray  # (T, 2)
    sway: np.ndarray  # (T, 2) x and z, metres at 1.75 m


def upper_body(manner: Manner, plan: np.random.Generator, way: np.random.Generator, beats: Beats) -> UpperBody:
    """Tracks of everything above the feet.

    Args:
        manner: the genre's.
        plan: what is common to all who dance this is drawn from it.
        way: what is this dancer's own is drawn from it.
        beats: when.
    """
    n, beat = len(beats.starts), beats.length
    amplitude = way.uniform(0.8, 1.15)
    # key poses fall on beats, some early, some late; some are held
    hit = beats.starts + way.normal(0, 0.04 * beat, n)
    held = plan.random(n) < 0.35
    key_times = np.sort(np.concatenate([hit, hit[held] + beat * plan.uniform(0.25, 0.5, n)[held]]))
    source = np.clip(np.searchsorted(np.sort(hit), key_times + 1e-9) - 1, 0, n - 1)
    moments = np.clip(beats.times, key_times[0], key_times[-1])

    def track(values: np.ndarray, smooth: float = 0.045) -> np.ndarray:
        # PCHIP never overshoots its keys, so that limits kept by the keys are kept by it
        return calm(PchipInterpolator(key_times, values[source], axis=0)(moments), smooth * beats.rate)

    picks = _picks(plan, n)
    arms = [_arm(manner, plan, way, picks[:, side], amplitude, track, right=side == 1) for side in (0, 1)]
    lean = plan.normal(0, 1, (n, 3)) * (0.16, 0.13, 0.22) + (0.05, 0, 0)  # forwards, to the side, twist
    deep = plan.random(n) < 0.14 * (0.5 + manner.crouch)  # now and then a bow
    lean[deep, 0] += plan.uniform(0.4, 0.9, n)[deep]
    tilt = plan.normal(0, 1, (n, 3)) * (0.10, 0.07, 0.16)
    head = plan.normal(0, 1, (n, 3)) * (0.20, 0.40, 0.14)
    low = np.clip(plan.beta(1.1, 4.0, n) * manner.crouch - 0.18, 0, 0.45)
    low[plan.random(n) < 0.04] = 0.5
    phase = (beats.times[:, None] - hit[None]) / beat
    bounce = manner.bounce * amplitude * np.exp(-((phase / 0.17) ** 2)).sum(1)
    shrug = np.abs(plan.normal(0, 0.05, (n, 2)))
    return UpperBody(
        arms=arms,
        lean=track(np.clip(lean * amplitude, (-0.45, -0.45, -0.7), (1.2, 0.45, 0.7)), 0.07),
        tilt=track(tilt, 0.08),
        head=track(np.clip(head, (-0.5, -1.0, -0.4), (0.6, 1.0, 0.4)), 0.06),
        low=track(low, 0.09),
        bounce=calm(bounce, 0.04 * beats.rate),
        shrug=track(shrug),
        sway=track(plan.normal(0, 0.035, (n, 2)), 0.08),
    )


def _picks(plan: np.random.Generator, n: int) -> np.ndarray:
    """(n, 2) which of `_ARMS` the arms are in on each beat."""
    favourites = plan.choice(len(_ARMS), 7, replace=False)  # a choreography comes back to its poses
    both = plan.random(n)
    picks = favourites[plan.integers(7, size=(n, 2))]
    loose = plan.random((n, 2)) < 0.12
    picks[loose] = plan.integers(len(_ARMS), size=(n, 2))[loose]
    picks[both < 0.45, 1] = picks[both < 0.45, 0]  # both arms alike
    return picks


def _arm(
    manner: Manner,
    plan: np.random.Generator,
    way: np.random.Generator,
    picks: np.ndarray,
    amplitude: float,
    track: Track,
    *,
    right: bool,
) -> Arm:
    """An arm through its poses (n,) on the beats."""
    n = len(picks)
    poses = _ARMS[picks] + plan.normal(0, 0.16, (n, 2, 3)) + way.normal(0, 0.08, (n, 2, 3))
    hanging = _ARMS[0] * 0.25
    poses = unit(poses * np.clip(amplitude * manner.energy, 0.75, 1.0) + hanging * (1 - min(manner.energy, 1)))
    # away from the trunk: a forearm does not pass through the belly
    poses[:, 0, 0] = np.maximum(poses[:, 0, 0], np.where(poses[:, 0, 1] < -0.5, 0.22, -0.15))
    inward = (poses[:, 1, 0] < -0.2) & (poses[:, 0, 2] < 0.5) & (poses[:, 1, 1] < 0.5) & (poses[:, 0, 1] < 0.4)
    poses[:, 1, 2] = np.where(inward, np.maximum(poses[:, 1, 2], 0.45), poses[:, 1, 2])
    poses = unit(poses)
    if right:
        poses = poses * (-1, 1, 1)
    shoulder, elbow = arm_rotations(poses[:, 0], poses[:, 1], -1 if right else 1)
    wrist = np.stack([plan.normal(0, deviation, n) for deviation in (0.45, 0.25, 0.35)], axis=1)
    wrist += way.normal(0, 0.1, (n, 3))
    return Arm(
        as_rotations(track(as_quaternions(shoulder))),
        as_rotations(track(as_quaternions(elbow))),
        track(np.clip(wrist, -1, 1)),
    )
