"""Real motion on another body: AIST++'s keypoints drive a dancer of other proportions.

What carries over are directions and contacts: the trunk's and the head's orientation, where each arm's bones point, and,
scaled to the dancer's legs, where hips and ankles are. What is rendered is the dancer, and the truth is the dancer's own
joints: an error of this fit makes another motion, never a wrong annotation. That is also why motions may be varied: danced
in the mirror, faster or slower, facing elsewhere, the legs of one with the arms of another, and by somebody who holds himself
otherwise.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.spatial.transform import Rotation

from refiner.geometry import rotation_matrix
from refiner.skeleton import INDEX
from studio import rig
from studio.bodies.body import Body
from studio.curves import smoothstep
from studio.motion.contacts import IN_CONTACT
from studio.motion.limbs import arm_rotations, collar_and_shoulder, frame, leg_rotations, soles, unit
from studio.motion.sources import Source, window, window_times
from studio.motion.tracks import Motion, calm

# Triangulated joints tremble by 1–3 cm. Standard deviations of the filter, in frames of 1/60 s: of the joints, and of
# directions between joints that lie close together (hips, ears).
_CALM, _CALM_SHORT = 1.6, 4.0
# The dancer's flesh around bones that may touch the floor: radii in metres at 1.75 m.
_FLESH = {rig.HEAD: 0.09, rig.NECK: 0.06, rig.SPINE2: 0.10, rig.PELVIS: 0.10} | {
    bone + side: radius
    for bone, radius in (
        (rig.L_HIP, 0.08), (rig.L_KNEE, 0.05), (rig.L_SHOULDER, 0.06), (rig.L_ELBOW, 0.04), (rig.L_WRIST, 0.03),
        (rig.L_HAND, 0.02),
    )
    for side in (0, 1)
}  # fmt: skip
# How far a foot in the air is pointed, radians, and what else is tried where it would be in the floor.
_POINTED = (0.35, 0.7, 1.05, 1.3, 0.0, -0.35)
_COVER = 2  # frames: standard deviation of the filter of how far a dancer is pulled down or lifted up
# Bones of a dancer that move with the chest where two windows are danced at once.
_UPPER = [rig.SPINE1, rig.SPINE2, rig.SPINE3, rig.NECK, rig.HEAD] + [
    bone + side for bone in (rig.L_COLLAR, rig.L_SHOULDER, rig.L_ELBOW, rig.L_WRIST, rig.L_HAND) for side in (0, 1)
]


def perform(root: str, source: Source, dancer: Body, seconds: float, floor: float) -> Motion:
    """A dancer performs a window of a real sequence.

    Args:
        root: AIST++ folder.
        source: which window.
        dancer: who performs.
        seconds: length of the clip.
        floor: height of the floor in the world, metres.
    """
    times = window_times(seconds)
    motion = retarget(window(root, source, seconds), times, dancer, floor)
    if source.upper is not None:
        above = retarget(window(root, source.upper, seconds), times, dancer, floor)
        motion.rotations[:, _UPPER] = above.rotations[:, _UPPER]
    return _above(motion, dancer, floor)


@dataclass(frozen=True)
class _Captured:
    """A captured motion, calmed: (T, 17, 3) metres."""

    poses: np.ndarray

    def joint(self, name: str) -> np.ndarray:
        return self.poses[:, INDEX[name]]

    def middle(self, name: str) -> np.ndarray:
        return (self.joint(f"left_{name}") + self.joint(f"right_{name}")) / 2

    def across(self, name: str) -> np.ndarray:
        """(T, 3) direction from right to left; between joints that lie close together it is calmed more."""
        return calm(unit(self.joint(f"left_{name}") - self.joint(f"right_{name}")), _CALM_SHORT)

    def leg(self) -> float:
        """Mean length of the legs, metres."""

        def length(a: str, b: str) -> float:
            return float(np.median(np.linalg.norm(self.joint(a) - self.joint(b), axis=-1)))

        return sum(length(f"{s}_hip", f"{s}_knee") + length(f"{s}_knee", f"{s}_ankle") for s in ("left", "right")) / 2


@dataclass(frozen=True)
class _Stand:
    """Where pelvis and feet are, scaled to the dancer's legs. T moments."""

    root: np.ndarray  # (T, 3) metres
    hips: list[np.ndarray]  # left, right: (T, 3) from the root to the joint
    ankles: list[np.ndarray]  # left, right: (T, 3) metres
    reach: float  # metres that a leg may be long


def retarget(poses: np.ndarray, times: np.ndarray, dancer: Body, floor: float) -> Motion:
    """Drives a dancer with triangulated joints.

    Args:
        poses: (T, 17, 3) world (y up), metres, at 60 Hz, without gaps, the floor at zero.
        times: (T,) seconds.
        dancer: who performs.
        floor: height of the floor that the dancer stands on, metres.
    """
    captured = _Captured(calm(poses, _CALM))
    rotations = np.tile(np.eye(3), (len(poses), rig.NUM_BONES, 1, 1))
    chest = _trunk(rotations, captured, dancer)
    stand = _stand(captured, rotations[:, rig.PELVIS], dancer, floor)
    for side, (name, sign) in enumerate((("left", 1), ("right", -1))):
        upper = captured.joint(f"{name}_elbow") - captured.joint(f"{name}_shoulder")
        fore = captured.joint(f"{name}_wrist") - captured.joint(f"{name}_elbow")
        shoulder, elbow = arm_rotations(
            np.einsum("tji,tj->ti", chest, upper), np.einsum("tji,tj->ti", chest, fore), sign
        )
        collar, shoulder = collar_and_shoulder(shoulder, sign)
        rotations[:, rig.L_COLLAR + side], rotations[:, rig.L_SHOULDER + side] = collar, shoulder
        rotations[:, rig.L_ELBOW + side] = elbow
        _leg(rotations, captured, stand, dancer, side, name, floor)
    return Motion(times, rotations, stand.root)


def _trunk(rotations: np.ndarray, captured: _Captured, dancer: Body) -> np.ndarray:
    """Pelvis, spine, neck and head into (T, 24, 3, 3) rotations; (T, 3, 3) the chest in the world."""
    upright, at_rest = rig.forward_kinematics(np.tile(np.eye(3), (rig.NUM_BONES, 1, 1)), np.zeros(3), dancer.offsets)
    rest = _Captured(dancer.joints(upright, at_rest)[None])  # in the zero pose
    left = np.array([1.0, 0, 0])
    # the trunk: hips and shoulders each have a line across, the spine between them is common
    spine = captured.middle("shoulder") - captured.middle("hip")
    rest_spine = (rest.middle("shoulder") - rest.middle("hip"))[0]
    pelvis = frame(captured.across("hip"), spine) @ frame(left, rest_spine).T
    chest = frame(captured.across("shoulder"), spine) @ frame(left, rest_spine).T
    # the head: the line between the ears, and the face
    face, rest_face = captured.middle("eye") - captured.middle("ear"), (rest.middle("eye") - rest.middle("ear"))[0]
    head = frame(captured.across("ear"), calm(unit(face), _CALM_SHORT)) @ frame(left, rest_face).T
    rotations[:, rig.PELVIS] = pelvis
    bend = _share(np.swapaxes(pelvis, -1, -2) @ chest, (0.3, 0.35, 0.35), 1.3)
    for bone, rotation in zip((rig.SPINE1, rig.SPINE2, rig.SPINE3), bend, strict=True):
        rotations[:, bone] = rotation
    chest = pelvis @ bend[0] @ bend[1] @ bend[2]
    nod = _share(np.swapaxes(chest, -1, -2) @ head, (0.45, 0.55), 1.3)
    rotations[:, rig.NECK], rotations[:, rig.HEAD] = nod
    return chest


def _stand(captured: _Captured, pelvis: np.ndarray, dancer: Body, floor: float) -> _Stand:
    """Pelvis and ankles, as far apart as the dancer's legs are long."""
    offsets = dancer.offsets
    leg = np.linalg.norm(offsets[rig.L_KNEE]) + np.linalg.norm(offsets[rig.L_ANKLE])
    scale = float(leg / captured.leg())

    def place(points: np.ndarray) -> np.ndarray:
        return points * scale + (0, floor + dancer.build.sole - IN_CONTACT["ankle"] * scale, 0)

    ankles = [place(captured.joint("left_ankle")), place(captured.joint("right_ankle"))]
    for ankle in ankles:  # no foot goes through the floor
        ankle[:, 1] = np.maximum(ankle[:, 1], floor + dancer.build.sole)
    hips = [np.einsum("tij,j->ti", pelvis, offsets[rig.L_HIP + side]) for side in (0, 1)]
    root = place(captured.middle("hip")) - (hips[0] + hips[1]) / 2
    # legs that would have to be longer than they are pull the body down
    reach, pull = float(0.99 * leg), np.zeros(len(root))
    for hip, ankle in zip(hips, ankles, strict=True):
        gap = root + hip - ankle
        level = np.linalg.norm(gap[:, [0, 2]], axis=1)
        top = np.sqrt(np.maximum(reach**2 - level**2, (0.2 * leg) ** 2))
        pull = np.maximum(pull, gap[:, 1] - top)
    root[:, 1] -= _covered(pull)
    return _Stand(root, hips, ankles, reach)


def _leg(
    rotations: np.ndarray, captured: _Captured, stand: _Stand, dancer: Body, side: int, name: str, floor: float
) -> None:
    """A leg from the hip to where its foot is, into (T, 24, 3, 3) rotations."""
    pelvis = rotations[:, rig.PELVIS]
    ahead = pelvis[:, :, 2]
    hip = stand.root + stand.hips[side]
    # where even a lower body does not do, the foot comes nearer
    gap = stand.ankles[side] - hip
    short = _covered(np.maximum(np.linalg.norm(gap, axis=-1) - stand.reach, 0))
    ankle = stand.ankles[side] - unit(gap) * short[:, None]
    theirs_hip, theirs_knee, theirs_ankle = (captured.joint(f"{name}_{joint}") for joint in ("hip", "knee", "ankle"))
    along = unit(theirs_ankle - theirs_hip)
    out = theirs_knee - theirs_hip
    out = out - (out * along).sum(-1, keepdims=True) * along
    # a straight leg does not say where its knee points: the pelvis does
    pole = calm(out + 0.04 * (ahead - (ahead * along).sum(-1, keepdims=True) * along), _CALM)
    offsets = dancer.offsets
    thigh, shank = leg_rotations(hip, ankle, pole, offsets[rig.L_KNEE + side], offsets[rig.L_ANKLE + side])
    rotations[:, rig.L_HIP + side] = np.swapaxes(pelvis, -1, -2) @ thigh
    rotations[:, rig.L_KNEE + side] = np.swapaxes(thigh, -1, -2) @ shank
    foot = _foot(dancer, side, shank, ankle, floor)
    rotations[:, rig.L_ANKLE + side] = np.swapaxes(shank, -1, -2) @ foot


def _foot(dancer: Body, side: int, shank: np.ndarray, ankle: np.ndarray, floor: float) -> np.ndarray:
    """(T, 3, 3) a foot in the world. Keypoints end at the ankle: near the floor it lies flat, above it hangs from the shank."""
    sign = 1 if side == 0 else -1
    ahead = shank[:, :, 2] + 0.25 * sign * shank[:, :, 0]  # toes point a little outwards
    level = unit(calm(ahead * (1, 0, 1), _CALM_SHORT) + 1e-6)
    zero = np.zeros(len(level))
    flat = frame(np.stack([level[:, 2], zero, -level[:, 0]], axis=1), np.broadcast_to([0.0, 1.0, 0.0], level.shape))
    tip = dancer.offsets[rig.L_FOOT + side] + (0, -dancer.build.sole - dancer.offsets[rig.L_FOOT + side][1], 0.085)
    heel = np.array([0, -dancer.build.sole, -0.07])

    def below(foot: np.ndarray) -> np.ndarray:
        return np.minimum((foot @ tip)[:, 1], (foot @ heel)[:, 1]) + ankle[:, 1] < floor

    # off the floor toes point; a shank that lies (kneeling, rolling) has the foot as pointed or bent as there is room for
    bent = np.full(len(shank), _POINTED[0])
    for angle in _POINTED[1:]:
        stuck = below(shank @ rotation_matrix(bent[:, None] * (1.0, 0, 0)))
        bent = np.where(stuck & (shank[:, 1, 1] < 0.7), angle, bent)
    hanging = shank @ rotation_matrix(calm(bent, _CALM_SHORT)[:, None] * (1.0, 0, 0))
    height = ankle[:, 1] - floor - dancer.build.sole
    # only under a shank that stands is there a flat foot
    standing = np.clip((shank[:, 1, 1] - 0.2) / 0.4, 0, 1)
    free = smoothstep(0.02, 0.16, height)
    free = calm(1 - (1 - free) * standing, _CALM)
    turn = np.swapaxes(flat, -1, -2) @ hanging
    through = np.zeros(len(free), bool)
    for _ in range(12):  # what would reach through the floor is turned back towards flat
        through = below(flat @ _partial(turn, free)) & (standing > 0.5)
        free = np.where(through, free * 0.75, free)
    return flat @ _partial(turn, np.where(through, 0, free))


def _above(motion: Motion, dancer: Body, floor: float) -> Motion:
    """The same motion lifted smoothly wherever anything of the dancer would be in the floor: hands, knees, head, back."""
    turned, placed = rig.forward_kinematics(motion.rotations, motion.root, dancer.offsets)
    size = dancer.build.height / 1.75
    deep = floor - soles(dancer, turned, placed)[..., 1].min(-1)
    for bone, radius in _FLESH.items():
        deep = np.maximum(deep, floor + radius * size - placed[:, bone, 1])
    return Motion(motion.times, motion.rotations, motion.root + _covered(np.maximum(deep, 0))[:, None] * (0, 1.0, 0))


def _partial(rotations: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(T, 3, 3) each by a share of its own, 0 … 1."""
    return rotation_matrix(Rotation.from_matrix(rotations).as_rotvec() * share[:, None])


def _covered(track: np.ndarray) -> np.ndarray:
    """A smooth track that is nowhere below this one: the filter is no wider than the maximum that it smooths."""
    return calm(maximum_filter1d(track, 8 * _COVER + 1, mode="nearest"), _COVER)


def _share(rotations: np.ndarray, parts: tuple[float, ...], limit: float) -> list[np.ndarray]:
    """(T, 3, 3) -> a rotation for each part of a chain, together the whole (about one axis); no further than `limit`."""
    vectors = Rotation.from_matrix(rotations).as_rotvec()
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors * np.minimum(1, limit / np.maximum(angle, 1e-9))
    return [rotation_matrix(vectors * part) for part in parts]
