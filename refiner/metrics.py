"""How good poses are. Numpy; poses (N, 17, 3) in metres, virtual camera frame; every metric works on root-centred poses.

A figure counts only beside the baselines (`refiner.baselines`) and with its interval: `bootstrap` resamples whole
sequences, because the frames of one say nearly the same.
"""

import numpy as np

from refiner import geometry, temporal
from refiner.records import Pairs
from refiner.skeleton import BONES, JOINTS, LIMBS, NOT_HIPS, root_centred

CM = 100.0
PCK_M = 0.15
# Bins of the folded view angle (degrees) and of the signed azimuth that tables and plots use.
VIEW_ANGLE_EDGES = np.arange(0, 91, 15)
AZIMUTH_EDGES = np.arange(-180, 181, 45)
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


def summarise(poses: np.ndarray, pairs: Pairs) -> dict[str, float]:
    """Every figure of one method.

    Args:
        poses: (N, 17, 3) its poses for these pairs.
        pairs: with their truth.

    Returns:
        `depth_cm` (the headline: mean |Δz| over 17 joints), `depth_without_hips_cm`, `mpjpe_cm`, `n_mpjpe_cm`,
        `pa_mpjpe_cm`, `pck_150mm` (share), `acceleration_error` (m/s²), `bone_cv` (share), `limb_sign_accuracy` (share).
    """
    clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
    depth, joint = depth_error(poses, pairs.ground_truth), joint_error(poses, pairs.ground_truth)
    variation, frames = bone_variation(poses, clips)
    acceleration, _ = acceleration_error(poses, pairs.ground_truth, pairs.timestamp_us * 1e-6, clips)
    right, clear = limb_sign(poses, pairs.ground_truth)
    return {
        "depth_cm": float(depth.mean() * CM),
        "depth_without_hips_cm": float(depth[:, NOT_HIPS].mean() * CM),
        "mpjpe_cm": float(joint.mean() * CM),
        "n_mpjpe_cm": float(scaled_joint_error(poses, pairs.ground_truth).mean() * CM),
        "pa_mpjpe_cm": float(aligned_joint_error(poses, pairs.ground_truth).mean() * CM),
        "pck_150mm": float((joint < PCK_M).mean()),
        "acceleration_error": float(acceleration.mean()) if len(acceleration) else float("nan"),
        "bone_cv": float(np.average(variation, weights=frames)),
        "limb_sign_accuracy": float(right[clear].mean()) if clear.any() else float("nan"),
    }


# --- intervals --------------------------------------------------------------------------------------------------------


def by_sequence(values: np.ndarray, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums a row's value by sequence.

    Returns:
        (S,) sums and (S,) numbers of rows, in the sequences' sorted order.
    """
    _, index = np.unique(sequences, return_inverse=True)
    return np.bincount(index, values), np.bincount(index)


def bootstrap(
    values: np.ndarray, sequences: np.ndarray, *, seed: int = 0, rounds: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of `values` (N,), resampling whole sequences (percentile bootstrap).

    With one sequence there is nothing to resample and the interval is everything.
    """
    sums, counts = by_sequence(values, sequences)
    if len(sums) < 2:
        return float("-inf"), float("inf")
    chosen = np.random.default_rng(seed).integers(0, len(sums), (rounds, len(sums)))
    means = sums[chosen].sum(-1) / counts[chosen].sum(-1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
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
    """Ways to cut a table of pairs: dimension -> label -> (N,) mask. Angles are the truth's, which serves only this."""
    from refiner.aistpp import Name

    azimuths = geometry.azimuth(pairs.ground_truth)
    angles = geometry.view_angle(azimuths)
    visible = pairs.visibility.mean(-1)
    found: dict[str, dict[str, np.ndarray]] = {
        "view angle": _bins(angles, VIEW_ANGLE_EDGES, "°"),
        "azimuth": _bins(azimuths, AZIMUTH_EDGES, "°"),
        "visibility": _bins(visible, np.array([0, 0.7, 0.8, 0.9, 0.95, 1.0]), ""),
        "camera": {str(c): pairs.camera == c for c in np.unique(pairs.camera)},
    }
    genres = np.array([_genre(Name, s) for s in np.unique(pairs.sequence)])
    _, index = np.unique(pairs.sequence, return_inverse=True)
    found["genre"] = {str(g): genres[index] == g for g in np.unique(genres)}
    return found


def _genre(name_type: type, sequence: str) -> str:
    from refiner.errors import UserError

    try:
        return name_type.parse(sequence).genre
    except UserError:  # pairs from an NPZ carry no names
        return "unknown"


def _bins(values: np.ndarray, edges: np.ndarray, unit: str) -> dict[str, np.ndarray]:
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return {f"{edges[i]:g} … {edges[i + 1]:g}{unit}": index == i for i in range(len(edges) - 1) if (index == i).any()}


def depth_by_slice(methods: dict[str, np.ndarray], pairs: Pairs) -> dict[str, dict[str, dict[str, float]]]:
    """Mean |Δz| in cm by dimension, label and method; "joint" is a dimension, too; "pairs" counts the rows of a label."""
    errors = {name: depth_error(poses, pairs.ground_truth) * CM for name, poses in methods.items()}
    table: dict[str, dict[str, dict[str, float]]] = {
        "joint": {joint: {name: float(e[:, j].mean()) for name, e in errors.items()} for j, joint in enumerate(JOINTS)}
    }
    for dimension, masks in slices(pairs).items():
        table[dimension] = {
            label: {**{name: float(e[mask].mean()) for name, e in errors.items()}, "pairs": int(mask.sum())}
            for label, mask in masks.items()
        }
    return table


# --- confidence -------------------------------------------------------------------------------------------------------


def reliability(
    confidence: np.ndarray, within: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Says against is: (bins,) mean confidence, (bins,) share that is within, (bins,) counts. Empty bins are NaN."""
    index = np.minimum((confidence.ravel() * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(index, confidence.ravel(), bins) / counts
        true = np.bincount(index, within.ravel().astype(float), bins) / counts
    return said, true, counts


def calibration_error(confidence: np.ndarray, within: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error (ECE): mean |confidence − share that is within|, weighted by how many say so."""
    said, true, counts = reliability(confidence, within, bins)
    return float(np.nansum(np.abs(said - true) * counts) / counts.sum())


def sparsification(errors: np.ndarray, order: np.ndarray, steps: int = 20) -> np.ndarray:
    """(steps,) mean error of what is left after the share 0, 1/steps, … with the highest `order` is taken away."""
    ranked = errors.ravel()[np.argsort(-order.ravel(), kind="stable")]
    return np.array([ranked[len(ranked) * i // steps :].mean() for i in range(steps)])


def ause(errors: np.ndarray, confidence: np.ndarray) -> float:
    """Area between the sparsification curves of the confidence and of the true errors (AUSE), in units of the mean error.
    0 is perfect order; a random order scores about 0.5 here."""
    oracle = sparsification(errors, errors)
    found = sparsification(errors, -confidence)
    return float((found - oracle).mean() / errors.mean())


def confidence_summary(confidence: np.ndarray, errors: np.ndarray, within_m: float) -> dict[str, float]:
    """Figures of a confidence (N, 17) against depth errors (N, 17) in metres: `ece`, `ause`, and
    `lowest_decile_error`: the mean error of the tenth with the lowest confidence, in units of the median error."""
    lowest = np.argsort(confidence, axis=None)[: max(1, confidence.size // 10)]
    return {
        "ece": calibration_error(confidence, errors < within_m),
        "ause": ause(errors, confidence),
        "lowest_decile_error": float(errors.ravel()[lowest].mean() / np.median(errors)),
    }
