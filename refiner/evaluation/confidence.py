"""How far a stated confidence can be trusted: calibration, sparsification, the least confident tenth. In counts that add up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Confidences are counted in bins of half a percent, errors in bins of 2.5 mm up to 1 m (the last one takes what is beyond):
# fine enough that no figure below differs in its third digit from one that sorts all joints, and sums of it add up.
CONFIDENCE_BINS, ERROR_BINS, ERROR_BIN_M = 200, 400, 0.0025


@dataclass(frozen=True, slots=True)
class ConfidenceCounts:
    """How confidences and errors go together, counted. Leading axes, such as one of sequences, are free; they add up."""

    by_confidence: np.ndarray  # (…, 200, 4): joints, sum of confidences, joints within, sum of errors in metres
    by_error: np.ndarray  # (…, 400, 2): joints, sum of errors in metres

    @classmethod
    def of(cls, confidence: np.ndarray, errors: np.ndarray, within_m: float) -> "ConfidenceCounts":
        """Counts joints of any number, (…,) confidence 0 … 1 and (…,) depth error in metres."""
        confidence, errors = confidence.ravel().astype(np.float64), errors.ravel().astype(np.float64)
        said = np.clip((confidence * CONFIDENCE_BINS).astype(int), 0, CONFIDENCE_BINS - 1)
        bins = np.minimum((errors / ERROR_BIN_M).astype(int), ERROR_BINS - 1)
        return cls(
            np.stack(
                [np.bincount(said, w, CONFIDENCE_BINS) for w in (None, confidence, errors < within_m, errors)], axis=-1
            ),
            np.stack([np.bincount(bins, w, ERROR_BINS) for w in (None, errors)], axis=-1),
        )

    @classmethod
    def stack(cls, parts: Sequence["ConfidenceCounts"]) -> "ConfidenceCounts":
        return cls(np.stack([p.by_confidence for p in parts]), np.stack([p.by_error for p in parts]))

    @classmethod
    def concatenate(cls, parts: Sequence["ConfidenceCounts"]) -> "ConfidenceCounts":
        return cls(np.concatenate([p.by_confidence for p in parts]), np.concatenate([p.by_error for p in parts]))

    def __getitem__(self, rows: np.ndarray) -> "ConfidenceCounts":
        return ConfidenceCounts(self.by_confidence[rows], self.by_error[rows])

    def total(self) -> "ConfidenceCounts":
        """Added up over all leading axes."""
        return ConfidenceCounts(
            self.by_confidence.reshape(-1, *self.by_confidence.shape[-2:]).sum(0),
            self.by_error.reshape(-1, *self.by_error.shape[-2:]).sum(0),
        )

    def reliability(self, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Says against is: (bins,) mean confidence, (bins,) share that is within, (bins,) counts. Empty bins are NaN."""
        joints, said, within, _ = self.by_confidence.reshape(bins, -1, 4).sum(1).T
        with np.errstate(invalid="ignore"):
            return said / joints, within / joints, joints

    def calibration_error(self, bins: int = 10) -> float:
        """Expected calibration error (ECE, Guo et al. 2017): mean |confidence − share that is within|, weighted by how
        many joints say so.
        """
        said, true, joints = self.reliability(bins)
        return float(np.nansum(np.abs(said - true) * joints) / joints.sum())

    def ause(self, steps: int = 20) -> float:
        """Area between the sparsification curves of the confidence and of the true errors (AUSE, Ilg et al. 2018), in units
        of the mean error. A curve is the mean error of what is left after the share 0, 1/steps, … of the joints that are
        thought worst is taken away. 0 is perfect order; a random order scores about 0.5 here.
        """
        kept = 1 - np.arange(steps) / steps
        by_confidence = _sum_of_share(self.by_confidence[::-1, 0], self.by_confidence[::-1, 3], kept)
        oracle = _sum_of_share(self.by_error[:, 0], self.by_error[:, 1], kept)
        joints, total = self.by_error.sum(0)
        return float(((by_confidence - oracle) / (kept * joints)).mean() / (total / joints))

    def lowest_decile_error(self) -> float:
        """Mean error of the tenth with the lowest confidence, in units of the median error."""
        joints = self.by_error[:, 0].sum()
        lowest = _sum_of_share(self.by_confidence[:, 0], self.by_confidence[:, 3], np.array([0.1]))[0] / (0.1 * joints)
        median = np.interp(0.5, np.concatenate([[0], self.by_error[:, 0].cumsum() / joints]), np.arange(ERROR_BINS + 1))
        return float(lowest / (median * ERROR_BIN_M))

    def summary(self) -> dict[str, float]:
        """`ece`, `ause` and `lowest_decile_error`."""
        return {
            "ece": self.calibration_error(),
            "ause": self.ause(),
            "lowest_decile_error": self.lowest_decile_error(),
        }


def _sum_of_share(joints: np.ndarray, errors: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Sum of the errors of the first share of the joints, which come in bins (B,) of equal rank; linear within a bin."""
    cumulated = np.concatenate([[0], joints.cumsum()])
    return np.interp(shares * cumulated[-1], cumulated, np.concatenate([[0], errors.cumsum()]))


def calibration_error(confidence: np.ndarray, within: np.ndarray) -> float:
    """ECE of confidences (…,) against whether the joint is within the distance, (…,) bool."""
    return ConfidenceCounts.of(confidence, ~within, 0.5).calibration_error()


def confidence_summary(confidence: np.ndarray, errors: np.ndarray, within_m: float) -> dict[str, float]:
    """Figures of a confidence (N, 17) against depth errors (N, 17) in metres, as `ConfidenceCounts.summary`."""
    return ConfidenceCounts.of(confidence, errors, within_m).summary()
