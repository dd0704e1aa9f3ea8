"""A captured motion danced by somebody who holds himself otherwise."""

from collections.abc import Iterable

import numpy as np

from refiner.geometry import rotation_matrix
from refiner.skeleton import INDEX
from studio.motion.limbs import frame, unit

# How far a motion may be danced otherwise than it was captured: standard deviations in radians of how arms, trunk and head are
# turned and, as logarithms, of how far elbows are bent and how wide the stance is; and how low it may be, as a share of the
# hips' height.
_ARM, _TRUNK, _NOD, _ELBOW, _STANCE, _LOW = 0.35, 0.12, 0.2, 0.35, 0.2, 0.12
_BENT = 2.7  # radians: an elbow bends no further


def varied(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same motion by somebody who holds arms, trunk and head otherwise and stands wider or lower, the whole clip long.

    The moving body stays what it was: bones keep their lengths, elbows bend the way they do, and what is changed is changed
    alike in all frames, in the chest's own frame.

    Args:
        poses: (T, 17, 3) world (y up), metres, the floor at zero.
        rng: what is drawn from.
    """
    poses = poses.copy()
    hips = poses[:, _joints("hip")].mean(1)
    _turn(poses, [*_FACE, *_joints("shoulder", "elbow", "wrist")], hips, _TRUNK, rng)
    _turn(poses, _FACE, poses[:, _joints("shoulder")].mean(1), _NOD, rng)
    for side in ("left", "right"):
        _hold_arm(poses, side, rng)
    _restand(poses, hips, wider=rng.normal(0, _STANCE), lower=rng.uniform(0, _LOW))
    return poses


def _joints(*names: str) -> list[int]:
    return [INDEX[f"{side}_{name}"] for name in names for side in ("left", "right")]


_FACE = [INDEX["nose"], *_joints("eye", "ear")]


def _turn(
    poses: np.ndarray, moved: Iterable[int], about: np.ndarray, deviation: float, rng: np.random.Generator
) -> None:
    """Turns joints about a point (T, 3) by an angle of their own, as the chest sees it."""
    joints = list(moved)
    shoulders = poses[:, INDEX["left_shoulder"]] - poses[:, INDEX["right_shoulder"]]
    spine = poses[:, _joints("shoulder")].mean(1) - poses[:, _joints("hip")].mean(1)
    chest = frame(unit(shoulders), spine)
    rotation = chest @ rotation_matrix(rng.normal(0, deviation, 3)) @ np.swapaxes(chest, -1, -2)
    poses[:, joints] = about[:, None] + np.einsum("tij,tkj->tki", rotation, poses[:, joints] - about[:, None])


def _hold_arm(poses: np.ndarray, side: str, rng: np.random.Generator) -> None:
    """Turns an arm in its shoulder and bends its elbow by more or less."""
    shoulder, elbow, wrist = (INDEX[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
    _turn(poses, [elbow, wrist], poses[:, shoulder], _ARM, rng)
    upper, fore = unit(poses[:, elbow] - poses[:, shoulder]), poses[:, wrist] - poses[:, elbow]
    bend = np.arccos(np.clip((upper * unit(fore)).sum(-1), -1, 1))
    more = np.minimum(bend * np.exp(rng.normal(0, _ELBOW)), np.maximum(bend, _BENT)) - bend
    axis = unit(np.cross(upper, fore) + 1e-9)
    poses[:, wrist] = poses[:, elbow] + np.einsum("tij,tj->ti", rotation_matrix(axis * more[:, None]), fore)


def _restand(poses: np.ndarray, hips: np.ndarray, wider: float, lower: float) -> None:
    """Sets the feet further apart (`wider`: a logarithm) and the body lower (a share of the hips' height)."""
    across = poses[:, INDEX["left_hip"]] - poses[:, INDEX["right_hip"]]
    ahead = frame(unit(across), np.broadcast_to((0.0, 1, 0), hips.shape))[:, :, 2]
    for side in ("left", "right"):
        hip, knee, ankle = (poses[:, INDEX[f"{side}_{joint}"]].copy() for joint in ("hip", "knee", "ankle"))
        foot = ankle + (ankle - hips) * (1, 0, 1) * np.expm1(wider)
        poses[:, INDEX[f"{side}_ankle"]] = foot
        poses[:, INDEX[f"{side}_knee"]] = _knee(hip - lower * hips * (0, 1, 0), foot, hip, knee, ankle, ahead)
    poses[:, [*_FACE, *_joints("shoulder", "elbow", "wrist", "hip")], 1] -= lower * hips[:, None, 1]


def _knee(
    hip: np.ndarray,
    ankle: np.ndarray,
    old_hip: np.ndarray,
    old_knee: np.ndarray,
    old_ankle: np.ndarray,
    ahead: np.ndarray,
) -> np.ndarray:
    """(T, 3) where the knee is when hip and ankle move: as far from both as it was, and on the same side of the leg."""
    thigh, shank = (np.linalg.norm(old_knee - end, axis=-1) for end in (old_hip, old_ankle))
    distance = np.linalg.norm(ankle - hip, axis=-1)
    along = unit(ankle - hip)
    # a straight leg does not say where its knee points: the pelvis does
    out = old_knee - old_hip + 0.04 * ahead
    out = unit(out - (out * along).sum(-1, keepdims=True) * along)
    share = np.clip((thigh**2 - shank**2 + distance**2) / (2 * np.maximum(distance, 1e-6)), 0, thigh)
    return hip + along * share[:, None] + out * np.sqrt(thigh**2 - share**2)[:, None]
