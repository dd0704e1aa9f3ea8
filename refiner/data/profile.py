"""What a set of pairs is like: MediaPipe's depth error by joint, azimuth and visibility, and who was filmed by which camera.

In sums that add up, so that each sequence is profiled by itself and the pairs need never be in memory at once.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from refiner.data.aistpp import Name
from refiner.data.records import Pairs
from refiner.geometry import AZIMUTH_EDGES, azimuth, depth_error

VISIBILITY_EDGES = np.linspace(0, 1, 11)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairProfile:
    """Sums of |Δz| in metres with their counts; `a + b` is the profile of both sets."""

    pairs: int
    joint: np.ndarray  # (17,) sum over all pairs
    azimuth: np.ndarray  # (bins, 2) sum and number, by the way the body truly faces
    visibility: np.ndarray  # (bins, 2) sum and number of joints, by MediaPipe's visibility
    coverage: Counter[tuple[str, str]]  # pairs by (dancer, camera)

    def __add__(self, other: "PairProfile") -> "PairProfile":
        return PairProfile(
            pairs=self.pairs + other.pairs,
            joint=self.joint + other.joint,
            azimuth=self.azimuth + other.azimuth,
            visibility=self.visibility + other.visibility,
            coverage=self.coverage + other.coverage,
        )

    @classmethod
    def of(cls, pairs: Pairs) -> "PairProfile":
        """The profile of pairs that have AIST++ names."""
        error = depth_error(pairs.corrupted, pairs.ground_truth).astype(np.float64)  # (N, 17) m
        names, numbers = np.unique(np.stack([pairs.sequence, pairs.camera]).astype(str), axis=1, return_counts=True)
        coverage: Counter[tuple[str, str]] = Counter()
        for sequence, camera, number in zip(*names, numbers, strict=True):
            coverage[Name.parse(sequence).dancer, str(camera)] += int(number)
        return cls(
            pairs=len(pairs),
            joint=error.sum(0),
            azimuth=_binned(azimuth(pairs.ground_truth), error.mean(1), AZIMUTH_EDGES),
            visibility=_binned(pairs.visibility.ravel(), error.ravel(), VISIBILITY_EDGES),
            coverage=coverage,
        )


def _binned(values: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(bins, 2): the weights' sum and the number of values between two edges; what lies outside is in the first or last."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    sums = np.bincount(bins, weights, len(edges) - 1), np.bincount(bins, minlength=len(edges) - 1)
    return np.stack(sums, axis=1).astype(np.float64)
