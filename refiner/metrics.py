"""How good poses are. Numpy; poses (N, 17, 3) in metres, virtual camera frame; every metric works on root-centred poses.

A figure counts only beside the baselines (`refiner.baselines`) and with its interval: `bootstrap` resamples whole
sequences, because the frames of one say nearly the same. Every figure is a sum over rows divided by a sum of weights, so
that parts of a set add up (`refiner.tally`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner import geometry, temporal
from refiner.aistpp import Name
from refiner.errors import UserError
from refiner.records import Pairs
from refiner.skeleton import BONES, LIMBS, NOT_HIPS, root_centred

CM = 100.0
PCK_M = 0.15
# Bins of the folded view angle (degrees) and of the signed azimuth that tables and plots use.
VIEW_ANGLE_EDGES = np.arange(0, 91, 15)
AZIMUTH_EDGES = np.arange(-180, 181, 45)
# Of the mean visibility of a pose.
VISIBILITY_EDGES = np.array([0, 0.7, 0.8, 0.9, 0.95, 1.0])
UNKNOWN = "unknown"
# A limb whose ends are closer in depth than this has no clear sign.
CLEAR_SIGN_M = 0.05


def depth_error(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17) |Δz| of each joint, metres."""
    return np.abs(root_centred(poses)[..., 2] - root_centred(truth)[..., 2])


def joint_error(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17) Euclidean distance of each joint, metres; its mean is MPJPE."""
    return np.linalg.norm(root_centred(poses) - root_centred(truth), axis=-1)


def scaled_joint_error(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17) as `joint_error` after the scale that fits best; its mean is N-MPJPE (Rhodin et al. 2018)."""
    a, b = root_centred(poses), root_centred(truth)
    scale = (a * b).sum((-1, -2), keepdims=True) / np.maximum((a * a).sum((-1, -2), keepdims=True), 1e-12)
    return np.linalg.norm(scale * a - b, axis=-1)


def aligned_joint_error(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17) as `joint_error` after Procrustes alignment; its mean is PA-MPJPE."""
    aligned = geometry.procrustes(poses.astype(np.float64), truth.astype(np.float64))
    return np.linalg.norm(aligned - truth, axis=-1)


def bone_lengths(poses: np.ndarray) -> np.ndarray:
    """(N, 12) metres."""
    return np.linalg.norm(poses[:, BONES[:, 0]] - poses[:, BONES[:, 1]], axis=-1)


def bone_variation(poses: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficient of variation of the bone lengths of each clip, mean over the bones: 0 for a body that keeps its bones.

    Returns:
        (clips,) CV; (clips,) frames of each.
    """
    lengths = bone_lengths(poses).astype(np.float64)
    frames = np.bincount(clips)
    mean = np.stack([np.bincount(clips, column) for column in lengths.T], -1) / frames[:, None]
    square = np.stack([np.bincount(clips, column) for column in ((lengths - mean[clips]) ** 2).T], -1) / frames[:, None]
    return (np.sqrt(square) / np.maximum(mean, 1e-9)).mean(-1), frames


def acceleration_error(
    poses: np.ndarray, truth: np.ndarray, seconds: np.ndarray, clips: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Difference of the joints' accelerations, by central differences over three successive frames of a clip.

    Returns:
        (M,) m/s², mean over joints, for the frames that have two neighbours at even distances; (M,) their rows.
    """
    middle = np.arange(1, len(poses) - 1)
    before, after = seconds[middle] - seconds[middle - 1], seconds[middle + 1] - seconds[middle]
    # a missing frame makes no acceleration
    usable = (clips[middle - 1] == clips[middle + 1]) & (np.abs(after - before) < 0.1 * before) & (before > 0)
    middle = middle[usable]
    difference = root_centred(poses).astype(np.float64) - root_centred(truth)
    step = (seconds[middle + 1] - seconds[middle])[:, None, None]
    acceleration = (difference[middle + 1] - 2 * difference[middle] + difference[middle - 1]) / step**2
    return np.linalg.norm(acceleration, axis=-1).mean(-1), middle


def limb_sign(poses: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each limb points towards or away from the camera as it truly does.

    Returns:
        (N, 8) bool right or wrong; (N, 8) bool whether the truth has a clear sign (more than 5 cm between its ends).
    """
    found = poses[:, LIMBS[:, 1], 2] - poses[:, LIMBS[:, 0], 2]
    true = truth[:, LIMBS[:, 1], 2] - truth[:, LIMBS[:, 0], 2]
    return np.sign(found) == np.sign(true), np.abs(true) > CLEAR_SIGN_M


# Figures of a method, in the order of `figure_rows`' columns.
FIGURES = (
    "depth_cm",  # the headline: mean |Δz| over 17 joints
    "depth_without_hips_cm",
    "mpjpe_cm",
    "n_mpjpe_cm",
    "pa_mpjpe_cm",
    "pck_150mm",  # share
    "acceleration_error",  # m/s²
    "bone_cv",  # share
    "limb_sign_accuracy",  # share
)


def figure_rows(poses: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """What each row adds to every figure of `FIGURES`, F of them.

    Args:
        poses: (N, 17, 3) a method's poses for these pairs; whole clips, for some figures look at neighbouring frames.
        pairs: with their truth.

    Returns:
        (N, F) values and (N, F) weights: a figure is the sum of its values over the sum of its weights. The weights do not
        depend on the poses.
    """
    clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
    truth = pairs.ground_truth
    depth, joint = depth_error(poses, truth), joint_error(poses, truth)
    variation, _ = bone_variation(poses, clips)
    acceleration, middle = acceleration_error(poses, truth, pairs.timestamp_us * 1e-6, clips)
    right, clear = limb_sign(poses, truth)
    values, weights = np.zeros((len(pairs), len(FIGURES))), np.ones((len(pairs), len(FIGURES)))
    for i, column in enumerate(
        (
            depth.mean(-1) * CM,
            depth[:, NOT_HIPS].mean(-1) * CM,
            joint.mean(-1) * CM,
            scaled_joint_error(poses, truth).mean(-1) * CM,
            aligned_joint_error(poses, truth).mean(-1) * CM,
            (joint < PCK_M).mean(-1),
        )
    ):
        values[:, i] = column
    accelerates, bones, signs = (FIGURES.index(n) for n in ("acceleration_error", "bone_cv", "limb_sign_accuracy"))
    weights[:, accelerates] = 0
    weights[middle, accelerates], values[middle, accelerates] = 1, acceleration
    values[:, bones] = variation[clips]
    weights[:, signs], values[:, signs] = clear.sum(-1), (right & clear).sum(-1)
    return values, weights


def summarise(poses: np.ndarray, pairs: Pairs) -> dict[str, float]:
    """Every figure of one method; `FIGURES` names them. NaN where no row has anything to say.

    Args:
        poses: (N, 17, 3) its poses for these pairs.
        pairs: with their truth.
    """
    values, weights = figure_rows(poses, pairs)
    with np.errstate(invalid="ignore"):
        means = values.sum(0) / weights.sum(0)
    return dict(zip(FIGURES, means.tolist(), strict=True))


# --- intervals --------------------------------------------------------------------------------------------------------


def by_sequence(values: np.ndarray, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums a row's value by sequence.

    Returns:
        (S,) sums and (S,) numbers of rows, in the sequences' sorted order.
    """
    _, index = np.unique(sequences, return_inverse=True)
    return np.bincount(index, values), np.bincount(index)


def resamples(sequences: int, *, seed: int = 0, rounds: int = 2000) -> np.ndarray:
    """(rounds, sequences) how often each sequence is drawn when as many are drawn with replacement."""
    chosen = np.random.default_rng(seed).integers(0, sequences, (rounds, sequences))
    cells = chosen + np.arange(rounds)[:, None] * sequences
    return np.bincount(cells.ravel(), minlength=rounds * sequences).reshape(rounds, sequences).astype(np.float64)


def bootstrap(
    values: np.ndarray, sequences: np.ndarray, *, seed: int = 0, rounds: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of `values` (N,), resampling whole sequences (percentile bootstrap).

    With one sequence there is nothing to resample and the interval is everything.
    """
    sums, counts = by_sequence(values, sequences)
    if len(sums) < 2:
        return float("-inf"), float("inf")
    drawn = resamples(len(sums), seed=seed, rounds=rounds)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def depth_difference(a: np.ndarray, b: np.ndarray, pairs: Pairs, seed: int = 0) -> tuple[float, float, float]:
    """How much lower the mean |Δz| of poses `a` is than that of poses `b`, on the same pairs, paired by sequence.

    Returns:
        Difference, low and high end of its interval, in centimetres; below zero where `a` is better.
    """
    difference = (depth_error(a, pairs.ground_truth) - depth_error(b, pairs.ground_truth)).mean(-1) * CM
    return float(difference.mean()), *bootstrap(difference, pairs.sequence, seed=seed)


# --- slices -----------------------------------------------------------------------------------------------------------


def slices(pairs: Pairs) -> dict[str, dict[str, np.ndarray]]:
    """Ways to cut the rows of a table of pairs: dimension -> label -> (N,) mask; labels without rows are left out.

    Angles are the truth's, which serves only this.
    """
    azimuths = geometry.azimuth(pairs.ground_truth)
    return {
        "view angle": _bins(geometry.view_angle(azimuths), VIEW_ANGLE_EDGES, "°"),
        "azimuth": _bins(azimuths, AZIMUTH_EDGES, "°"),
        "visibility": _bins(pairs.visibility.mean(-1), VISIBILITY_EDGES, ""),
        "camera": {str(c): pairs.camera == c for c in np.unique(pairs.camera)},
    }


# What cuts a set besides: whole sequences by the genre of the dance and the kind of motion, and the joints.


def genre(sequence: str) -> str:
    """Of a sequence by its name; "unknown" where it is no AIST++ name."""
    name = _name(sequence)
    return UNKNOWN if name is None else name.genre


def situation(sequence: str) -> str:
    """The kind of motion of a sequence by its name, such as sBM; "unknown" where it is no AIST++ name."""
    name = _name(sequence)
    return UNKNOWN if name is None else name.situation


def _name(sequence: str) -> Name | None:
    try:
        return Name.parse(sequence)
    except UserError:  # pairs from an NPZ carry no names
        return None


def _bins(values: np.ndarray, edges: np.ndarray, unit: str) -> dict[str, np.ndarray]:
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return {f"{edges[i]:g} … {edges[i + 1]:g}{unit}": index == i for i in range(len(edges) - 1) if (index == i).any()}


# --- confidence -------------------------------------------------------------------------------------------------------

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
        found = np.minimum((errors / ERROR_BIN_M).astype(int), ERROR_BINS - 1)
        return cls(
            np.stack(
                [np.bincount(said, w, CONFIDENCE_BINS) for w in (None, confidence, errors < within_m, errors)], axis=-1
            ),
            np.stack([np.bincount(found, w, ERROR_BINS) for w in (None, errors)], axis=-1),
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
        many joints say so."""
        said, true, joints = self.reliability(bins)
        return float(np.nansum(np.abs(said - true) * joints) / joints.sum())

    def ause(self, steps: int = 20) -> float:
        """Area between the sparsification curves of the confidence and of the true errors (AUSE, Ilg et al. 2018), in units
        of the mean error. A curve is the mean error of what is left after the share 0, 1/steps, … of the joints that are
        thought worst is taken away. 0 is perfect order; a random order scores about 0.5 here."""
        kept = 1 - np.arange(steps) / steps
        found = _sum_of_share(self.by_confidence[::-1, 0], self.by_confidence[::-1, 3], kept)
        oracle = _sum_of_share(self.by_error[:, 0], self.by_error[:, 1], kept)
        joints, total = self.by_error.sum(0)
        return float(((found - oracle) / (kept * joints)).mean() / (total / joints))

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
