"""Nine cameras laid out as AIST++'s: c01 in front of the dancer, then every 45° around, c09 in front and low."""

import numpy as np

from refiner.data.aistpp import CAMERAS
from refiner.errors import UserError
from refiner.geometry import Camera

# AIST++'s world has its origin below the floor: the lowest ankles of its dancers are at 0.68 m, and an ankle is 0.08 m
# above a sole. Real motions and real camera settings fit the studio because its floor is where theirs is.
FLOOR = 0.60

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels


def look_at(position: np.ndarray, target: np.ndarray, roll: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3,) of a camera at a point, with y down and a roll in radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return rotation, -rotation @ position


def draw_cameras(rng: np.random.Generator, size: tuple[int, int]) -> dict[str, Camera]:
    """A camera setting. Heights, focal lengths and lenses are spread as in AIST++'s settings; it is 0.3 m nearer,
    so that a dancer fills more of the picture.

    Args:
        rng: where the setting comes from.
        size: width, height of the pictures in pixels; focal lengths scale with it.
    """
    width, height = size
    cameras = {}
    lens = rng.normal(0, 0.10)  # a setting's lenses err together, since they were calibrated together
    for i, name in enumerate(CAMERAS):
        low = name == "c09"
        angle = np.radians(0 if low else -45 * i) + rng.normal(0, 0.02)
        distance = rng.uniform(4.1, 4.6) if low or i == 0 else rng.uniform(4.3, 4.9)
        eye = FLOOR + (rng.normal(0.40, 0.02) if low else rng.normal(1.16, 0.05))
        position = np.array([distance * np.sin(angle), eye, distance * np.cos(angle)])
        target = np.array([rng.normal(0, 0.04), FLOOR + rng.normal(1.08, 0.04), rng.normal(0, 0.04)])
        focal = rng.uniform(1380, 1620) * height / 1080
        rotation, translation = look_at(position, target, np.radians(rng.normal(0, 0.5)))
        k1 = float(np.clip(lens + rng.normal(0, 0.10), -0.3, 0.3))
        cameras[name] = Camera(
            name=name,
            size=size,
            matrix=np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
            distortion=np.array([k1, 0, 0, 0, 0]),
            rotation=rotation,
            translation=translation,
        )
    return cameras


def draw_free_cameras(rng: np.random.Generator, size: tuple[int, int]) -> dict[str, Camera]:
    """Nine cameras anywhere around the dancer: from 0.25 to 2.6 m above the floor, 2.5 to 6.5 m away, framed so that
    somebody of 1.75 m who stands there fills 45 to 85 % of the picture's height, less where a big step (1.3 m) would not
    fit its width.

    Args:
        rng: where they come from.
        size: width, height of the pictures in pixels, landscape or portrait.
    """
    width, height = size
    cameras = {}
    for name in CAMERAS:
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(2.5, 6.5)
        eye = FLOOR + rng.triangular(0.25, 1.3, 2.6)
        position = np.array([distance * np.sin(angle), eye, distance * np.cos(angle)])
        target = np.array([rng.normal(0, 0.08), FLOOR + rng.normal(0.95, 0.08), rng.normal(0, 0.08)])
        focal = distance * min(rng.uniform(0.45, 0.85) * height / 1.75, 0.9 * width / 1.3)
        rotation, translation = look_at(position, target, np.radians(rng.normal(0, 1.5)))
        cameras[name] = Camera(
            name=name,
            size=size,
            matrix=np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
            distortion=np.array([float(np.clip(rng.normal(0, 0.06), -0.15, 0.15)), 0, 0, 0, 0]),
            rotation=rotation,
            translation=translation,
        )
    return cameras


def resized(camera: Camera, size: tuple[int, int]) -> Camera:
    """The same camera with pictures of another size.

    Raises:
        UserError: the pictures would have another shape, which no scale gives.
    """
    scale = size[1] / camera.size[1]
    if abs(scale * camera.size[0] - size[0]) > 1:
        width, height = (2 * round(n / 3) for n in camera.size)
        raise UserError(
            f"camera {camera.name} is calibrated for {camera.size[0]} × {camera.size[1]}: "
            f"{size[0]} × {size[1]} has another shape, give --size {width} {height}"
        )
    matrix = camera.matrix.copy()
    matrix[:2] *= scale
    # pixel centres are whole numbers: the picture's corner, not its first pixel, is what stays
    matrix[:2, 2] += (scale - 1) / 2
    return Camera(camera.name, size, matrix, camera.distortion, camera.rotation, camera.translation)


def windowed(camera: Camera, box: Box) -> Camera:
    """The same camera, of whose picture only a box is kept, which may reach beyond it."""
    x0, y0, x1, y1 = box
    matrix = camera.matrix.copy()
    matrix[:2, 2] -= (x0, y0)
    return Camera(camera.name, (x1 - x0, y1 - y0), matrix, camera.distortion, camera.rotation, camera.translation)
