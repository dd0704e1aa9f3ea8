"""Several models beside the baselines on held-out pairs: of a model trained with several seeds the mean error counts.

Used by `rayjobs.ship` and by the benchmarks that compare ways to train.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from refiner.command import log
from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.evaluation.baselines import Method
from refiner.evaluation.metrics import FIGURES
from refiner.evaluation.tally import FIGURE, Tally, interval
from refiner.inference.depth_refiner import DepthRefiner
from refiner.model.config import RefinerConfig

ALL = "all"
REAL_MOTION = "sRM"


def as_used(model: DepthRefiner, config: RefinerConfig) -> DepthRefiner:
    """The same weights with what only matters in use (smoothing, bones, strength, symmetry) as in `config`."""
    network = type(model.model)(config)
    network.load_state_dict(model.model.state_dict())
    return DepthRefiner.of(network)


def tally(pairs: Pairs, methods: Mapping[str, Method], models: Mapping[str, list[DepthRefiner]]) -> Tally:
    """Methods, and models of several seeds each, on held-out pairs; of a model's seeds the mean error counts."""
    rows = Tally.of(pairs, {name: method(pairs) for name, method in methods.items()}, {})
    sums = [rows.sums]
    for name, seeds in models.items():
        log(f"measuring {name}")
        each = [Tally.of(pairs, {name: model.predict_pairs(pairs).poses}, {}).sums for model in seeds]
        sums.append(np.mean(each, axis=0))
    return dataclasses.replace(rows, methods=(*methods, *models), sums=np.concatenate(sums, axis=1))


def kinds(tally_of_all: Tally) -> dict[str, Tally]:
    """The whole, and each kind of motion where there are several."""
    situations = np.array([metrics.situation(s) for s in tally_of_all.sequences])
    names = np.unique(situations).tolist()
    return {ALL: tally_of_all} | (
        {str(k): tally_of_all.where(situations == k) for k in names} if len(names) > 1 else {}
    )


def figures(tally_of_all: Tally, against: tuple[str, ...] = (), seed: int = 0) -> dict[str, dict]:
    """By method: `metrics.FIGURES`, `interval_cm` of mean |Δz|, and `minus` each method of `against` with its interval."""
    means, samples = tally_of_all.means(), tally_of_all.resampled(seed)
    depth = tally_of_all.cells.index((FIGURE, FIGURES[0]))
    few = tally_of_all.few[depth]
    by_method = {}
    for m, name in enumerate(tally_of_all.methods):
        low, high = interval(samples[:, m, depth], few)
        row: dict[str, Any] = {f: float(means[m, tally_of_all.cells.index((FIGURE, f))]) for f in FIGURES}
        row |= {"interval_cm": (float(low), float(high)), "minus": {}}
        for other in against:
            o = tally_of_all.methods.index(other)
            low, high = interval(samples[:, m, depth] - samples[:, o, depth], few)
            row["minus"][other] = (float(means[m, depth] - means[o, depth]), float(low), float(high))
        by_method[name] = row
    return by_method


def headline(tally_of_all: Tally) -> np.ndarray:
    """(M,) mean |Δz| in cm, of real motion where there is any: that is what choices are made on."""
    parts = kinds(tally_of_all)
    return parts.get(REAL_MOTION, tally_of_all).means()[:, tally_of_all.cells.index((FIGURE, FIGURES[0]))]
