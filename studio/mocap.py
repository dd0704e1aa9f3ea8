"""Motion capture of other formats as AIST++'s keypoints: BVH files, and DeepMimic's clips out of a wheel.

`rayjobs.motions` converts with this; what comes out drives dancers like any sequence of AIST++ (see `retarget`).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner.data.aistpp import FPS
from refiner.errors import UserError
from refiner.geometry import rotation_matrix
from refiner.skeleton import INDEX, NUM_JOINTS
from refiner.wheels import Unavailable, cache_folder, keep, read_wheel
from studio.cameras import FLOOR
from studio.motion.contacts import ground

# Hips to ankles over knees, as a share of the stature (Winter, Biomechanics and Motor Control of Human Movement).
_LEG = 0.491
_STATURES = (1.3, 2.2)  # metres: people
_USUAL_STATURE = 1.70
# Metres to the unit of length: metres, centimetres, inches, millimetres, CMU's (inches / 0.45).
_UNITS = (1.0, 0.01, 0.0254, 0.001, 0.0254 / 0.45)
_UPRIGHT = 0.6  # of the mean direction from ankles to head, along an axis that then is up; of lying people none has it
_MOST_FRAMES = 2_000_000

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


@dataclass(frozen=True)
class Capture:
    """A motion as it was captured: a tree of J joints over T moments, in the source's own units and axes."""

    names: tuple[str, ...]
    parents: tuple[int, ...]  # −1: the root; parents come before their children
    times: np.ndarray  # (T,) seconds, rising
    rotations: np.ndarray  # (T, J, 3, 3) relative to the parent
    positions: np.ndarray  # (T, J, 3) relative to the parent, in the parent's frame

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


# --- BVH --------------------------------------------------------------------------------------------------------------


def read_bvh(text: str, where: str) -> Capture:
    """Reads a BVH file: any hierarchy, any order of channels, positions at any joint.

    Position channels replace a joint's offset, as in the files of CMU, LAFAN1 and Bandai-Namco. Rotations are about the
    axes that the earlier ones have turned, in the order of the channels. An end site becomes a joint `<parent>_end`.

    Args:
        text: the file's content.
        where: its name, for errors.

    Raises:
        UserError: it is damaged, or no BVH.
    """
    from scipy.spatial.transform import Rotation

    head, found, tail = text.partition("MOTION")
    if not head.lstrip().startswith("HIERARCHY") or not found:
        raise UserError(f"{where} is no BVH file: it must begin with HIERARCHY and go on to MOTION")
    names, parents, offsets, channels = _hierarchy(iter(head.split()[1:]), where)
    motion = re.match(r"\s*Frames:\s*(\d+)\s+Frame\s+Time:\s*(\S+)", tail)
    try:
        frames, step = int(motion[1]), float(motion[2])
        values = np.array(tail[motion.end() :].split(), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged: its MOTION part cannot be read ({error}); fetch it anew") from None
    width = sum(map(len, channels))
    if not frames or frames > _MOST_FRAMES or len(values) != frames * width or not 0 < step < 1:
        raise UserError(
            f"{where} is damaged: {len(values)} numbers for {frames} frames of {width} channels, {step} s apart; "
            "fetch it anew"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{where} is damaged: it has numbers that are not finite; fetch it anew")
    values = values.reshape(frames, width)
    rotations = np.tile(np.eye(3), (frames, len(names), 1, 1))
    positions = np.tile(np.array(offsets), (frames, 1, 1))
    at = 0
    for joint, of_joint in enumerate(channels):
        columns = values[:, at : at + len(of_joint)]
        at += len(of_joint)
        turns = [i for i, channel in enumerate(of_joint) if channel.endswith("rotation")]
        for i, channel in enumerate(of_joint):
            if channel.endswith("position"):
                positions[:, joint, "XYZ".index(channel[0])] = columns[:, i]
        if turns:
            axes = "".join(of_joint[i][0] for i in turns)
            rotations[:, joint] = Rotation.from_euler(axes, columns[:, turns], degrees=True).as_matrix()
    return Capture(tuple(names), tuple(parents), np.arange(frames) * step, rotations, positions)


def _hierarchy(
    tokens: Iterable[str], where: str
) -> tuple[list[str], list[int], list[tuple[float, ...]], list[tuple[str, ...]]]:
    """Names, parents, offsets and channels of the joints, in the file's order."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[tuple[float, ...]] = []
    channels: list[tuple[str, ...]] = []
    open_joints: list[int] = []
    token = ""
    try:
        for token in tokens:
            if token in ("ROOT", "JOINT", "End"):
                name, parent = next(tokens), open_joints[-1] if open_joints else -1
                names.append(f"{names[parent]}_end" if token == "End" else name)
                parents.append(parent)
                offsets.append((0.0, 0.0, 0.0))
                channels.append(())
            elif token == "{":
                open_joints.append(len(names) - 1)
            elif token == "}":
                open_joints.pop()
            elif token == "OFFSET":
                offsets[open_joints[-1]] = tuple(float(next(tokens)) for _ in range(3))
            elif token == "CHANNELS":
                of_joint = tuple(next(tokens) for _ in range(int(next(tokens))))
                rotations = [c[0] for c in of_joint if c.endswith("rotation")]
                known = all(re.fullmatch("[XYZ](position|rotation)", c) for c in of_joint)
                if not known or len(set(of_joint)) != len(of_joint) or len(rotations) > 3:
                    raise ValueError(" ".join(of_joint))
                channels[open_joints[-1]] = of_joint
            else:
                raise ValueError(token)
    except (ValueError, IndexError, StopIteration, RuntimeError) as error:
        raise UserError(f"{where} is damaged: its HIERARCHY cannot be read near '{error or token}'") from None
    if open_joints or parents.count(-1) != 1:
        raise UserError(f"{where} is damaged: its HIERARCHY must be one tree with every brace closed")
    return names, parents, offsets, channels


# --- DeepMimic --------------------------------------------------------------------------------------------------------

# The humanoid that the clips were fitted to (humanoid.urdf beside them): joint, parent, offset in quarters of a metre,
# values in a frame. Its axes: x ahead, y up, z to the right.
_HUMANOID = (
    ("root", -1, (0.0, 0.0, 0.0), 4),
    ("chest", 0, (0.0, 0.944604, 0.0), 4),
    ("neck", 1, (0.0, 0.895576, 0.0), 4),
    ("right_hip", 0, (0.0, 0.0, 0.339548), 4),
    ("right_knee", 3, (0.0, -1.686184, 0.0), 1),
    ("right_ankle", 4, (0.0, -1.63948, 0.0), 4),
    ("right_shoulder", 1, (-0.0962, 0.974, 0.73244), 4),
    ("right_elbow", 6, (0.0, -1.099152, 0.0), 1),
    ("right_wrist", 7, (0.0, -1.035788, 0.0), 0),
    ("left_hip", 0, (0.0, 0.0, -0.339548), 4),
    ("left_knee", 9, (0.0, -1.686184, 0.0), 1),
    ("left_ankle", 10, (0.0, -1.63948, 0.0), 4),
    ("left_shoulder", 1, (-0.0962, 0.974, -0.73244), 4),
    ("left_elbow", 12, (0.0, -1.099152, 0.0), 1),
    ("left_wrist", 13, (0.0, -1.035788, 0.0), 0),
)
_HUMANOID_SCALE = 0.25
_HUMANOID_AXES = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # to x left, y up, z ahead
_WHEEL = "pybullet==3.2.7"  # zlib licence
_WHEEL_SHA256 = "438a95e9d53af5b2e9bbf7b12e1846485e58532b57580c5290dee305fa8b4a6b"
_WHEEL_TAGS = ("--python-version=3.9", "--implementation=cp", "--abi=cp39", "--platform=manylinux2014_x86_64")
_WHEEL_FOLDER = "pybullet_data/data/motions/"
_SEAM = 0.10  # metres: joints of a cycle's first and last moment that are further apart on average do not meet
_CYCLE_SECONDS = 3.0  # what shorter cycles are repeated to, at least


def deepmimic_clips(cache: Path | None = None) -> dict[str, str]:
    """DeepMimic's clips, from the wheel of PyBullet the first time: name (walk, dance_a, turn_left0 …) -> content.

    Args:
        cache: folder to keep them in; else `wheels.cache_folder`.

    Raises:
        UserError: they cannot be had here.
    """
    path = (cache or cache_folder()) / "deepmimic_motions-1.json"
    if path.is_file():
        return json.loads(path.read_text())

    def wanted(name: str) -> bool:
        return name.startswith(_WHEEL_FOLDER) and name.endswith(".txt") and "laikago" not in name  # that is a dog

    try:
        files = read_wheel(_WHEEL, wanted, sha256=_WHEEL_SHA256, tags=_WHEEL_TAGS)
    except Unavailable as error:
        raise UserError(
            f"DeepMimic's motions cannot be had: {error}. Connect this machine to a package index once"
        ) from None
    clips = {re.sub(r"^(humanoid3d_|\d)", "", Path(name).stem): text.decode() for name, text in files.items()}
    keep(path, json.dumps(clips).encode())
    return clips


def read_deepmimic(text: str, where: str) -> tuple[Capture, bool]:
    """Reads one of DeepMimic's clips (Peng et al. 2018): the motion, and whether it is a cycle.

    Raises:
        UserError: it is none, or of another body.
    """
    from scipy.spatial.transform import Rotation

    try:
        content = json.loads(text)
        frames = np.array(content["Frames"], dtype=np.float64)
        cyclic = content.get("Loop") == "wrap"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{where} is no DeepMimic motion ({type(error).__name__}: {error})") from None
    width = 4 + sum(values for *_, values in _HUMANOID)
    if frames.ndim != 2 or frames.shape[1] != width or not np.isfinite(frames).all():
        raise UserError(f"{where} is no motion of DeepMimic's humanoid: expected frames of {width} numbers")
    durations = frames[:-1, 0]
    if not (durations > 0).all():
        raise UserError(f"{where} is damaged: a frame before the last one lasts no time")
    rotations = np.tile(np.eye(3), (len(frames), len(_HUMANOID), 1, 1))
    positions = np.tile(np.array([offset for _, _, offset, _ in _HUMANOID]) * _HUMANOID_SCALE, (len(frames), 1, 1))
    positions[:, 0] = frames[:, 1:4]
    at = 4
    for joint, (*_, values) in enumerate(_HUMANOID):
        if values == 4:
            rotations[:, joint] = Rotation.from_quat(frames[:, at : at + 4], scalar_first=True).as_matrix()
        elif values == 1:  # a hinge, about the axis to the right
            rotations[:, joint] = Rotation.from_euler("z", frames[:, at : at + 1]).as_matrix()
        at += values
    names, parents = tuple(name for name, *_ in _HUMANOID), tuple(parent for _, parent, *_ in _HUMANOID)
    return Capture(names, parents, np.concatenate([[0.0], np.cumsum(durations)]), rotations, positions), cyclic


def deepmimic_keypoints(text: str, where: str) -> np.ndarray:
    """One of DeepMimic's clips as `keypoints` gives them; a cycle whose ends meet is repeated.

    Raises:
        UserError: see `read_deepmimic`.
    """
    capture, cyclic = read_deepmimic(text, where)
    capture = capture.resampled()
    turned, placed = (_repeated(capture) if cyclic else capture).world()
    placed = placed @ _HUMANOID_AXES.T
    # its neck is the joint that the head turns in; the head's axes are the humanoid's
    head = _HUMANOID_AXES @ turned[:, capture.names.index("neck")] @ _HUMANOID_AXES.T
    of_joint = {name: placed[:, i] for i, name in enumerate(capture.names)}
    # the joint is at the neck's foot: the face's begins where the skull does
    of_joint["head"] = of_joint["neck"] + head[:, :, 1] * 0.085
    return _grounded(_coco(of_joint, head, _USUAL_STATURE))


def _repeated(cycle: Capture) -> Capture:
    """A cycle at 60 Hz again and again, each going on where, and facing as, the one before ended; y is up.

    What is left between its ends fades out over the cycle, joint by joint. As it is if its ends do not meet.
    """
    from scipy.spatial.transform import Rotation

    placed = cycle.world()[1]
    start, end = placed[0].mean(0) * (1, 0, 1), placed[-1].mean(0) * (1, 0, 1)
    # the turn about the vertical that brings the first pose onto the last one (Procrustes in the plane)
    (ax, _, az), (bx, _, bz) = (placed[0] - start).T, (placed[-1] - end).T
    turn = rotation_matrix(np.array([0, np.arctan2((az * bx - ax * bz).sum(), (ax * bx + az * bz).sum()), 0]))

    def gone_on(points: np.ndarray) -> np.ndarray:
        return (points - start) @ turn.T + end

    if np.linalg.norm(gone_on(placed[0]) - placed[-1], axis=-1).mean() > _SEAM:
        return cycle
    fading = np.linspace(0, 1, len(cycle.times))
    fading = fading**2 * (3 - 2 * fading)
    goal = cycle.rotations[0].copy()
    goal[0] = turn @ goal[0]
    seam = Rotation.from_matrix(np.swapaxes(cycle.rotations[-1], -1, -2) @ goal).as_rotvec()  # (J, 3)
    rotations = cycle.rotations @ rotation_matrix(fading[:, None, None] * seam)
    positions = cycle.positions.copy()
    positions[:, 0] += fading[:, None] * (gone_on(placed[0, 0]) - placed[-1, 0])
    pieces = [(rotations[:-1], positions[:-1])]
    for _ in range(int(np.ceil(_CYCLE_SECONDS * FPS / (len(rotations) - 1))) - 1):
        rotations, positions = rotations.copy(), positions.copy()
        rotations[:, 0], positions[:, 0] = turn @ rotations[:, 0], gone_on(positions[:, 0])
        pieces.append((rotations[:-1], positions[:-1]))
    pieces.append((rotations[-1:], positions[-1:]))
    rotations, positions = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Capture(cycle.names, cycle.parents, np.arange(len(rotations)) / FPS, rotations, positions)


# --- to keypoints -----------------------------------------------------------------------------------------------------


def keypoints(capture: Capture, where: str, up: str = "auto") -> np.ndarray:
    """A captured motion as AIST++'s keypoints.

    Units are detected from the legs' length, the upward axis from where the head is over the ankles, the head's axes from
    how it is held over the trunk on average.

    Args:
        capture: the motion.
        where: its name, for errors.
        up: the axis that points up: 'auto', or 'x', 'y', 'z', '-x', '-y', '-z'.

    Returns:
        (N, 17, 3) metres at 60 Hz, world with y up, the studio's floor under the feet, the first hips over the origin.

    Raises:
        UserError: joints are missing, or it moves like no human body.
    """
    joints = _roles(capture.names, where)
    turned, placed = capture.resampled().world()
    of_joint = {role: placed[:, joint] for role, joint in joints.items()}

    def distance(a: str, b: str) -> float:
        return float(np.median(np.linalg.norm(of_joint[a] - of_joint[b], axis=-1)))

    leg = sum(distance(f"{s}_hip", f"{s}_knee") + distance(f"{s}_knee", f"{s}_ankle") for s in ("left", "right")) / 2
    if not leg > 0:
        raise UserError(f"{where} has legs of no length: it is no captured motion of a human body")
    scale = next(
        (unit for unit in _UNITS if _STATURES[0] <= leg / _LEG * unit <= _STATURES[1]), _USUAL_STATURE * _LEG / leg
    )
    axes = _to_y_up(of_joint, up, where)
    of_joint = {role: points @ axes.T * scale for role, points in of_joint.items()}
    hips, shoulders = _middle(of_joint, "hip"), _middle(of_joint, "shoulder")
    trunk = _axes_of(of_joint["left_shoulder"] - of_joint["right_shoulder"], shoulders - hips)
    ahead = trunk[:, :, 2]
    bent = sum(
        ((of_joint[f"{s}_knee"] - (of_joint[f"{s}_hip"] + of_joint[f"{s}_ankle"]) / 2) * ahead).sum(-1)
        for s in ("left", "right")
    )
    if bent.mean() < 0:
        raise UserError(f"{where} bends its knees backwards: left and right, or its axes, are exchanged in it")
    bone = axes @ turned[:, joints["head"]]
    return _grounded(_coco(of_joint, bone @ _mean_rotation(np.swapaxes(bone, -1, -2) @ trunk), leg / _LEG * scale))


def _roles(names: tuple[str, ...], where: str) -> dict[str, int]:
    """COCO's joints from the shoulders down, and the head -> numbers of the joints that they are."""
    words = [_words(name.rpartition(":")[2]) for name in names]
    shared = set.intersection(*map(set, words))  # "Bip01 L Thigh", "joint_Root"
    number: dict[tuple[str, str], int] = {}
    for i, of_name in enumerate(words):
        number.setdefault(_side_and_bone([word for word in of_name if word not in shared]), i)
    found = {}
    for side in ("left", "right"):
        for joint, bones in _BONES.items():
            found[f"{side}_{joint}"] = next((number[side, b] for b in bones if (side, b) in number), None)
    found["head"] = number.get(("", "head"))
    missing = [joint.replace("_", " ") for joint, i in found.items() if i is None]
    if missing:
        raise UserError(
            f"{where} has no joint that is named like the {missing[0]}: its joints are {', '.join(names[:8])}, …; "
            "rename them as CMU's, Mixamo's or SMPL's are named"
        )
    return found


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
            raise UserError(f"'{up}' is no axis that could point up: give auto, x, y, z, -x, -y or -z")
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


def _coco(of_joint: dict[str, np.ndarray], head: np.ndarray, stature: float) -> np.ndarray:
    """(T, 17, 3) from joints by name and the head's axes (left, up, ahead as columns)."""
    poses = np.empty((len(head), NUM_JOINTS, 3))
    for name, i in INDEX.items():
        if name in _FACE:
            poses[:, i] = of_joint["head"] + head @ (np.array(_FACE[name]) * stature)
        else:
            poses[:, i] = of_joint[name]
    return poses


def _grounded(poses: np.ndarray) -> np.ndarray:
    """The floor under the feet is the studio's, and the first hips are over the origin."""
    start = poses[0, [INDEX["left_hip"], INDEX["right_hip"]]].mean(0)
    return poses - (start[0], ground(poses) - FLOOR, start[2])
