"""What `rayjobs.evaluate` computes: files of pairs in, sums out, here or on the cluster; the same parts and the same code.

A part is a few files, read, reduced and forgotten. Few pairs are reduced in this process; many by a Ray Data job whose
actors load the models once.
"""

import functools
import operator
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from rayjobs.progress import Progress
from rayjobs.session import cluster_cores, quiet_ray_data, ray_session
from refiner import DepthRefiner, UserError
from refiner.data import records
from refiner.data.checks import Gist
from refiner.evaluation.baselines import Method, Moments
from refiner.evaluation.tally import Tally

CHAMPION_METHOD = "champion"
# What a part holds at least, if there are so many: 35 MB of pairs.
PART_PAIRS = 32_768
# Starting a pool of actors takes 20 s on two cores; this process measures 100,000 pairs in about a minute.
FEW_PAIRS = 100_000

Files = list[str]
Result = TypeVar("Result")


def fit_baselines(root: str | Path, workers: int = 0) -> dict[str, Method]:
    """All baselines, fitted on the training pairs.

    Args:
        root: folder of the pairs.
        workers: as in `rayjobs.evaluate.Options`.

    Raises:
        UserError: pairs that cannot be right.
    """
    found = _reduced(root, "train", Fitter, (), workers)
    _add(gist for _, gist in found).check("train")
    return _add(moments for moments, _ in found).fit()


def measure_all(
    root: str | Path, split: str, methods: Mapping[str, Method], models: Mapping[str, str], workers: int = 0
) -> Tally:
    """All methods and models on the pairs of a split, in sums by sequence.

    Args:
        root: folder of the pairs.
        split: of them.
        methods: the baselines.
        models: name -> what `DepthRefiner` is given.
        workers: as in `rayjobs.evaluate.Options`.

    Raises:
        UserError: pairs that cannot be right.
    """
    found = _reduced(root, split, Measurer, (methods, models, split), workers)
    _add(gist for _, gist in found).check(split)
    return Tally.concatenate([tally for tally, _ in found])


class Fitter:
    """Files of training pairs -> what the baselines are fitted to, and what the pairs are like."""

    def __call__(self, files: Files) -> tuple[Moments, Gist]:
        pairs = records.read_pair_files(files)
        return Moments.of(pairs), Gist.of(pairs, "train")


class Measurer:
    """Files of pairs -> what every method makes of them, and what the pairs are like. Loads the models once."""

    def __init__(self, methods: Mapping[str, Method], models: Mapping[str, str], split: str) -> None:
        self._methods, self._split = methods, split
        self._models = {name: DepthRefiner(source) for name, source in models.items()}

    def __call__(self, files: Files) -> tuple[Tally, Gist]:
        pairs = records.read_pair_files(files)
        gist = Gist.of(pairs, self._split)
        answers = {name: model.predict_pairs(pairs) for name, model in self._models.items()}
        poses = {name: method(pairs) for name, method in self._methods.items()}
        poses |= {name: answer.poses for name, answer in answers.items()}
        return Tally.of(pairs, poses, {name: answer.confidence for name, answer in answers.items()}), gist


def _add(parts: Iterator[Any]) -> Any:
    return functools.reduce(operator.add, parts)


def _reduced(
    root: str | Path, split: str, work: Callable[..., Callable[[Files], Result]], arguments: Sequence[Any], workers: int
) -> list[Result]:
    """`work(*arguments)` called with every part of a split; the results in the parts' order."""
    rows = {str(Path(path).absolute()): pq.read_metadata(path).num_rows for path in records.pair_files(root, split)}
    parts: list[Files] = [[]]
    held = 0
    for path, number in rows.items():
        if not number:
            continue
        if held >= PART_PAIRS:
            parts.append([])
            held = 0
        parts[-1].append(path)
        held += number
    if not workers and sum(rows.values()) < FEW_PAIRS:
        worker = work(*arguments)
        return [worker(part) for part in parts]
    results: dict[int, Result] = {}
    with ray_session(), Progress(f"parts of {split}", len(parts), len(parts)) as progress:
        for row in _on_cluster(parts, work, arguments, workers):
            if row["error"]:
                raise UserError(row["error"])
            results[row["part"]] = pickle.loads(row["result"])  # of our own actors
            progress.add(1, 1)
    return [results[i] for i in range(len(parts))]


class _Actor:
    """INPUT row: part, files. OUTPUT row: part, result (pickled), error (of the user's)."""

    def __init__(self, work: Callable[..., Callable[[Files], Any]], arguments: Sequence[Any]) -> None:
        self._work = work(*arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"part": row["part"], "result": pickle.dumps(self._work(list(row["files"]))), "error": ""}
        except UserError as error:  # what is raised is tried again
            return {"part": row["part"], "result": b"", "error": str(error)}


def _on_cluster(
    parts: list[Files], work: Callable[..., Callable[[Files], Any]], arguments: Sequence[Any], workers: int
) -> Iterable[dict[str, Any]]:
    import ray
    import ray.data

    quiet_ray_data()
    gpus = int(ray.cluster_resources().get("GPU", 0)) if work is Measurer else 0
    size = min(workers or gpus or cluster_cores(), len(parts))
    rows = [{"part": i, "files": part} for i, part in enumerate(parts)]
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(
            _Actor,  # pyright: ignore[reportArgumentType] (Ray's annotation leaves classes out)
            fn_constructor_args=(work, arguments),
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        .iter_rows()
    )
