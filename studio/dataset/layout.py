"""The sequences of a dataset, and what lies around them on disk, as AIST++ has it."""

import contextlib
import dataclasses
import json
from pathlib import Path

from pyarrow.fs import FileType

from refiner import files
from refiner.data.aistpp import SPLITS, write_cameras
from refiner.errors import UserError
from studio.dataset.spec import Spec, seed_of
from studio.dataset.take import PATTERN, Take
from studio.motion.sources import Source, TooShort, draw_source, recombined, sources, varied_source

VERSION = 6  # raise it when the same options render something else than before
MANIFEST = "studio.json"


def plan(spec: Spec) -> list[Take]:
    """The sequences of a dataset.

    Raises:
        UserError: the real motions asked for are not there.
    """
    root = spec.motions if spec.real_share > 0 else None
    by_split = {} if root is None else sources(root, PATTERN)
    order = sorted({name for names in by_split.values() for name in names})
    takes: list[Take] = []
    real = training = mixed = 0  # how many there are with real motion, of these for training, and of these recombined
    for number in range(spec.sequences):
        if root is None or int((number + 1) * spec.real_share + 1e-9) <= real:
            takes.append(Take(spec, number, number - real))
            continue
        # the splits take turns, and within each its sources
        split = PATTERN[real % len(PATTERN)]
        names = by_split[split]
        before = sum(PATTERN[i % len(PATTERN)] == split for i in range(real))
        source = _source(spec, root, names[before % len(names) :] + names[: before % len(names)], order, number)
        if split == "train":
            # legs that cannot be (they do not stand) leave it to later ones
            if int((training + 1) * spec.recombine + 1e-9) > mixed:
                others = [(name, order.index(name)) for name in names]
                source = recombined(root, source, others, spec.seconds, seed_of(spec, "upper", number))
            if int((training + 1) * spec.varied + 1e-9) > int(training * spec.varied + 1e-9):
                source = varied_source(source, seed_of(spec, "varied", number))
            training, mixed = training + 1, mixed + (source.upper is not None)
        takes.append(Take(spec, number, real, source))
        real += 1
    return takes


def _source(spec: Spec, root: str, names: list[str], order: list[str], number: int) -> Source:
    """A window of the first of these sequences that is long enough."""
    too_short: list[TooShort] = []
    for name in names:
        try:
            return draw_source(root, name, order.index(name), spec.seconds, seed_of(spec, "source", number))
        except TooShort as error:
            too_short.append(error)
    raise too_short[0]


def prepare(root: str | Path, spec: Spec) -> list[Take]:
    """Lays a dataset out: manifest, splits, camera settings, everything but annotations and videos of single sequences.

    Args:
        root: path or URI.
        spec: what it is made from.

    Returns:
        Its sequences. Where a larger dataset of the same kind is there already, all of that.

    Raises:
        UserError: the folder holds a dataset made with other options, or something else.
    """

    def there(name: str) -> bool:
        return files.info(files.join(root, name)).type != FileType.NotFound

    if not there(MANIFEST) and (there("annotations") or there("videos")):
        raise UserError(f"{root} holds a dataset that the studio did not make: give another folder with --out")
    spec = agreed(root, spec)
    takes = plan(spec)
    settings = {take.setting: write_cameras(take.cameras.values()) for take in takes}
    # the manifest first: whatever else an interrupted run leaves undone, the next one does
    record(root, spec)
    annotations = files.join(root, "annotations")
    for split in SPLITS:
        names = [str(take.name) for take in takes if take.split == split]
        write_text(files.join(annotations, "splits", f"pose_{split}.txt"), "".join(f"{name}\n" for name in names))
    for name, text in settings.items():
        write_text(files.join(annotations, "cameras", f"{name}.json"), text)
    mapping = "".join(f"{take.name} {take.setting}\n" for take in takes)
    write_text(files.join(annotations, "cameras", "mapping.txt"), mapping)
    write_text(files.join(annotations, "ignore_list.txt"), "")
    if not files.is_uri(root):
        Path(root, "videos").mkdir(parents=True, exist_ok=True)
    return takes


def agreed(root: str | Path, spec: Spec) -> Spec:
    """What a folder is made from; where more of the same is there already, all of that.

    Raises:
        UserError: what is there was made with other options.
    """
    try:
        content = json.loads(files.read_text(files.join(root, MANIFEST)))
    except FileNotFoundError:
        return spec
    # a manifest from before an option existed has what is its default now
    there = {f.name: f.default for f in dataclasses.fields(Spec)} | content
    made = _recorded(spec)
    other = [key for key in made if key != "sequences" and there.get(key) != made[key]]
    if other:
        key = other[0]
        raise UserError(
            f"{root} holds a studio dataset made with {key} {there.get(key)}, not {made[key]}: "
            "give the same options, another --out, or delete that folder"
        )
    return dataclasses.replace(spec, sequences=max(spec.sequences, there["sequences"]))


def record(root: str | Path, spec: Spec) -> None:
    """Writes down what a folder is made from."""
    write_text(files.join(root, MANIFEST), json.dumps(_recorded(spec)))


def _recorded(spec: Spec) -> dict[str, object]:
    return {"version": VERSION, **dataclasses.asdict(spec), "size": list(spec.size)}


def write_text(where: str | Path, text: str) -> None:
    """Writes a file in one step; leaves it alone where it already says so."""
    with contextlib.suppress(FileNotFoundError):
        if files.read_text(where) == text:
            return
    files.write_text(where, text)
