"""DeepMimic's clips (Peng et al. 2018), out of a wheel on the package index: walking, dancing, fighting, rolling."""

import json
import re
from pathlib import Path

import numpy as np

from refiner.data.aistpp import FPS
from refiner.errors import UserError
from refiner.geometry import rotation_matrix
from refiner.wheels import Unavailable, cached, keep, read_wheel
from studio.capture import Capture
from studio.curves import smoothstep
from studio.mocap import USUAL_STATURE, coco, grounded

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
    name = "deepmimic_motions-1.json"
    path = cache / name if cache else cached(name)
    if path.is_file():
        return json.loads(path.read_text())

    def wanted(name: str) -> bool:
        return name.startswith(_WHEEL_FOLDER) and name.endswith(".txt") and "laikago" not in name  # that is a dog

    try:
        files = read_wheel(_WHEEL, wanted, sha256=_WHEEL_SHA256, tags=_WHEEL_TAGS)
    except Unavailable as error:
        raise UserError(
            f"DeepMimic's motions cannot be fetched: {error}. Connect this machine to a package index once"
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
        raise UserError(f"{where} is not a DeepMimic motion ({type(error).__name__}: {error})") from None
    width = 4 + sum(values for *_, values in _HUMANOID)
    if frames.ndim != 2 or frames.shape[1] != width or not np.isfinite(frames).all():
        raise UserError(f"{where} is not a motion of DeepMimic's humanoid: expected frames of {width} numbers")
    durations = frames[:-1, 0]
    if not (durations > 0).all():
        raise UserError(f"{where} is damaged: a frame before the last one has no duration")
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
    return grounded(coco(of_joint, head, USUAL_STATURE))


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
    fading = smoothstep(0, 1, np.linspace(0, 1, len(cycle.times)))
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
