"""Simulate: motion without videos in, further training pairs out, as MediaPipe might have seen it.

    python -m rayjobs.studio --out data/motion --no-videos --sequences 8000 --seconds 1
    python -m rayjobs.simulate --pairs data/pairs --dataset data/motion --out data/simulated
    python -m rayjobs.train --pairs data/pairs --simulated data/simulated

An error model is fitted to the training pairs, which MediaPipe really saw, and applied to every sequence of the dataset's
training split before each of its cameras: a rendered dataset's annotations, or AIST++'s, whose videos are the slow part.
Only training pairs come out, so no figure is ever measured on them. The folder --out is replaced as a whole.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rayjobs.progress import Progress
from rayjobs.storage import annotated, replaced_folder
from refiner import UserError, files
from refiner.command import cores, launch, log, to_json
from refiner.data import aistpp, checks, manifest, records
from refiner.data.pairing import official_splits
from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.geometry import azimuth, pitch, to_virtual_camera, view_angle
from refiner.training.error_model import ErrorModel

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote; errors are learnt from their training split."""
    dataset: str
    """Root of a dataset in AIST++'s layout: the folder that holds annotations/. Videos are not needed."""
    out: str
    """Folder of the simulated pairs: split=train and summary.json."""
    fps: float = 5.0
    """Poses per second of motion: near ones teach little more than one."""
    seen: records.Seen = "mediapipe"
    """How the frames of --pairs were seen, whose errors are learnt: raw and two_looks are in what 'rayjobs.film' made."""
    seed: int = 0
    """The same pairs, dataset and seed give the same simulated pairs."""

    def __post_init__(self) -> None:
        if not 0 < self.fps <= aistpp.FPS:
            raise UserError(f"fps is {self.fps:g}: annotations have {aistpp.FPS} poses a second, so give at most that")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    out: str
    pairs: int
    sequences: int
    left_out: dict[str, int]
    """Sequences, by reason."""
    explained: float
    """Share of the variance of MediaPipe's errors in depth that a pose and its azimuth explain, on sequences held out."""
    mediapipe_depth_cm: float
    """Mean |Δz| of the pairs that errors were learnt from."""
    simulated_depth_cm: float
    """Mean |Δz| of the simulated ones. Far from the other where the motion is of another kind."""


def run(options: Options) -> Summary:
    """Reads the dataset, and simulates pairs from it.

    Raises:
        UserError: the dataset or the pairs cannot be read.
    """
    with annotated(options.dataset) as dataset:
        return simulated_from(dataset, options)


def simulated_from(dataset: aistpp.Dataset, options: Options) -> Summary:
    """Learns the errors of the training pairs, and puts them on the dataset's poses.

    Raises:
        UserError: the pairs cannot be right, or no sequence is left to simulate.
    """
    sequences, left_out = plan(dataset, options.pairs)
    train, model = learnt(options)
    count, error = 0, 0.0
    described: dict[str, manifest.PairFile] = {}
    gists: list[checks.Gist] = []  # the sum so far

    def simulated(number: int) -> Pairs | None:
        return simulate(model, dataset, sequences[number], options.fps, options.seed * 1_000_003 + number)

    with replaced_folder(options.out, SUMMARY) as out:
        with ThreadPoolExecutor(cores()) as pool, Progress("sequences", len(sequences), len(sequences)) as progress:
            for sequence, pairs in zip(sequences, pool.map(simulated, range(len(sequences))), strict=True):
                if pairs is None:
                    left_out["ground truth has gaps"] = left_out.get("ground truth has gaps", 0) + 1
                else:
                    file = out / "split=train" / f"{sequence}.parquet"
                    records.write_atomically(
                        pairs.to_table(), file, {"sequence": sequence, "split": "train", "simulated": True}
                    )
                    described[str(file.relative_to(out))] = manifest.described(pairs, file, "train")
                    gist = checks.Gist.of(pairs, "train")
                    gists.append(gist if not gists else gists.pop() + gist)
                    count += len(pairs)
                    error += float(metrics.depth_error(pairs.corrupted, pairs.ground_truth).mean(-1).sum())
                progress.add(1, 1, pairs=0 if pairs is None else len(pairs))
        if not count:
            raise UserError(f"no sequence of {options.dataset} has a pose without gaps: fetch its annotations again")
        summary = Summary(
            out=options.out if files.is_uri(options.out) else str(Path(options.out)),
            pairs=count,
            sequences=len(list((out / "split=train").iterdir())),
            left_out=left_out,
            explained=model.explained,
            mediapipe_depth_cm=float(metrics.depth_error(train.corrupted, train.ground_truth).mean()) * metrics.CM,
            simulated_depth_cm=error / count * metrics.CM,
        )
        (out / SUMMARY).write_text(json.dumps(to_json(summary), indent=1))
        source = manifest.read(options.pairs)
        manifest.write(
            out,
            described,
            gists={"train": gists[0].to_json()},
            inputs=None,  # nobody watches for drift from what was simulated
            estimator=source.estimator if source else {},
            made_of={
                "pairs": files.absolute(options.pairs),
                "dataset": files.absolute(options.dataset),
                "simulated": "yes",
                "seen": options.seen,
            },
        )
    return summary


def learnt(options: Options) -> tuple[Pairs, ErrorModel]:
    """The training pairs, and their errors."""
    train = records.read_pairs(options.pairs, "train", options.seen)
    checks.check_pairs(train, "train")
    log(f"learning MediaPipe's errors from {len(train):,} pairs")
    return train, ErrorModel.fit(train, options.seed)


def plan(dataset: aistpp.Dataset, pairs: str) -> tuple[list[str], dict[str, int]]:
    """The sequences to simulate, and how many are left out by reason.

    Raises:
        UserError: there are none.
    """
    here = dict.fromkeys(sorted(s for s, split in official_splits(dataset).items() if split == "train"), "")
    measured = checks.sequences_of(pairs, "val", "test")
    annotated = set(dataset.sequences)
    for sequence in here:
        if sequence not in annotated:
            here[sequence] = "no annotation"
        elif sequence in dataset.ignored or sequence in aistpp.OUT_OF_SYNC:
            here[sequence] = "on the ignore list, or out of sync"
        elif sequence in measured:
            here[sequence] = "validates or tests in --pairs"
    reasons = [reason for reason in here.values() if reason]
    usable = [sequence for sequence, reason in here.items() if not reason]
    if not usable:
        raise UserError(
            f"{dataset.root} has no annotated training sequence that may be simulated: make some with "
            "'python -m rayjobs.studio --no-videos', or fetch AIST++'s with 'python -m rayjobs.download --annotations'"
        )
    return usable, {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def simulate(model: ErrorModel, dataset: aistpp.Dataset, sequence: str, fps: float, seed: int) -> Pairs | None:
    """One sequence before all its cameras; None where its truth has gaps throughout."""
    truth = dataset.keypoints3d(sequence)
    frames = np.unique(np.floor(np.arange(0, len(truth), aistpp.FPS / fps)).astype(int))
    frames = frames[np.isfinite(truth[frames]).all((1, 2))]
    if not len(frames):
        return None
    cameras = dataset.cameras(sequence)
    poses = np.concatenate([to_virtual_camera(camera.to_camera(truth[frames])) for camera in cameras.values()])
    poses = poses.astype(np.float32)
    seen = model.observe(poses, seed)
    azimuths = azimuth(seen.poses).astype(np.float32)
    return Pairs(
        sequence=np.full(len(poses), sequence, dtype=object),
        camera=np.repeat(np.array(list(cameras), dtype=object), len(frames)),
        frame=np.tile(frames, len(cameras)).astype(np.int32),
        timestamp_us=np.tile(aistpp.timestamps_us(len(truth))[frames], len(cameras)),
        corrupted=seen.poses,
        ground_truth=poses,
        visibility=seen.visibility,
        image_points=seen.image_points,
        view_angle=view_angle(azimuths),
        azimuth=azimuths,
        pitch=np.concatenate([pitch(camera, truth[frames]) for camera in cameras.values()]).astype(np.float32),
    )


if __name__ == "__main__":
    launch(run, Options)
