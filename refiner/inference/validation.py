"""What comes from outside as poses: checked, recognised where it is something else, and brought into the one form used here.

A pose of the wrong kind – pixels, image landmarks, y up, a mirror image – gives an answer that looks like one. Each kind is
told by what bodies cannot do; where a single pose could be either, the batch decides. Thresholds with their evidence are
below; `benchmarks/kinds.py` measures them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refiner.errors import UserError
from refiner.inference.stretched import stretched
from refiner.skeleton import INDEX, LEFT_HIP, LEFT_SHOULDER, NUM_JOINTS, NUM_LANDMARKS, root_centred, to_coco

# A person measures 0.3 m (a crouching child) to 1.5 m (a raised arm of a tall one) from the hips to the farthest joint.
# Wide limits: they catch centimetres, millimetres and pixels, not unusual people.
NEAREST_M, FARTHEST_M = 0.1, 3.0

# Farther from the origin a float32's step is more than a tenth of a millimetre.
_AWAY_M = 1000.0

# Trunk + thigh + shank, median of a batch. In 89,297 poses of captured motion (326 BVH files), seen from anywhere and with
# MediaPipe's kind of errors, the smallest is 0.98 m; a child of two has about 0.55.
SHORTEST_BODY_M = 0.50
# The largest, of these and of 78,577 filmed or simulated ones, is 1.67 m; the tallest people have 1.95. Feet make 4.2 of it.
LONGEST_BODY_M = 2.2

# In another order of joints, Human3.6M's, SMPL's or OpenPose's, the first five are no face: farther from the first than this,
# metres, median of a batch: (poses at least, limit). In those 168,000 true poses it is 0.41 at most, in batches of 20 0.34.
_FACE_M = ((20, 0.42), (1, 0.55))
# The first 17 of MediaPipe's 33 begin with eleven joints of the head: so near the first one, as a share of trunk and leg, and
# so wide the "shoulders" against the "hips". No true pose of those, nor with a child's proportions, is below both.
_HEAD, _SHOULDERS = 0.3, 0.08

# `stretched` of a batch: (poses at least, limit). Past these is none of 241,000 rendered, true and real poses and of 33,000 of
# simulated errors, each also turned by any angle, with children's proportions and with depths of 0.6 (1.43 million in all),
# singly or in windows.
_STRETCHED = ((60, -1.8), (20, 1.0), (5, 3.1), (1, 7.3))
# A single pose whose depth is less than this share of its width or height is not looked at: these are one in a hundred of
# the image landmarks that are told, and six in seven of all true poses.
_DEEP = 0.5

# Image landmarks as they are: the hips lie in the picture instead of at the origin.
_OFF_ORIGIN, _IN_PICTURE = 0.15, (-0.25, 1.25)

# How far nose and knees are in front of the body, metres, mean of a batch: (poses at least, threshold). In a mirror they are
# behind it. Smallest means in 17,000 true windows of so many poses: −0.041, −0.086, −0.098; mirrored, 98.0, 94.7 and 89.8 % of
# them are past these. Of fewer poses it says nothing. Of people on the floor MediaPipe is less sure which way they face: two of
# 1,264 windows of 20 of rendered floor work were past the limits of those who stand, so that theirs lie farther out.
_MIRRORED = ((200, -0.08), (60, -0.12), (20, -0.15))
_MIRRORED_ON_FLOOR = ((200, -0.08), (60, -0.17), (20, -0.185))
_STANDS = 0.8  # cosine of the trunk to the vertical, mean of a batch: so stand 95 % of those windows

# Upside down: trunk and legs point down by so much (metres) in this share of a batch, while the hands are off the ground
# (higher than the head) in that share. People stand on their hands; who spins on the head puts them down now and then.
_TRUNK_DOWN, _LEGS_UP, _HANDS_FREE = 0.15, 0.25, 0.10
_MOSTLY = 0.8
# (poses at least, share with free hands). In 168,000 true poses nobody is upside down, also lying on any side; those who stand
# on their hands or shoulders seldom have them free.
_NOW_AND_THEN = ((60, 0.1), (20, 0.15), (1, 0.3))
# Of so many poses hardly one is upright, and some are upside down with free hands: for floor work, which seldom is either.
_LONG, _SOME, _ONCE = 120, 0.1, 0.02


_TURNED = np.array([1, -1, -1], dtype=np.float32)  # by half a turn about x
_LEG_STARTS = [INDEX[name] for name in ("left_hip", "right_hip", "left_knee", "right_knee")]
_ARMS = [INDEX[name] for name in ("left_elbow", "right_elbow", "left_wrist", "right_wrist")]
_LEG_ENDS = [INDEX[name] for name in ("left_knee", "right_knee", "left_ankle", "right_ankle")]


def validate_poses(
    poses: object, visibility: object = None, max_poses: int | None = None, *, recognise: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Checks poses that come from outside and brings them into the form that everything here works on.

    Args:
        poses: (N, 17, 3) COCO or (N, 33, 3) MediaPipe world landmarks: metres, x right, y down, z away from the camera; or
            MediaPipe's own `pose_world_landmarks`, a list of `Landmark` for each pose.
        visibility: (N, 17 or 33) as MediaPipe gives it, 0 … 1; None counts as fully visible.
        max_poses: more of them are refused.
        recognise: also refuse what has the right size but is of another kind. Not for what was checked when it was made.

    Returns:
        (N, 17, 3) float32 with the hips' midpoint at the origin, (N, 17) float32.

    Raises:
        UserError: wrong shape, no poses or too many, NaN or infinity, or numbers that are not world landmarks.
    """
    poses = as_numbers(from_landmarks(poses), "poses")
    if poses.ndim != 3 or poses.shape[1] not in (NUM_JOINTS, NUM_LANDMARKS) or poses.shape[2] != 3:
        raise UserError(f"poses have the shape {shape_of(poses)}: expected N×17×3 (COCO) or N×33×3 (MediaPipe)")
    if not len(poses):
        raise UserError("poses is empty: send at least one")
    if max_poses is not None and len(poses) > max_poses:
        raise UserError(f"{len(poses)} poses are more than the {max_poses} accepted at once: send them in parts")
    check_finite(poses, "poses")
    if visibility is None:
        visibility = np.ones(poses.shape[:2], dtype=np.float32)
    else:
        visibility = as_numbers(visibility, "visibility")
        if visibility.shape != poses.shape[:2]:
            raise UserError(
                f"visibility has the shape {shape_of(visibility)}: expected {shape_of(poses[..., 0])}, "
                "one number for each joint"
            )
        check_finite(visibility, "visibility")
        if visibility.min() < 0 or visibility.max() > 1:
            raise UserError(
                f"visibility goes from {visibility.min():g} to {visibility.max():g}: it must lie between 0 and 1"
            )
    joints = to_coco(poses)
    poses, visibility = root_centred(joints), to_coco(visibility[..., None])[..., 0]
    size = reach(poses)
    wrong = (size < NEAREST_M) | (size > FARTHEST_M)
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(
            f"pose {first} reaches {size[first]:.3g} from its hips, which no person does in metres: "
            "send MediaPipe's world landmarks (metres, not pixels, centimetres or image coordinates)"
        )
    away = float(np.abs(joints).max())
    if away > _AWAY_M:
        raise UserError(
            f"the poses lie up to {away:.3g} m from the origin, where numbers of 32 bits tell no centimetres: move the hips to "
            "the origin"
        )
    if recognise:
        _check_kind(joints, poses)
    return poses, visibility


def plain(poses: np.ndarray, visibility: np.ndarray | None) -> np.ndarray:
    """Of poses that each stand for themselves, those that `validate_poses` takes: one look at all of them, where it would take
    one at each. Of the others it must be asked.

    Args:
        poses: (N, J, 3) float32.
        visibility: (N, J), or None.

    Returns:
        (N,) bool.
    """
    if poses.shape[1:] not in ((NUM_JOINTS, 3), (NUM_LANDMARKS, 3)):
        return np.zeros(len(poses), bool)
    fine = np.asarray(np.isfinite(poses).all((1, 2)))
    if visibility is not None:
        if visibility.shape != poses.shape[:2]:
            return np.zeros(len(poses), bool)
        fine &= ((visibility >= 0) & (visibility <= 1)).all(1)
    joints = to_coco(np.where(fine[:, None, None], poses, 0))
    centred = root_centred(joints)
    size, offset, length = reach(centred), joints[:, 0] - centred[:, 0], body_length(centred)
    fine &= (size >= NEAREST_M) & (size <= FARTHEST_M) & (length >= SHORTEST_BODY_M) & (length <= LONGEST_BODY_M)
    fine &= np.abs(offset).max(-1) <= _OFF_ORIGIN
    from_nose = np.linalg.norm(centred[:, 1 : INDEX["right_wrist"] + 1] - centred[:, :1], axis=-1)
    face, head = from_nose[:, : INDEX["right_ear"]].max(1), from_nose.max(1) / np.maximum(length, 1e-9)
    fine &= (face <= _FACE_M[-1][1]) & (head >= _HEAD)
    wide, high, deep = np.square(centred).sum(1).T
    return fine & (deep <= _DEEP**2 * np.maximum(wide, high)) & ~is_upside_down(centred)[1]


def _check_kind(joints: np.ndarray, poses: np.ndarray) -> None:
    """(N, 17, 3) as they came, the same root-centred: told from image landmarks, y up and mirror images."""
    offset = joints[0, 0] - poses[0, 0] if len(poses) == 1 else np.median(joints[:, 0] - poses[:, 0], axis=0)
    x, y, z = offset.tolist()
    off_origin = max(abs(x), abs(y)) > _OFF_ORIGIN > abs(z) and 0 <= min(x, y) <= max(x, y) <= 1
    if off_origin and _inside(joints):
        raise UserError(
            f"these look like image landmarks: the hips are at x {x:.2f}, y {y:.2f} of a picture, not at the "
            "origin; send MediaPipe's pose_world_landmarks (metres), not pose_landmarks"
        )
    lengths = body_length(poses)
    length = float(lengths[0] if len(lengths) == 1 else np.median(lengths))
    if length > LONGEST_BODY_M:
        raise UserError(
            f"trunk and leg are {length:.2f} long together, which is too long for a person in metres: are these feet, or "
            "joints in another order than COCO's? Send MediaPipe's pose_world_landmarks (metres)"
        )
    _check_order(poses, lengths)
    if length < SHORTEST_BODY_M:
        raise UserError(
            f"trunk and leg are {length:.2f} long together, which is too short for a person in metres: these look like image "
            "landmarks moved to the hips; send MediaPipe's pose_world_landmarks (metres)"
        )
    if _is_deep(poses) and stretched(poses) > next(limit for count, limit in _STRETCHED if len(poses) >= count):
        raise UserError(
            "the depth is stretched in relation to width and height, as in image landmarks (here they look moved to the "
            "hips): send MediaPipe's pose_world_landmarks (metres), not pose_landmarks"
        )
    upside_down, hands_free = is_upside_down(poses)
    now_and_then = next(share for count, share in _NOW_AND_THEN if len(poses) >= count)
    if (np.count_nonzero(upside_down) > _MOSTLY * len(poses) and hands_free.mean() >= now_and_then) or (
        len(poses) >= _LONG and hands_free.mean() > _SOME and is_upside_down(poses * _TURNED)[0].mean() < _ONCE
    ):
        raise UserError(
            "the people stand on their heads with their hands in the air: y seems to point up; send x to the right, y down, "
            "z away from the camera, as MediaPipe gives them"
        )
    limits = _MIRRORED if upright(poses).mean() > _STANDS else _MIRRORED_ON_FLOOR
    threshold = next((limit for count, limit in limits if len(poses) >= count), None)
    if threshold is not None and in_front(poses).mean() < threshold:
        raise UserError(
            "noses and knees point backwards: left and right are exchanged, or one axis is mirrored; send x to the right, "
            "y down, z away from the camera, and the person's own left as left"
        )


def _check_order(poses: np.ndarray, lengths: np.ndarray) -> None:
    """(N, 17, 3) root-centred and their (N,) `body_length`: joints in another order than COCO's are told by the head.

    Raises:
        UserError: they are.
    """
    offsets = poses[:, 1 : INDEX["right_wrist"] + 1] - poses[:, :1]
    distances = np.sqrt(np.einsum("njc,njc->nj", offsets, offsets))  # (N, 10) from the first joint
    faces = distances[:, : INDEX["right_ear"]].max(1)
    face = float(faces[0] if len(faces) == 1 else np.median(faces))
    if face > next(limit for count, limit in _FACE_M if len(poses) >= count):
        raise UserError(
            f"the first five joints, which are nose, eyes and ears, lie {face:.2f} m apart: these look like joints in another "
            "order, such as Human3.6M's, SMPL's or OpenPose's; send the 17 of COCO or MediaPipe's 33, in their order"
        )
    heads = distances.max(1) / np.maximum(lengths, 1e-9)
    if (heads[0] if len(heads) == 1 else np.median(heads)) < _HEAD:
        shoulders, hips = (np.linalg.norm(poses[:, a] - poses[:, a + 1], axis=-1) for a in (LEFT_SHOULDER, LEFT_HIP))
        if np.median(shoulders / np.maximum(hips, 1e-9)) < _SHOULDERS:
            raise UserError(
                "the first eleven joints lie within the head: these look like the first 17 of MediaPipe's 33 landmarks; send "
                "all 33, or COCO's 17"
            )


def reach(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) distance from the hips to the farthest joint: a person's size, whatever the posture."""
    return np.sqrt(np.einsum("njc,njc->nj", poses, poses).max(-1))


def body_length(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) trunk + thigh + shank, the same whatever the posture."""
    bones = poses[:, _LEG_ENDS] - poses[:, _LEG_STARTS]  # (N, 4, 3)
    legs = np.sqrt(np.einsum("nbc,nbc->nb", bones, bones)).sum(-1) / 2
    trunk = _middle(poses, "shoulder")
    return legs + np.sqrt(np.einsum("nc,nc->n", trunk, trunk))


def in_front(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) metres by which the nose is before the ears, and the knees before hips and ankles.

    Before is where the trunk faces (right to left shoulder × up the spine); in a mirror image it all lies behind.
    """
    across = poses[:, INDEX["left_shoulder"]] - poses[:, INDEX["right_shoulder"]]
    ahead = np.cross(across, _middle(poses, "shoulder"))
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
    nose = poses[:, INDEX["nose"]] - _middle(poses, "ear")
    knees = _middle(poses, "knee") * 2 - _middle(poses, "hip") - _middle(poses, "ankle")
    return ((nose + knees) * ahead).sum(-1)


def upright(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) cosine of the trunk to the vertical: 1 where it stands, 0 where it lies."""
    trunk = _middle(poses, "shoulder")
    return -trunk[:, 1] / np.maximum(np.linalg.norm(trunk, axis=-1), 1e-9)


def is_upside_down(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 17, 3) root-centred -> (N,) whether trunk and legs point down; (N,) whether also the hands touch nothing."""
    upside_down = (_middle(poses, "shoulder")[:, 1] > _TRUNK_DOWN) & (_middle(poses, "ankle")[:, 1] < -_LEGS_UP)
    head = poses[:, : INDEX["left_shoulder"], 1].max(-1)
    hands = poses[:, _ARMS, 1].max(-1)  # with the elbows: a shoulder stand rests on them
    return upside_down, upside_down & (hands < head - _HANDS_FREE)


def _is_deep(poses: np.ndarray) -> bool:
    """Whether (N, 17, 3) may be stretched in depth at all: a quick look, for single poses come by the thousand a second."""
    wide, high, deep = np.square(poses[0]).sum(0).tolist()
    return len(poses) > 1 or deep > _DEEP**2 * max(wide, high)


def _inside(joints: np.ndarray) -> bool:
    """Whether (N, 17, 3) lie in a picture, or nearly."""
    low, high = _IN_PICTURE
    return bool(((joints[..., :2] > low) & (joints[..., :2] < high)).mean() > 0.95)


def _middle(poses: np.ndarray, joint: str) -> np.ndarray:
    return (poses[:, INDEX[f"left_{joint}"]] + poses[:, INDEX[f"right_{joint}"]]) / 2


def from_landmarks(poses: object) -> object:
    """MediaPipe's lists of landmarks as numbers; anything else as it is.

    Raises:
        UserError: there is None among the poses, or they are image landmarks by their type.
    """
    poses = getattr(poses, "pose_world_landmarks", poses)  # a whole result
    if not isinstance(poses, Sequence) or isinstance(poses, str | bytes) or not len(poses):
        return poses
    for i, pose in enumerate(poses):
        if pose is None:
            raise UserError(f"poses[{i}] is None: leave out the frames in which nobody was detected")
    if hasattr(poses[0], "x"):  # one pose
        return [_points(poses, 0)]
    first = getattr(poses[0], "landmark", poses[0])
    if hasattr(first, "__len__") and hasattr(first, "__getitem__") and len(first) and hasattr(first[0], "x"):
        return [_points(getattr(pose, "landmark", pose), i) for i, pose in enumerate(poses)]
    return poses


def _points(pose: Any, number: int) -> list[tuple[float, float, float]]:
    try:
        if type(pose[0]).__name__ == "NormalizedLandmark":
            raise UserError(
                "these are image landmarks (NormalizedLandmark): send pose_world_landmarks, which are metres"
            )
        return [(point.x, point.y, point.z) for point in pose]
    except (AttributeError, TypeError, LookupError):
        raise UserError(
            f"poses[{number}] is not a list of landmarks with x, y and z, as others are: send MediaPipe's pose_world_landmarks"
        ) from None


def as_numbers(values: object, name: str) -> np.ndarray:
    """Anything as an array of float32; what a masked array hides is NaN.

    Raises:
        UserError: it holds something else than numbers, or parts of different length.
    """
    array = numbers_or_none(values)
    if array is None:
        raise UserError(f"{name} is not a regular array of numbers: every pose must have the same number of joints")
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        return array.astype(np.float32)


def numbers_or_none(values: object) -> np.ndarray | None:
    """Anything as an array of integers or floating-point numbers; None where it is no such thing."""
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
    except (
        ValueError,
        TypeError,
        RuntimeError,
        OverflowError,
    ):  # PyTorch's tensors that want a gradient are RuntimeErrors
        return None
    return array if array.dtype.kind in "fiu" else None


def check_pixels(points: np.ndarray) -> None:
    """(N, J, 2) image points; NaN where they are not known.

    Raises:
        UserError: those of a pose are shares of a picture, as in MediaPipe's pose_landmarks. (What `crop_normalise` gives is
            told from these: it goes from -1 to 1.)
    """
    low, high = _IN_PICTURE
    shares = ((points > low) & (points < high)).all(axis=(1, 2))
    if shares.any():
        raise UserError(
            f"the image_points of pose {int(shares.argmax())} lie between 0 and 1, as in MediaPipe's pose_landmarks: send "
            "pixels (x times the picture's width, y times its height)"
        )


def check_finite(array: np.ndarray, name: str) -> None:
    """
    Raises:
        UserError: a number is not finite; the sentence says which.
    """
    finite = np.isfinite(array)
    if not finite.all():
        where = np.argwhere(~finite)[0]
        raise UserError(
            f"{name}[{']['.join(map(str, where))}] is {array[tuple(where)]}: every number must be finite; "
            "leave out the frames in which nobody was detected"
        )


def shape_of(array: np.ndarray) -> str:
    """A shape as sentences have it: 5×17×3."""
    return "×".join(map(str, array.shape)) or "a single number"
