"""Work that actors do, row by row: what `rayjobs.extract`, `rayjobs.refine` and `rayjobs.evaluate` have in common.

Rows travel as JSON and answers as NPZ without objects, so nothing that an actor sends is ever unpickled. A `UserError` comes
back as a value: what is raised in an actor, Ray tries again.
"""

import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rayjobs.session import cluster_cores, quiet_ray_data
from refiner import UserError

Row = dict[str, Any]  # what JSON can say
Values = Mapping[str, Any]  # numbers, text and arrays of these
Work = Callable[[Row], Values]
Portions = Callable[[Sequence[Row], int], Iterable[Sequence[Row]]]  # rows for so many actors, all in their order


class Answer(NamedTuple):
    """What became of one row."""

    number: int  # of the row
    row: Row
    values: dict[str, Any]  # empty where there is an error
    error: str  # of the user's; empty where all went well


def evenly(rows: Sequence[Row], actors: int) -> Iterator[Sequence[Row]]:
    """Eight portions for each actor: for rows that take less time than handing one out."""
    ends = np.linspace(0, len(rows), min(8 * actors, len(rows)) + 1).astype(int).tolist()
    return (rows[start:end] for start, end in itertools.pairwise(ends))


def workers(actors: int = 0, cpus: int = 1, gpus: int = 0) -> int:
    """How many actors work at once where `actors` are asked for; 0: one per GPU, or as many as the cluster has cores for."""
    return actors or gpus or max(1, cluster_cores() // cpus)


def over_actors(
    make: Callable[..., Work],
    arguments: Sequence[Any],
    rows: Sequence[Row],
    *,
    actors: int = 0,
    cpus: int = 1,
    use_gpus: bool = False,
    portions: Portions = lambda rows, actors: ([row] for row in rows),
) -> Iterator[Answer]:
    """Has actors work on rows; the answers as they come. Wants a `ray_session`.

    Args:
        make: called with `arguments` once in every actor; what it gives is called with one row after the other.
        arguments: for `make`, the same in every actor.
        rows: what is to be done.
        actors: at once; 0: one per GPU where these are used, else as many as the cluster has cores for.
        cpus: that each actor takes.
        use_gpus: each actor has a GPU to itself, if there are any.
        portions: in which rows are handed out, one by one by default; each costs some 0.1 s in which its actor waits.
    """
    import pyarrow as pa
    import ray
    import ray.data

    quiet_ray_data()
    gpus = int(ray.cluster_resources().get("GPU", 0)) if use_gpus else 0
    size = min(workers(actors, cpus, gpus), len(rows))
    number = itertools.count()
    sent = [
        pa.Table.from_pylist([{"number": next(number), "row": json.dumps(row)} for row in portion])
        for portion in portions(rows, size)
    ]
    answers = ray.data.from_arrow(sent).map(
        _Actor,  # pyright: ignore[reportArgumentType] (Ray's annotation leaves classes out)
        fn_constructor_args=(make, arguments),
        # one portion in flight per actor: a second one would wait behind a long first while others are idle
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        num_cpus=cpus,
        num_gpus=1 if gpus else None,
    )
    for answer in answers.iter_rows():
        place = int(answer["number"])
        yield Answer(place, rows[place], unpacked(answer["values"]), answer["error"])


class _Actor:
    """INPUT row: number, row (JSON). OUTPUT row: number, values (NPZ), error."""

    def __init__(self, make: Callable[..., Work], arguments: Sequence[Any]) -> None:
        self._work = make(*arguments)

    def __call__(self, sent: dict[str, Any]) -> dict[str, Any]:
        values, error = {}, ""
        try:
            values = self._work(json.loads(sent["row"]))
        except UserError as mistake:
            error = str(mistake)
        return {"number": sent["number"], "values": packed(values), "error": error}


def packed(values: Values) -> bytes:
    """Numbers, text and arrays of these as NPZ.

    Raises:
        ValueError: there is something else among them, which only pickle could write.
    """
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    if strange := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"{', '.join(strange)}: neither numbers nor text")
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """What `packed` was given; single numbers and texts as Python's own.

    Raises:
        ValueError: it is not an NPZ of plain arrays.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    return {name: array.item() if array.ndim == 0 else array for name, array in values.items()}
