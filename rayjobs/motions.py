"""Motions: captured motion of other formats as a folder that drives the studio's dancers.

    python -m rayjobs.motions --source deepmimic --out data/motions
    python -m rayjobs.motions --source deepmimic data/aistpp recordings/ --out data/motions --test dance_b 'recordings/walk*'
    python -m rayjobs.studio --out data/studio --motions data/motions --recombine 0.5

A recording and an actor are in one split only. What cannot be read is named and left out.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from rayjobs.launch import launch, log
from refiner import UserError, files
from refiner.aistpp import FPS, METRES_PER_UNIT, SPLITS, Dataset, Name, write_pickle
from refiner.studio.dataset import PATTERN, write_text
from refiner.studio.mocap import deepmimic_clips, deepmimic_keypoints, keypoints, read_bvh

MANIFEST = "motions.json"
DEEPMIMIC = "deepmimic"
# Who moves, in the names of the usual collections: LAFAN1's aiming1_subject1, CMU's 01_02.
_ACTOR = re.compile(r".*?((?:subject|actor)_?\d+)|(\d+)_\d+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    source: tuple[str, ...]
    """BVH files, folders with BVH files in them, folders in AIST++'s layout, or 'deepmimic': its clips of walking, dancing,
    fighting, rolling and getting up, out of PyBullet's wheel on the package index (zlib licence, 100 MB, once)."""
    out: str
    """Folder of the motions, in AIST++'s layout: what `rayjobs.studio --motions` takes."""
    test: tuple[str, ...] = ()
    """Recordings to hold out for the test, by name as motions.json has it; * stands for anything. With --test or --val all
    others train; without either the recordings are shared out, the longest of them to train."""
    val: tuple[str, ...] = ()
    """Recordings to validate with."""
    up: str = "auto"
    """The axis that points up in BVH files: x, y, z, -x, -y, -z, or auto, where the head is over the feet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    motions: str
    sequences: dict[str, int]
    """Number by split."""
    motion_seconds: dict[str, float]
    """Seconds by split; a cycle that was repeated counts as often."""
    refused: list[str]
    """Why, one line each."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Recording:
    """A source of one sequence."""

    name: str
    actor: str  # what must not be in two splits
    read: Callable[[], np.ndarray]  # (N, 17, 3) metres at 60 Hz
    sequence: str | None = None  # its AIST++ name, where it has one


def run(options: Options) -> Summary:
    start = time.monotonic()
    out = files.local_folder(options.out, "--out")
    manifest = out / MANIFEST
    if (out / "annotations").exists() and not manifest.exists():
        raise UserError(f"{out} holds a dataset that this job did not make: give another --out")
    recordings = [r for source in options.source for r in recordings_of(source, options.up)]
    read, refused = [], []
    for recording in recordings:
        try:
            read.append((recording, recording.read()))
        except UserError as error:
            refused.append(str(error))
            log(f"left out: {error}")
    if not read:
        raise UserError(
            f"none of {len(recordings)} recordings in {', '.join(options.source)} can be read: {refused[0]}"
        )
    splits = split([(r.name, r.actor, len(poses)) for r, poses in read], options.val, options.test)
    names = _names([recording for recording, _ in read])
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"two of the motions are called {twice}: leave one of the folders that have it out of --source")
    if manifest.exists():
        for entry in json.loads(manifest.read_text()):
            (out / "annotations/keypoints3d" / f"{entry['sequence']}.pkl").unlink(missing_ok=True)
    entries = []
    for (recording, poses), name, of_split in zip(read, names, splits, strict=True):
        centimetres = poses / METRES_PER_UNIT
        write_pickle(
            out / "annotations/keypoints3d" / f"{name}.pkl",
            {"keypoints3d": centimetres, "keypoints3d_optim": centimetres.copy()},
        )
        seconds = round(len(poses) / FPS, 2)
        entries.append({"sequence": name, "source": recording.name, "split": of_split, "seconds": seconds})
    for of_split in SPLITS:
        lines = (f"{entry['sequence']}\n" for entry in entries if entry["split"] == of_split)
        write_text(out / "annotations/splits" / f"pose_{of_split}.txt", "".join(lines))
    write_text(manifest, "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
    by_split = {s: [entry["seconds"] for entry in entries if entry["split"] == s] for s in SPLITS}
    return Summary(
        motions=str(out),
        sequences={s: len(lengths) for s, lengths in by_split.items()},
        motion_seconds={s: round(sum(lengths), 1) for s, lengths in by_split.items()},
        refused=refused,
        seconds=round(time.monotonic() - start, 1),
    )


def recordings_of(source: str, up: str) -> Iterator[Recording]:
    """The recordings of one --source.

    Raises:
        UserError: there are none.
    """
    path = Path(source)
    if source == DEEPMIMIC and not path.exists():
        for name, text in sorted(deepmimic_clips().items()):
            yield Recording(name, name, partial(deepmimic_keypoints, text, name))
    elif (path / "annotations/keypoints3d").is_dir():
        data = Dataset(path)
        for name in data.sequences:
            if name not in data.ignored:
                yield Recording(name, Name.parse(name).dancer, partial(data.keypoints3d, name), name)
    else:
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".bvh") if path.is_dir() else [path]
        if not found or not path.exists():
            raise UserError(
                f"there is no motion in {source}: give a BVH file, a folder with BVH files, "
                f"a folder in AIST++'s layout, or '{DEEPMIMIC}'"
            )
        for file in found:
            name = file.relative_to(path.parent).with_suffix("").as_posix()
            actor = _ACTOR.match(file.stem)
            folder = file.parent.as_posix() if len({p.parent for p in found}) > 1 else name
            yield Recording(
                name, f"{source} {(actor[1] or actor[2]) if actor else folder}", partial(_read_bvh, file, up)
            )


def _read_bvh(path: Path, up: str) -> np.ndarray:
    return keypoints(read_bvh(path.read_text(encoding="latin-1"), str(path)), str(path), up)


def split(recordings: list[tuple[str, str, int]], val: tuple[str, ...], test: tuple[str, ...]) -> list[str]:
    """The split of each recording, given as name, actor and length.

    Raises:
        UserError: a name to hold out fits no recording, or a recording is to be in two splits.
    """
    held = {"val": val, "test": test}
    names = [name for name, _, _ in recordings]
    for of_split, patterns in held.items():
        for pattern in patterns:
            if not any(fnmatch(name, pattern) for name in names):
                raise UserError(f"--{of_split} {pattern} is none of the recordings: they are {', '.join(names[:20])}")
    if val or test:
        found = [[s for s, patterns in held.items() if any(fnmatch(n, p) for p in patterns)] for n in names]
        twice = [name for name, splits in zip(names, found, strict=True) if len(splits) > 1]
        if twice:
            raise UserError(f"{twice[0]} is to be held out for both --val and --test: name it in one")
        return [splits[0] if splits else "train" for splits in found]
    actors = [actor for _, actor, _ in recordings]
    if len(set(actors)) < len(SPLITS):  # too few to have each in a split of its own: recordings must do
        actors = names
    lengths = {actor: sum(n for (_, _, n), a in zip(recordings, actors, strict=True) if a == actor) for actor in actors}
    ordered = sorted(lengths, key=lambda actor: (-lengths[actor], actor))
    of_actor = {actor: PATTERN[i % len(PATTERN)] for i, actor in enumerate(ordered)}
    return [of_actor[actor] for actor in actors]


def _names(recordings: list[Recording]) -> list[str]:
    """AIST++ names: genre and situation MC say captured motion, the dancer is the actor, the choreography the recording."""
    actors = sorted({recording.actor for recording in recordings if recording.sequence is None})
    return [
        r.sequence or str(Name("gMC", "sMC", "cAll", f"d{actors.index(r.actor) + 1:02d}", "mMC0", f"ch{i + 1:02d}"))
        for i, r in enumerate(recordings)
    ]


if __name__ == "__main__":
    launch(run, Options)
