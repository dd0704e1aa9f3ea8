"""How good poses are. Numpy; poses (N, 17, 3) in metres, virtual camera frame; every metric works on root-centred poses.

A figure counts only beside the baselines (`refiner.evaluation.baselines`) and with its interval: `bootstrap` resamples whole
sequences, because the frames of one say nearly the same. Every figure is a sum over rows divided by a sum of weights, so
that parts of a set add up (`refiner.evaluation.tally`).
"""

import numpy as np

from refiner import geometry, temporal
from refiner.data.aistpp import Name
from refiner.data.records import Pairs
from refiner.errors import UserError
from refiner.geometry import AZIMUTH_EDGES, depth_error
from refiner.skeleton import BONES, LIMBS, NOT_HIPS, root_centred

CM = 100.0
PCK_M = 0.15
# Bins of the folded view angle (degrees) that tables and plots use.
VIEW_ANGLE_EDGES = np.arange(0, 91, 15)
# Of the mean visibility of a pose.
VISIBILITY_EDGES = np.array([0, 0.7, 0.8, 0.9, 0.95, 1.0])
UNKNOWN = "unknown"
# A limb whose ends are closer in depth than this has no clear sign.
CLEAR_SIGN_M = 0.05


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
    middle = _with_neighbours(seconds, clips)
    difference = root_centred(poses).astype(np.float64) - root_centred(truth)
    step = (seconds[middle + 1] - seconds[middle])[:, None, None]
    acceleration = (difference[middle + 1] - 2 * difference[middle] + difference[middle - 1]) / step**2
    return np.linalg.norm(acceleration, axis=-1).mean(-1), middle


def trailing(
    poses: np.ndarray, truth: np.ndarray, seconds: np.ndarray, clips: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far poses trail the truth in time: by least squares, what their velocity lacks along the truth's acceleration.

    Poses that are the truth of a moment ago lack its acceleration times that delay. To first order this is the shift at which
    the cross-correlation of both velocities peaks; poses that move only a share of the truth's way show that share of it.
    Velocities, because an error that hangs on the pose, as depth's does, would look like a delay.

    Returns:
        (M,) and (M,): the delay in milliseconds is the sum of the first over the sum of the second; (M,) the rows, which have
        two neighbours at even distances.
    """
    middle = _with_neighbours(seconds, clips)
    true = root_centred(truth).astype(np.float64)
    error = root_centred(poses) - true
    step = (seconds[middle + 1] - seconds[middle])[:, None, None]
    lacking = (error[middle - 1] - error[middle + 1]) / (2 * step)
    acceleration = (true[middle + 1] - 2 * true[middle] + true[middle - 1]) / step**2
    return 1e3 * (lacking * acceleration).sum((1, 2)), np.square(acceleration).sum((1, 2)), middle


def _with_neighbours(seconds: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Rows between two of the same clip at even distances: what is seen across a missing frame is no change over time."""
    middle = np.arange(1, len(seconds) - 1)
    before, after = seconds[middle] - seconds[middle - 1], seconds[middle + 1] - seconds[middle]
    return middle[(clips[middle - 1] == clips[middle + 1]) & (np.abs(after - before) < 0.1 * before) & (before > 0)]


def limb_sign(poses: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each limb points towards or away from the camera as it truly does.

    Returns:
        (N, 8) bool right or wrong; (N, 8) bool whether the truth has a clear sign (more than 5 cm between its ends).
    """
    estimated = poses[:, LIMBS[:, 1], 2] - poses[:, LIMBS[:, 0], 2]
    true = truth[:, LIMBS[:, 1], 2] - truth[:, LIMBS[:, 0], 2]
    return np.sign(estimated) == np.sign(true), np.abs(true) > CLEAR_SIGN_M


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
    "lag_ms",  # by which motion trails the truth; below zero where it is ahead
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
    seconds = pairs.timestamp_us * 1e-6
    acceleration, middle = acceleration_error(poses, truth, seconds, clips)
    behind, turning, _ = trailing(poses, truth, seconds, clips)
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
    accelerates, bones, signs, lags = (
        FIGURES.index(n) for n in ("acceleration_error", "bone_cv", "limb_sign_accuracy", "lag_ms")
    )
    weights[:, [accelerates, lags]] = 0
    weights[middle, lags], values[middle, lags] = turning, behind
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
    """Of a sequence by its name; "unknown" where it is not an AIST++ name."""
    name = _name(sequence)
    return UNKNOWN if name is None else name.genre


def situation(sequence: str) -> str:
    """The kind of motion of a sequence by its name, such as sBM; "unknown" where it is not an AIST++ name."""
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
