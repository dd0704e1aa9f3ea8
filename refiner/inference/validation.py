"""What comes from outside as poses: checked, recognised where it is something else, and brought into the one form used here.

A pose of the wrong kind – pixels, image landmarks, y up, a mirror image – gives an answer that looks like one. Here form and
size are checked; `kinds` and `sides` tell the kind.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refiner.errors import UserError
from refiner.inference.kinds import IN_PICTURE, check_kind, looks_plain
from refiner.skeleton import NUM_JOINTS, NUM_LANDMARKS, root_centred, to_coco

# A person measures 0.3 m (a crouching child) to 1.5 m (a raised arm of a tall one) from the hips to the farthest joint.
# Wide limits: they catch centimetres, millimetres and pixels, not unusual people.
NEAREST_M, FARTHEST_M = 0.1, 3.0

# Farther from the origin a float32's step is more than a tenth of a millimetre.
_AWAY_M = 1000.0


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
    joints, landmarks = to_coco(poses), poses if poses.shape[1] == NUM_LANDMARKS else None
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
        check_kind(joints, poses, landmarks)
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
    size = reach(centred)
    return fine & (size >= NEAREST_M) & (size <= FARTHEST_M) & looks_plain(joints, centred)


def reach(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) distance from the hips to the farthest joint: a person's size, whatever the posture."""
    return np.sqrt(np.einsum("njc,njc->nj", poses, poses).max(-1))


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
    low, high = IN_PICTURE
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
