"""Captured motion of any skeleton (see `bvh`, `deepmimic`) as AIST++'s keypoints.

`rayjobs.motions` converts with this; what comes out drives dancers like any sequence of AIST++ (see `retarget`).
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from refiner.errors import UserError
from refiner.skeleton import INDEX, NUM_JOINTS
from studio.cameras import FLOOR
from studio.capture import Capture
from studio.motion.contacts import ground

# Hips to ankles over knees, as a share of the stature (Winter, Biomechanics and Motor Control of Human Movement).
_LEG = 0.491
_STATURES = (1.3, 2.2)  # metres: people
USUAL_STATURE = 1.70
# Metres to the unit of length: metres, centimetres, inches, millimetres, CMU's (inches / 0.45).
_UNITS = (1.0, 0.01, 0.0254, 0.001, 0.0254 / 0.45)
_UPRIGHT = 0.6  # of the mean direction from ankles to head, along an axis that then is up; of lying people none has it
# Knees that are bent by less say nothing about which way they bend: people overstretch them by up to 10°, and standing
# captures have a mean of about 0 (degrees).
_BENT = 20.0
# A reference pose in front: still (metres a frame), then gone in one frame, over a mean distance of the joints (metres)
# that is many times that of the frames behind it. Real motion moves them 1–2 cm a frame at most.
_STILL, _JUMP, _JUMP_RATIO = 0.001, 0.03, 5.0
_STRETCHED = 0.9  # cosine of the angle between a T-pose's limbs and the axes

# Face points from the joint between head and neck (at the height of the ear lobes), as shares of the stature: to the
# left, up, ahead. Mean adults (Dreyfuss' Measure of Man): ears 15 cm apart, pupils 6.4 cm apart and 9 cm before them.
_FACE = {
    "nose": (0.0, 0.030, 0.064),
    "left_eye": (0.0185, 0.048, 0.047),
    "right_eye": (-0.0185, 0.048, 0.047),
    "left_ear": (0.043, 0.038, -0.003),
    "right_ear": (-0.043, 0.038, -0.003),
}

# The bone that begins at a joint, in the names of the usual rigs, the more telling first: "shoulder" is the collar bone
# where there is an "arm", "leg" is the shank.
_BONES = {
    "hip": ("upleg", "thigh", "upperleg", "upperleg01", "buttock", "hip", "femur"),
    "knee": ("leg", "shin", "lowerleg", "lowerleg01", "lowleg", "calf", "knee", "tibia"),
    "ankle": ("foot", "ankle"),
    "shoulder": ("arm", "upperarm", "upperarm01", "uparm", "shldr", "shoulder", "humerus"),
    "elbow": ("forearm", "lowerarm", "lowerarm01", "lowarm", "elbow", "radius"),
    "wrist": ("hand", "wrist"),
}
_TOES = ("toebase", "toe", "toes", "toe0", "ball")


def keypoints(
    capture: Capture, where: str, up: str = "auto", say: Callable[[str], None] = lambda note: None
) -> np.ndarray:
    """A captured motion as AIST++'s keypoints.

    Units are detected from the legs' length, the upward axis from where the head is over the ankles, the head's axes from
    how it is held over the trunk on average. A reference pose (T-pose) in front of the motion is left out.

    Args:
        capture: the motion.
        where: its name, for errors.
        up: the axis that points up: 'auto', or 'x', 'y', 'z', '-x', '-y', '-z'.
        say: called with what was put right, a sentence each.

    Returns:
        (N, 17, 3) metres at 60 Hz, world with y up, the studio's floor under the feet, the first hips over the origin.

    Raises:
        UserError: joints are missing, or it moves like no human body.
    """
    joints = _roles(capture.names, where)
    placed = capture.world()[1]
    leg = _leg({role: placed[:, joint] for role, joint in joints.items()})
    if not leg > 0:
        raise UserError(f"{where} has legs of no length: it is not a captured motion of a human body")
    stature = leg / _LEG
    scale = next((unit for unit in _UNITS if _STATURES[0] <= stature * unit <= _STATURES[1]), USUAL_STATURE / stature)
    skipped = _reference_frames(placed[:, [joints[role] for role in INDEX if role in joints]] * scale, capture)
    if skipped:
        capture = replace(
            capture,
            times=capture.times[skipped:],
            rotations=capture.rotations[skipped:],
            positions=capture.positions[skipped:],
        )
    for note in (*capture.notes, *([f"its first {skipped} frames are a reference pose: left out"] if skipped else ())):
        say(f"{where}: {note}")
    turned, placed = capture.resampled().world()
    of_joint = {role: placed[:, joint] for role, joint in joints.items()}
    axes = _to_y_up(of_joint, up, where)
    of_joint = {role: points @ axes.T * scale for role, points in of_joint.items()}
    hips, shoulders = _middle(of_joint, "hip"), _middle(of_joint, "shoulder")
    trunk = _axes_of(of_joint["left_shoulder"] - of_joint["right_shoulder"], shoulders - hips)
    toes = {side: placed[:, joint] @ axes.T * scale for side, joint in _toes(capture.names).items()}
    if _faces_backwards(of_joint, toes, trunk[:, :, 2]):
        raise UserError(f"{where} bends its knees backwards: left and right, or its axes, are exchanged in it")
    bone = axes @ turned[:, joints["head"]]
    return grounded(coco(of_joint, bone @ _mean_rotation(np.swapaxes(bone, -1, -2) @ trunk), stature * scale))


def _leg(of_joint: dict[str, np.ndarray]) -> float:
    """The median length of a leg."""

    def distance(a: str, b: str) -> float:
        return float(np.median(np.linalg.norm(of_joint[a] - of_joint[b], axis=-1)))

    return sum(distance(f"{s}_hip", f"{s}_knee") + distance(f"{s}_knee", f"{s}_ankle") for s in ("left", "right")) / 2


def _reference_frames(points: np.ndarray, capture: Capture) -> int:
    """How many frames in front show a reference pose: a T-pose, or the skeleton's rest pose, that is left in one frame.

    MotionBuilder's, MVN's and the CMU conversions put one in front. Who really stands like that moves out of it.

    Args:
        points: (T, 12, 3) metres, COCO's joints from the shoulders down.
        capture: the same motion.
    """
    within = np.searchsorted(capture.times, capture.times[0] + 1.0)  # a second at most
    points = points[: within + 12]
    points = points - points[:, 6:8].mean(1, keepdims=True)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1).mean(-1)
    moving = np.flatnonzero(steps > _STILL)
    if not len(moving) or moving[0] >= within:
        return 0
    jump, after = moving[0], steps[moving[0] + 1 :][:10]
    if steps[jump] < _JUMP or (len(after) and steps[jump] < _JUMP_RATIO * np.median(after)):
        return 0
    return int(jump) + 1 if _is_t_pose(points[0]) or _is_at_rest(capture.rotations[0]) else 0


def _is_t_pose(points: np.ndarray) -> bool:
    """(12, 3): arms stretched out to the sides, legs straight down."""

    def along(a: int, b: int, direction: np.ndarray) -> float:
        bone = points[b] - points[a]
        return float(bone @ direction / max(np.linalg.norm(bone) * np.linalg.norm(direction), 1e-9))

    left, down = points[0] - points[1], points[6:8].mean(0) - points[0:2].mean(0)
    arms = [along(0, 2, left), along(2, 4, left), along(1, 3, -left), along(3, 5, -left)]
    legs = [along(6, 8, down), along(8, 10, down), along(7, 9, down), along(9, 11, down)]
    return min(arms + legs) > _STRETCHED


def _is_at_rest(rotations: np.ndarray) -> bool:
    """(J, 3, 3): no joint but the root is turned against its parent."""
    return len(rotations) > 1 and bool(np.abs(rotations[1:] - np.eye(3)).max() < 1e-3)


def _faces_backwards(of_joint: dict[str, np.ndarray], toes: dict[str, np.ndarray], ahead: np.ndarray) -> bool:
    """Whether the body bends its knees to where its back is; where it hardly bends them, whether its toes point there.

    Args:
        of_joint: role -> (T, 3) metres.
        toes: side -> (T, 3) metres, if the skeleton has them.
        ahead: (T, 3) where the trunk faces.
    """
    evidence = 0.0
    for side in ("left", "right"):
        hip, knee, ankle = (of_joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        thigh, shank = knee - hip, ankle - knee
        cosine = (thigh * shank).sum(-1) / np.linalg.norm(thigh, axis=-1) / np.linalg.norm(shank, axis=-1)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        forwards = np.sign(((knee - (hip + ankle) / 2) * ahead).sum(-1))
        evidence += (forwards * angle)[angle > _BENT].sum()
    if evidence or not toes:
        return evidence < 0
    return sum(((toes[s] - of_joint[f"{s}_ankle"]) * ahead).sum(-1).mean() for s in toes) < 0


def _numbers(names: tuple[str, ...]) -> dict[tuple[str, str], int]:
    """(side or "", what the bone is called without it) -> the joint's number."""
    words = [_words(name.rpartition(":")[2]) for name in names]
    # what (nearly) every joint is called: "Bip01 L Thigh", "joint_Root"; a scene's own root may lack it
    common = Counter(word for of_name in words for word in set(of_name))
    shared = {word for word, count in common.items() if count > 0.9 * len(names)}
    number: dict[tuple[str, str], int] = {}
    for i, of_name in enumerate(words):
        number.setdefault(_side_and_bone([word for word in of_name if word not in shared]), i)
    return number


def _toes(names: tuple[str, ...]) -> dict[str, int]:
    """Side -> number of the joint of its toes, where there is one."""
    number = _numbers(names)
    of_side = {s: next((number[s, t] for t in _TOES if (s, t) in number), None) for s in ("left", "right")}
    return {side: joint for side, joint in of_side.items() if joint is not None}


def _roles(names: tuple[str, ...], where: str) -> dict[str, int]:
    """COCO's joints from the shoulders down, and the head -> numbers of the joints that they are."""
    number = _numbers(names)
    joints = {}
    for side in ("left", "right"):
        for joint, bones in _BONES.items():
            joints[f"{side}_{joint}"] = next((number[side, b] for b in bones if (side, b) in number), None)
    joints["head"] = number.get(("", "head"))
    missing = [joint.replace("_", " ") for joint, i in joints.items() if i is None]
    if missing:
        raise UserError(
            f"{where} has no joint named like the {missing[0]}: its joints are {', '.join(names[:8])}, …; "
            "rename them as CMU's, Mixamo's or SMPL's are named"
        )
    return joints


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+", name)]


def _side_and_bone(words: list[str]) -> tuple[str, str]:
    """LeftUpLeg, upperleg01.L, lThigh, L_Hip -> 'left' and 'upleg', 'upperleg01', 'thigh', 'hip'."""
    sides = {"left": "left", "l": "left", "right": "right", "r": "right"}
    side = next((sides[word] for word in words if word in sides), "")
    bone = "".join(word for word in words if word not in sides)
    if not side:  # in one word: leftarm
        for prefix in ("left", "right"):
            if bone.startswith(prefix) or bone.endswith(prefix):
                return prefix, bone.replace(prefix, "", 1)
    return side, bone


def _to_y_up(of_joint: dict[str, np.ndarray], up: str, where: str) -> np.ndarray:
    """(3, 3) rotation of the source's axes into a world with y up."""
    if up == "auto":
        standing = of_joint["head"] - _middle(of_joint, "ankle")
        mean = (standing / np.linalg.norm(standing, axis=-1, keepdims=True)).mean(0)
        axis = int(np.abs(mean).argmax())
        # who lies all the time shows no axis: BVH's usual one
        direction = np.eye(3)[axis] * np.sign(mean[axis]) if abs(mean[axis]) > _UPRIGHT else np.eye(3)[1]
    else:
        if not re.fullmatch("-?[xyz]", up):
            raise UserError(f"'{up}' is not an axis that can point up: give auto, x, y, z, -x, -y or -z")
        direction = np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    if direction[1]:  # y is the axis: upside down is a half turn about x
        return np.diag([1.0, direction[1], direction[1]])
    x = np.array([0.0, 1.0, 0.0])
    return np.stack([x, direction, np.cross(x, direction)])


def _middle(of_joint: dict[str, np.ndarray], name: str) -> np.ndarray:
    return (of_joint[f"left_{name}"] + of_joint[f"right_{name}"]) / 2


def _axes_of(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(T, 3, 3) axes to the left, up and ahead as columns."""
    left = left / np.linalg.norm(left, axis=-1, keepdims=True)
    up = up - (up * left).sum(-1, keepdims=True) * left
    up = up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-9)
    return np.stack([left, up, np.cross(left, up)], axis=-1)


def _mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """(T, 3, 3) -> (3, 3) the rotation that is nearest to all (chordal mean)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotations).mean().as_matrix()


def coco(of_joint: dict[str, np.ndarray], head: np.ndarray, stature: float) -> np.ndarray:
    """(T, 17, 3) from joints by name and the head's axes (left, up, ahead as columns)."""
    poses = np.empty((len(head), NUM_JOINTS, 3))
    for name, i in INDEX.items():
        if name in _FACE:
            poses[:, i] = of_joint["head"] + head @ (np.array(_FACE[name]) * stature)
        else:
            poses[:, i] = of_joint[name]
    return poses


def grounded(poses: np.ndarray) -> np.ndarray:
    """The floor under the feet is the studio's, and the first hips are over the origin."""
    start = poses[0, [INDEX["left_hip"], INDEX["right_hip"]]].mean(0)
    return poses - (start[0], ground(poses) - FLOOR, start[2])
