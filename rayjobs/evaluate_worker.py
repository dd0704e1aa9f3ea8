"""What `rayjobs.evaluate` computes: files of pairs in, sums out, here or on the cluster; the same parts and the same code.

A part is a few files, read, reduced and forgotten. Few pairs are reduced in this process; many by actors that load the
models once.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rayjobs.actors import Row, Values, Work, over_actors
from rayjobs.progress import Progress
from rayjobs.session import ray_session
from refiner import DepthRefiner, UserError, files
from refiner.data import records
from refiner.data.checks import Gist
from refiner.data.records import Seen
from refiner.evaluation.atlas import Atlas
from refiner.evaluation.baselines import Method, Moments
from refiner.evaluation.tally import Tally

CHAMPION_METHOD = "champion"
# What a part holds at least, if there are so many: 35 MB of pairs.
PART_PAIRS = 32_768
# Starting a pool of actors takes 20 s on two cores; this process measures 100,000 pairs in about a minute.
FEW_PAIRS = 100_000


def fit_baselines(root: str | Path, workers: int = 0, seen: Seen = "mediapipe") -> dict[str, Method]:
    """All baselines, fitted on the training pairs.

    Args:
        root: folder of the pairs.
        seen: how their frames were.
        workers: as in `rayjobs.evaluate.Options`.

    Raises:
        UserError: pairs that cannot be right.
    """
    parts = _reduced(root, "train", Fitter, (), workers, seen)
    _add(Gist(**part) for part in _under(parts, "gist")).check("train")
    return _add(Moments.of_arrays(part) for part in _under(parts, "moments")).fit()


def measure_all(
    root: str | Path,
    split: str,
    methods: Mapping[str, Method],
    models: Mapping[str, str],
    workers: int = 0,
    seen: Seen = "mediapipe",
) -> tuple[Tally, Atlas]:
    """All methods and models on the pairs of a split, in sums: by sequence, and by where errors are.

    Args:
        root: folder of the pairs.
        split: of them.
        methods: the baselines.
        models: name -> what `DepthRefiner` is given.
        workers: as in `rayjobs.evaluate.Options`.
        seen: as there.

    Raises:
        UserError: pairs that cannot be right.
    """
    parts = _reduced(root, split, Measurer, (methods, models, split), workers, seen)
    _add(Gist(**part) for part in _under(parts, "gist")).check(split)
    tally = Tally.concatenate([Tally.of_arrays(part) for part in _under(parts, "tally")])
    return tally, _add(Atlas.of_arrays(part) for part in _under(parts, "atlas"))


class Fitter:
    """INPUT row: files, of training pairs. OUTPUT: what the baselines are fitted to, and what the pairs are like."""

    def __call__(self, row: Row) -> Values:
        pairs = records.read_pair_files(row["files"], row["seen"])
        return _named("moments", Moments.of(pairs)) | _named("gist", Gist.of(pairs, "train"))


class Measurer:
    """INPUT row: files, of pairs. OUTPUT: what every method makes of them, and what the pairs are like."""

    def __init__(self, methods: Mapping[str, Method], models: Mapping[str, str], split: str) -> None:
        self._methods, self._split = methods, split
        self._models = {name: DepthRefiner(source) for name, source in models.items()}

    def __call__(self, row: Row) -> Values:
        pairs = records.read_pair_files(row["files"], row["seen"])
        gist = Gist.of(pairs, self._split)
        answers = {name: model.predict_pairs(pairs) for name, model in self._models.items()}
        poses = {name: method(pairs) for name, method in self._methods.items()}
        poses |= {name: answer.poses for name, answer in answers.items()}
        tally = Tally.of(pairs, poses, {name: answer.confidence for name, answer in answers.items()})
        return _named("tally", tally) | _named("gist", gist) | _named("atlas", Atlas.of(pairs, poses))


def _add(parts: Iterator[Any]) -> Any:
    return functools.reduce(operator.add, parts)


def _named(prefix: str, sums: Tally | Moments | Gist | Atlas) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in sums.to_arrays().items()}


def _under(parts: Sequence[Values], prefix: str) -> Iterator[dict[str, Any]]:
    start = f"{prefix}/"
    return ({n.removeprefix(start): v for n, v in part.items() if n.startswith(start)} for part in parts)


def _reduced(
    root: str | Path, split: str, make: Callable[..., Work], arguments: Sequence[Any], workers: int, seen: Seen
) -> list[Values]:
    """What `make(*arguments)` says of every part of a split, in the parts' order."""
    rows = {files.absolute(path): records.read_footer(path).num_rows for path in records.pair_files(root, split)}
    parts: list[Row] = [{"files": [], "seen": seen}]
    held = 0
    for path, number in rows.items():
        if not number:
            continue
        if held >= PART_PAIRS:
            parts.append({"files": [], "seen": seen})
            held = 0
        parts[-1]["files"].append(path)
        held += number
    if not workers and sum(rows.values()) < FEW_PAIRS:
        work = make(*arguments)
        return [work(part) for part in parts]
    sums: dict[int, Values] = {}
    with ray_session(), Progress(f"parts of {split}", len(parts), len(parts)) as progress:
        for answer in over_actors(make, arguments, parts, actors=workers, use_gpus=make is Measurer):
            if answer.error:
                raise UserError(answer.error)
            sums[answer.number] = answer.values
            progress.add(1, 1)
    return [sums[number] for number in range(len(parts))]
