"""Work that actors do, row by row: what `rayjobs.refine` and `rayjobs.evaluate` have in common.

Rows travel as JSON and answers as NPZ without objects, so nothing that an actor sends is ever unpickled. A `UserError` comes
back as a value: what is raised in an actor, Ray tries again.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rayjobs.session import cluster_cores, quiet_ray_data
from refiner import UserError

Row = dict[str, Any]  # what JSON can say
Values = Mapping[str, Any]  # numbers, text and arrays of these
Work = Callable[[Row], Values]


class Answer(NamedTuple):
    """What became of one row."""

    number: int  # of the row
    row: Row
    values: dict[str, Any]  # empty where there is an error
    error: str  # of the user's; empty where all went well


def over_actors(
    make: Callable[..., Work],
    arguments: Sequence[Any],
    rows: Sequence[Row],
    *,
    actors: int = 0,
    cpus: int = 1,
    use_gpus: bool = False,
    blocks_per_actor: int | None = None,
) -> Iterator[Answer]:
    """Has actors work on rows; the answers as they come. Wants a `ray_session`.

    Args:
        make: called with `arguments` once in every actor; what it gives is called with one row after the other.
        arguments: for `make`, the same in every actor.
        rows: what is to be done.
        actors: at once; 0: one per GPU where these are used, else as many as the cluster has cores.
        cpus: that each actor takes.
        use_gpus: each actor has a GPU to itself, if there are any.
        blocks_per_actor: rows are handed out in so many portions for each actor; None: one by one, with none waiting at an
            actor, so that a long row does not hold up others while actors are idle.
    """
    import ray
    import ray.data

    quiet_ray_data()
    gpus = int(ray.cluster_resources().get("GPU", 0)) if use_gpus else 0
    size = min(actors or gpus or cluster_cores(), len(rows))
    one_by_one = blocks_per_actor is None
    blocks = len(rows) if blocks_per_actor is None else min(len(rows), blocks_per_actor * size)
    sent = [{"number": number, "row": json.dumps(row)} for number, row in enumerate(rows)]
    answers = ray.data.from_items(sent, override_num_blocks=blocks).map(
        _Actor,  # pyright: ignore[reportArgumentType] (Ray's annotation leaves classes out)
        fn_constructor_args=(make, arguments),
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1 if one_by_one else None),
        num_cpus=cpus,
        num_gpus=1 if gpus else None,
    )
    for answer in answers.iter_rows():
        number = int(answer["number"])
        yield Answer(number, rows[number], unpacked(answer["values"]), answer["error"])


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
