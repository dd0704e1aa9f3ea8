"""How far a model's inputs are from those it was trained on: the population stability index (PSI), by group of features.

    statistics(poses, visibility) at training -> a small dict in the checkpoint's card -> drift(...) wherever poses come in

PSI compares two histograms: Σ (a − e) ln(a / e). By custom below 0.1 is no change, above 0.25 a different population.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refiner import geometry
from refiner.data import records
from refiner.errors import UserError
from refiner.inference.validation import reach

CARD_KEY = "inputs"  # of the statistics in a checkpoint's card
BINS = 10
# Fewer poses than this have a PSI of their own: about BINS / number of poses without any drift.
LEAST_POSES = 500
SAMPLE = 100_000


def features(poses: np.ndarray, visibility: np.ndarray) -> dict[str, np.ndarray]:
    """What is watched of N poses as `validation.validate_poses` returns them; each is (N, number of features)."""
    size = reach(poses)[:, None]
    return {
        "size": size,  # metres from the hips to the farthest joint
        "posture": (poses / size[..., None]).reshape(len(poses), -1),
        "azimuth": geometry.azimuth(poses)[:, None],
        "visibility": visibility,
    }


def statistics(poses: np.ndarray, visibility: np.ndarray) -> dict[str, Any]:
    """Histograms of the features of training poses, (N, 17, 3) and (N, 17); JSON, 15 kB.

    Bins are deciles, so that each holds as much as the others; their shares are kept, for where numbers repeat (a
    visibility of 1) deciles coincide.
    """
    groups = {}
    for name, values in features(poses, visibility).items():
        edges = np.quantile(values, np.arange(1, BINS) / BINS, axis=0).T.round(4)  # (features, BINS - 1)
        groups[name] = {"edges": edges.tolist(), "shares": _shares(values, edges).round(5).tolist()}
    return {"poses": len(poses), "groups": groups}


def of_pairs(root: str | Path) -> dict[str, Any]:
    """`statistics` of the training split, from evenly spaced files of it where it has more than 100,000 pairs."""
    files = records.pair_files(root, "train")
    pairs = records.read_pair_files(files[:1])
    if len(files) > 1:
        step = max(1, len(pairs) * len(files) // SAMPLE)
        pairs = records.read_pair_files(files[::step])
    return statistics(pairs.corrupted, pairs.visibility)


def drift(trained_on: Mapping[str, Any], poses: np.ndarray, visibility: np.ndarray) -> dict[str, float]:
    """The PSI of each group (the mean over its features) of these poses, (N, 17, 3) root-centred, against `statistics`.

    Raises:
        UserError: `trained_on` is something else than `statistics` gives.
    """
    drifts = {}
    for name, values in features(poses, visibility).items():
        try:
            edges, shares = (np.asarray(trained_on["groups"][name][key], dtype=float) for key in ("edges", "shares"))
            if edges.shape != (values.shape[1], BINS - 1) or shares.shape != (values.shape[1], BINS):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"the statistics of the training poses' {name} are damaged: train the model again"
            ) from None
        actual = _shares(values, edges)
        # no bin is quite empty, or a single pose in it would be infinitely surprising
        least = 0.5 / max(LEAST_POSES, len(poses))
        actual, known = actual.clip(least), shares.clip(least)
        drifts[name] = float(((actual - known) * np.log(actual / known)).sum(-1).mean())
    return drifts


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(N, features), (features, BINS - 1) -> (features, BINS) share of the values in each bin."""
    ordered = np.sort(values, axis=0)
    below = np.stack([np.searchsorted(ordered[:, f], edges[f]) for f in range(len(edges))]) / len(values)
    return np.diff(below, prepend=0.0, append=1.0)
