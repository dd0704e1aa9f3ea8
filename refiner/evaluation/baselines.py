"""What a refiner must beat: five methods that need no network. Each is fitted on training pairs and gives poses for others.

What they are fitted to are sums over the training pairs (`Moments`), so that any number of pairs can be added up in parts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from refiner import geometry, temporal
from refiner.data.records import Pairs
from refiner.inference.depth_refiner import prepare
from refiner.model.config import AXES, RefinerConfig
from refiner.model.inputs import Inputs, linear_features, mirror_joints, mirrored
from refiner.skeleton import HIPS, MIRROR, NUM_JOINTS

Method = Callable[[Pairs], np.ndarray]  # pairs -> (N, 17, 3) m, what it thinks of their observed poses

# Found best on real video at 30 frames a second: 4 frames.
SMOOTHING_S = 4 / 30
# Share of each feature's variance that is added to it (the penalty is scale-free); the best of a sweep over 1e-4 … 1e-1.
RIDGE = 1e-2
AZIMUTH_HARMONICS = 4
CHUNK = 8192
# Of the ridge regression: pose, visibility, azimuth, and pose × azimuth, of a single frame.
SINGLE = RefinerConfig(linear=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """What the baselines need to know of training pairs; `a + b` is of both sets. A mirrored person counts, too."""

    pairs: int
    bias: np.ndarray  # (17,) sum of the errors in depth, m
    azimuth_gram: np.ndarray  # (9, 9) normal equations of the error in depth on a Fourier series of the azimuth
    azimuth_moment: np.ndarray  # (9, 17)
    ridge: "NormalEquations"

    @classmethod
    def of(cls, train: Pairs) -> "Moments":
        error = (train.ground_truth - train.corrupted)[..., 2].astype(np.float64)
        other_error = error[:, MIRROR]
        rows = _series(train)
        other = rows.copy()
        other[:, AZIMUTH_HARMONICS + 1 :] *= -1  # the mirrored person's azimuth has the other sign
        return cls(
            pairs=len(train),
            bias=(error + other_error).sum(0) / 2,
            azimuth_gram=rows.T @ rows + other.T @ other,
            azimuth_moment=rows.T @ error + other.T @ other_error,
            ridge=NormalEquations.of(
                ((inputs, torch.tensor(train.ground_truth[r])) for r, inputs in _batches(train)), SINGLE
            ),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            pairs=self.pairs + other.pairs,
            bias=self.bias + other.bias,
            azimuth_gram=self.azimuth_gram + other.azimuth_gram,
            azimuth_moment=self.azimuth_moment + other.azimuth_moment,
            ridge=self.ridge + other.ridge,
        )

    def fit(self, penalty: float = RIDGE) -> dict[str, Method]:
        """All baselines by name, in the order in which tables show them. They can be sent to other processes."""
        azimuth = np.linalg.lstsq(self.azimuth_gram, self.azimuth_moment, rcond=None)[0]
        return {
            "mediapipe": _as_it_is,
            "zero": _zero,
            "bias": partial(_biased, bias=self.bias / self.pairs),
            "azimuth_bias": partial(_azimuth_biased, weights=azimuth),
            "ridge": partial(_ridge, weights=self.ridge.solve(SINGLE, penalty)),
            "smoothing": smoothing,
        }


def fit_all(train: Pairs) -> dict[str, Method]:
    """All baselines by name, fitted on these pairs."""
    return Moments.of(train).fit()


def _with_depth(pairs: Pairs, depth: np.ndarray) -> np.ndarray:
    poses = pairs.corrupted.copy()
    poses[..., 2] = depth
    return poses


def _as_it_is(pairs: Pairs) -> np.ndarray:
    return pairs.corrupted


def _zero(pairs: Pairs) -> np.ndarray:
    return _with_depth(pairs, np.zeros_like(pairs.visibility))


def _biased(pairs: Pairs, bias: np.ndarray) -> np.ndarray:
    return _with_depth(pairs, pairs.corrupted[..., 2] + bias)


def smoothing(pairs: Pairs, sigma_s: float = SMOOTHING_S) -> np.ndarray:
    """Gaussian smoothing of z over time."""
    clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
    return _with_depth(pairs, temporal.smooth(pairs.corrupted[..., 2], pairs.timestamp_us * 1e-6, clips, sigma_s))


def _azimuth_biased(pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    """Per-joint bias as a smooth function of the signed azimuth (a Fourier series of four harmonics)."""
    return _with_depth(pairs, pairs.corrupted[..., 2] + _series(pairs) @ weights)


def _series(pairs: Pairs) -> np.ndarray:
    """(N, 9) cos kθ for k = 0 … 4 and sin kθ for k = 1 … 4 of the azimuth of the observed pose."""
    angle = np.radians(geometry.azimuth(pairs.corrupted)).astype(np.float64)[:, None] * np.arange(AZIMUTH_HARMONICS + 1)
    return np.concatenate([np.cos(angle), np.sin(angle[:, 1:])], axis=-1)


def _ridge(pairs: Pairs, weights: Tensor) -> np.ndarray:
    """Ridge regression of the depth error on pose, visibility, azimuth, and pose × azimuth, of a single frame."""
    correction = np.concatenate(
        [(linear_features(inputs, SINGLE) @ weights).view(-1, 17, 3).numpy() for _, inputs in _batches(pairs)]
    )
    return _with_depth(pairs, pairs.corrupted[..., 2] + correction[..., 2])


def _batches(pairs: Pairs) -> Iterator[tuple[slice, Inputs]]:
    taps = np.arange(len(pairs))[:, None]
    for start in range(0, len(pairs), CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, prepare(SINGLE, pairs.corrupted, pairs.visibility, taps, rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalEquations:
    """Of the linear term; `a + b` is of both sets of pairs. fp64."""

    count: int  # pairs and their mirror images
    gram: Tensor  # (features, features)
    moment: Tensor  # (features, 51)

    @classmethod
    def of(cls, batches: Iterable[tuple[Inputs, Tensor]], config: RefinerConfig) -> "NormalEquations":
        """Args:
        batches: of (Inputs, truth (B, 17, 3)), all on one device; every pair counts as it is and in the mirror.
        config: says which features there are.
        """
        size = config.linear_features
        gram = moment = None
        count = 0
        for inputs, truth in batches:
            for side, target in ((inputs, truth), (mirrored(inputs), mirror_joints(truth))):
                features = linear_features(Inputs(*side), config).double()
                error = (target - side.poses[:, config.centre]).double()
                error = (error - error[:, HIPS].mean(1, keepdim=True)).flatten(1)
                if gram is None or moment is None:
                    gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
                    moment = torch.zeros(size, error.shape[1], dtype=torch.float64, device=features.device)
                gram += features.T @ features
                moment += features.T @ error
                count += len(features)
        assert gram is not None and moment is not None
        return cls(count=count, gram=gram, moment=moment)

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(
            count=self.count + other.count, gram=self.gram + other.gram, moment=self.moment + other.moment
        )

    def solve(self, config: RefinerConfig, penalty: float) -> Tensor:
        """The linear term that fits best, in closed form.

        Args:
            config: as for `of`.
            penalty: share of each feature's variance that is added to it.

        Returns:
            (config.linear_features, 51) fp32: rows of `linear_features` times this is the correction, metres.
        """
        gram, moment = self.gram / self.count, self.moment / self.count
        variance = gram.diagonal() - gram[0].square()  # row 0 of the features is the constant, which is not shrunk
        weights = torch.linalg.solve(gram + torch.diag(variance * penalty + 1e-9), moment).float()
        corrected = torch.zeros(3, device=weights.device)
        corrected[list(AXES[config.axes])] = 1
        return weights * corrected.repeat(NUM_JOINTS)


def solve_ridge(batches: Iterable[tuple[Inputs, Tensor]], config: RefinerConfig, penalty: float) -> Tensor:
    """The linear term that fits these batches best; see `NormalEquations`."""
    return NormalEquations.of(batches, config).solve(config, penalty)
