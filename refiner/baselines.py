"""What a refiner must beat: five methods that need no network. Each is fitted on training pairs and gives poses for others."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from refiner import geometry, temporal
from refiner.inference import prepare
from refiner.model import AXES, Inputs, RefinerConfig, linear_features, mirror_joints, mirrored
from refiner.records import Pairs
from refiner.skeleton import HIPS, MIRROR, NUM_JOINTS

Method = Callable[[Pairs], np.ndarray]  # pairs -> (N, 17, 3) m, what it thinks of their observed poses

# Found best on real video at 30 frames a second: 4 frames.
SMOOTHING_S = 4 / 30
# Share of each feature's variance that is added to it (the penalty is scale-free); the best of a sweep over 1e-4 … 1e-1.
RIDGE = 1e-2
AZIMUTH_HARMONICS = 4
CHUNK = 8192


def fit_all(train: Pairs) -> dict[str, Method]:
    """All baselines by name, in the order in which tables show them."""
    bias = (train.ground_truth - train.corrupted)[..., 2]
    bias = (bias + bias[:, MIRROR]).mean(0) / 2  # a mirrored person has the same
    return {
        "mediapipe": lambda pairs: pairs.corrupted,
        "zero": partial(_with_depth, lambda pairs: np.zeros_like(pairs.visibility)),
        "bias": partial(_with_depth, lambda pairs: pairs.corrupted[..., 2] + bias),
        "azimuth_bias": azimuth_bias(train),
        "ridge": ridge(train),
        "smoothing": smoothing,
    }


def _with_depth(depth: Callable[[Pairs], np.ndarray], pairs: Pairs) -> np.ndarray:
    poses = pairs.corrupted.copy()
    poses[..., 2] = depth(pairs)
    return poses


def smoothing(pairs: Pairs, sigma_s: float = SMOOTHING_S) -> np.ndarray:
    """Gaussian smoothing of z over time."""
    clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
    return _with_depth(lambda p: temporal.smooth(p.corrupted[..., 2], p.timestamp_us * 1e-6, clips, sigma_s), pairs)


def azimuth_bias(train: Pairs) -> Method:
    """Per-joint bias as a smooth function of the signed azimuth (a Fourier series of four harmonics)."""

    def series(pairs: Pairs) -> np.ndarray:  # (N, 9)
        angle = np.radians(geometry.azimuth(pairs.corrupted))[:, None] * np.arange(AZIMUTH_HARMONICS + 1)
        return np.concatenate([np.cos(angle), np.sin(angle[:, 1:])], axis=-1)

    rows, error = series(train), (train.ground_truth - train.corrupted)[..., 2]
    other = rows.copy()
    other[:, AZIMUTH_HARMONICS + 1 :] *= -1  # the mirrored person's azimuth has the other sign
    weights = np.linalg.lstsq(np.concatenate([rows, other]), np.concatenate([error, error[:, MIRROR]]), rcond=None)[0]
    return partial(_with_depth, lambda pairs: pairs.corrupted[..., 2] + (series(pairs) @ weights))


def ridge(train: Pairs, penalty: float = RIDGE) -> Method:
    """Ridge regression of the depth error on pose, visibility, azimuth, and pose × azimuth, of a single frame."""
    config = RefinerConfig(linear=True)

    def batches(pairs: Pairs):
        taps = np.arange(len(pairs))[:, None]
        for start in range(0, len(pairs), CHUNK):
            rows = slice(start, start + CHUNK)
            yield rows, prepare(config, pairs.corrupted, pairs.visibility, taps, rows)

    weights = solve_ridge(
        ((inputs, torch.tensor(train.ground_truth[rows])) for rows, inputs in batches(train)), config, penalty
    )

    def predict(pairs: Pairs) -> np.ndarray:
        correction = np.concatenate(
            [(linear_features(inputs, config) @ weights).view(-1, 17, 3).numpy() for _, inputs in batches(pairs)]
        )
        return _with_depth(lambda p: p.corrupted[..., 2] + correction[..., 2], pairs)

    return predict


def solve_ridge(batches, config: RefinerConfig, penalty: float) -> Tensor:
    """The linear term that fits best, in closed form; every pair counts as it is and in the mirror.

    Args:
        batches: of (Inputs, truth (B, 17, 3)), all on one device.
        config: says which features there are.
        penalty: share of each feature's variance that is added to it.

    Returns:
        (config.linear_features, 51) fp32: rows of `linear_features` times this is the correction, metres.
    """
    size = config.linear_features
    gram = moment = None
    count = 0
    for inputs, truth in batches:
        for side, target in ((inputs, truth), (mirrored(inputs), mirror_joints(truth))):
            features = linear_features(Inputs(*side), config).double()
            error = (target - side.poses[:, config.centre]).double()
            error = (error - error[:, HIPS].mean(1, keepdim=True)).flatten(1)
            if gram is None:
                gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
                moment = torch.zeros(size, error.shape[1], dtype=torch.float64, device=features.device)
            gram += features.T @ features
            moment += features.T @ error
            count += len(features)
    assert gram is not None and moment is not None
    gram, moment = gram / count, moment / count
    variance = gram.diagonal() - gram[0].square()  # row 0 of the features is the constant, which is not shrunk
    weights = torch.linalg.solve(gram + torch.diag(variance * penalty + 1e-9), moment).float()
    corrected = torch.zeros(3, device=weights.device)
    corrected[list(AXES[config.axes])] = 1
    return weights * corrected.repeat(NUM_JOINTS)
