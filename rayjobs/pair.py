"""Pair: observations and ground truth in, training pairs out, by split.

    python -m rayjobs.pair --observations data/observations --dataset data/aistpp --out data/pairs

Frames are matched by timestamp and brought into the virtual camera frame. What is left out is counted by reason in
summary.json; plots.png shows MediaPipe's error by joint, azimuth and visibility, and who was filmed by which camera. The
folder --out is replaced as a whole, when everything in it is ready.
"""

import functools
import json
import operator
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rayjobs.progress import Progress
from rayjobs.storage import annotated, replaced_folder
from refiner import UserError, files
from refiner.command import cores, launch, log, to_json
from refiner.data import aistpp, manifest, records
from refiner.data.checks import Gist
from refiner.data.pairing import disjoint_splits, official_splits, pair_sequence
from refiner.data.profile import PairProfile
from refiner.estimators.base import EstimatorInfo
from refiner.evaluation import plots
from refiner.inference import drift

SUMMARY, PLOTS = "summary.json", "plots.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    observations: str
    """Folder (path or URI) of the observations that 'rayjobs.extract' wrote."""
    dataset: str
    """Root of the dataset (path or URI): the folder that holds annotations/."""
    out: str
    """Folder (path or URI) of the pairs: split=train, split=val, split=test, manifest.json, summary.json and plots.png."""
    split_by: Literal["official", "choreography"] = "official"
    """official: as the dataset's authors split it. choreography: no dancer and no choreography in two splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    pairs: dict[str, int]
    """By split."""
    sequences: dict[str, int]
    """By split."""
    videos: int
    """Observed, of which `videos_left_out` could not be paired."""
    videos_left_out: dict[str, int]
    """By reason."""
    frames: int
    """Of the videos that were paired."""
    frames_left_out: dict[str, int]
    """By reason."""
    mediapipe_depth_cm: dict[str, float]
    """Mean |Δz| of MediaPipe as it is, by split."""
    split_by: str
    estimator: EstimatorInfo
    fingerprint: str
    """Of the pairs' content: the same pairs, the same fingerprint."""


def run(options: Options) -> Summary:
    """Pairs all observations, and puts the new pairs in the place of the old ones once they are whole.

    Raises:
        UserError: there are no observations, they come from several estimators, or the dataset is not complete.
    """
    videos, estimator = observed_videos(options.observations)
    problems: dict[str, str] = {}
    with annotated(options.dataset) as dataset, replaced_folder(options.out, SUMMARY) as out:
        rows = list(plan(videos, dataset, options.split_by, problems))
        outcomes = paired(rows, dataset, out) if rows else []
        for outcome in outcomes:
            problems |= outcome["problems"]
        summary = summarise(outcomes, problems, len(videos), estimator, options.split_by)
        plots.pairs_page(functools.reduce(operator.add, (r["profile"] for r in outcomes if r["pairs"])), out / PLOTS)
        (out / SUMMARY).write_text(json.dumps(to_json(summary) | {"problems": problems}, indent=1))
        write_manifest(out, [r for r in outcomes if r["pairs"]], options, estimator)
    return summary


def write_manifest(out: Path, useful: list[dict[str, Any]], options: Options, estimator: EstimatorInfo) -> None:
    """Says in manifest.json what the folder holds, so that nobody else has to count it."""
    by_split = {split: [r["gist"] for r in useful if r["split"] == split] for split in aistpp.SPLITS}
    manifest.write(
        out,
        {r["file"]: r["described"] for r in useful},
        gists={split: functools.reduce(operator.add, gists).to_json() for split, gists in by_split.items() if gists},
        inputs=drift.of_pairs(out) if by_split["train"] else None,
        estimator=asdict(estimator),
        made_of={
            "observations": files.absolute(options.observations),
            "dataset": files.absolute(options.dataset),
            "split_by": options.split_by,
        },
    )


def observed_videos(folder: str) -> tuple[dict[str, str], EstimatorInfo]:
    """Observation file by video, and the estimator that made them all."""
    videos = {file.name: file.where for file in files.find(folder, {".parquet"})}
    if not videos:
        raise UserError(f"there are no observations in {folder}: run 'python -m rayjobs.extract' to make them")
    made_by: dict[EstimatorInfo, str] = {}
    with ThreadPoolExecutor(32) as pool:  # reads the end of each file: mostly waiting
        for name, estimator in zip(videos, pool.map(_estimator, videos.values()), strict=True):
            if estimator is not None:
                made_by.setdefault(estimator, name)
    if len(made_by) > 1:
        raise UserError(
            f"the observations in {folder} were made by different estimators, as those of {' and '.join(made_by.values())}: "
            "their errors differ, so give each estimator a folder of its own"
        )
    return videos, next(iter(made_by), EstimatorInfo())


def _estimator(path: str) -> EstimatorInfo | None:
    """That made a file of observations; None where the file is damaged, which its reader will say."""
    try:
        return EstimatorInfo.of(json.loads(records.read_metadata(path).get("estimator", "{}")))
    except (OSError, ValueError):  # pyarrow's exceptions are ValueErrors
        return None


def plan(
    videos: dict[str, str], dataset: aistpp.Dataset, split_by: str, problems: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """One row per sequence with its split; videos that belong to none go to `problems`, with the reason."""
    by_sequence: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for video, path in videos.items():
        try:
            by_sequence[aistpp.Name.parse(video).sequence].append((video, path))
        except UserError:
            problems[video] = "its name is not an AIST++ name, which would say to what annotation and camera it belongs"
    if not by_sequence:
        return
    splits = official_splits(dataset) if split_by == "official" else disjoint_splits(list(by_sequence))
    for sequence, members in by_sequence.items():
        if sequence in splits:
            yield {"sequence": sequence, "split": splits[sequence], "videos": members}
        else:
            problems |= dict.fromkeys(
                (video for video, _ in members), "its sequence is in none of the dataset's splits"
            )


def paired(rows: list[dict[str, Any]], dataset: aistpp.Dataset, out: Path) -> list[dict[str, Any]]:
    """Pairs all sequences into files below `out`.

    On threads of this process: a whole AIST++ takes minutes (docs/benchmarks/extraction.md), and what computes and decompresses
    lets other threads run.
    """
    outcomes = []
    with ThreadPoolExecutor(cores()) as pool, Progress("sequences", len(rows), len(rows)) as progress:
        for done in as_completed([pool.submit(pair_one, row, dataset, out) for row in rows]):
            outcomes.append(done.result())
            progress.add(1, 1, pairs=outcomes[-1]["pairs"])
    return outcomes


def pair_one(row: dict[str, Any], dataset: aistpp.Dataset, out: Path) -> dict[str, Any]:
    """INPUT: a sequence, its split and its videos. OUTPUT: counts and problems. Writes the sequence's file of pairs."""
    paired_sequence, problems = pair_sequence(dataset, row["videos"])
    pairs, split = paired_sequence.pairs, row["split"]
    outcome = {
        "split": split,
        "problems": problems,
        "frames": paired_sequence.frames,
        "left_out": paired_sequence.left_out,
        "pairs": 0,
    }
    if pairs is not None:
        file = out / f"split={split}" / f"{row['sequence']}.parquet"
        records.write_atomically(pairs.to_table(), file, {"sequence": row["sequence"], "split": split})
        outcome |= {
            "pairs": len(pairs),
            "depth_error_m": float(np.abs(pairs.corrupted - pairs.ground_truth)[..., 2].mean(dtype=np.float64)),
            "file": str(file.relative_to(out)),
            "described": manifest.described(pairs, file, split),
            "gist": Gist.of(pairs, split),
            "profile": PairProfile.of(pairs),
        }
    return outcome


def summarise(
    outcomes: list[dict[str, Any]], problems: dict[str, str], videos: int, estimator: EstimatorInfo, split_by: str
) -> Summary:
    """Raises:
    UserError: nothing could be paired.
    """
    kinds = {video: re.sub(r"\d+(\.\d+)?", "…", reason) for video, reason in problems.items()}  # without its figures
    for kind, number in Counter(kinds.values()).most_common():
        example = next(video for video in kinds if kinds[video] == kind)
        log(f"left out: {number:,} videos, as {example}: {problems[example]}")
    useful = [r for r in outcomes if r["pairs"]]
    if not useful:
        reason = next(iter(problems.values()), "in no frame there was both a person and a ground truth")
        raise UserError(f"none of the {videos} videos could be paired, the first one because {reason}")
    by_split = {split: [r for r in useful if r["split"] == split] for split in aistpp.SPLITS}
    return Summary(
        pairs={split: sum(r["pairs"] for r in those) for split, those in by_split.items()},
        sequences={split: len(those) for split, those in by_split.items()},
        videos=videos,
        videos_left_out=dict(Counter(kinds.values())),
        frames=sum(r["frames"] for r in outcomes),
        frames_left_out=dict(sum((r["left_out"] for r in outcomes), Counter())),
        mediapipe_depth_cm={
            split: 100 * sum(r["depth_error_m"] * r["pairs"] for r in those) / sum(r["pairs"] for r in those)
            for split, those in by_split.items()
            if those
        },
        split_by=split_by,
        estimator=estimator,
        fingerprint=records.fingerprint_of(int(r["described"].digest, 16) for r in useful),
    )


if __name__ == "__main__":
    launch(run, Options)
