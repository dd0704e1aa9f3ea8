"""What a set of pairs says about methods, added up by sequence: all that tables, intervals and plots need, and no more.

A sequence is reduced to some hundred sums wherever its pairs are; ten million pairs are then a few megabytes, and a
bootstrap over sequences needs nothing else. Made of poses by `Tally.of`, put together by `Tally.concatenate`, read by
`refiner.evaluation`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.evaluation.confidence import ConfidenceCounts
from refiner.evaluation.metrics import CM, FIGURES
from refiner.model.network import CONFIDENT_WITHIN_M
from refiner.skeleton import JOINTS

# A cell is what a mean is taken of: dimension and label. ("figure", "mpjpe_cm") is a figure over all rows; all others are
# the mean |Δz| in cm of a slice, such as ("joint", "nose") or ("camera", "c01").
Cell = tuple[str, str]
FIGURE, JOINT, GENRE = "figure", "joint", "genre"
ROUNDS = 2000


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums by sequence (S), method (M) and cell (C)."""

    sequences: tuple[str, ...]  # S, sorted
    pairs: np.ndarray  # (S,) int
    methods: tuple[str, ...]  # M
    cells: tuple[Cell, ...]  # C
    weights: np.ndarray  # (S, C): the same for all methods
    sums: np.ndarray  # (S, M, C): a mean is the sum over sequences divided by that of the weights
    confidence: dict[str, ConfidenceCounts]  # of those methods that state one; leading axis S

    @classmethod
    def of(cls, pairs: Pairs, methods: Mapping[str, np.ndarray], confidence: Mapping[str, np.ndarray]) -> "Tally":
        """Adds up.

        Args:
            pairs: whole clips, with their truth.
            methods: name -> (N, 17, 3) poses for them.
            confidence: name -> (N, 17), for some of the methods.
        """
        names, index = np.unique(pairs.sequence.astype(str), return_inverse=True)
        order = np.argsort(index, kind="stable")
        starts = np.searchsorted(index[order], np.arange(len(names)))

        def by_sequence(rows: np.ndarray) -> np.ndarray:  # (N, …) -> (S, …)
            return np.add.reduceat(rows[order], starts, axis=0)

        masks = {
            (dimension, label): m for dimension, labels in metrics.slices(pairs).items() for label, m in labels.items()
        }
        cells = [(FIGURE, name) for name in FIGURES] + [(JOINT, name) for name in JOINTS] + list(masks)
        cut = np.stack(list(masks.values()), axis=-1).astype(np.float64)  # (N, slices)
        sums, figure_weights = [], np.empty((len(pairs), 0))
        for poses in methods.values():
            figures, figure_weights = metrics.figure_rows(poses, pairs)  # the weights are the same for all
            depth = metrics.depth_error(poses, pairs.ground_truth).astype(np.float64) * CM  # (N, 17)
            sums.append(by_sequence(np.concatenate([figures, depth, cut * depth.mean(-1, keepdims=True)], axis=1)))
        weights = by_sequence(np.concatenate([figure_weights, np.ones((len(pairs), len(JOINTS))), cut], axis=1))
        error = {name: metrics.depth_error(methods[name], pairs.ground_truth) for name in confidence}
        return cls(
            sequences=tuple(names.tolist()),
            pairs=np.bincount(index),
            methods=tuple(methods),
            cells=tuple(cells),
            weights=weights,
            sums=np.stack(sums, axis=1),
            confidence={
                name: ConfidenceCounts.stack(
                    [
                        ConfidenceCounts.of(said[index == s], error[name][index == s], CONFIDENT_WITHIN_M)
                        for s in range(len(names))
                    ]
                )
                for name, said in confidence.items()
            },
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Tally"]) -> "Tally":
        """Of the same methods. A sequence that is in several parts is added up."""
        methods = parts[0].methods
        cells = list(dict.fromkeys(cell for part in parts for cell in part.cells))
        names, index = np.unique([s for part in parts for s in part.sequences], return_inverse=True)
        shape = len(names), len(methods), len(cells)
        pairs, weights, sums = np.zeros(shape[0], dtype=int), np.zeros((shape[0], shape[2])), np.zeros(shape)
        column = {cell: i for i, cell in enumerate(cells)}
        for part, rows in zip(parts, np.split(index, np.cumsum([len(p.sequences) for p in parts])[:-1]), strict=True):
            columns = np.array([column[cell] for cell in part.cells], dtype=int)
            pairs[rows] += part.pairs
            weights[np.ix_(rows, columns)] += part.weights
            sums[np.ix_(rows, np.arange(len(methods)), columns)] += part.sums
        return cls(
            sequences=tuple(names.tolist()),
            pairs=pairs,
            methods=methods,
            cells=tuple(cells),
            weights=weights,
            sums=sums,
            confidence={
                name: _added([part.confidence[name] for part in parts], index, len(names))
                for name in parts[0].confidence
            },
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As plain arrays, to be stored or sent; `of_arrays` backwards."""
        arrays = {
            "sequences": np.array(self.sequences, dtype=str), "pairs": self.pairs,
            "methods": np.array(self.methods, dtype=str), "cells": np.array(self.cells, dtype=str),
            "weights": self.weights, "sums": self.sums, "confident": np.array(list(self.confidence), dtype=str),
        }  # fmt: skip
        for number, counts in enumerate(self.confidence.values()):
            arrays |= {f"by_confidence{number}": counts.by_confidence, f"by_error{number}": counts.by_error}
        return arrays

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Tally":
        return cls(
            sequences=tuple(arrays["sequences"].tolist()),
            pairs=arrays["pairs"],
            methods=tuple(arrays["methods"].tolist()),
            cells=tuple((dimension, label) for dimension, label in arrays["cells"].tolist()),
            weights=arrays["weights"],
            sums=arrays["sums"],
            confidence={
                name: ConfidenceCounts(arrays[f"by_confidence{number}"], arrays[f"by_error{number}"])
                for number, name in enumerate(arrays["confident"].tolist())
            },
        )

    def where(self, chosen: np.ndarray) -> "Tally":
        """Of the sequences where this mask (S,) is true."""
        return Tally(
            sequences=tuple(np.array(self.sequences)[chosen].tolist()),
            pairs=self.pairs[chosen],
            methods=self.methods,
            cells=self.cells,
            weights=self.weights[chosen],
            sums=self.sums[chosen],
            confidence={name: counts[chosen] for name, counts in self.confidence.items()},
        )

    def with_genres(self) -> "Tally":
        """With the genres of the sequences as further cells."""
        genres = np.array([metrics.genre(s) for s in self.sequences])
        labels = np.unique(genres).tolist()
        mine = genres[:, None] == labels  # (S, genres)
        depth = self.cells.index((FIGURE, FIGURES[0]))
        return Tally(
            sequences=self.sequences,
            pairs=self.pairs,
            methods=self.methods,
            cells=(*self.cells, *((GENRE, label) for label in labels)),
            weights=np.concatenate([self.weights, mine * self.weights[:, depth, None]], axis=1),
            sums=np.concatenate([self.sums, mine[:, None] * self.sums[:, :, depth, None]], axis=2),
            confidence=self.confidence,
        )

    def means(self) -> np.ndarray:
        """(M, C); NaN where nothing has any weight."""
        with np.errstate(invalid="ignore"):
            return self.sums.sum(0) / self.weights.sum(0)

    def resampled(self, seed: int = 0, rounds: int = ROUNDS) -> np.ndarray:
        """(rounds, M, C) the means of sequences drawn with replacement, the same draws for all: differences are paired."""
        drawn = metrics.resamples(len(self.sequences), seed=seed, rounds=rounds)
        with np.errstate(invalid="ignore"):
            sums = (drawn @ self.sums.reshape(len(drawn.T), -1)).reshape(rounds, *self.sums.shape[1:])
            return sums / (drawn @ self.weights)[:, None]

    @cached_property
    def few(self) -> np.ndarray:
        """(C,) bool: cells of fewer than two sequences, of which no interval is known."""
        return (self.weights > 0).sum(0) < 2


def _added(parts: list[ConfidenceCounts], index: np.ndarray, sequences: int) -> ConfidenceCounts:
    whole = ConfidenceCounts.concatenate(parts)
    if len(index) == sequences:  # no sequence is in two parts
        return whole[np.argsort(index)]
    return ConfidenceCounts.stack([whole[index == s].total() for s in range(sequences)])


def interval(samples: np.ndarray, few: np.ndarray | bool = False, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(rounds, …) -> low and high ends (…,) of the percentile interval; infinite where `few`."""
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # what no sample has (an acceleration of clips of one frame) has no interval either
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(few, -np.inf, low), np.where(few, np.inf, high)
