"""Real motion on a drawn body: AIST++'s keypoints drive a dancer of other proportions.

What carries over are directions and contacts: the trunk's and the head's orientation, where each arm's bones point, and,
scaled to the dancer's legs, where hips and ankles are. What is rendered is the dancer, and the truth is the dancer's own
joints: an error of this fit makes another motion, never a wrong annotation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner.aistpp import FPS, SPLITS, Dataset
from refiner.errors import UserError
from refiner.geometry import mirror, rotation_matrix
from refiner.skeleton import INDEX
from refiner.studio.body import Dancer
from refiner.studio.motion import Motion, arm_rotations, collar_and_shoulder, leg_rotations, unit
from refiner.studio.rig import (
    HEAD,
    L_ANKLE,
    L_ELBOW,
    L_FOOT,
    L_HIP,
    L_KNEE,
    NECK,
    NUM_BONES,
    PELVIS,
    SPINE1,
    SPINE2,
    SPINE3,
    forward_kinematics,
)

PAD = 30  # frames before and after a window, so that filters and splines have no ends inside it
# Triangulated joints tremble by 1–3 cm. Standard deviations of the filter, in frames of 1/60 s: of the joints, and of
# directions between joints that lie close together (hips, ears).
_CALM, _CALM_SHORT = 1.6, 4.0


@dataclass(frozen=True, slots=True)
class Source:
    """A window of a real sequence."""

    sequence: str
    index: int  # of the sequence among all sources
    start: int  # frame
    mirrored: bool


def sources(root: str, pattern: tuple[str, ...]) -> dict[str, list[str]]:
    """Sequences of an AIST++ folder that can drive dancers, by split.

    The official split where it is there, else one in which the longest sequences train (`pattern`: the splits by turns). A
    sequence is in one split only, so that no dancer of another split moves like it.

    Raises:
        UserError: there are fewer than three, or a split would have none.
    """
    data = Dataset(Path(root))
    names = [name for name in data.sequences if name not in data.ignored]
    if (data.annotations / "splits").is_dir():
        known = set(names)
        by_split = {split: [n for n in data.split(split) if n in known] for split in SPLITS}
    else:
        sizes = {n: (data.annotations / "keypoints3d" / f"{n}.pkl").stat().st_size for n in names}
        ordered = sorted(names, key=lambda n: (-sizes[n], n))
        by_split = {split: [n for i, n in enumerate(ordered) if pattern[i % len(pattern)] == split] for split in SPLITS}
    empty = [split for split, members in by_split.items() if not members]
    if empty:
        raise UserError(
            f"{root} has {len(names)} motions in annotations/keypoints3d, none of them for the split {empty[0]}: "
            "give at least three, so that each split has its own"
        )
    return by_split


def draw_source(root: str, sequence: str, index: int, seconds: float, seed: int) -> Source:
    """A window of a sequence, somewhere in it, as it is or in the mirror.

    Raises:
        UserError: the sequence is shorter than that.
    """
    frames, wanted = len(Dataset(Path(root)).keypoints3d(sequence)), int(np.ceil(seconds * FPS)) + 1
    if frames < wanted:
        raise UserError(
            f"{sequence} in {root} lasts {frames / FPS:.1f} s: render sequences of at most that with --seconds"
        )
    rng = np.random.default_rng(seed)
    return Source(sequence, index, int(rng.integers(frames - wanted + 1)), bool(rng.random() < 0.5))


def perform(root: str, source: Source, dancer: Dancer, seconds: float, floor: float) -> Motion:
    """A dancer performs a window of a real sequence.

    Args:
        root: AIST++ folder.
        source: which window.
        dancer: who performs.
        seconds: length of the clip.
        floor: height of the floor in the world, metres.
    """
    poses = Dataset(Path(root)).keypoints3d(source.sequence)
    lowest = float(np.nanpercentile(poses[:, [INDEX["left_ankle"], INDEX["right_ankle"]], 1], 2))
    first, last = source.start - PAD, source.start + int(np.ceil(seconds * FPS)) + 1 + PAD
    poses = _filled(poses)[np.clip(np.arange(first, last), 0, len(poses) - 1)]
    if source.mirrored:
        poses = mirror(poses)
    times = np.arange(-PAD, len(poses) - PAD) / FPS
    return retarget(poses, times, dancer, floor, lowest)


def _filled(poses: np.ndarray) -> np.ndarray:
    """Gaps (NaN) bridged in a straight line."""
    whole = np.isfinite(poses).all((1, 2))
    if whole.all():
        return poses
    at = np.arange(len(poses))
    flat = poses.reshape(len(poses), -1)
    return np.stack([np.interp(at, at[whole], column[whole]) for column in flat.T], axis=1).reshape(poses.shape)


def _calm(track: np.ndarray, frames: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(track, frames, axis=0, mode="nearest")


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(..., 3, 3) axes with x as given and y as near to the given one as it can be."""
    x = unit(x)
    y = unit(y - (y * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def _share(rotations: np.ndarray, parts: tuple[float, ...], limit: float) -> list[np.ndarray]:
    """(T, 3, 3) -> a rotation for each part of a chain, together the whole (about one axis); no further than `limit`."""
    from scipy.spatial.transform import Rotation

    vectors = Rotation.from_matrix(rotations).as_rotvec()
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors * np.minimum(1, limit / np.maximum(angle, 1e-9))
    return [rotation_matrix(vectors * part) for part in parts]


def retarget(poses: np.ndarray, times: np.ndarray, dancer: Dancer, floor: float, lowest: float) -> Motion:
    """Drives a dancer with triangulated joints.

    Args:
        poses: (T, 17, 3) world (y up), metres, at 60 Hz, without gaps.
        times: (T,) seconds.
        dancer: who performs.
        floor: height of the floor that the dancer stands on, metres.
        lowest: height of an ankle that stands on the floor in `poses`, metres.
    """
    poses = _calm(poses, _CALM)

    def joint(name: str) -> np.ndarray:
        return poses[:, INDEX[name]]

    def middle(name: str) -> np.ndarray:
        return (joint(f"left_{name}") + joint(f"right_{name}")) / 2

    def across(name: str) -> np.ndarray:
        return _calm(unit(joint(f"left_{name}") - joint(f"right_{name}")), _CALM_SHORT)

    offsets = dancer.offsets
    upright, at_rest = forward_kinematics(np.tile(np.eye(3), (NUM_BONES, 1, 1)), np.zeros(3), offsets)
    rest = dancer.joints(upright, at_rest)  # (17, 3) in the zero pose

    def rest_middle(name: str) -> np.ndarray:
        return (rest[INDEX[f"left_{name}"]] + rest[INDEX[f"right_{name}"]]) / 2

    left = np.array([1.0, 0, 0])
    # the trunk: hips and shoulders each have a line across, the spine between them is common
    spine, rest_spine = middle("shoulder") - middle("hip"), rest_middle("shoulder") - rest_middle("hip")
    pelvis = _frame(across("hip"), spine) @ _frame(left, rest_spine).T
    chest = _frame(across("shoulder"), spine) @ _frame(left, rest_spine).T
    # the head: the line between the ears, and the face
    face, rest_face = middle("eye") - middle("ear"), rest_middle("eye") - rest_middle("ear")
    head = _frame(across("ear"), _calm(unit(face), _CALM_SHORT)) @ _frame(left, rest_face).T

    rotations = np.tile(np.eye(3), (len(poses), NUM_BONES, 1, 1))
    rotations[:, PELVIS] = pelvis
    bend = _share(np.swapaxes(pelvis, -1, -2) @ chest, (0.3, 0.35, 0.35), 1.3)
    for bone, rotation in zip((SPINE1, SPINE2, SPINE3), bend, strict=True):
        rotations[:, bone] = rotation
    chest = pelvis @ bend[0] @ bend[1] @ bend[2]
    nod = _share(np.swapaxes(chest, -1, -2) @ head, (0.45, 0.55), 1.3)
    rotations[:, NECK], rotations[:, HEAD] = nod

    # as long in the legs as the dancer is
    def length(a: str, b: str) -> float:
        return float(np.median(np.linalg.norm(joint(a) - joint(b), axis=-1)))

    theirs = sum(length(f"{s}_hip", f"{s}_knee") + length(f"{s}_knee", f"{s}_ankle") for s in ("left", "right")) / 2
    ours = np.linalg.norm(offsets[L_KNEE]) + np.linalg.norm(offsets[L_ANKLE])
    scale = float(ours / theirs)

    def place(points: np.ndarray) -> np.ndarray:
        return points * scale + (0, floor + dancer.build.sole - lowest * scale, 0)

    ankles = [place(joint("left_ankle")), place(joint("right_ankle"))]
    for ankle in ankles:  # no foot goes through the floor
        ankle[:, 1] = np.maximum(ankle[:, 1], floor + dancer.build.sole)
    hips = [np.einsum("tij,j->ti", pelvis, offsets[L_HIP + side]) for side in (0, 1)]
    root = place(middle("hip")) - (hips[0] + hips[1]) / 2
    # legs that would have to be longer than they are pull the body down
    reach = 0.995 * ours
    for _ in range(2):
        for side in (0, 1):
            gap = root + hips[side] - ankles[side]
            level = np.linalg.norm(gap[:, [0, 2]], axis=1)
            top = np.sqrt(np.maximum(reach**2 - level**2, (0.2 * ours) ** 2))
            root[:, 1] = np.minimum(root[:, 1], ankles[side][:, 1] + top - hips[side][:, 1])

    ahead = pelvis[:, :, 2]
    for side, (name, sign) in enumerate((("left", 1), ("right", -1))):
        upper, fore = (
            joint(f"{name}_elbow") - joint(f"{name}_shoulder"),
            joint(f"{name}_wrist") - joint(f"{name}_elbow"),
        )
        shoulder, elbow = arm_rotations(
            np.einsum("tji,tj->ti", chest, upper), np.einsum("tji,tj->ti", chest, fore), sign
        )
        rotations[:, 13 + side], rotations[:, 16 + side] = collar_and_shoulder(shoulder, sign)
        rotations[:, L_ELBOW + side] = elbow

        hip, ankle = root + hips[side], ankles[side]
        theirs_hip, theirs_knee, theirs_ankle = (joint(f"{name}_{j}") for j in ("hip", "knee", "ankle"))
        along = unit(theirs_ankle - theirs_hip)
        out = theirs_knee - theirs_hip
        out = out - (out * along).sum(-1, keepdims=True) * along
        # a straight leg does not say where its knee points: the pelvis does
        pole = _calm(out + 0.04 * (ahead - (ahead * along).sum(-1, keepdims=True) * along), _CALM)
        thigh, shank = leg_rotations(hip, ankle, pole, offsets[L_KNEE + side], offsets[L_ANKLE + side])
        rotations[:, L_HIP + side] = np.swapaxes(pelvis, -1, -2) @ thigh
        rotations[:, L_KNEE + side] = np.swapaxes(thigh, -1, -2) @ shank
        foot = _foot(dancer, side, shank, ankle, floor)
        rotations[:, L_ANKLE + side] = np.swapaxes(shank, -1, -2) @ foot
    return Motion(times, rotations, root)


def _foot(dancer: Dancer, side: int, shank: np.ndarray, ankle: np.ndarray, floor: float) -> np.ndarray:
    """(T, 3, 3) a foot in the world. Keypoints end at the ankle: near the floor it lies flat, above it hangs from the shank."""
    sign = 1 if side == 0 else -1
    ahead = shank[:, :, 2] + 0.25 * sign * shank[:, :, 0]  # toes point a little outwards
    level = unit(_calm(ahead * (1, 0, 1), _CALM_SHORT) + 1e-6)
    zero = np.zeros(len(level))
    flat = _frame(np.stack([level[:, 2], zero, -level[:, 0]], axis=1), np.broadcast_to([0.0, 1.0, 0.0], level.shape))
    hanging = shank @ rotation_matrix(np.array([0.35, 0, 0]))
    height = ankle[:, 1] - floor - dancer.build.sole
    free = np.clip((height - 0.02) / 0.14, 0, 1)
    free = _calm(free * free * (3 - 2 * free), _CALM)
    turn = np.swapaxes(flat, -1, -2) @ hanging
    tip = dancer.offsets[L_FOOT + side] + (0, -dancer.build.sole - dancer.offsets[L_FOOT + side][1], 0.085)
    heel = np.array([0, -dancer.build.sole, -0.07])
    for _ in range(12):  # what would reach through the floor is turned back towards flat
        foot = flat @ _partial(turn, free)
        below = np.minimum((foot @ tip)[:, 1], (foot @ heel)[:, 1]) + ankle[:, 1] < floor
        free = np.where(below, free * 0.75, free)
    return flat @ _partial(turn, np.where(below, 0, free))


def _partial(rotations: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(T, 3, 3) each by a share of its own, 0 … 1."""
    from scipy.spatial.transform import Rotation

    return rotation_matrix(Rotation.from_matrix(rotations).as_rotvec() * share[:, None])
