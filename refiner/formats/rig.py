"""A skeleton of fixed bones and the rotations that bring it into given poses: what BVH and glTF are made of.

The rest pose is a T-pose that faces +z with y up. Trunk and head follow from the lines between hips, shoulders and ears. A
limb's twist cannot be seen in joints alone: the plane in which elbow or knee is bent says it, and while the limb is
straight, the moments around.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from refiner.geometry import unit
from refiner.skeleton import INDEX

# Joint -> (parent, the COCO joint that lies there, or None). Mixamo's names, which retargeters know. Parents come first.
TREE: dict[str, tuple[str | None, str | None]] = {
    "Hips": (None, None),  # the hips' midpoint
    "Spine": ("Hips", None),  # above, by a share of the trunk; the trunk bends there
    "Spine1": ("Spine", None),  # half-way from there, where the trunk bends, too: a bent back is shorter
    "Spine2": ("Spine1", None),  # the shoulders' midpoint
    "Neck": ("Spine2", None),  # on the way to the head
    "Head": ("Neck", None),  # the ears' midpoint
    "Nose": ("Head", "nose"),
    "LeftEye": ("Head", "left_eye"),
    "RightEye": ("Head", "right_eye"),
    "LeftEar": ("Head", "left_ear"),
    "RightEar": ("Head", "right_ear"),
    "LeftArm": ("Spine2", "left_shoulder"),
    "LeftForeArm": ("LeftArm", "left_elbow"),
    "LeftHand": ("LeftForeArm", "left_wrist"),
    "RightArm": ("Spine2", "right_shoulder"),
    "RightForeArm": ("RightArm", "right_elbow"),
    "RightHand": ("RightForeArm", "right_wrist"),
    "LeftUpLeg": ("Hips", "left_hip"),
    "LeftLeg": ("LeftUpLeg", "left_knee"),
    "LeftFoot": ("LeftLeg", "left_ankle"),
    "RightUpLeg": ("Hips", "right_hip"),
    "RightLeg": ("RightUpLeg", "right_knee"),
    "RightFoot": ("RightLeg", "right_ankle"),
}
NAMES = tuple(TREE)
PARENTS = tuple(-1 if parent is None else NAMES.index(parent) for parent, _ in TREE.values())
# Upper, lower joint and end of each limb; its direction at rest and the axis about which it bends there.
LIMBS = (
    ("LeftArm", "LeftForeArm", "LeftHand", (1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    ("RightArm", "RightForeArm", "RightHand", (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    ("LeftUpLeg", "LeftLeg", "LeftFoot", (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)),
    ("RightUpLeg", "RightLeg", "RightFoot", (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)),
)
# Where a bone without a further joint ends at rest, as a share of the length of the bone before it: the forearm's, the
# shank's, the head's. Toes are as far below the ankle as `room` has the floor below it: whoever stands upright stands on the
# floor.
TIPS = {
    "LeftHand": (0.35, 0.0, 0.0), "RightHand": (-0.35, 0.0, 0.0),
    "LeftFoot": (0.0, -0.21, 0.35), "RightFoot": (0.0, -0.21, 0.35),
    "LeftEar": (0.3, 0.0, 0.0), "RightEar": (-0.3, 0.0, 0.0),
    "Nose": (0.0, 0.0, 0.2), "LeftEye": (0.0, 0.0, 0.2), "RightEye": (0.0, 0.0, 0.2),
}  # fmt: skip
# Where no joint is seen but a bone must begin, for tools drop bones without length: how far up from the hips' to the
# shoulders' midpoint, and from there to the ears'.
SPINE_SHARE, NECK_SHARE = 0.25, 0.3
# The plane of a limb that is bent by less than this (sine of the angle) is noise: its neighbours in time and the plane at
# rest count.
STRAIGHT = 0.1
TWIST_SIGMA_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Rigged:
    """A skeleton in motion; J joints as in `NAMES`, N frames."""

    offsets: np.ndarray  # (J, 3) m, from the parent, at rest
    tips: dict[str, np.ndarray]  # joint without a child -> (3,) m, where its bone ends at rest
    root: np.ndarray  # (N, 3) m, where the hips' midpoint is
    rotations: np.ndarray  # (N, J, 3, 3) each joint's, against its parent

    def joints(self) -> np.ndarray:
        """(N, J, 3) m: where forward kinematics puts the joints."""
        positions, turns = np.empty((*self.rotations.shape[:2], 3)), np.empty_like(self.rotations)
        for j, parent in enumerate(PARENTS):
            if parent < 0:
                positions[:, j], turns[:, j] = self.root, self.rotations[:, j]
            else:
                positions[:, j] = positions[:, parent] + turns[:, parent] @ self.offsets[j]
                turns[:, j] = turns[:, parent] @ self.rotations[:, j]
        return positions


def rig(poses: np.ndarray, fps: float) -> Rigged:
    """Fits the skeleton to a motion: bones have their median lengths, joints turn, nothing stretches.

    Args:
        poses: (N, 17, 3) m, y up, at even times.
        fps: of the poses.
    """
    points = {name: poses[:, INDEX[coco]] for name, (_, coco) in TREE.items() if coco}
    hips = (points["LeftUpLeg"] + points["RightUpLeg"]) / 2
    chest = (points["LeftArm"] + points["RightArm"]) / 2
    ears = (points["LeftEar"] + points["RightEar"]) / 2
    across = points["LeftUpLeg"] - points["RightUpLeg"]
    turns = {"Hips": _frame(x=across, y=chest - hips)}
    spine = _between(hips, turns["Hips"], chest, SPINE_SHARE)
    back = _back(spine, chest, turns["Hips"])
    turns["Spine"], turns["Spine1"] = _frame(y=back - spine, x=across), _frame(y=chest - back, x=across)
    turns["Spine2"] = _frame(x=points["LeftArm"] - points["RightArm"], y=chest - back)
    neck = _between(chest, turns["Spine2"], ears, NECK_SHARE)
    turns["Neck"] = _frame(y=ears - neck, x=turns["Spine2"][..., 0])
    points |= {"Hips": hips, "Spine": spine, "Spine1": back, "Spine2": chest, "Neck": neck, "Head": ears}
    nose = points["Nose"] - ears
    turns["Head"] = _frame(x=points["LeftEar"] - points["RightEar"], z=nose)
    sigma = TWIST_SIGMA_S * fps
    for upper, lower, end, direction, axis in LIMBS:
        parent = turns[TREE[upper][0] or ""]
        bones = points[lower] - points[upper], points[end] - points[lower]
        turns[upper], turns[lower] = _limb(parent, *bones, np.array(direction), np.array(axis), sigma)
        turns[end] = turns[lower]
    offsets = _offsets(points, turns)
    local = np.empty((len(poses), len(NAMES), 3, 3))
    for j, (name, (parent_name, _)) in enumerate(TREE.items()):
        turn = turns.get(name, turns["Head"])  # eyes, ears and nose go with the head
        local[:, j] = turn if parent_name is None else np.swapaxes(turns[parent_name], -1, -2) @ turn
    lengths = {name: float(np.linalg.norm(offsets[NAMES.index(name)])) for name in TIPS}
    tips = {name: np.array(tip) * lengths[name] for name, tip in TIPS.items()}
    return Rigged(offsets=offsets, tips=tips, root=hips, rotations=local)


def _between(start: np.ndarray, turn: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """(N, 3) a point that goes with the joint at `start` (N, 3), whose frames are `turn` (N, 3, 3): in the middle between left
    and right, and that share of the way to where `end` (N, 3) mostly is.
    """
    usual = np.median(np.einsum("nji,nj->ni", turn, end - start), axis=0) * (0, 1, 1)
    return start + turn @ (share * usual)


def _back(spine: np.ndarray, chest: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(N, 3) the middle of a back whose two halves keep their length: it gives way backwards where its ends are closer.

    Args:
        spine: (N, 3) where it begins.
        chest: (N, 3) the shoulders' midpoint.
        turn: (N, 3, 3) of the hips, whose z points forwards.
    """
    line = chest - spine
    length = np.linalg.norm(line, axis=-1, keepdims=True)
    half = np.quantile(length, 0.98) / 2
    along = unit(line)
    backwards = -turn[..., 2]
    backwards = unit(backwards - (backwards * along).sum(-1, keepdims=True) * along)
    return spine + line / 2 + backwards * np.sqrt(np.maximum(half**2 - (length / 2) ** 2, 0))


def _offsets(points: dict[str, np.ndarray], turns: dict[str, np.ndarray]) -> np.ndarray:
    """(J, 3) m: each joint in its parent's frame, the median over time; along its bone where it is the only child there."""
    directions = {name: d for upper, lower, end, d, _ in LIMBS for name in (lower, end)}
    directions |= dict.fromkeys(("Spine1", "Spine2", "Head"), (0.0, 1.0, 0.0))
    offsets = np.zeros((len(NAMES), 3))
    for j, (name, (parent, _)) in enumerate(TREE.items()):
        if parent is None:
            continue
        away = points[name] - points[parent]
        if name in directions:
            offsets[j] = np.array(directions[name]) * np.median(np.linalg.norm(away, axis=-1))
        else:
            offsets[j] = np.median(np.einsum("nji,nj->ni", turns[parent], away), axis=0)
    # hips and shoulders are half of their line to either side, by construction of the frames
    for left, right in (("LeftUpLeg", "RightUpLeg"), ("LeftArm", "RightArm")):
        half = np.median(np.linalg.norm(points[left] - points[right], axis=-1)) / 2
        offsets[NAMES.index(left)], offsets[NAMES.index(right)] = (half, 0, 0), (-half, 0, 0)
    return offsets


def _frame(**axes: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations whose columns are x, y, z. Two are given, (N, 3): the first as it is, the second upright to it."""
    (first, a), (second, b) = axes.items()
    a = unit(a)
    b = unit(b - (a * b).sum(-1, keepdims=True) * a)
    columns = {first: a, second: b}
    (missing,) = set("xyz") - set(columns)
    before, after = {"x": ("y", "z"), "y": ("z", "x"), "z": ("x", "y")}[missing]
    columns[missing] = np.cross(columns[before], columns[after])
    return np.stack([columns[c] for c in "xyz"], axis=-1)


def _limb(
    parent: np.ndarray, upper: np.ndarray, lower: np.ndarray, direction: np.ndarray, axis: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (N, 3, 3) of a limb's two bones, whose hinge is one axis.

    Args:
        parent: (N, 3, 3) of the trunk that carries it.
        upper: (N, 3) the bone from shoulder or hip.
        lower: (N, 3) the bone from elbow or knee.
        direction: (3,) of both at rest.
        axis: (3,) about which the lower one bends at rest.
        sigma: frames over which the twist is smoothed.
    """
    upper, lower = unit(upper), unit(lower)
    # where the shortest turn from the rest pose brings the axis; it says little where the bone points the other way
    at_rest = np.einsum("nji,nj->ni", parent, upper)  # (N, 3) the bone as the trunk sees it
    usual = parent @ _shortest(np.broadcast_to(direction, upper.shape), at_rest) @ axis
    trust = STRAIGHT / 10 * (1 + at_rest @ direction)
    bend = np.cross(upper, lower)  # as long as the sine of the angle: the axis of a straight limb hardly counts
    # both as complex numbers about the bone, in a frame that goes with the bone without turning about it
    first = _carried(usual[0], upper)
    second = np.cross(upper, first)
    wanted = bend + trust[:, None] * usual
    about = (wanted * first).sum(-1) + 1j * (wanted * second).sum(-1)
    if sigma > 0 and len(about) > 1:
        about = gaussian_filter1d(about.real, sigma) + 1j * gaussian_filter1d(about.imag, sigma)
    twist = np.angle(about)[:, None]
    hinge = np.cos(twist) * first + np.sin(twist) * second
    rest = np.stack([direction, axis, np.cross(direction, axis)], axis=-1)  # (3, 3)
    hinge_of_lower = hinge - (hinge * lower).sum(-1, keepdims=True) * lower
    # a bend about an axis far from the smoothed one leaves little of it: then the usual one serves
    hinge_of_lower = np.where(np.linalg.norm(hinge_of_lower, axis=-1, keepdims=True) > 1e-3, hinge_of_lower, hinge)
    turns = []
    for bone, about_axis in ((upper, hinge), (lower, hinge_of_lower)):
        about_axis = unit(about_axis - (about_axis * bone).sum(-1, keepdims=True) * bone)
        turns.append(np.stack([bone, about_axis, np.cross(bone, about_axis)], axis=-1) @ rest.T)
    return turns[0], turns[1]


def _carried(axis: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """(N, 3) an axis upright to a bone, carried along with it from frame to frame by the shortest turns.

    Args:
        axis: (3,) at the first frame.
        bone: (N, 3) unit vectors.
    """
    steps = _shortest(bone[:-1], bone[1:])
    carried = np.empty_like(bone)
    carried[0] = axis
    for n, step in enumerate(steps):
        carried[n + 1] = step @ carried[n]
    return unit(carried - (carried * bone).sum(-1, keepdims=True) * bone)


def _shortest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 3, 3) the shortest rotations that turn unit vectors a (N, 3) into b (N, 3)."""
    axis = np.cross(a, b)
    skew = np.zeros((len(b), 3, 3))
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    skew -= np.swapaxes(skew, -1, -2)
    cosine = (a * b).sum(-1)
    return np.eye(3) + skew + skew @ skew / np.maximum(1 + cosine, 1e-6)[:, None, None]
