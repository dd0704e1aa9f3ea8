"""Several people in a video: who is missed, and how often somebody takes somebody else's number.

    python -m benchmarks.people --seconds 12 --seeds 2

Two and three rendered dancers, whose truth is known, stay apart, cross each other, and leave and come back. Three ways of
following them: a crop for each person (`--estimator blazepose --people N`), MediaPipe's own `num_poses` with its poses given to
people by where they are and what they wear, and `num_poses` in the order in which it gives them. A frame counts for a dancer of
whom most joints are in the picture and no more than half are hidden behind others. A table; the last line is JSON.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from refiner.command import log, parse
from refiner.data import records, video
from refiner.data.video import Frame
from refiner.estimators.base import Observation, Sighting
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import observe
from refiner.estimators.people import colours, size_of, told_apart
from refiner.skeleton import to_coco
from studio.dataset import Ensemble
from studio.dataset.ensemble import Act

# Mean distance of joints from the truth, in body sizes, up to which a person is found.
FOUND = 0.25
# The same from frame to frame, for `num_poses`: a larger step is another person.
STEP = 0.4
LASTING = 10  # frames
HIDDEN, INSIDE = 0.5, 12  # share of joints behind others, joints in the picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seconds: float = 12
    """Of each scene."""
    seeds: int = 2
    """Scenes of each kind, with other dancers and choreographies."""
    people: tuple[int, ...] = (2, 3)
    """Dancers in a scene."""
    acts: tuple[Act, ...] = get_args(Act)
    """What they do."""
    keep: str = ""
    """Folder for the videos; forgotten by default."""


@dataclass(frozen=True, slots=True)
class Score:
    """Of one video, or of several added up."""

    frames: int = 0  # of dancers who could be seen
    missed: int = 0
    switches: int = 0  # a dancer is somebody else than the frame before
    lasting: int = 0  # and stays so
    minutes: float = 0.0  # of video
    seconds: float = 0.0  # of work
    pictures: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(*(getattr(self, name) + getattr(other, name) for name in Score.__slots__))

    @property
    def figures(self) -> dict[str, float]:
        return {
            "switches_per_minute": round(self.switches / self.minutes, 2),
            "lasting_switches_per_minute": round(self.lasting / self.minutes, 2),
            "missed": round(self.missed / self.frames, 4),
            "frames_per_s": round(self.pictures / self.seconds, 1),
        }


People = list[list[Observation | None]]


def score(
    truth: np.ndarray, countable: np.ndarray, people: Sequence[Sequence[np.ndarray | None]]
) -> tuple[int, int, int]:
    """Args:
        truth: (N, F, 17, 2) pixels.
        countable: (N, F) whether the dancer can be seen.
        people: of each person that was followed, joints (17, 2) in each frame, or None.

    Returns:
        Frames of dancers that were missed; how often a dancer was given another number than the time before; and how often
        one that then was theirs for `LASTING` frames. Where two are seen as one it may be either's for a moment.
    """
    missed, numbers = 0, dict[int, list[int]]()
    for frame in range(truth.shape[1]):
        seen = [(number, joints[frame]) for number, joints in enumerate(people)]
        seen = [(number, joints) for number, joints in seen if joints is not None]
        costs = np.array(
            [[np.linalg.norm(j - t, axis=-1).mean() / size_of(t) for _, j in seen] for t in truth[:, frame]]
        ).reshape(len(truth), len(seen))
        matches = {r: seen[c][0] for r, c in zip(*linear_sum_assignment(costs), strict=True) if costs[r, c] < FOUND}
        for dancer in np.flatnonzero(countable[:, frame]):
            number = matches.get(int(dancer))
            if number is None:
                missed += 1
                continue
            numbers.setdefault(int(dancer), []).append(number)
    switches = sum(a != b for given in numbers.values() for a, b in itertools.pairwise(given))
    steady = [
        [number for number, run in itertools.groupby(given) if len(list(run)) >= LASTING] for given in numbers.values()
    ]
    return missed, switches, sum(a != b for given in steady for a, b in itertools.pairwise(given))


class NumPoses:
    """MediaPipe's landmarker with `num_poses`, its poses given numbers by where they were in the frame before."""

    def __init__(self, people: int) -> None:
        self._estimator, self._numbers = PoseEstimator(model_path(), people=people), itertools.count()
        self._last: dict[int, np.ndarray] = {}

    def everybody(self, frame: Frame) -> list[Sighting]:
        seen = self._estimator.estimate_all(frame)
        joints = [to_coco(one.image) for one in seen]
        before = list(self._last)
        steps = np.array(
            [[np.linalg.norm(j - self._last[n], axis=-1).mean() / size_of(j) for n in before] for j in joints]
        ).reshape(len(joints), len(before))
        kept = {r: before[c] for r, c in zip(*linear_sum_assignment(steps), strict=True) if steps[r, c] < STEP}
        numbers = [kept[row] if row in kept else next(self._numbers) for row in range(len(seen))]
        self._last = dict(zip(numbers, joints, strict=True))
        return [
            Sighting(number, one, colours(frame.rgb, one.image, one.visibility))
            for number, one in zip(numbers, seen, strict=True)
        ]


def by_crops(path: Path, people: int) -> People:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "observations.parquet")
        observe(video=str(path), out=str(out), model=str(model_path()), estimator="blazepose", people=people)
        table = records.read_table(out, records.OBSERVATIONS)
    names = ("world", "image", "visibility", "presence")
    followed = []
    for rows in records.by_person(table).values():
        values = zip(*(records.column(rows, name) for name in names), strict=True)
        detected = records.column(rows, "detected")
        followed.append([Observation(*v) if d else None for v, d in zip(values, detected, strict=True)])
    return followed


def by_num_poses(path: Path, people: int) -> People:
    crowd, frames = NumPoses(people), list[list[Sighting]]()
    times = []
    for frame in video.frames(path):
        times.append(frame.timestamp_us)
        frames.append(crowd.everybody(frame))
    return told_apart(frames, np.array(times), np.zeros(len(times), dtype=bool), people)


def by_order(path: Path, people: int) -> People:
    with PoseEstimator(model_path(), people=people) as estimator:
        frames = [estimator.estimate_all(frame) for frame in video.frames(path)]
    return [[seen[number] if number < len(seen) else None for seen in frames] for number in range(people)]


WAYS: dict[str, Callable[[Path, int], People]] = {
    "a crop each": by_crops,
    "num_poses, told apart": by_num_poses,
    "num_poses, its order": by_order,
}


def main(options: Options) -> None:
    totals: dict[tuple[int, Act, str], Score] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for people, act, seed in itertools.product(options.people, options.acts, range(options.seeds)):
            ensemble = Ensemble(people, act, options.seconds, seed=seed)
            path = Path(options.keep or scratch, f"{act}-{people}-{seed}.mp4")
            hidden = ensemble.film(path)
            truth = ensemble.camera.project(ensemble.joints())
            inside = ((truth >= 0) & (truth < np.array(ensemble.size))).all(-1).sum(-1) >= INSIDE
            countable = inside & (hidden <= HIDDEN)
            for way, follow in WAYS.items():
                started = time.perf_counter()
                followed = follow(path, people)
                seconds = time.perf_counter() - started
                joints = [[None if one is None else to_coco(one.image) for one in person] for person in followed]
                counts = score(truth, countable, joints)
                row = Score(int(countable.sum()), *counts, options.seconds / 60, seconds, truth.shape[1])
                log(f"{path.stem}, {way}: {row.figures}")
                totals[people, act, way] = totals.get((people, act, way), Score()) + row
    print(f"{'people':7}{'act':10}{'way':24}{'switches/min':>13}{'lasting':>9}{'missed':>9}{'frames/s':>10}")
    for (people, act, way), row in totals.items():
        f = row.figures
        switches = f"{f['switches_per_minute']:13.2f}{f['lasting_switches_per_minute']:9.2f}"
        print(f"{people:<7}{act:10}{way:24}{switches}{f['missed']:9.1%}{f['frames_per_s']:10.1f}")
    print(json.dumps({f"{people} {act} {way}": row.figures for (people, act, way), row in totals.items()}))


if __name__ == "__main__":
    main(parse(Options))
