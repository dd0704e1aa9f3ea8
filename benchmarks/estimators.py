"""Both estimators against a dataset's truth: frames found, mean |Δz| and MPJPE, and what the model in the box makes of each.

    python -m benchmarks.estimators --dataset data/studio/dataset --work runs/estimators

Every video is observed by MediaPipe and by blazepose with each of its options. Through the tracking loop the two are chaotic:
clips differ frame by frame, and agree on average or not at all. So the same frames are compared, with intervals from
resampling whole sequences. Observations that are there already are used. The last line is JSON.
"""

import itertools
import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayjobs import pair
from rayjobs.storage import list_videos
from refiner import DepthRefiner
from refiner.command import cores, parse
from refiner.data import records
from refiner.data.records import Pairs
from refiner.estimators import named
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import is_done, observe
from refiner.evaluation import metrics
from refiner.evaluation.metrics import CM

REFERENCE = "mediapipe"
WAYS: dict[str, dict[str, Any]] = {
    REFERENCE: {"estimator": "mediapipe"},
    "blazepose": {"estimator": "blazepose"},
    "blazepose raw": {"estimator": "blazepose", "smoothing": "none"},
    "blazepose two looks": {"estimator": "blazepose", "looks": 2},
    "blazepose raw, two looks": {"estimator": "blazepose", "smoothing": "none", "looks": 2},
}
USUAL = tuple(WAYS)
WAYS |= {  # for CPUs that have bfloat16
    "blazepose-bf16": {"estimator": "blazepose-bf16"},
    "blazepose-bf16 two looks": {"estimator": "blazepose-bf16", "looks": 2},
}
PARITY = 0.005  # of the error: what blazepose with MediaPipe's filters may differ by


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    dataset: str
    """Root of a dataset with videos/ and annotations/."""
    work: str
    """Folder for observations and pairs."""
    ways: tuple[str, ...] = USUAL
    """Which of them; mediapipe is among them."""
    videos: int = 0
    """So many at most; 0: all."""
    processes: int = 0
    """0: one per core."""


def observed(task: tuple[str, str, dict[str, Any]]) -> tuple[int, int]:
    """Frames, and those with a person."""
    source, out, options = task
    chosen = {name: value for name, value in options.items() if name != "estimator"}
    info = named(options["estimator"], **chosen).info
    if not is_done(out, info, 1):
        observe(video=source, out=out, model=str(model_path()), **options)
    metadata = records.read_metadata(out)
    return int(metadata["frames"]), int(metadata["detected"])


def pairs_of(folder: Path) -> Pairs:
    splits = [path.name.removeprefix("split=") for path in sorted(folder.glob("split=*")) if any(path.iterdir())]
    return Pairs.concatenate([records.read_pairs(folder, split) for split in splits])


def same_rows(each: dict[str, Pairs]) -> dict[str, Pairs]:
    """The frames that all of them have."""
    keys = {
        name: list(zip(pairs.sequence, pairs.camera, pairs.frame.tolist(), strict=True)) for name, pairs in each.items()
    }
    common = set.intersection(*map(set, keys.values()))
    return {
        name: pairs.take(np.array([i for i, key in enumerate(keys[name]) if key in common]))
        for name, pairs in each.items()
    }


def compared(each: dict[str, Pairs], model: DepthRefiner) -> dict[str, dict[str, Any]]:
    """Errors in cm, and how they differ from the reference's: share, and 95 % interval over sequences."""
    errors: dict[str, dict[str, np.ndarray]] = {}
    for name, pairs in each.items():
        refined = model.predict_pairs(pairs).poses
        errors[name] = {
            "depth": metrics.depth_error(pairs.corrupted, pairs.ground_truth).mean(-1) * CM,
            "mpjpe": metrics.joint_error(pairs.corrupted, pairs.ground_truth).mean(-1) * CM,
            "box_depth": metrics.depth_error(refined, pairs.ground_truth).mean(-1) * CM,
            "box_mpjpe": metrics.joint_error(refined, pairs.ground_truth).mean(-1) * CM,
        }
    sequences, figures = each[REFERENCE].sequence, {}
    for name, own in errors.items():
        figures[name] = {}
        for key, values in own.items():
            share = (values - errors[REFERENCE][key]) / errors[REFERENCE][key].mean()
            low, high = metrics.bootstrap(share, sequences) if name != REFERENCE else (0.0, 0.0)
            figures[name] |= {
                f"{key}_cm": float(values.mean()),
                f"{key}_share": float(share.mean()),
                f"{key}_interval": (float(low), float(high)),
            }
    return figures


def table(figures: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'cm; difference to MediaPipe, 95 %':<26} {'mean |Δz|':<28} {'MPJPE':<28} {'box |Δz|':<28} box MPJPE"]
    for name, row in figures.items():
        cells = []
        for key in ("depth", "mpjpe", "box_depth", "box_mpjpe"):
            low, high = row[f"{key}_interval"]
            share = row[f"{key}_share"]
            cells.append(f"{row[f'{key}_cm']:6.2f} {f'{share:+.1%} ({low:+.1%} … {high:+.1%})':<21}")
        lines.append(f"{name:<26} " + " ".join(cells) + f"  found {row['found']:.1%}")
    return "\n".join(lines)


def run(options: Options) -> dict[str, dict[str, Any]]:
    videos = list_videos(str(Path(options.dataset, "videos")))
    videos = list(itertools.islice(videos, options.videos or None))
    each, shares = {}, {}
    for way in options.ways:
        given = WAYS[way]
        folder = Path(options.work, way.replace(" ", "-").replace(",", ""))
        tasks = [(v.where, str(folder / "observations" / f"{v.name}.parquet"), given) for v in videos]
        with multiprocessing.get_context("spawn").Pool(options.processes or cores()) as pool:
            counts = np.array(pool.map(observed, tasks, chunksize=1)).sum(0)
        shares[way] = float(counts[1] / counts[0])
        pair.run(
            pair.Options(observations=str(folder / "observations"), dataset=options.dataset, out=str(folder / "pairs"))
        )
        each[way] = pairs_of(folder / "pairs")
    figures = compared(same_rows(each), DepthRefiner())
    for way, row in figures.items():
        row["found"] = shares[way]
    return figures


def main(options: Options) -> None:
    figures = run(options)
    print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(parse(Options))
