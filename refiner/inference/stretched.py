"""Whether the depth of poses is stretched like that of MediaPipe's image landmarks.

Image landmarks moved to the hips have a person's shape and often a person's size. But their x and y are shares of the
picture's width and height, and their z is 3.6 times as long against x as that of world landmarks (2.7 to 4.3 in 88 rendered
videos; 3.1 to 3.8 in real ones). Bones do not change their length when they turn: the squares of their three components, each
stretched by a constant of its own, must add up to a body's lengths. So we ask whether bones fit better as they are or stretched
like a picture's. Only ratios count: nothing here depends on the size of a person.

Over a batch bones also keep their lengths, and heads are about as deep as wide. `python -m benchmarks.kinds` measures it; the
weights are a logistic regression's on windows of 5, 20 and 60 poses of every other clip.
"""

import numpy as np

from refiner.skeleton import INDEX

DEPTH = 3.6  # z of image landmarks over that of world landmarks, both against x
# Bones with their mean lengths in MediaPipe's world landmarks, metres. First those that are left and right, side by side.
_BONES = (
    ("left_shoulder", "left_elbow", 0.237),
    ("right_shoulder", "right_elbow", 0.237),
    ("left_elbow", "left_wrist", 0.222),
    ("right_elbow", "right_wrist", 0.222),
    ("left_hip", "left_knee", 0.382),
    ("right_hip", "right_knee", 0.382),
    ("left_knee", "left_ankle", 0.367),
    ("right_knee", "right_ankle", 0.367),
    ("left_shoulder", "left_hip", 0.488),
    ("right_shoulder", "right_hip", 0.488),
    ("left_shoulder", "right_hip", 0.552),
    ("right_shoulder", "left_hip", 0.552),
    ("left_ear", "left_shoulder", 0.2),
    ("right_ear", "right_shoulder", 0.2),
    ("left_shoulder", "right_shoulder", 0.326),
    ("left_hip", "right_hip", 0.216),
)
_IN_PAIRS = 12
_STARTS, _ENDS = [INDEX[a] for a, _, _ in _BONES], [INDEX[b] for _, b, _ in _BONES]
_PER_SQUARE = np.array([[1 / m**2] for _, _, m in _BONES])
# Rows: the axes that share a factor, each with its own share of it.
_SAME = np.ones((1, 3))
_PICTURE = np.array([[1, 0, 1 / DEPTH**2], [0, 1, 0]])
_FREE = np.eye(3)
_RIDGE = 1e-9 * np.eye(3)

# Weights of the logarithms of: misfit as it is, misfit as a picture's; factor of z to x, of z to y; spread of z to x, to y;
# left to right as it is, with the picture's factors undone; how bones' lengths change over the batch as it is, undone; factor
# of y to x as a picture's; the head's depth to its width, to its height, to the body's length; its width to the body's length.
_WEIGHTS = np.array([2.2, -2.7, -0.5, 0.1, 3.1, 0.2, 3.9, -1.7, 7.7, -6.1, -1.7, 2.9, 2.4, 1.0, -6.1])
_BIAS = -17.5
# Of a few poses the first seven alone are used: others' heads may be anything, as one of 69,688 that MediaPipe really saw.
_FEW, _WEIGHTS_OF_FEW, _BIAS_OF_FEW = 5, np.array([4.4, -6.9, -0.66, 0.95, 2.8, 3.3, 2.8]), -7.2
_HEAD = INDEX["right_ear"] + 1  # joints before
# A head that is a point, where a skeleton had none, says nothing: it counts as one of the usual extent. Shares of the length.
_POINT, _USUAL = 0.03, 0.12


def stretched(poses: np.ndarray, length: float) -> float:
    """(N, 17, 3) root-centred poses, any unit; their bodies' length -> how much they look like image landmarks, in log odds."""
    squares = np.square(poses[:, _STARTS] - poses[:, _ENDS], dtype=np.float64) * _PER_SQUARE  # (N, B, 3)
    flat = squares.reshape(-1, 3)
    products, sums, count = flat.T @ flat, flat.sum(0), len(flat)
    as_it_is, _ = _fit(products, sums, count, _SAME)
    as_picture, picture = _fit(products, sums, count, _PICTURE)
    _, factors = _fit(products, sums, count, _FREE)
    x, y, z = np.maximum(factors, factors.max() / 100).tolist()
    wide, high, deep = (poses.reshape(-1, 3).std(0, dtype=np.float64) + 1e-6).tolist()
    high_to_wide = min(max(picture[1] / max(picture[0], 1e-9), 0.1), 10.0)
    uneven, changing = _unsteady(squares[:, :_IN_PAIRS].sum(-1))
    uneven_undone, changing_undone = _unsteady(squares[:, :_IN_PAIRS] @ [1, high_to_wide, 1 / DEPTH**2])
    head = np.ptp(poses[:, :_HEAD], axis=1).mean(0, dtype=np.float64) + 1e-3 * length
    if head.max() < _POINT * length:
        head = np.full(3, _USUAL * length)
    features = [
        as_it_is, as_picture, z / x, z / y, deep / wide, deep / high,
        uneven, uneven_undone, changing, changing_undone, high_to_wide,
        head[2] / head[0], head[2] / head[1], head[2] / length, head[0] / length,
    ]  # fmt: skip
    if len(poses) < _FEW:
        return float(np.log(features[: len(_WEIGHTS_OF_FEW)]) @ _WEIGHTS_OF_FEW) + _BIAS_OF_FEW
    return float(np.log(features) @ _WEIGHTS) + _BIAS


def _unsteady(squares: np.ndarray) -> tuple[float, float]:
    """(N, B) squares of bones' lengths, left and right in turn -> how sides differ, how they change; both plus 0.02."""
    lengths = np.log(np.maximum(squares, 1e-4)) / 2
    uneven = np.minimum(np.abs(lengths[:, 0::2] - lengths[:, 1::2]), 1.5).mean()
    changing = np.minimum(lengths.std(0), 1).mean() if len(lengths) > 1 else 0
    return float(uneven) + 0.02, float(changing) + 0.02


def _fit(products: np.ndarray, sums: np.ndarray, count: int, axes: np.ndarray) -> tuple[float, np.ndarray]:
    """Least squares of `squares @ axes.T @ factors = 1`: mean square of what is left, at least 0.0001; (K,) factors."""
    normal, right = axes @ products @ axes.T, axes @ sums
    k = len(normal)
    factors = np.linalg.solve(normal + normal.trace() * _RIDGE[:k, :k], right)
    return max(1 - float(right @ factors) / count, 1e-4), factors
