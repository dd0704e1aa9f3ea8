"""Filming straight into the network against the path through videos: the same errors, and what either costs.

    python -m benchmarks.film --work runs/film --sequences 24 --cameras 3 --seconds 1 --fps 30

The same sequences are rendered as videos and observed by blazepose, and filmed by `rayjobs.film`; the same frames of both are
compared, way by way, by joint, by azimuth and by visibility, with 95 % intervals from resampling whole sequences. Through the
tracking loop the two are chaotic, so single frames differ; errors on average must not. What is there already is used. The last
line is JSON.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.estimators import pairs_of, same_rows
from rayjobs import film, pair
from rayjobs.studio import Scenes
from refiner import files
from refiner.command import parse, to_json
from refiner.data.aistpp import SPLITS
from refiner.data.records import Pairs, Seen, pair_files, read_pair_files
from refiner.estimators.blazepose.engine import Engine
from refiner.estimators.blazepose.estimator import BlazePose
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import is_done, observe
from refiner.evaluation import metrics
from refiner.evaluation.metrics import CM
from refiner.geometry import AZIMUTH_EDGES
from refiner.skeleton import JOINTS
from studio.dataset import Take, prepare
from studio.dataset.straight import estimator, sights

# How a video is observed to be seen in each of these ways.
WAYS: dict[Seen, dict[str, Any]] = {
    "mediapipe": {},
    "raw": {"smoothing": "none"},
    "two_looks": {"smoothing": "none", "looks": 2},
}
VISIBILITY_EDGES = np.array([0, 0.5, 0.8, 0.95, 1.0001])


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Scenes):
    work: str
    """Folder for videos, observations and pairs."""
    sequences: int = 24
    cameras: int = 3
    seconds: float = 1.0
    fps: float = 30
    footage: Literal["clean", "camera"] = "camera"
    clock_frames: int = 60
    """So many frames of one sequence are timed, three times, the best counts; 0: none."""


def through_videos(options: Options, root: Path) -> dict[Seen, Pairs]:
    """Renders, observes and pairs."""
    takes = prepare(root / "dataset", options.spec())
    for take in takes:
        there = files.below(root / "dataset")
        if not take.is_whole(there):
            take.write_annotations(root / "dataset")
            take.film(root / "dataset", take.missing(there))
    by_way: dict[Seen, Pairs] = {}
    for way, chosen in WAYS.items():
        folder = root / "observations" / way
        info = BlazePose(**chosen).info
        for video in sorted((root / "dataset/videos").glob("*.mp4")):
            out = str(folder / f"{video.stem}.parquet")
            if not is_done(out, info, 1):
                observe(video=str(video), out=out, model=str(model_path()), estimator="blazepose", **chosen)
        made = pair.Options(observations=str(folder), dataset=str(root / "dataset"), out=str(root / "pairs" / way))
        pair.run(made)
        by_way[way] = pairs_of(root / "pairs" / way)
    return by_way


def straight(options: Options, root: Path) -> dict[Seen, Pairs]:
    same = {name: value for name, value in asdict(options).items() if name not in ("work", "clock_frames")}
    film.run(film.Options(**same, out=str(root / "filmed"), workers=1))
    files = [
        file
        for split in SPLITS
        if (root / "filmed" / f"split={split}").is_dir()
        for file in pair_files(root / "filmed", split)
    ]
    return {way: read_pair_files(files, way) for way in WAYS}


def in_order(pairs: Pairs) -> Pairs:
    """By sequence, camera and frame."""
    return pairs.take(np.lexsort((pairs.frame, pairs.camera.astype(str), pairs.sequence.astype(str))))


def compared(video: Pairs, filmed: Pairs) -> list[dict[str, Any]]:
    """Rows of: slice, mean |Δz| in cm of both on the same frames, their difference and its 95 % interval."""
    both = same_rows({"video": in_order(video), "filmed": in_order(filmed)})
    video, filmed = both["video"], both["filmed"]
    one, other = (metrics.depth_error(p.corrupted, p.ground_truth) * CM for p in (video, filmed))  # (N, 17)
    all_joints = np.ones_like(one, dtype=bool)
    azimuths = metrics.geometry.azimuth(video.ground_truth)[:, None]
    slices = {"all": all_joints}
    slices |= {f"joint {name}": all_joints & (np.arange(len(JOINTS)) == j) for j, name in enumerate(JOINTS)}
    for low, high in pairwise(AZIMUTH_EDGES):
        slices[f"azimuth {low:+d} … {high:+d}°"] = all_joints & (azimuths >= low) & (azimuths < high)
    for low, high in pairwise(VISIBILITY_EDGES):
        slices[f"visibility {low:.2f} … {high:.2f}"] = (video.visibility >= low) & (video.visibility < high)
    rows = []
    for name, mask in slices.items():
        if mask.sum() < 500:
            continue
        weight = mask.mean()
        share = ((other - one) * mask).mean(-1) / weight  # the mean over frames is the mean over the slice
        low, high = metrics.bootstrap(share, video.sequence)
        rows.append(
            {
                "slice": name,
                "joints": int(mask.sum()),
                "video_cm": float(one[mask].mean()),
                "filmed_cm": float(other[mask].mean()),
                "difference_cm": float(share.mean()),
                "interval_cm": (float(low), float(high)),
            }
        )
    return rows


class Timed:
    """An engine and how long it has worked, seconds of a core."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.seconds, self.pictures = engine, 0.0, 0

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        started = time.process_time()
        answers = self._engine(pictures)
        self.seconds += time.process_time() - started
        self.pictures += len(pictures)
        return answers


def clocked(options: Options) -> dict[str, float]:
    """Milliseconds of a core, a frame of one take: to prepare body, room and first pictures (a clip), to draw, and for the
    network. Of a core, for what else the machine does is no part of it.
    """
    spec = replace(options.spec(), seconds=options.clock_frames / options.fps, sequences=1)
    best: dict[str, float] = {}
    for _ in range(3):
        take = Take(spec, 0, 0)
        model = estimator()
        detect, look = model.networks
        timed = Timed(look)
        model.__dict__["networks"] = detect, timed  # where cached_property keeps them
        started = time.process_time()
        take.dancer.mesh  # noqa: B018 (builds it)
        take.motion.at(np.zeros(1))
        body = time.process_time() - started
        frames, clock, first = 0, time.process_time(), 0.0
        for _ in sights(take, take.filming, model):
            if not frames:
                first, timed.seconds, clock = time.process_time() - clock, 0.0, time.process_time()
            frames += 1
        rest = (time.process_time() - clock) / (frames - 1) / len(take.filming)
        network = timed.seconds / (frames - 1) / len(take.filming)
        by_way = {
            "body and motion, ms a sequence": 1000 * body,
            "first frames (rooms, detector), ms a clip": 1000 * first / len(take.filming),
            "drawing, codec, crop, ms a frame": 1000 * (rest - network),
            "network, two looks, ms a frame": 1000 * network,
        }
        best = {name: min(value, best.get(name, np.inf)) for name, value in by_way.items()}
    return best


def run(options: Options) -> dict[str, Any]:
    root = Path(options.work)
    video, filmed = through_videos(options, root), straight(options, root)
    figures: dict[str, Any] = {"frames": {w: [len(video[w]), len(filmed[w])] for w in WAYS}}
    for way in WAYS:
        figures[way] = compared(video[way], filmed[way])
        print(f"{way}: {len(video[way]):,} frames through videos, {len(filmed[way]):,} straight")
        for row in figures[way]:
            low, high = row["interval_cm"]
            print(
                f"  {row['slice']:<26}{row['video_cm']:7.2f}{row['filmed_cm']:7.2f}"
                f"{row['difference_cm']:+7.2f} ({low:+.2f} … {high:+.2f}) {'' if low <= 0 <= high else '*'}"
            )
    if options.clock_frames:
        figures["ms"] = clocked(options)
        print("\n".join(f"{name}: {value:.1f}" for name, value in figures["ms"].items()))
    return figures


def main(options: Options) -> None:
    print(json.dumps(to_json(run(options))))


if __name__ == "__main__":
    main(parse(Options))
