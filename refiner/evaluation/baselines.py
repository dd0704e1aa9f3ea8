"""What a refiner must beat: five methods that need no network. Each is fitted on training pairs and gives poses for others.

What they are fitted to are sums over the training pairs (`Moments`), so that any number of pairs can be added up in parts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from refiner import geometry, temporal
from refiner.data.records import Pairs
from refiner.skeleton import HIPS, MIRROR, NUM_JOINTS

Method = Callable[[Pairs], np.ndarray]  # pairs -> (N, 17, 3) m, what it thinks of their observed poses

# Found best on real video at 30 frames a second: 4 frames.
SMOOTHING_S = 4 / 30
# Share of each feature's variance that is added to it (the penalty is scale-free); the best of a sweep over 1e-4 … 1e-1.
RIDGE = 1e-2
AZIMUTH_HARMONICS = 4
CHUNK = 8192
# Angle harmonics that ridge regression multiplies the pose with: cos θ, sin θ, cos 2θ, sin 2θ.
LINEAR_HARMONICS = 2
FEATURES = 1 + 2 * LINEAR_HARMONICS + NUM_JOINTS * (1 + 3 + 3 * 2 * LINEAR_HARMONICS)


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
            ridge=NormalEquations.of(train),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            pairs=self.pairs + other.pairs,
            bias=self.bias + other.bias,
            azimuth_gram=self.azimuth_gram + other.azimuth_gram,
            azimuth_moment=self.azimuth_moment + other.azimuth_moment,
            ridge=self.ridge + other.ridge,
        )

    def to_arrays(self) -> dict[str, np.ndarray | int]:
        """As plain arrays, to be stored or sent; `of_arrays` backwards."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "ridge"}
        return own | {f"ridge.{f.name}": getattr(self.ridge, f.name) for f in fields(self.ridge)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> "Moments":
        ridge = NormalEquations(**{f.name: arrays[f"ridge.{f.name}"] for f in fields(NormalEquations)})
        return cls(ridge=ridge, **{f.name: arrays[f.name] for f in fields(cls) if f.name != "ridge"})

    def fit(self, penalty: float = RIDGE) -> dict[str, Method]:
        """All baselines by name, in the order in which tables show them. They can be sent to other processes."""
        azimuth = np.linalg.lstsq(self.azimuth_gram, self.azimuth_moment, rcond=None)[0]
        return {
            "mediapipe": _as_it_is,
            "zero": _zero,
            "bias": partial(_biased, bias=self.bias / self.pairs),
            "azimuth_bias": partial(_azimuth_biased, weights=azimuth),
            "ridge": partial(_ridge, weights=self.ridge.solve(penalty)),
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


def _ridge(pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    """Ridge regression of the depth error on pose, visibility, azimuth, and pose × azimuth, of a single frame."""
    correction = np.concatenate([side.features() @ weights for side in _sides(pairs, mirrored=False)])
    return _with_depth(pairs, pairs.corrupted[..., 2] + correction)


class _Side(NamedTuple):
    """Some pairs, or their mirror images."""

    poses: np.ndarray  # (B, 17, 3) m
    visibility: np.ndarray  # (B, 17)
    azimuth: np.ndarray  # (B,) degrees
    truth: np.ndarray  # (B, 17, 3) m

    def features(self) -> np.ndarray:
        """(B, FEATURES) float32: 1, angle, visibility, the pose, the pose × angle."""
        count = len(self.poses)
        angles = np.radians(self.azimuth)[:, None] * np.arange(1, LINEAR_HARMONICS + 1, dtype=np.float32)
        angle = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)  # (B, 4)
        pose = self.poses.reshape(count, -1)  # (B, 51)
        products = (pose[:, :, None] * angle[:, None, :]).reshape(count, -1)
        parts = [np.ones((count, 1)), angle, self.visibility, pose, products]
        return np.concatenate(parts, axis=-1, dtype=np.float32)


def _sides(pairs: Pairs, *, mirrored: bool = True) -> Iterator[_Side]:
    """The pairs, some at a time, and each time their mirror images."""
    for start in range(0, len(pairs), CHUNK):
        rows = slice(start, start + CHUNK)
        seen = pairs.corrupted[rows]
        side = _Side(seen, pairs.visibility[rows], geometry.azimuth(seen).astype(np.float32), pairs.ground_truth[rows])
        yield side
        if mirrored:
            truth = geometry.mirror(side.truth)
            yield _Side(geometry.mirror(seen), side.visibility[:, MIRROR], -side.azimuth, truth)


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalEquations:
    """Of the ridge regression; `a + b` is of both sets of pairs. fp64."""

    count: int  # pairs and their mirror images
    gram: np.ndarray  # (FEATURES, FEATURES)
    moment: np.ndarray  # (FEATURES, 17)

    @classmethod
    def of(cls, pairs: Pairs) -> "NormalEquations":
        """Every pair counts as it is and in the mirror."""
        count, gram, moment = 0, np.zeros((FEATURES, FEATURES)), np.zeros((FEATURES, NUM_JOINTS))
        for side in _sides(pairs):
            features = side.features().astype(np.float64)
            error = (side.truth - side.poses)[..., 2].astype(np.float64)
            error -= error[:, HIPS].mean(1, keepdims=True)
            gram += features.T @ features
            moment += features.T @ error
            count += len(features)
        return cls(count=count, gram=gram, moment=moment)

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return NormalEquations(
            count=self.count + other.count, gram=self.gram + other.gram, moment=self.moment + other.moment
        )

    def solve(self, penalty: float) -> np.ndarray:
        """The weights that fit best, in closed form.

        Args:
            penalty: share of each feature's variance that is added to it.

        Returns:
            (FEATURES, 17) float32: rows of `_Side.features` times this is the correction of the depths, metres.
        """
        gram, moment = self.gram / self.count, self.moment / self.count
        variance = gram.diagonal() - np.square(gram[0])  # row 0 of the features is the constant, which is not shrunk
        return np.linalg.solve(gram + np.diag(variance * penalty + 1e-9), moment).astype(np.float32)
