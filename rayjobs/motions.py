"""Motions: captured motion of other formats as a folder that drives the studio's dancers.

    python -m rayjobs.motions --source deepmimic --out data/motions
    python -m rayjobs.motions --source deepmimic data/aistpp recordings/ --out data/motions --test dance_b 'recordings/walk*'
    python -m rayjobs.studio --out data/studio --motions data/motions --recombine 0.5

A recording and an actor are in one split only. What cannot be read is named and left out.
"""

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from rayjobs.progress import Progress
from refiner import UserError, files
from refiner.command import launch, log
from refiner.data.aistpp import FPS, METRES_PER_UNIT, SPLITS, Dataset, Name, write_pickle

MANIFEST = "motions.json"
DEEPMIMIC = "deepmimic"
# Who moves, in the names of the usual collections: LAFAN1's aiming1_subject1, CMU's 01_02.
_ACTOR = re.compile(r".*?((?:subject|actor)_?\d+)|(\d+)_\d+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    source: tuple[str, ...]
    """BVH files, folders with BVH files in them, folders in AIST++'s layout, or 'deepmimic'.
    That is walking, dancing, fighting and rolling, from PyBullet's wheel on the package index (zlib licence, 100 MB, once)."""
    out: str
    """Folder of the motions, in AIST++'s layout: what `rayjobs.studio --motions` takes."""
    test: tuple[str, ...] = ()
    """Recordings to hold out for the test, by name as motions.json has it; * stands for anything. All that their actors do
    goes with them. With --test or --val all others train; without either the actors are shared out."""
    val: tuple[str, ...] = ()
    """Recordings to validate with."""
    together: tuple[str, ...] = ()
    """Names, with * and [12], each of recordings that belong together whoever moves in them, such as a couple's two partners:
    they are in one split."""
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
    """Writes the recordings as a dataset; `UserError` where --out holds another one, or nothing can be read."""
    # not at the module's top: --help is there without the studio's extra, and its absence is one sentence
    from studio.dataset import write_text

    start = time.monotonic()
    out = files.local_folder(options.out, "--out")
    manifest = out / MANIFEST
    if (out / "annotations").exists() and not manifest.exists():
        raise UserError(f"{out} holds a dataset that this job did not make: give another --out")
    recordings = [r for source in options.source for r in recordings_of(source, options.up)]
    names = _names(recordings)
    recordings = grouped(recordings, options.together)
    held_out = hold_out(recordings, options.val, options.test)
    keypoints3d = out / "annotations/keypoints3d"
    shutil.rmtree(keypoints3d, ignore_errors=True)
    write_text(manifest, "[]\n")
    read, refused = [], []  # (recording, its AIST++ name, frames); why not
    with Progress("recordings", len(recordings), len(recordings)) as progress:
        for recording, name in zip(recordings, names, strict=True):
            try:
                poses = recording.read() / METRES_PER_UNIT
            except UserError as error:
                refused.append(str(error))
                log(f"left out: {error}")
                progress.add(1, 1, failed=1)
                continue
            write_pickle(keypoints3d / f"{name}.pkl", {"keypoints3d": poses, "keypoints3d_optim": poses.copy()})
            read.append((recording, name, len(poses)))
            progress.add(1, 1, frames=len(poses))
    if not read:
        raise UserError(
            f"none of {len(recordings)} recordings in {', '.join(options.source)} can be read: {refused[0]}"
        )
    splits = held_out or share_out([(recording, frames) for recording, _, frames in read])
    entries = [
        {
            "sequence": name,
            "source": r.name,
            "actor": r.actor,
            "split": splits[r.name],
            "seconds": round(frames / FPS, 2),
        }
        for r, name, frames in read
    ]
    for split in SPLITS:
        lines = (f"{entry['sequence']}\n" for entry in entries if entry["split"] == split)
        write_text(out / "annotations/splits" / f"pose_{split}.txt", "".join(lines))
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
    from studio.deepmimic import deepmimic_clips, deepmimic_keypoints

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
        paths = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".bvh") if path.is_dir() else [path]
        if not paths or not path.exists():
            raise UserError(f"there is no motion in {source}: give BVH files, AIST++'s layout, or '{DEEPMIMIC}'")
        for file in paths:
            name = file.relative_to(path.parent).with_suffix("").as_posix()
            named = _ACTOR.match(file.stem)
            folder = file.parent.as_posix() if len({p.parent for p in paths}) > 1 else name
            actor = (named[1] or named[2]) if named else folder
            yield Recording(name, f"{source} {actor}", partial(_read_bvh, file, up))


def _read_bvh(path: Path, up: str) -> np.ndarray:
    from studio.bvh import decoded, read_bvh
    from studio.mocap import keypoints

    return keypoints(read_bvh(decoded(path.read_bytes()), str(path)), str(path), up, log)


def grouped(recordings: list[Recording], together: tuple[str, ...]) -> list[Recording]:
    """The same, where what belongs together has one actor.

    Raises:
        UserError: a pattern fits nothing.
    """
    actor: dict[str, str] = {}
    for pattern in together:
        members = {
            r.actor for r in recordings if r.name in _fitting("--together", pattern, [r.name for r in recordings])
        }
        # who was joined before takes those along
        joined = {a for a in actor if actor[a] in {actor.get(m, m) for m in members}} | members
        actor |= dict.fromkeys(joined, " and ".join(sorted(joined)))
    return [replace(r, actor=actor.get(r.actor, r.actor)) for r in recordings]


def hold_out(recordings: list[Recording], val: tuple[str, ...], test: tuple[str, ...]) -> dict[str, str]:
    """The split of each recording by what is to be held out; empty where nothing is. An actor is in one split with all that
    they do: who was seen in training is no stranger in the test.

    Raises:
        UserError: a name to hold out fits no recording, or an actor is to be in two splits.
    """
    splits: dict[str, str] = {}  # by actor
    for split, patterns in (("val", val), ("test", test)):
        for pattern in patterns:
            fitting = _fitting(f"--{split}", pattern, [r.name for r in recordings])
            for recording in recordings:
                if recording.name in fitting and splits.setdefault(recording.actor, split) != split:
                    raise UserError(
                        f"{recording.name} is held out for both --val and --test, or its actor is: name them in one"
                    )
    return {r.name: splits.get(r.actor, "train") for r in recordings} if splits else {}


def _fitting(option: str, pattern: str, names: list[str]) -> set[str]:
    fitting = {name for name in names if fnmatch(name, pattern)}
    if not fitting:
        raise UserError(f"{option} {pattern} matches none of the recordings: they are {', '.join(names[:20])}")
    return fitting


def share_out(recordings: list[tuple[Recording, int]]) -> dict[str, str]:
    """The split of each recording, given with its length: actors take turns, the longest first."""
    from studio.dataset import PATTERN

    actors = {r.name: r.actor for r, _ in recordings}
    if len(set(actors.values())) < len(SPLITS):  # too few to have each in a split of its own: recordings must do
        actors = {name: name for name in actors}
    lengths = Counter()
    for recording, frames in recordings:
        lengths[actors[recording.name]] += frames
    ordered = sorted(lengths, key=lambda actor: (-lengths[actor], actor))
    of_actor = {actor: PATTERN[i % len(PATTERN)] for i, actor in enumerate(ordered)}
    return {name: of_actor[actor] for name, actor in actors.items()}


def _names(recordings: list[Recording]) -> list[str]:
    """AIST++ names: genre and situation MC say captured motion, the dancer is the actor, the choreography the recording."""
    actors = sorted({recording.actor for recording in recordings if recording.sequence is None})
    names = [
        r.sequence or str(Name("gMC", "sMC", "cAll", f"d{actors.index(r.actor) + 1:02d}", "mMC0", f"ch{i + 1:02d}"))
        for i, r in enumerate(recordings)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"two of the motions are called {name}: leave one of the folders that have it out of --source"
            )
    return names


if __name__ == "__main__":
    launch(run, Options)
