"""Cameras, the virtual camera, view angles and alignment. Numpy in and out; metres, OpenCV axes (x right, y down, z away).

Frames of reference: *world* (AIST++: y up, centimetres on disk, metres here), *camera* (X_cam = R X_world + t) and
*virtual camera* (the camera turned so that it looks straight at the hips' midpoint, which is the origin). MediaPipe's
world landmarks are given in the last one, so truth and observation meet there.
"""

from dataclasses import dataclass

import numpy as np

from refiner.skeleton import LEFT_HIP, LEFT_SHOULDER, MIRROR, RIGHT_HIP, RIGHT_SHOULDER, hips_midpoint, root_centred

# Bins of the signed azimuth, degrees, that profiles, tables and plots use.
AZIMUTH_EDGES = np.arange(-180, 181, 45)

Y_UP = np.array([0.0, 1.0, 0.0])  # of AIST++'s world


@dataclass(frozen=True, slots=True)
class Camera:
    """A calibrated pinhole camera with Brown–Conrady distortion, as OpenCV has it."""

    name: str
    size: tuple[int, int]  # width, height in pixels
    matrix: np.ndarray  # (3, 3) intrinsics, pixels
    distortion: np.ndarray  # (5,) k1, k2, p1, p2, k3
    rotation: np.ndarray  # (3, 3) world -> camera
    translation: np.ndarray  # (3,) metres

    @property
    def position(self) -> np.ndarray:
        """(3,) the camera's centre in the world frame, metres."""
        return -self.rotation.T @ self.translation

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) world frame -> (..., 3) camera frame, metres."""
        return points @ self.rotation.T + self.translation

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) world frame, metres -> (..., 2) pixels. Points behind the camera have no image and come back NaN."""
        return self.project_camera(self.to_camera(points))

    def project_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) camera frame, metres -> (..., 2) pixels (OpenCV's `projectPoints`)."""
        z = points[..., 2:]
        xy = points[..., :2] / np.where(z > 1e-6, z, np.nan)
        x, y = xy[..., 0], xy[..., 1]
        k1, k2, p1, p2, k3 = self.distortion
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack(
            [
                self.matrix[0, 0] * xd + self.matrix[0, 1] * yd + self.matrix[0, 2],
                self.matrix[1, 1] * yd + self.matrix[1, 2],
            ],
            axis=-1,
        )

    def undistort(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels -> (N, 2) x/z and y/z in the camera frame; `project_camera` backwards."""
        import cv2

        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
        matrix = self.matrix.copy()
        matrix[0, 1] = 0  # OpenCV knows no skew
        v = (points[:, 1] - self.matrix[1, 2]) / self.matrix[1, 1]
        straight = np.stack([points[:, 0] - self.matrix[0, 1] * v, points[:, 1]], axis=-1)
        return cv2.undistortPoints(straight[:, None], matrix, self.distortion, criteria=stop)[:, 0]


def unit(v: np.ndarray) -> np.ndarray:
    """(..., 3) -> the same direction, length 1."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def to_room(points: np.ndarray) -> np.ndarray:
    """(..., 3) in a camera's axes (x right, y down, z away) -> the room's (x right, y up, z towards the camera)."""
    return points * np.array([1.0, -1.0, -1.0])


def rotation_matrix(rvec: np.ndarray) -> np.ndarray:
    """(..., 3) axis times angle in radians -> (..., 3, 3) (Rodrigues' formula)."""
    rvec = np.asarray(rvec, dtype=np.float64)
    angle = np.linalg.norm(rvec, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(rvec / np.maximum(angle[..., 0], 1e-12), -1, 0)
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """(3, 3) rotation -> (3,) axis times angle in radians; the inverse of `rotation_matrix`."""
    import cv2

    return cv2.Rodrigues(np.asarray(matrix, dtype=np.float64))[0].ravel()


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., 3), (..., 3) -> (..., 3, 3): the shortest rotation that takes direction a to direction b (not opposite ones)."""
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    v = np.cross(a, b)
    c = (a * b).sum(-1)[..., None, None]
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return np.eye(3) + k + (k @ k) / (1 + c)


def to_virtual_camera(poses: np.ndarray) -> np.ndarray:
    """Turns poses from the camera frame into the virtual camera frame.

    MediaPipe sees the crop around a person, not the image: its frame looks along the ray to that person. The camera is
    turned (by the shortest rotation) so that this ray is +z; then the hips' midpoint becomes the origin.

    Args:
        poses: (..., 17, 3) metres, camera frame, in front of the camera.

    Returns:
        (..., 17, 3) metres, virtual camera frame.
    """
    hips = hips_midpoint(poses)  # (..., 1, 3)
    rotation = virtual_camera_rotation(hips[..., 0, :])
    return np.einsum("...ij,...kj->...ki", rotation, poses - hips)


def pitch(camera: Camera, poses: np.ndarray, up: np.ndarray = Y_UP) -> np.ndarray:
    """How far a camera looks down at people: of the line of sight to their hips, below the horizon.

    Args:
        camera: that sees them.
        poses: (..., 17, 3) metres, world frame.
        up: (3,) of the world.

    Returns:
        (...) degrees, negative where it looks up.
    """
    away = unit(hips_midpoint(poses)[..., 0, :] - camera.position)
    return np.degrees(np.arcsin(np.clip(-away @ up, -1, 1)))


def virtual_camera_rotation(hips: np.ndarray) -> np.ndarray:
    """(..., 3) hips' midpoint in the camera frame -> (..., 3, 3) camera frame to virtual camera frame."""
    forward = np.zeros_like(hips)
    forward[..., 2] = 1
    return rotation_between(hips, forward)


def azimuth(poses: np.ndarray) -> np.ndarray:
    """Which way the body faces, seen from the camera: degrees in (−180, 180], over the full circle.

    0 faces the camera, +90 faces the image's right (+x), ±180 faces away. The torso's normal is shoulder line × spine;
    "shoulder line × hip line" would be degenerate, the two being nearly parallel.

    Args:
        poses: (..., 17, 3) camera or virtual camera frame, any unit.

    Returns:
        (...) degrees.
    """
    left, right = poses[..., LEFT_SHOULDER, :], poses[..., RIGHT_SHOULDER, :]
    across, spine = left - right, left + right - poses[..., LEFT_HIP, :] - poses[..., RIGHT_HIP, :]  # twice the spine
    # across × spine, without its y, and written out: np.cross takes longer than all the rest for a single pose
    x = across[..., 1] * spine[..., 2] - across[..., 2] * spine[..., 1]
    z = across[..., 0] * spine[..., 1] - across[..., 1] * spine[..., 0]
    return np.degrees(np.arctan2(x, -z))


def view_angle(azimuths: np.ndarray) -> np.ndarray:
    """Folds azimuths (degrees) into the published 0 (frontal, or facing away) to 90 (profile) degrees."""
    magnitude = np.abs(azimuths)
    return np.minimum(magnitude, 180 - magnitude)


def crop_normalise(points: np.ndarray) -> np.ndarray:
    """Image points relative to their own bounding box: its centre is the origin, half its longer side is 1.

    Args:
        points: (..., 17, 2) pixels.

    Returns:
        (..., 17, 2), within [−1, 1].
    """
    low, high = points.min(axis=-2, keepdims=True), points.max(axis=-2, keepdims=True)
    half = (high - low).max(axis=-1, keepdims=True) / 2
    return (points - (low + high) / 2) / np.maximum(half, 1e-6)


def mirror(poses: np.ndarray) -> np.ndarray:
    """(..., 17, 2 or 3) -> the pose in a mirror: x negated, left and right joints exchanged. An azimuth changes its sign."""
    mirrored = poses[..., MIRROR, :].copy()
    mirrored[..., 0] *= -1
    return mirrored


def depth_error(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17) |Δz| of each joint, metres."""
    return np.abs(root_centred(poses)[..., 2] - root_centred(truth)[..., 2])


def procrustes(poses: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Moves, turns and scales each pose onto its target with the least squared distance (Umeyama 1991).

    Args:
        poses: (..., J, 3).
        targets: (..., J, 3).

    Returns:
        (..., J, 3) the aligned poses.
    """
    mean_pose, mean_target = poses.mean(-2, keepdims=True), targets.mean(-2, keepdims=True)
    a, b = poses - mean_pose, targets - mean_target
    u, s, vt = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    sign = np.ones_like(s)
    sign[..., -1] = np.sign(np.linalg.det(u @ vt))  # no reflections
    rotation = (u * sign[..., None, :]) @ vt
    scale = (s * sign).sum(-1)[..., None, None] / np.maximum((a * a).sum((-1, -2), keepdims=True), 1e-12)
    return scale * a @ np.swapaxes(rotation, -1, -2) + mean_target
