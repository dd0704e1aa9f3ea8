"""BVH: a skeleton of fixed bones with rotations, for Blender, Maya and MotionBuilder. Centimetres, y up.

In Blender, import with a scale of 0.01 for metres.
"""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from refiner.formats.motion import Motion
from refiner.formats.rig import NAMES, PARENTS, Rigged, rig

CM = 100.0
ORDER = "ZXY"  # of the rotation channels, intrinsic: the customary one


def write(motion: Motion, path: Path) -> None:
    """Writes HIERARCHY and MOTION; moments without the person are bridged in a straight line."""
    even, _ = motion.even()
    rigged = rig(even.joints, even.fps)
    angles = _angles(rigged.rotations)  # (N, J, 3) degrees
    rows = np.concatenate([CM * rigged.root, angles.reshape(len(angles), -1)], axis=1)
    lines = [
        "HIERARCHY",
        *_hierarchy(rigged, 0, 0),
        "MOTION",
        f"Frames: {len(rows)}",
        f"Frame Time: {1 / even.fps:.8f}",
    ]
    with path.open("w") as file:
        file.write("\n".join(lines) + "\n")
        np.savetxt(file, rows, fmt="%.5f")


def _hierarchy(rigged: Rigged, joint: int, depth: int) -> list[str]:
    pad = "\t" * depth
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    places = "" if depth else "Xposition Yposition Zposition "
    lines = [
        f"{pad}{'JOINT' if depth else 'ROOT'} {NAMES[joint]}",
        f"{pad}{{",
        f"{pad}\tOFFSET {_numbers(rigged.offsets[joint])}",
        f"{pad}\tCHANNELS {3 if depth else 6} {places}{turns}",
    ]
    children = [j for j, parent in enumerate(PARENTS) if parent == joint]
    for child in children:
        lines += _hierarchy(rigged, child, depth + 1)
    if not children:
        tip = rigged.tips.get(NAMES[joint], np.zeros(3))
        lines += [f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET {_numbers(tip)}", f"{pad}\t}}"]
    return [*lines, f"{pad}}}"]


def _numbers(metres: np.ndarray) -> str:
    return " ".join(f"{CM * value:.5f}" for value in metres)


def _angles(rotations: np.ndarray) -> np.ndarray:
    """(N, J, 3) Euler angles in degrees of rotations (N, J, 3, 3), each as near as may be to the frame before.

    Two triples of angles say the same rotation, and each may be off by whole turns: what curve editors interpolate must
    not jump.
    """
    count, joints = rotations.shape[:2]
    angles = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_euler(ORDER, degrees=True).reshape(count, joints, 3)
    other = np.stack([angles[..., 0] + 180, 180 - angles[..., 1], angles[..., 2] + 180], axis=-1)
    for n in range(1, count):
        before = angles[n - 1]
        both = np.stack([angles[n], other[n]])
        both += 360 * np.round((before - both) / 360)
        nearer = np.abs(both - before).sum(-1).argmin(0)
        angles[n] = np.take_along_axis(both, nearer[None, :, None], axis=0)[0]
    return angles
