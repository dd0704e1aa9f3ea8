"""Choreographies: what a dancer's joints do, as dense tracks, out of a seed and within human limits.

Feet come first (`footwork`): a plan of steps, turns, kicks and hops says where each foot stands and when; the pelvis follows
the feet, the legs are solved for (two bones, a hinge), so no foot slides or sinks. The upper body moves between key poses
on the beat (`upper_body`). A choreography is a seed: several dancers perform it, each in a way of their own, as in AIST++.
"""

from dataclasses import dataclass

import numpy as np

from refiner.geometry import rotation_matrix
from studio import rig
from studio.bodies.body import Body
from studio.motion.footwork import Feet, footwork
from studio.motion.limbs import about_axes, about_y, collar_and_shoulder, leg_rotations
from studio.motion.manners import MANNERS, Beats
from studio.motion.tracks import Motion, calm
from studio.motion.upper_body import UpperBody, upper_body

RATE = 120  # of the dense tracks, per second: twice the annotations'
_LEAD = 1.5  # seconds planned before and after the clip, so that it starts and ends in the middle of something


def dance(genre: str, choreography: int, dancer: Body, performer: int, seconds: float, floor: float) -> Motion:
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
    manner = MANNERS[genre]
    beat, slowest, quickest = 60 / plan.uniform(*manner.bpm), 1.06, 0.94
    # enough beats for the quickest dancer, so that all draw the same
    count = int(np.ceil((seconds + 2 * _LEAD) / (beat * quickest))) + 3
    phase = plan.uniform(0, 1)
    beat *= way.uniform(quickest, slowest)
    times = np.arange(-round(_LEAD * RATE), round((seconds + _LEAD) * RATE) + 1) / RATE
    beats = -_LEAD + (np.arange(count) - phase + way.uniform(-0.1, 0.1)) * beat
    time = Beats(times, RATE, beats, beat)
    feet = footwork(manner, plan, way, dancer.build, time, floor)
    return _assemble(dancer, times, feet, upper_body(manner, plan, way, time))


@dataclass(frozen=True)
class _Trunk:
    """Where the pelvis is. T moments."""

    pelvis: np.ndarray  # (T, 3, 3) its rotation, world
    root: np.ndarray  # (T, 3) its place, world, metres
    hips: list[np.ndarray]  # left, right: (T, 3) from the root to the joint, world axes
    low: np.ndarray  # (T,) how far it is below where stretched legs have it, metres
    leg: float  # length of a leg, metres


def _trunk(dancer: Body, feet: Feet, above: UpperBody) -> _Trunk:
    offsets, scale = dancer.offsets, dancer.build.height / 1.75
    heading, lean, tilt, ankles = feet.heading, above.lean, above.tilt, feet.ankles
    pelvis = about_y(heading + tilt[:, 2]) @ about_axes(
        tilt[:, 0] + 0.35 * np.maximum(lean[:, 0], 0), 0.0 * heading, tilt[:, 1]
    )
    # over the feet, towards the one that stands, backwards as the trunk bows
    ahead = np.stack([np.sin(heading), np.cos(heading)], 1)
    middle = ankles[:, :, [0, 2]].mean(0)
    lifted = np.clip(feet.lifted, 0, 1)
    bear = 0.5 * (ankles[0] - ankles[1])[:, [0, 2]] * (lifted[1] - lifted[0])[:, None]
    place = calm(middle + 0.75 * bear, 0.11 * RATE) + above.sway * scale
    place = place - ahead * (0.10 * np.sin(np.clip(lean[:, :1], 0, 1.2)) - 0.015) * scale
    leg = float(np.linalg.norm(offsets[rig.L_KNEE]) + np.linalg.norm(offsets[rig.L_ANKLE]))
    hips = [np.einsum("tij,j->ti", pelvis, offsets[rig.L_HIP + side]) for side in (0, 1)]
    # as high as the legs reach, less crouch and bounce
    tops = []
    for side in (0, 1):
        away = np.linalg.norm(place + hips[side][:, [0, 2]] - ankles[side][:, [0, 2]], axis=1)
        rise = np.sqrt(np.maximum((0.988 * leg) ** 2 - away**2, 0.15 * leg**2))
        tops.append(ankles[side][:, 1] + rise - hips[side][:, 1])
    hard = np.minimum(*tops)
    soft = -np.logaddexp(-tops[0] / 0.01, -tops[1] / 0.01) * 0.01
    low = above.low * leg + above.bounce * scale + 0.004
    height = np.minimum(calm(soft, 0.05 * RATE) - low, hard)
    return _Trunk(pelvis, np.stack([place[:, 0], height, place[:, 1]], axis=1), hips, low, leg)


def _assemble(dancer: Body, times: np.ndarray, feet: Feet, above: UpperBody) -> Motion:
    """Puts a body on the feet."""
    trunk = _trunk(dancer, feet, above)
    rotations = np.tile(np.eye(3), (len(times), rig.NUM_BONES, 1, 1))
    rotations[:, rig.PELVIS] = trunk.pelvis
    lean, head = above.lean, above.head
    rotations[:, rig.SPINE1] = about_axes(0.40 * lean[:, 0], 0.25 * lean[:, 2], 0.35 * lean[:, 1])
    rotations[:, rig.SPINE2] = about_axes(0.35 * lean[:, 0], 0.35 * lean[:, 2], 0.35 * lean[:, 1])
    rotations[:, rig.SPINE3] = about_axes(0.10 * lean[:, 0], 0.40 * lean[:, 2], 0.20 * lean[:, 1])
    # the head keeps looking ahead while the trunk bows
    nod = head[:, 0] - 0.45 * np.maximum(lean[:, 0], 0)
    rotations[:, rig.NECK] = about_axes(0.45 * nod, 0.4 * head[:, 1] - 0.2 * lean[:, 2], 0.45 * head[:, 2])
    rotations[:, rig.HEAD] = about_axes(0.55 * nod, 0.6 * head[:, 1], 0.55 * head[:, 2])
    for side, sign in ((0, 1), (1, -1)):
        arm = above.arms[side]
        rotations[:, rig.L_COLLAR + side], rotations[:, rig.L_SHOULDER + side] = collar_and_shoulder(
            arm.shoulder, sign, above.shrug[:, side]
        )
        rotations[:, rig.L_ELBOW + side] = arm.elbow
        rotations[:, rig.L_WRIST + side] = rotation_matrix(arm.wrist * (1, sign, sign))
        _stand(rotations, dancer, trunk, feet, side, sign)
    return Motion(times, rotations, trunk.root)


def _stand(rotations: np.ndarray, dancer: Body, trunk: _Trunk, feet: Feet, side: int, sign: int) -> None:
    """A leg from the hip to where its foot is, into (T, 24, 3, 3) rotations."""
    thigh, shank = dancer.offsets[rig.L_KNEE + side], dancer.offsets[rig.L_ANKLE + side]
    yaw = feet.yaws[side]
    # the knee follows the foot, opening as the body sinks
    opening = yaw + sign * 0.35 * np.clip(trunk.low / trunk.leg, 0, 0.5)
    pole = np.stack([np.sin(opening), np.full_like(opening, 0.25), np.cos(opening)], axis=1)
    hip = trunk.root + trunk.hips[side]
    thigh_turn, shank_turn = leg_rotations(hip, feet.ankles[side], pole, thigh, shank)
    zero = 0.0 * yaw
    foot = about_y(yaw) @ about_axes(feet.pitches[side], zero, zero)
    rotations[:, rig.L_HIP + side] = np.swapaxes(trunk.pelvis, -1, -2) @ thigh_turn
    rotations[:, rig.L_KNEE + side] = np.swapaxes(thigh_turn, -1, -2) @ shank_turn
    rotations[:, rig.L_ANKLE + side] = np.swapaxes(shank_turn, -1, -2) @ foot
