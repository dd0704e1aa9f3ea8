"""Visualize: pairs, the truth beside MediaPipe's and the refined poses; what a model is worst and best at, to be looked at.

    python -m rayjobs.visualize --pairs data/pairs
    python -m rayjobs.visualize --pairs data/pairs --videos data/studio/videos --observations data/observations

A contact sheet of the worst, the best and of random frames by their depth error, each from the camera, from the side and from
above (and in its video, where videos and observations are named); and a recording of the worst clips for the Rerun viewer. Of
a registered model they go into its MLflow run. One frame of a clip is shown at most.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from refiner import DepthRefiner, files, registry
from refiner.command import launch, log
from refiner.data import aistpp, records, video
from refiner.data.records import Pairs
from refiner.errors import UserError
from refiner.evaluation import metrics
from refiner.evaluation.skeletons import Sample, contact_sheet
from refiner.evaluation.style import COLOURS
from refiner.extras import require
from refiner.registry import CANDIDATE, NAME, ModelSource
from refiner.skeleton import DRAWN, to_coco

SHEET, RECORDING = "contact_sheet.png", "worst_clips.rrd"
POSES = ("truth", "mediapipe", "refined")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    split: Literal["train", "val", "test"] = "test"
    """Split to look at."""
    model: str = f"models:/{NAME}@{CANDIDATE}"
    """models:/NAME@ALIAS, models:/NAME/VERSION, or a checkpoint's folder."""
    out: str = ""
    """Folder for the contact sheet and the recording, beside MLflow."""
    count: int = 4
    """How many of the worst, the best and random frames, and of the worst clips in the recording."""
    seed: int = 0
    """Seed of the random ones."""
    videos: str = ""
    """Folder of the videos, to show the frames themselves; with --observations."""
    observations: str = ""
    """Folder of the observations that 'rayjobs.extract' wrote."""
    recording: bool = True
    """Whether the worst clips are recorded for Rerun (extra [view])."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"--count is {self.count}: give 1 or more")
        if bool(self.videos) != bool(self.observations):
            raise UserError("--videos and --observations go together: name both folders, or neither")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    clips: int
    pairs: int
    worst_clips: dict[str, float]
    """Mean |Δz| of the refined poses, cm, by clip."""
    files: list[str]
    """Where --out or MLflow has them."""
    run: str
    """Of MLflow, where the model is registered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A sequence as one camera filmed it, refined."""

    pairs: Pairs
    refined: np.ndarray  # (N, 17, 3) m
    error: np.ndarray  # (N,) cm, mean |Δz| of each frame

    @property
    def name(self) -> str:
        return str(aistpp.Name.parse(self.pairs.sequence[0]).with_camera(self.pairs.camera[0]))


def run(options: Options) -> Summary:
    """Draws the chosen frames, into --out or into the model's run in MLflow.

    Raises:
        UserError: there is no such model, or Rerun is not installed.
    """
    if options.recording:
        require("the recording (leave it out with --no-recording)", "rerun")
    registered, refiner = ModelSource.parse(options.model), DepthRefiner(options.model)
    with nullcontext(options.out) if options.out else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        chosen, worst, clips, pairs = select(options, refiner)
        contact_sheet([drawn(clip, row, title, options) for title, clip, row in chosen], folder / SHEET)
        files = [SHEET]
        if options.recording:
            record(worst, folder / RECORDING)
            files.append(RECORDING)
        run_id, under = "", f"visualize/{options.split}"
        if registered is not None:
            run_id = registry.log_version_files(refiner.name, refiner.version, folder, under)
        log(f"{', '.join(files)}: {options.out or (under + ' of the run ' + run_id)}")
    return Summary(
        clips=clips,
        pairs=pairs,
        worst_clips={clip.name: round(float(clip.error.mean()), 2) for clip in worst},
        files=[str(Path(options.out or under, file)) for file in files],
        run=run_id,
    )


def clips_of(root: str | Path, split: str, refiner: DepthRefiner) -> Iterator[Clip]:
    """The clips of a split, refined, a file at a time."""
    for file in records.pair_files(root, split):
        pairs = records.read_pair_files([file])
        refined = refiner.predict_pairs(pairs).poses
        error = metrics.depth_error(refined, pairs.ground_truth).mean(-1) * metrics.CM
        names = np.stack([pairs.sequence, pairs.camera], axis=1).astype(str)
        for clip in np.unique(names, axis=0):
            rows = np.flatnonzero((names == clip).all(1))
            yield Clip(pairs=pairs.take(rows), refined=refined[rows], error=error[rows])


Chosen = tuple[str, Clip, int]  # why, whose, which row


def select(options: Options, refiner: DepthRefiner) -> tuple[list[Chosen], list[Clip], int, int]:
    """The frames to draw, the worst clips, and how many clips and pairs there were."""
    rng = np.random.default_rng(options.seed)
    kept: dict[str, list[tuple[float, Clip, int]]] = {"worst": [], "best": [], "random": []}
    worst: list[tuple[float, Clip]] = []
    clips = pairs = 0
    for clip in clips_of(options.pairs, options.split, refiner):
        clips, pairs = clips + 1, pairs + len(clip.error)
        error = clip.error
        rows = {"worst": int(error.argmax()), "best": int(error.argmin()), "random": int(rng.integers(len(error)))}
        ranks = {"worst": -error[rows["worst"]], "best": error[rows["best"]], "random": rng.random()}
        for why, ranked in kept.items():
            ranked.append((float(ranks[why]), clip, rows[why]))
            ranked.sort(key=lambda one: one[0])
            del ranked[options.count :]
        worst.append((-float(clip.error.mean()), clip))
        worst.sort(key=lambda one: one[0])
        del worst[options.count :]
    chosen = [(why, clip, row) for why, ranked in kept.items() for _, clip, row in ranked]
    return chosen, [clip for _, clip in worst], clips, pairs


def drawn(clip: Clip, row: int, title: str, options: Options) -> Sample:
    """A frame as the contact sheet shows it."""
    pairs = clip.pairs
    image = points = None
    if options.videos:
        image, points = frame_of(options.videos, options.observations, clip.name, int(pairs.frame[row]))
    return Sample(
        title=f"{title}: {clip.name}, frame {pairs.frame[row]}", truth=pairs.ground_truth[row],
        observed=pairs.corrupted[row], refined=clip.refined[row], image=image, image_points=points,
    )  # fmt: skip


def frame_of(videos: str | Path, observations: str | Path, name: str, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) a frame of a video, and (17, 2) pixels where MediaPipe saw its joints.

    Raises:
        UserError: the video, its observations, or the frame in them are missing.
    """
    seen = records.read_table(f"{observations}/{name}.parquet", records.OBSERVATIONS, ("frame", "image"))
    rows = np.flatnonzero(records.column(seen, "frame") == frame)
    if not len(rows):
        raise UserError(f"the observations of {name} in {observations} have no frame {frame}: pair them again")
    return video.read_frame(Path(videos) / f"{name}.mp4", frame), to_coco(records.column(seen, "image")[rows[0]])


def record(clips: list[Clip], path: Path) -> None:
    """Clips for the Rerun viewer, all on one time line: the three poses, about the hips."""
    import rerun

    stream = rerun.RecordingStream("rayjobs.visualize")
    stream.save(path)
    stream.log("/", rerun.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    colours = {name: tuple(int(COLOURS[name][i : i + 2], 16) for i in (1, 3, 5)) for name in POSES}
    for clip in clips:
        poses = dict(zip(POSES, (clip.pairs.ground_truth, clip.pairs.corrupted, clip.refined), strict=True))
        for row, time_us in enumerate(clip.pairs.timestamp_us):
            stream.set_time("clip", duration=float(time_us) * 1e-6)
            for name, of_method in poses.items():
                strips = [of_method[row][[a, b]] for a, b in DRAWN]
                stream.log(f"{clip.name}/{name}", rerun.LineStrips3D(strips, colors=[colours[name]]))
            stream.log(f"{clip.name}/depth error cm", rerun.Scalars(float(clip.error[row])))
    stream.flush()


def worst_of(
    root: str | Path, split: str, clips: list[tuple[str, str]], refine: Callable[[Pairs], np.ndarray]
) -> list[Sample]:
    """Of each of these clips (sequence, camera) the frame with the largest depth error."""
    samples, paths = [], records.pair_files(root, split)
    for sequence, camera in clips:
        # a file is called after its sequence, unless it holds several
        pairs = records.read_pair_files([file for file in paths if files.stem(file) == sequence] or paths)
        pairs = pairs.take((pairs.sequence == sequence) & (pairs.camera == camera))
        refined = refine(pairs)
        row = int(metrics.depth_error(refined, pairs.ground_truth).mean(-1).argmax())
        samples.append(
            Sample(
                title=f"{sequence}, {camera}, frame {pairs.frame[row]}", truth=pairs.ground_truth[row],
                observed=pairs.corrupted[row], refined=refined[row],
            )
        )  # fmt: skip
    return samples


if __name__ == "__main__":
    launch(run, Options)
