"""Film: dancers straight into MediaPipe's landmark network, as training pairs. No videos, no extraction, no pairing.

    python -m rayjobs.film --out data/filmed --sequences 200 --seconds 2.7 --fps 30 --cameras 3 --motions data/motions

Only what the network looks at is drawn, encoded and decoded, and every frame is looked at twice, as it is and in the mirror.
Each pair holds what MediaPipe's filters would give, the network's own answer, and the mean of both looks: see
`rayjobs.train --seen`.
The same command again goes on where it was; more --sequences add to what is there.
"""

import functools
import operator
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rayjobs.progress import Progress
from rayjobs.session import cluster_cores, ray_session
from rayjobs.studio import Scenes
from rayjobs.tasks import over_tasks
from refiner import UserError, files
from refiner.command import launch, log
from refiner.data import manifest, records
from refiner.data.aistpp import FPS, SPLITS
from refiner.data.checks import Gist
from refiner.estimators import named
from refiner.evaluation import metrics
from refiner.inference import drift

if TYPE_CHECKING:
    from refiner.estimators.blazepose.estimator import BlazePose
    from studio.dataset import Take


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Scenes):
    out: str
    """Folder (path or URI) of the pairs: split=train …, manifest.json, and studio.json: what they were made from."""
    fps: float = 30
    """Frame rate of the cameras: a divisor of 60, at which the truth is."""
    seconds: float = 2.7
    """Length of each sequence. MediaPipe's filters need some frames to be what they are in use."""
    model: str = "full"
    """MediaPipe's model: lite, full, heavy, or the path of a .task file."""
    workers: int = 0
    """Sequences filmed at a time; 0: as many as the cluster has cores. 1: one after the other in this process, without Ray."""

    def __post_init__(self) -> None:
        if FPS % self.fps:
            raise UserError(f"fps is {self.fps:g}: the truth is at {FPS} Hz, so give a divisor of that")
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}: give 0 for one per core, or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    out: str
    pairs: dict[str, int]
    """By split, all that are there now."""
    sequences: dict[str, int]
    """By split."""
    filmed: int
    """Sequences that this run filmed; the others were there."""
    frames: int
    """That this run drew."""
    detected: float
    """Share of them in which somebody was found."""
    left_out: dict[str, int]
    """Cameras of this run's sequences that gave no pairs, by reason."""
    depth_cm: dict[str, float]
    """Mean |Δz| of all pairs, by how they were seen."""
    seconds: float


def run(options: Options) -> Summary:
    """Films the sequences that have no pairs yet, one file for each.

    Raises:
        UserError: --out holds pairs of other options or of another job, or the studio's extra is missing.
    """
    # not at the module's top: --help is there without the extra, and its absence is one sentence
    from studio.dataset import MANIFEST, agreed, plan, record
    from studio.dataset.straight import estimator

    start = time.monotonic()
    out = files.absolute(options.out)
    there = files.below(out).keys()
    if any(name.startswith("split=") and name.endswith(".parquet") for name in there) and MANIFEST not in there:
        raise UserError(f"{out} holds pairs that this job did not make: give another --out")
    spec = agreed(out, options.spec())
    model = str(estimator(options.model).model)
    record(out, spec)
    todo = [take for take in plan(spec) if take.split in options.splits and file_of(take) not in there]
    log(f"{len(todo)} sequences to film")
    frames = detected = 0
    left_out: Counter[str] = Counter()
    with Progress("sequences", len(todo), len(todo)) as progress:
        for seen, with_person, problems in filmed(todo, out, model, options.workers):
            frames, detected = frames + seen, detected + with_person
            left_out.update(problems)
            progress.add(1, 1, frames=seen)
    pair_files, errors = described(out, model, options)
    return Summary(
        out=out,
        pairs={split: sum(f.rows for f in pair_files if f.split == split) for split in SPLITS},
        sequences={split: sum(f.split == split for f in pair_files) for split in SPLITS},
        filmed=len(todo),
        frames=frames,
        detected=detected / max(frames, 1),
        left_out=dict(left_out),
        depth_cm=errors,
        seconds=round(time.monotonic() - start, 1),
    )


def file_of(take: "Take") -> str:
    """Where in --out the pairs of a sequence are; a file appears when it is whole."""
    return f"split={take.split}/{take.name}.parquet"


def filmed(todo: list["Take"], out: str, model: str, workers: int) -> Iterator[tuple[int, int, list[str]]]:
    """(frames, those with a person, reasons why cameras give no pairs) of each sequence as it is done."""
    if workers == 1 or not todo:
        yield from (film_one(take, out, model) for take in todo)
        return
    with ray_session():
        yield from over_tasks(film_one, [(take, out, model) for take in todo], workers or cluster_cores())


def film_one(take: "Take", out: str, model: str) -> tuple[int, int, list[str]]:
    """INPUT: a sequence. OUTPUT: counts and problems. Writes the sequence's file of pairs."""
    from studio.dataset.straight import film

    done = film(take, _estimator(model))
    if done.pairs is not None:
        file = files.join(out, *file_of(take).split("/"))
        records.write_atomically(done.pairs, file, {"sequence": str(take.name), "split": take.split})
    return done.frames, done.detected, list(done.problems.values())


@functools.cache
def _estimator(model: str) -> "BlazePose":
    """One for all sequences of a process: loading its networks takes a moment."""
    from studio.dataset.straight import estimator

    return estimator(model)


def described(out: str, model: str, options: Options) -> tuple[list[manifest.PairFile], dict[str, float]]:
    """Writes manifest.json about all that is there; what it says of each file, and mean |Δz| in cm by how it was seen.

    Raises:
        UserError: nothing is there.
    """
    from studio.dataset import MANIFEST

    pair_files: dict[str, manifest.PairFile] = {}
    gists: dict[str, list[Gist]] = {}
    sums = dict.fromkeys(records.SEEN, 0.0)
    for split in SPLITS:
        for file in records.files_of_split(out, split):
            for seen in records.SEEN:
                pairs = records.read_pair_files([file], seen)
                sums[seen] += float(metrics.depth_error(pairs.corrupted, pairs.ground_truth).mean(-1).sum())
                if seen == "mediapipe":
                    pair_files[f"split={split}/{files.stem(file)}.parquet"] = manifest.described(pairs, file, split)
                    gists.setdefault(split, []).append(Gist.of(pairs, split))
    if not pair_files:
        raise UserError(f"nobody was found in any picture of {out}: longer sequences or other cameras may help")
    count = sum(f.rows for f in pair_files.values())
    manifest.write(
        out,
        pair_files,
        gists={split: functools.reduce(operator.add, each).to_json() for split, each in gists.items()},
        inputs=drift.of_pairs(out) if "train" in gists else None,
        estimator=asdict(
            named("blazepose", model).info
        ),  # as whose answers the pairs are read where nobody asks otherwise
        made_of={"motions": files.absolute(options.motions) if options.motions else "drawn", "studio": MANIFEST},
    )
    return list(pair_files.values()), {str(seen): total / count * metrics.CM for seen, total in sums.items()}


if __name__ == "__main__":
    launch(run, Options)
