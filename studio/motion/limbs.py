"""Rotations of arms, legs and feet out of where their bones point."""

import numpy as np

from refiner.geometry import rotation_matrix
from studio import rig
from studio.bodies.body import Body


def unit(v: np.ndarray) -> np.ndarray:
    """(..., 3) -> the same direction, length 1."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def arm_rotations(
    upper: np.ndarray, fore: np.ndarray, sign: int, hint: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """An arm's rotations out of where its two bones point.

    Args:
        upper: (..., 3) direction of the upper arm, in the frame of the bone that the shoulder hangs from.
        fore: (..., 3) direction of the forearm, same frame.
        sign: +1 left, −1 right.
        hint: (..., 3) the elbow's axis where the arm is straight and shows none.

    Returns:
        (..., 3, 3) of the shoulder in that frame, (..., 3, 3) of the elbow in the upper arm's.
    """
    upper, fore = unit(upper), unit(fore)
    if hint is None:
        # a straight arm's elbow bends up and forwards
        hint = np.cross(upper, np.broadcast_to(unit(np.array([0.0, 0.45, 1.0])), upper.shape))
    # the axis fades over to the hint as the arm straightens
    axis = np.cross(upper, fore) + 0.06 * unit(hint)
    axis = unit(axis - (axis * upper).sum(-1, keepdims=True) * upper)
    x = sign * upper
    y = -sign * axis
    shoulder = np.stack([x, y, np.cross(x, y)], axis=-1)
    bend = np.minimum(np.arctan2((np.cross(upper, fore) * axis).sum(-1), (upper * fore).sum(-1)), np.radians(150))
    elbow = rotation_matrix(np.stack([np.zeros_like(bend), -sign * bend, np.zeros_like(bend)], -1))
    return shoulder, elbow


def leg_rotations(
    hip: np.ndarray, ankle: np.ndarray, pole: np.ndarray, thigh: np.ndarray, shank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solves a leg: where hip and ankle are, and which way the knee points.

    Args:
        hip: (..., 3) world.
        ankle: (..., 3) world; if out of reach the leg is stretched towards it.
        pole: (..., 3) direction in which the knee bends, world.
        thigh: (3,) hip to knee in the zero pose.
        shank: (3,) knee to ankle in the zero pose.

    Returns:
        (..., 3, 3), (..., 3, 3) rotations of thigh and shank in the world.
    """
    a, b = np.linalg.norm(thigh), np.linalg.norm(shank)
    reach = ankle - hip
    d = np.clip(np.linalg.norm(reach, axis=-1, keepdims=True), abs(a - b) + 0.05, (a + b) * 0.9995)
    along = unit(reach)
    across = unit(pole - (pole * along).sum(-1, keepdims=True) * along)
    cosine = np.clip((a * a + d * d - b * b) / (2 * a * d), -1, 1)
    knee = hip + a * (cosine * along + np.sqrt(1 - cosine**2) * across)
    hinge = unit(np.cross(across, along))

    def turn(rest: np.ndarray, to: np.ndarray) -> np.ndarray:
        return frame(to, hinge) @ frame(rest, np.array([1.0, 0, 0])).T

    return turn(thigh, knee - hip), turn(shank, (hip + d * along) - knee)


def frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(..., 3, 3) axes with x as given and y as near to the given one as it can be."""
    x = unit(x)
    y = unit(y - (y * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def turned_about_y(points: np.ndarray, angle: float) -> np.ndarray:
    """(..., 3) turned about the vertical; a positive angle turns z towards x."""
    return points @ rotation_matrix(np.array([0.0, angle, 0.0])).T


def about_axes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations by the vector of these three angles."""
    return rotation_matrix(np.stack(np.broadcast_arrays(x, y, z), -1))


def about_y(angle: np.ndarray) -> np.ndarray:
    """(...,) -> (..., 3, 3) rotations about the vertical."""
    return rotation_matrix(np.stack([np.zeros_like(angle), angle, np.zeros_like(angle)], -1))


def collar_and_shoulder(
    shoulder: np.ndarray, sign: int, shrug: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Shares an upper arm's rotation between collar bone and shoulder: the collar rises with a raised arm.

    Args:
        shoulder: (T, 3, 3) rotation of the upper arm in the chest's frame.
        sign: +1 left, −1 right.
        shrug: further rise of the collar, radians.

    Returns:
        (T, 3, 3) collar in the chest's frame, (T, 3, 3) shoulder in the collar's.
    """
    direction = sign * shoulder[:, :, 0]
    rise = 0.28 * np.clip(direction[:, 1] + 0.15, 0, 1.1) + shrug
    forward = 0.22 * np.clip(direction[:, 2], -0.5, 1)
    collar = about_axes(0.0 * rise, -sign * forward, sign * rise)
    return collar, np.swapaxes(collar, -1, -2) @ shoulder


def soles(dancer: Body, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """(..., 6, 3) heel, ball and tip of both soles in the world: what must not be below the floor."""
    sole, s = dancer.build.sole, dancer.build.height / 1.75
    points = []
    for side in (0, 1):
        ball = dancer.offsets[rig.L_FOOT + side]
        for local in ((0, -sole, -0.06 * s), (ball[0], -sole, ball[2]), (ball[0], -sole, ball[2] + 0.08 * s)):
            points.append(
                placed[..., rig.L_ANKLE + side, :]
                + turned[..., rig.L_ANKLE + side, :, :] @ np.array(local, dtype=np.float64)
            )
    return np.stack(points, axis=-2)
