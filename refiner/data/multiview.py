"""Several calibrated cameras that filmed the same person: their calibration, their lags, and where the joints are in space.

What ground truth needs when there is no annotation. Cameras are the first axis of every array; pixels in, metres (world
frame of the calibration) out.
"""

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner.errors import UserError
from refiner.geometry import Camera

# A view that is further than this from where others put a joint saw something else (another leg, mostly). 50 px are 12 cm
# for a person 4 m from a camera with a focal length of 1,700 px. Views usually are a fifth of that off, and count less the
# further off they are: a limit as tight as that would let two wrong views, which always agree somewhere, win too often.
MAX_ERROR_PX = 50.0
# Rays that meet at a smaller angle (or come from opposite sides as nearly) do not say how far away the joint is.
MIN_ANGLE = 15.0
ROUNDS = 3  # of reweighting; it converges fast
MAX_LAG = 10  # frames
LAG_ROUNDS = 10
LAG_PRECISION = 0.02  # frames
Z_UP = np.array([0.0, 0.0, 1.0])  # of Qualisys's world


@dataclass(frozen=True, kw_only=True, slots=True)
class Triangulated:
    """Points in space and how well V views agree on them."""

    points: np.ndarray  # (..., 3) m, world frame; NaN where no two views agree
    errors: (
        np.ndarray
    )  # (V, ...) px, distance of each view's image point from the projected point; NaN where there is none
    kept: np.ndarray  # (V, ...) bool, the views that a point was computed from


def triangulate(
    cameras: Sequence[Camera], image: np.ndarray, weights: np.ndarray, max_error_px: float = MAX_ERROR_PX
) -> Triangulated:
    """Points from what the views saw of them, whatever some of the views saw instead.

    Every pair of views proposes a point, which is fitted again to all views that agree with it; the proposal with the
    least truncated squared reprojection error over all views wins (locally optimised MSAC, here exhaustive). Points are
    fitted by iteratively reweighted linear least squares (Hartley & Sturm 1997), each view by its weight and Cauchy's.

    Args:
        cameras: V of them.
        image: (V, ..., 2) pixels, as filmed (distorted).
        weights: (V, ...) how much each image point counts, for instance its visibility; 0 where there is none.
        max_error_px: beyond it a view does not agree.
    """
    shape = image.shape[1:-1]
    image = image.reshape(len(cameras), -1, 2).astype(np.float64)
    weights = np.where(np.isfinite(image).all(-1), weights.reshape(len(cameras), -1), 0.0)
    rows, targets = _equations(cameras, np.nan_to_num(image))

    def fitted(points: np.ndarray, kept: np.ndarray) -> np.ndarray:
        for _ in range(ROUNDS):
            distances = np.stack([camera.to_camera(points)[:, 2] for camera in cameras])
            focal = np.array(
                [[camera.matrix[0, 0]] for camera in cameras]
            )  # over distance: the equations' unit is pixels
            cauchy = 1 / (1 + (_errors(cameras, points, image) / (max_error_px / 5)) ** 2)
            points = _solve(rows, targets, kept * weights * cauchy * (focal / distances) ** 2)
        return points

    best = np.full(image.shape[1], np.inf)
    points = np.full((image.shape[1], 3), np.nan)
    kept = np.zeros(weights.shape, dtype=bool)
    for pair in itertools.combinations(range(len(cameras)), 2):
        chosen = np.zeros_like(weights)
        chosen[list(pair)] = 1
        proposed = _solve(rows, targets, chosen)
        a, b = (proposed - cameras[view].position for view in pair)
        cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
        agree = (weights > 0) & (_errors(cameras, proposed, image) < max_error_px)
        usable = agree[list(pair)].all(0) & (np.abs(cosine) < np.cos(np.radians(MIN_ANGLE)))
        proposed = fitted(proposed, agree)
        cost = (weights * np.minimum(_errors(cameras, proposed, image), max_error_px) ** 2).sum(0)
        better = usable & (cost < best)
        best[better], points[better], kept[:, better] = cost[better], proposed[better], agree[:, better]
    seen = np.isfinite(best)
    errors = np.where(weights > 0, _errors(cameras, points, image), np.nan)
    errors[:, ~seen] = np.nan
    return Triangulated(
        points=points.reshape(*shape, 3),
        errors=errors.reshape(len(cameras), *shape),
        kept=kept.reshape(len(cameras), *shape),
    )


def _equations(cameras: Sequence[Camera], image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, N, 2) px -> (V, N, 2, 3) A and (V, N, 2) b of the linear equations A X = b that put X on each view's ray."""
    rows, targets = [], []
    for camera, points in zip(cameras, image, strict=True):
        xy = camera.undistort(points)[..., None]  # (N, 2, 1)
        rows.append(camera.rotation[:2] - xy * camera.rotation[2])
        targets.append(xy[..., 0] * camera.translation[2] - camera.translation[:2])
    return np.stack(rows), np.stack(targets)


def _solve(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, 3) the least-squares solutions, each view by its weight (V, N)."""
    gram = np.einsum("vn,vnki,vnkj->nij", weights, rows, rows)
    moment = np.einsum("vn,vnki,vnk->ni", weights, rows, targets)
    # parallel rays and points without views have no solution; a little on the diagonal gives them a harmless one
    gram += (1e-12 * np.trace(gram, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3)
    return np.linalg.solve(gram, moment[..., None])[..., 0]


def _errors(cameras: Sequence[Camera], points: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(V, N) px; infinite behind a camera or where there is no image point."""
    errors = np.stack(
        [np.linalg.norm(c.project(points) - seen, axis=-1) for c, seen in zip(cameras, image, strict=True)]
    )
    return np.where(np.isfinite(errors), errors, np.inf)


def find_lags(cameras: Sequence[Camera], image: np.ndarray, weights: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """How many frames later than in the first camera each camera shows a moment, from the image points alone.

    The lags at which the views agree best: least mean truncated squared reprojection error, one camera after the other
    until nothing changes. Each camera is tried at whole frames, and the vertex of the parabola through the three errors
    around the least is its lag: interpolated image points would be smoother than real ones and draw it to half frames.

    Args:
        cameras: V of them.
        image: (V, F, J, 2) pixels.
        weights: (V, F, J).
        max_lag: frames to look in either direction.

    Returns:
        (V,) frames, the first is 0. The moment of the first camera's frame f is frame f + lag of the others.

    Raises:
        UserError: the clips are too short, or they agree best at the end of what was looked at.
    """
    middle = np.arange(max_lag, image.shape[1] - max_lag)  # the same moments whatever the lag
    if len(middle) < 2:
        raise UserError(
            f"clips of {image.shape[1]} frames are too short to find lags of up to {max_lag} frames in them"
        )

    def costs(view: int, lags: np.ndarray, steps: np.ndarray) -> np.ndarray:
        points = np.stack([at_frames(i, middle + lag) for i, lag in zip(image, lags, strict=True)])
        counts = np.stack([at_frames(w, middle + lag) for w, lag in zip(weights, lags, strict=True)])
        sums = []
        for step in steps:
            points[view], counts[view] = image[view, middle + step], weights[view, middle + step]
            errors = np.nan_to_num(triangulate(cameras, points, counts).errors, nan=MAX_ERROR_PX)
            sums.append((np.minimum(errors, MAX_ERROR_PX) ** 2 * counts).sum() / counts.sum())
        return np.array(sums)

    lags = np.zeros(len(cameras))
    steps = [np.arange(-max_lag, max_lag + 1)] * len(cameras)
    for _ in range(LAG_ROUNDS):
        before = lags.copy()
        for view in range(1, len(cameras)):
            disagreement = costs(view, lags, steps[view])
            least = int(disagreement.argmin())
            step = steps[view][least]
            if abs(step) == max_lag:
                raise UserError(
                    f"{cameras[view].name} agrees best with the others at a lag of {step} frames, the last that was "
                    "looked at: the clips do not show the same moments, or the calibration is not theirs"
                )
            least = min(max(least, 1), len(disagreement) - 2)
            low, middle_cost, high = disagreement[least - 1 : least + 2]
            lags[view] = steps[view][least] + 0.5 * (low - high) / max(low - 2 * middle_cost + high, 1e-12)
            steps[view] = step + np.arange(-2, 3)
            steps[view] = steps[view][np.abs(steps[view]) <= max_lag]
        if np.abs(lags - before).max() < LAG_PRECISION:
            break
    return lags


def at_frames(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(F, ...) one row a frame -> (M, ...) at these fractional frames, linearly between two; NaN beyond the ends."""
    before = np.clip(np.floor(frames).astype(int), 0, len(values) - 2)
    share = (frames - before).reshape(-1, *[1] * (values.ndim - 1))
    between = (1 - share) * values[before] + share * values[before + 1]
    between[(frames < 0) | (frames > len(values) - 1)] = np.nan
    return between


def read_qualisys(path: str | Path) -> list[Camera]:
    """The cameras of a Qualisys video calibration (`.qca.txt`, XML), in the file's order, in OpenCV's axes and metres.

    Qualisys has the camera's y up and z backwards, its position in millimetres and its intrinsics in 1/64 px.

    Raises:
        UserError: it is missing or no such calibration.
    """
    try:
        elements = ElementTree.parse(path).getroot().findall("cameras/camera")
        cameras = [_camera(element) for element in elements]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it holds the cameras' calibration as Qualisys exports it") from None
    except (ElementTree.ParseError, IndexError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a Qualisys calibration ({error}): export it again from QTM") from None
    if not cameras:
        raise UserError(f"{path} holds no camera: export the calibration again from QTM")
    return cameras


def _camera(element: ElementTree.Element) -> Camera:
    fov, transform, intrinsic = (
        {key: float(value) for key, value in element.findall(name)[0].attrib.items()}
        for name in ("fov_video", "transform", "intrinsic")
    )
    matrix = np.array([[transform[f"r{i}{j}"] for j in (1, 2, 3)] for i in (1, 2, 3)])
    rotation = np.diag([1.0, -1.0, -1.0]) @ matrix
    position = np.array([transform["x"], transform["y"], transform["z"]]) / 1000
    focal = np.array([intrinsic["focalLengthU"], intrinsic["focalLengthV"]]) / 64
    centre = np.array([intrinsic["centerPointU"], intrinsic["centerPointV"]]) / 64
    return Camera(
        name=element.attrib["serial"],
        size=(int(fov["right"] - fov["left"]) + 1, int(fov["bottom"] - fov["top"]) + 1),
        matrix=np.array([[focal[0], intrinsic["skew"] / 64, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]]),
        distortion=np.array(
            [intrinsic[f"radialDistortion{i}"] for i in (1, 2)]
            + [intrinsic[f"tangentalDistortion{i}"] for i in (1, 2)]
            + [intrinsic["radialDistortion3"]]
        ),
        rotation=rotation,
        translation=-rotation @ position,
    )
