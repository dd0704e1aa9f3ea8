"""Whether poses of a person's size are world landmarks: told from image landmarks, other orders of joints, feet and y up.

Each kind is told by what bodies cannot do; where a single pose could be either, the batch decides. Left and right have a module
of their own, `sides`. `python -m benchmarks.kinds` measures it all; the limits stand here with their evidence.
"""

import numpy as np

from refiner.errors import UserError
from refiner.inference.sides import check_sides, limit_of
from refiner.inference.stretched import stretched
from refiner.skeleton import INDEX, LEFT_HIP, LEFT_SHOULDER, middle

# Trunk + thigh + shank, median of a batch: (poses at least, limit). In 267,891 poses of captured motion (326 BVH files, three
# random seeds), seen from anywhere and with MediaPipe's kind of errors, the smallest is 0.93 m, with a child of two's size and
# proportions 0.48; in single ones that MediaPipe really made, shrunk to such a child, 0.355.
_SHORTEST_BODY_M = ((5, 0.45), (1, 0.35))
# The largest, of these and of 78,577 filmed or simulated ones, is 1.67 m; the tallest people have 1.95. Feet make 4.2 of it.
_LONGEST_BODY_M = 2.2

# In another order of joints, Human3.6M's, SMPL's or OpenPose's, the first five are no face: farther from the first than this,
# metres, median of a batch: (poses at least, limit). In those 168,000 true poses it is 0.41 at most, in batches of 20 0.34.
_FACE_M = ((20, 0.42), (1, 0.55))
# The first 17 of MediaPipe's 33 begin with eleven joints of the head: so near the first one, as a share of trunk and leg, and
# so wide the "shoulders" against the "hips". No true pose of those, nor with a child's proportions, is below both.
_HEAD, _SHOULDERS = 0.3, 0.08

# Hips as wide as this share of trunk + thigh + shank, median of a batch: in SMPL's order the "hips" are a foot and the neck, at
# least 0.62 in 94,697 poses; true ones have 0.35 at most.
_WIDE_HIPS = 0.6

# `stretched` of a batch: (poses at least, limit). Largest of captured motions seen by five random seeds, as they are:
# of 5 poses 5.6, of 20 4.0, of 60 3.2. Singly none of 1.43 million rendered, true and real poses is past it, each also
# turned by any angle, with a child's proportions and with depths of 0.6.
_STRETCHED = ((60, 4.2), (20, 4.8), (5, 6.2), (1, 7.3))
# Two in three image landmarks are smaller than adults, as whom MediaPipe sees nearly everybody; of children 1 window of 5 in
# 23,000 is past these.
_ADULT_M, _STRETCHED_SMALL = 0.9, ((60, 4.2), (5, 4.6), (1, 7.3))
# A single pose whose depth is less than this share of its width or height is not looked at: these are one in a hundred of
# the image landmarks that are told, and six in seven of all true poses.
_DEEP = 0.5

# Image landmarks as they are: the hips lie in the picture instead of at the origin.
_OFF_ORIGIN, IN_PICTURE = 0.15, (-0.25, 1.25)

# Upside down: trunk and legs point down by so much (metres) in this share of a batch, while the hands are off the ground
# (higher than the head) in that share. People stand on their hands; who spins on the head puts them down now and then.
_TRUNK_DOWN, _LEGS_UP, _HANDS_FREE = 0.15, 0.25, 0.10
_MOSTLY = 0.8
# In fewer poses than these the shoulders are also lower than the hips by this share of trunk + thigh + shank, and trunk and
# legs near the vertical (cosines): 102 of 509,355 people turned in the picture by up to a quarter are past the rest, none is
# past these.
_A_FEW, _CLEARLY_DOWN, _TRUNK_HANGS, _LEGS_STAND = 60, 0.31, 0.87, 0.82
# (poses at least, share with free hands). In 168,000 true poses nobody is upside down, also lying on any side; those who stand
# on their hands or shoulders seldom have them free.
_NOW_AND_THEN = ((60, 0.1), (20, 0.15), (1, 0.3))
# Of so many poses hardly one is upright, and some are upside down with free hands: for floor work, which seldom is either.
_LONG, _SOME, _ONCE = 120, 0.1, 0.02


_TURNED = np.array([1, -1, -1], dtype=np.float32)  # by half a turn about x
_LEG_STARTS = [INDEX[name] for name in ("left_hip", "right_hip", "left_knee", "right_knee")]
_ARMS = [INDEX[name] for name in ("left_elbow", "right_elbow", "left_wrist", "right_wrist")]
_LEG_ENDS = [INDEX[name] for name in ("left_knee", "right_knee", "left_ankle", "right_ankle")]


def check_kind(joints: np.ndarray, poses: np.ndarray, landmarks: np.ndarray | None = None) -> None:
    """(N, 17, 3) as they came; the same root-centred; MediaPipe's (N, 33, 3) where they came so.

    Raises:
        UserError: they are of another kind; the sentence says which, and what to send.
    """
    offset = joints[0, 0] - poses[0, 0] if len(poses) == 1 else np.median(joints[:, 0] - poses[:, 0], axis=0)
    x, y, z = offset.tolist()
    off_origin = max(abs(x), abs(y)) > _OFF_ORIGIN > abs(z) and 0 <= min(x, y) <= max(x, y) <= 1
    if off_origin and _inside(joints):
        raise UserError(
            f"these look like image landmarks: the hips are at x {x:.2f}, y {y:.2f} of a picture, not at the "
            "origin; send MediaPipe's pose_world_landmarks (metres), not pose_landmarks"
        )
    lengths = body_length(poses)
    length = _typical(lengths)
    if length > _LONGEST_BODY_M:
        raise UserError(
            f"trunk and leg are {length:.2f} long together, which is too long for a person in metres: are these feet, or "
            "joints in another order than COCO's? Send MediaPipe's pose_world_landmarks (metres)"
        )
    _check_order(poses, lengths)
    if length < limit_of(_SHORTEST_BODY_M, poses):
        raise UserError(
            f"trunk and leg are {length:.2f} long together, which is too short for a person in metres: these look like image "
            "landmarks moved to the hips; send MediaPipe's pose_world_landmarks (metres)"
        )
    limits = _STRETCHED if length > _ADULT_M else _STRETCHED_SMALL
    if _is_deep(poses) and stretched(poses, length) > limit_of(limits, poses):
        raise UserError(
            "the depth is stretched in relation to width and height, as in image landmarks (here they look moved to the "
            "hips): send MediaPipe's pose_world_landmarks (metres), not pose_landmarks"
        )
    hips = _typical(hip_widths(poses) / np.maximum(lengths, 1e-9))
    if hips > _WIDE_HIPS:
        raise UserError(
            f"the hips are {hips:.2f} times as wide as trunk and leg are long: these look like joints in another order, "
            "such as SMPL's, or like image landmarks; send MediaPipe's pose_world_landmarks (metres), or COCO's 17 in order"
        )
    _check_up(poses, lengths)
    check_sides(poses, landmarks)


def looks_plain(joints: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) as they came, the same root-centred -> (N,) whether `check_kind` would take each of them alone.

    One look at all of them; it may doubt what `check_kind` takes, but takes nothing that it refuses.
    """
    offset, length = joints[:, 0] - poses[:, 0], body_length(poses)
    plain = (length >= _SHORTEST_BODY_M[-1][1]) & (length <= _LONGEST_BODY_M) & (np.abs(offset).max(-1) <= _OFF_ORIGIN)
    from_nose = np.linalg.norm(poses[:, 1 : INDEX["right_wrist"] + 1] - poses[:, :1], axis=-1)
    face, head = from_nose[:, : INDEX["right_ear"]].max(1), from_nose.max(1) / np.maximum(length, 1e-9)
    plain &= (face <= _FACE_M[-1][1]) & (head >= _HEAD) & (hip_widths(poses) <= _WIDE_HIPS * length)
    wide, high, deep = np.square(poses).sum(1).T
    return plain & (deep <= _DEEP**2 * np.maximum(wide, high)) & ~is_upside_down(poses)[1]


def _check_up(poses: np.ndarray, lengths: np.ndarray) -> None:
    """(N, 17, 3) root-centred and their (N,) `body_length`: where y points up, people stand on their heads.

    Raises:
        UserError: they do.
    """
    upside_down, hands_free = is_upside_down(poses)
    if len(poses) < _A_FEW and hands_free.any():
        trunk, legs = middle(poses, "shoulder"), middle(poses, "ankle")
        hands_free &= trunk[:, 1] > np.maximum(_CLEARLY_DOWN * lengths, _TRUNK_HANGS * np.linalg.norm(trunk, axis=-1))
        hands_free &= -legs[:, 1] > _LEGS_STAND * np.linalg.norm(legs, axis=-1)
    if (
        np.count_nonzero(upside_down) > _MOSTLY * len(poses) and hands_free.mean() >= limit_of(_NOW_AND_THEN, poses)
    ) or (len(poses) >= _LONG and hands_free.mean() > _SOME and is_upside_down(poses * _TURNED)[0].mean() < _ONCE):
        raise UserError(
            "the people stand on their heads with their hands in the air: y seems to point up; send x to the right, y down, "
            "z away from the camera, as MediaPipe gives them"
        )


def _check_order(poses: np.ndarray, lengths: np.ndarray) -> None:
    """(N, 17, 3) root-centred and their (N,) `body_length`: joints in another order than COCO's are told by the head.

    Raises:
        UserError: they are.
    """
    offsets = poses[:, 1 : INDEX["right_wrist"] + 1] - poses[:, :1]
    distances = np.sqrt(np.einsum("njc,njc->nj", offsets, offsets))  # (N, 10) from the first joint
    faces = distances[:, : INDEX["right_ear"]].max(1)
    face = _typical(faces)
    if face > limit_of(_FACE_M, poses):
        raise UserError(
            f"the first five joints, which are nose, eyes and ears, lie {face:.2f} m apart: these look like joints in another "
            "order, such as Human3.6M's, SMPL's or OpenPose's; send the 17 of COCO or MediaPipe's 33, in their order"
        )
    heads = distances.max(1) / np.maximum(lengths, 1e-9)
    if _typical(heads) < _HEAD:
        shoulders, hips = (np.linalg.norm(poses[:, a] - poses[:, a + 1], axis=-1) for a in (LEFT_SHOULDER, LEFT_HIP))
        if np.median(shoulders / np.maximum(hips, 1e-9)) < _SHOULDERS:
            raise UserError(
                "the first eleven joints lie within the head: these look like the first 17 of MediaPipe's 33 landmarks; send "
                "all 33, or COCO's 17"
            )


def body_length(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) trunk + thigh + shank, the same whatever the posture."""
    bones = poses[:, _LEG_ENDS] - poses[:, _LEG_STARTS]  # (N, 4, 3)
    legs = np.sqrt(np.einsum("nbc,nbc->nb", bones, bones)).sum(-1) / 2
    trunk = middle(poses, "shoulder")
    return legs + np.sqrt(np.einsum("nc,nc->n", trunk, trunk))


def hip_widths(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) from hip to hip."""
    return 2 * np.sqrt(np.square(poses[:, LEFT_HIP]).sum(-1))


def is_upside_down(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 17, 3) root-centred -> (N,) whether trunk and legs point down; (N,) whether also the hands touch nothing."""
    upside_down = (middle(poses, "shoulder")[:, 1] > _TRUNK_DOWN) & (middle(poses, "ankle")[:, 1] < -_LEGS_UP)
    head = poses[:, : INDEX["left_shoulder"], 1].max(-1)
    hands = poses[:, _ARMS, 1].max(-1)  # with the elbows: a shoulder stand rests on them
    return upside_down, upside_down & (hands < head - _HANDS_FREE)


def _is_deep(poses: np.ndarray) -> bool:
    """Whether (N, 17, 3) may be stretched in depth at all: a quick look, for single poses come by the thousand a second."""
    wide, high, deep = np.square(poses[0]).sum(0).tolist()
    return len(poses) > 1 or deep > _DEEP**2 * max(wide, high)


def _inside(joints: np.ndarray) -> bool:
    """Whether (N, 17, 3) lie in a picture, or nearly."""
    low, high = IN_PICTURE
    return bool(((joints[..., :2] > low) & (joints[..., :2] < high)).mean() > 0.95)


def _typical(values: np.ndarray) -> float:
    """The median of (N,), which takes its time of a single one."""
    return float(values[0] if len(values) == 1 else np.median(values))
