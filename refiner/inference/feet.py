"""Feet that stand still while they stand: the root's path anchored to them, and ankles planted where they are.

The second half of `refiner.inference.room`, which finds out when they stand.
"""

import itertools

import numpy as np
from scipy.linalg import solveh_banded

from refiner import temporal
from refiner.geometry import unit
from refiner.skeleton import HIPS, INDEX

ANKLES = (INDEX["left_ankle"], INDEX["right_ankle"])
KNEES = (INDEX["left_knee"], INDEX["right_knee"])
LEAST_STAND_S = 0.1
# Spread of what is seen of the root's place along and across the line of sight, of a standing foot's step from frame to
# frame, and of the root's acceleration.
ALONG_M, ACROSS_M, STEP_M, ACCELERATION_M_S2 = 0.08, 0.01, 0.001, 4.0


def runs(mask: np.ndarray, clips: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges of rows in which a mask holds, within one clip each."""
    edges = np.flatnonzero((np.diff(mask.astype(int)) != 0) | (np.diff(clips) != 0)) + 1
    bounds = np.concatenate([[0], edges, [len(mask)]])
    return [(int(a), int(b)) for a, b in itertools.pairwise(bounds) if b > a and mask[a]]


def anchored_path(
    root: np.ndarray, poses: np.ndarray, standing: np.ndarray, seconds: np.ndarray, clips: np.ndarray
) -> np.ndarray:
    """The root's path that agrees with what is seen and in which standing feet do not move: one banded linear system.

    Minimises, each divided by its spread: the distance from the seen path, along and across the line of sight; the step of
    each standing ankle from frame to frame; the root's acceleration.

    Args:
        root: (N, 3) m, the seen path, camera frame.
        poses: (N, 17, 3) m, the camera's axes, about the hips.
        standing: (N, 2) bool.
        seconds: (N,) when.
        clips: (N,) numbers of the clips.
    """
    moved = root.copy()
    for start, end in runs(np.ones(len(root), dtype=bool), clips):
        if end - start > 2:
            rows = slice(start, end)
            moved[rows] = _anchored(root[rows], poses[rows][:, ANKLES], standing[rows], seconds[rows])
    return moved


def _anchored(root: np.ndarray, ankles: np.ndarray, standing: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    count = len(root)
    sight = unit(root)
    along = np.einsum("ni,nj->nij", sight, sight)
    seen = along / ALONG_M**2 + (np.eye(3) - along) / ACROSS_M**2  # (N, 3, 3)
    # blocks of a symmetric matrix, three diagonals of blocks: the row itself, its next, its second next
    blocks = np.zeros((3, count, 3, 3))
    right = np.einsum("nij,nj->ni", seen, root)
    blocks[0] += seen
    eye = np.eye(3)
    for foot in range(2):
        both = (standing[1:, foot] & standing[:-1, foot])[:, None]
        weight = both / STEP_M**2  # (N-1, 1)
        blocks[0, :-1] += weight[..., None] * eye
        blocks[0, 1:] += weight[..., None] * eye
        blocks[1, :-1] -= weight[..., None] * eye
        step = weight * (ankles[1:, foot] - ankles[:-1, foot])
        right[:-1] += step
        right[1:] -= step
    spacing = np.median(np.diff(seconds))
    smooth = 1 / (ACCELERATION_M_S2 * spacing**2) ** 2
    for a, ka in enumerate((1.0, -2.0, 1.0)):
        for b, kb in enumerate((1.0, -2.0, 1.0)):
            if b >= a:
                blocks[b - a, a : count - 2 + a] += smooth * ka * kb * eye
    return solveh_banded(_banded(blocks), right.ravel(), lower=True).reshape(count, 3)


def _banded(blocks: np.ndarray) -> np.ndarray:
    """(3, N, 3, 3) block diagonals of a symmetric matrix -> (9, 3N) its lower diagonals, as LAPACK has them."""
    count = blocks.shape[1]
    lower = np.zeros((9, 3 * count))
    for distance in range(3):
        for i in range(3):
            for j in range(3):
                offset = 3 * distance + i - j
                if offset >= 0:
                    # row 3(n + distance) + i, column 3n + j; blocks are symmetric, so the transposed block is the same
                    lower[offset, j::3][: count - distance] += blocks[distance, : count - distance, j, i]
    return lower


def plant(joints: np.ndarray, standing: np.ndarray, seconds: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Ankles that stand stay where they are in the median; knees follow, bones keep their lengths (two-bone IK).

    Args:
        joints: (N, 17, 3) m.
        standing: (N, 2) bool.
        seconds: (N,) when.
        clips: (N,) numbers of the clips.

    Returns:
        (N, 17, 3) m.
    """
    planted = joints.copy()
    for foot, (hip, knee, ankle) in enumerate(zip(HIPS, KNEES, ANKLES, strict=True)):
        pull = np.zeros((len(joints), 3))
        for start, end in runs(standing[:, foot], clips):
            pull[start:end] = np.median(joints[start:end, ankle], axis=0) - joints[start:end, ankle]
        # the foot is let go within a tenth of a second, not from one frame to the next
        free = ~standing[:, foot]
        eased = temporal.smooth(pull, seconds, clips, LEAST_STAND_S / 2)
        target = joints[:, ankle] + np.where(free[:, None], eased, pull)
        planted[:, knee], planted[:, ankle] = _reach(joints[:, hip], joints[:, knee], joints[:, ankle], target)
    return planted


def _reach(hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knee and ankle (N, 3) so that the ankle is at the target, or as near as the leg reaches; the knee stays in its plane."""
    thigh, shank = np.linalg.norm(knee - hip, axis=-1), np.linalg.norm(ankle - knee, axis=-1)
    line = target - hip
    wanted = np.linalg.norm(line, axis=-1)
    length = np.clip(wanted, np.abs(thigh - shank) + 1e-4, thigh + shank - 1e-4)
    direction = unit(line)
    bend = knee - hip
    bend = unit(bend - (bend * direction).sum(-1, keepdims=True) * direction)
    cosine = (thigh**2 + length**2 - shank**2) / (2 * thigh * length)
    sine = np.sqrt(np.maximum(1 - cosine**2, 0))
    moved = hip + thigh[:, None] * (cosine[:, None] * direction + sine[:, None] * bend)
    return moved, hip + length[:, None] * direction
