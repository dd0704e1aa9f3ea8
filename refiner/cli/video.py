"""refiner video: one's own videos in, refined motions out, in the files that other tools open."""

import dataclasses
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from refiner import formats
from refiner.cli.help import Flag, Model, PoseModel, takes
from refiner.cli.report import OVERLAY, RESULT, Report
from refiner.data import records, video
from refiner.data.containers import SUFFIXES
from refiner.errors import UserError
from refiner.estimators import EstimatorName, default_estimator
from refiner.estimators.base import Smoothing
from refiner.estimators.isolation import ChildError, Isolated
from refiner.files import plain_name, printable

STALL_S = 300.0
MOST_PEOPLE = 16
TOKEN = "POSE_API_TOKEN"
SOME_FAILED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Refine videos. For each, joey.refined.parquet and what --to and --overlay name.
    $ refiner video joey.mp4 --to bvh glb --overlay
    $ refiner video clips/ 'more/*.mov' --out refined --resume
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, takes("VIDEO …")]
    """Videos, folders of them, or patterns in quotes."""
    to: Annotated[tuple[formats.Format, ...], takes("FORMAT …")] = ()
    """Files for other tools: bvh, glb (animation), trc, c3d (biomechanics), json, csv, npz. None by default."""
    overlay: Flag = False
    """Write a video with both skeletons on the picture and from the side."""
    out: Annotated[str, takes("FOLDER")] = ""
    """Folder to write into; beside each video by default."""
    learned_depth_refinement: Annotated[bool, takes("", "on")] = True
    """Off: MediaPipe's poses as they are, in the room and in files."""
    model: Model = ""
    """A checkpoint's folder, or models:/NAME@ALIAS; the model in the box by default."""
    endpoint: Annotated[str, takes("URL")] = ""
    """URL of a server that refines, in place of a model here."""
    token: Annotated[str, takes("TOKEN")] = ""
    """Token for the endpoint, where it wants one; POSE_API_TOKEN in the environment by default."""
    people: Annotated[int, takes("N", "1")] = 1
    """Most people to follow; each with a number that survives crossings and absences (blazepose)."""
    estimator: Annotated[EstimatorName | None, takes("{mediapipe,blazepose,blazepose-bf16}")] = None
    """What finds the landmarks. mediapipe: PoseLandmarker; blazepose: its networks without its graph, faster;
    blazepose-bf16: in bfloat16, faster still, where the CPU has that (extra [blazepose-bf16]).
    By default blazepose where it is installed (extra [blazepose]) or for several people, else mediapipe."""
    smoothing: Smoothing = "mediapipe"
    """Smoothing of the landmarks over time: MediaPipe's filters, or none."""
    looks: Annotated[int, takes("{1,2}", "1")] = 1
    """Looks at each person; 2: the picture and its mirror image (blazepose)."""
    pose_model: PoseModel = "full"
    """The estimator's model: lite, full, heavy, or a .task file."""
    fov: Annotated[float | None, takes("DEGREES")] = None
    """The lens's angle of view along the picture's longer side. By default what the file says, or else 60."""
    camera_pitch: Annotated[float | None, takes("DEGREES")] = None
    """How far the camera looks down (negative: up), where you know it; 0 is level. The model and the floor count on it."""
    height: Annotated[tuple[float, ...], takes("METRES …")] = ()
    """The person's stature, which fixes the scale: MediaPipe's by default, some 10 % short. One for each of several people, in
    the order of their numbers."""
    resume: Flag = False
    """Leave alone what is written already with these options."""
    force: Flag = False
    """Write over what is there."""
    json: Flag = False
    """One JSON object per video on standard output in place of the table."""

    def __post_init__(self) -> None:
        if not self.videos:
            raise UserError("name a video, a folder of them, or a pattern in quotes")
        if self.fov is not None and not 5 <= self.fov <= 170:
            raise UserError(f"--fov {self.fov:g} is not a lens's angle of view: give 5 to 170 degrees")
        if self.camera_pitch is not None:
            if not -90 <= self.camera_pitch <= 90:
                raise UserError(f"--camera-pitch {self.camera_pitch:g} is no pitch: give -90 to 90 degrees")
            if self.endpoint:
                raise UserError(
                    "--camera-pitch is for a model here, an endpoint does not take it: leave out one of them"
                )
        for height in self.height:
            if not 0.5 <= height <= 2.6:
                raise UserError(f"--height {height:g} is not a person's height in metres: give 0.5 to 2.6")
        if not 1 <= self.people <= MOST_PEOPLE:
            raise UserError(f"--people is {self.people}: give 1 to {MOST_PEOPLE}")
        if len(self.height) > self.people:
            raise UserError(f"--height names {len(self.height)} people, --people {self.people}: give one for each")
        if self.endpoint and self.model:
            raise UserError("--endpoint has a server refine by its own model, --model names one here: choose one")
        if self.resume and self.force:
            raise UserError("--resume leaves alone what is there, --force writes over it: choose one")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one video: a report, or the reason why there is none."""

    video: str
    report: Report | None = None
    error: str = ""
    skipped: bool = False


def run(options: Options) -> int:
    """Refines all videos; what fails costs itself. Returns the exit status."""
    videos = find(options.videos)
    if options.endpoint and options.learned_depth_refinement:
        from refiner.cli.remote import remote_refiner  # with PyTorch, for which others need not wait

        try:  # whether it answers, before anything is looked at
            remote_refiner(options.endpoint, token_of(options))
        except UserError as error:
            raise UserError(f"{error}; is --endpoint right? Without it the model in the box refines here") from None
    for ending in options.to:
        formats.check(ending)
    if not (options.force or options.resume):
        refusals = [_refused(path, options) for path in videos]
        if all(refusals):  # nothing would be done: a mistake in the command
            more = f" (and those of {len(videos) - 1} more)" if len(videos) > 1 else ""
            raise UserError(f"{refusals[0]}{more}")
    console = Console(stderr=True)
    outcomes = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), console=console, transient=True, disable=options.json or not console.is_terminal,
    ) as progress, Isolated("refiner.cli.work:work", stall_s=STALL_S, calls_per_process=200) as child:  # fmt: skip
        becomes: dict[Path, Path] = {}
        ready = functools.cache(lambda: _prepare(options, child))
        for number, path in enumerate(videos, 1):
            first = becomes.setdefault(result_of(path, options), path)
            if first == path:
                outcome = _refine(
                    path, options, child, ready, progress, f"{number}/{len(videos)} {printable(path.name)}"
                )
            else:
                outcome = Outcome(
                    video=str(path),
                    error=f"{path} would become the same files as {first}: rename one, or give it another --out",
                )
            outcomes.append(outcome)
            if options.json:
                print(json.dumps(dataclasses.asdict(outcome)), flush=True)
    if not options.json:
        show(outcomes, Console(file=sys.stdout))
    return SOME_FAILED if any(outcome.error for outcome in outcomes) else 0


def find(named: tuple[str, ...]) -> list[Path]:
    """The videos that paths, folders and patterns name, each once, in order.

    Raises:
        UserError: one of them names nothing.
    """
    videos: dict[Path, None] = {}
    for name in named:
        path = Path(name)
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if _is_video(p) and p.suffix.lower() in SUFFIXES]
        elif path.exists():
            inside = [path]
        else:
            inside = [p for p in map(Path, sorted(glob(name, recursive=True))) if _is_video(p)]
        if not inside:
            raise UserError(f"no video matches '{name}': give a file, a folder with videos, or a pattern in quotes")
        videos |= dict.fromkeys(inside)
    return list(videos)


def _is_video(path: Path) -> bool:
    """Whether what a folder or a pattern holds may be one: neither hidden nor what `--overlay` wrote."""
    return path.is_file() and not path.name.startswith(".") and not path.name.endswith(OVERLAY)


def result_of(path: Path, options: Options) -> Path:
    """The file that a video becomes."""
    return (Path(options.out) if options.out else path.parent) / f"{plain_name(path.stem)}{RESULT}"


def _prepare(options: Options, child: Isolated) -> None:
    """Loads what all videos need, so that a mistake in it is the command's, not each video's.

    Raises:
        UserError: there is no such estimator or model here.
    """
    try:
        child(lambda frames: None, video="", out="", options=_settings(options), token=token_of(options))
    except ChildError as error:
        raise UserError(f"the estimator or the model cannot be loaded ({error.reason}): see `refiner info`") from None


def _refine(
    path: Path, options: Options, child: Isolated, ready: Callable[[], None], progress: Progress, title: str
) -> Outcome:
    settings = _settings(options)
    folder = result_of(path, options).parent
    if options.resume:
        made_before = _made_before(result_of(path, options), path, settings)
        if made_before and all(target.exists() for target in made_before):
            return Outcome(video=str(path), skipped=True)
    elif not options.force and (refused := _refused(path, options)):
        return Outcome(video=str(path), error=refused)
    ready()
    scratch = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        bar = progress.add_task(title, total=video.probe(path).frames, rate="")
        task = progress.tasks[-1]

        def advance(frames: int) -> None:
            speed = f"{task.speed:.0f} frames/s" if task.speed else ""
            progress.update(bar, completed=frames, rate=speed)

        # whatever ends this early, an interrupt or a crash, takes what is unfinished along
        with tempfile.TemporaryDirectory(prefix=".refining-", dir=folder) as scratch:
            with _unchanged(path):
                answer: dict[str, Any] = child(
                    advance, video=str(path.absolute()), out=scratch, options=settings, token=token_of(options)
                )
            # the result last: where it is, everything is
            made = [folder / Path(file).name for file in answer["files"]]
            for file in reversed(made):
                (Path(scratch) / file.name).replace(file)
        answer["files"] = [str(file) for file in made]
        return Outcome(video=str(path), report=Report(**answer))
    except UserError as error:
        return Outcome(video=str(path), error=str(error))
    except ChildError as error:
        return Outcome(video=str(path), error=f"{path} stopped the decoder or the estimator ({error.reason})")
    except OSError as error:
        return Outcome(video=str(path), error=f"{folder} cannot be written to ({error.strerror}): choose another --out")
    finally:
        if scratch:  # an interrupt may have ended the removal itself
            shutil.rmtree(scratch, ignore_errors=True)
        for shown in progress.task_ids:
            progress.remove_task(shown)


def _refused(path: Path, options: Options) -> str:
    """Why a video is not refined over what is there, without --resume or --force; empty where nothing is."""
    result, settings = result_of(path, options), _settings(options)
    for target in _made_before(result, path, settings) or expected(result, settings):
        if target.exists():
            return f"{target} is there already: --resume goes on, --force writes over it, --out elsewhere"
    return ""


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """
    Raises:
        UserError: the file was written to meanwhile, whatever else that led to.
    """

    def state() -> tuple[int, int]:
        now = path.stat()
        return now.st_size, now.st_mtime_ns

    before = state()
    growing = UserError(f"{path} is still being written: refine it when it is whole")
    try:
        yield
    except (UserError, ChildError) as error:
        raise (growing if state() != before else error) from None
    if state() != before:
        raise growing


def token_of(options: Options) -> str:
    """The endpoint's token: what was given, else the environment's; empty if there is none."""
    return options.token or os.environ.get(TOKEN, "")


def _settings(options: Options) -> dict[str, Any]:
    """What the outcome depends on: as it is handed to the child and kept in the file for --resume."""
    names = (
        "to", "overlay", "learned_depth_refinement", "model", "endpoint", "people", "smoothing", "looks", "pose_model",
        "fov", "camera_pitch", "height",
    )  # fmt: skip
    settings = {name: list(value) if isinstance(value := getattr(options, name), tuple) else value for name in names}
    return settings | {"estimator": options.estimator or default_estimator(options.people)}


def expected(result: Path, settings: dict[str, Any]) -> list[Path]:
    """The files that a video becomes; of several people those of the first stand for all."""
    stem, folder = result.name.removesuffix(RESULT), result.parent
    person = ".person0" if settings["people"] > 1 else ""
    names = [f"{stem}{person if ending in formats.ONE_PERSON else ''}.{ending}" for ending in settings["to"]]
    names += [f"{stem}{OVERLAY}"] if settings["overlay"] else []
    return [result, *(folder / name for name in names)]


def _made_before(result: Path, source: Path, settings: dict[str, Any]) -> list[Path]:
    """The files that these settings make of a video, where its result was made of it and with them; else none."""
    try:
        metadata = records.read_metadata(result)
        kept, people = json.loads(metadata.get("options", "{}")), json.loads(metadata.get("people", "1"))
    except (OSError, ValueError, pa.ArrowException):
        return []
    if metadata.get("file", printable(source.name)) != printable(source.name):  # joey.mov is not joey.mp4
        return []
    written = ("to", "overlay")  # whose files are looked at themselves
    if {k: v for k, v in kept.items() if k not in written} != {k: v for k, v in settings.items() if k not in written}:
        return []
    files = expected(result, settings)
    if settings["people"] == 1:
        return files
    return [
        file.with_name(file.name.replace(".person0.", f".person{number}."))
        for file in files
        for number in (people if ".person0." in file.name else [0])
    ]


def show(outcomes: list[Outcome], console: Console) -> None:
    """The table at the end; then where confidence is low, and what failed."""
    table = Table(box=None, pad_edge=False)
    headings = ["video", "frames", "with person", "bone-length CV", "jitter m/s²", "confidence"]
    several = any(outcome.report is not None and outcome.report.people > 1 for outcome in outcomes)
    for heading in [*headings, *(["people"] if several else [])]:
        table.add_column(heading, justify="left" if heading == "video" else "right", overflow="fold")
    for outcome in outcomes:
        name = Path(outcome.video).name
        if outcome.report is None:
            table.add_row(name, *(["there already" if outcome.skipped else "failed"] + [""] * 4))
            continue
        report = outcome.report
        table.add_row(
            name, f"{report.frames:,}", f"{report.with_person / report.frames:.0%}",
            f"{report.bone_cv[0]:.1%} → {report.bone_cv[1]:.1%}",
            f"{report.jitter_m_s2[0]:.1f} → {report.jitter_m_s2[1]:.1f}",
            "–" if report.confidence != report.confidence else f"{report.confidence:.0%}",
            *([str(report.people)] if several else []),
        )  # fmt: skip
    console.print(table)
    if estimators := sorted({outcome.report.estimator for outcome in outcomes if outcome.report is not None}):
        console.print(f"landmarks by {' and '.join(estimators)}", highlight=False)
    for outcome in outcomes:
        name = Path(outcome.video).name
        if outcome.report is not None:
            for note in outcome.report.notes:
                console.print(f"{name}: {note}", highlight=False)
            if spans := outcome.report.low_confidence_s:
                console.print(
                    f"{name}: low confidence at " + ", ".join(f"{start:.1f}–{end:.1f} s" for start, end in spans),
                    highlight=False,
                )
            for file in outcome.report.files:
                console.print(f"  {file}", highlight=False, soft_wrap=True)
        elif outcome.error:
            console.print(f"failed: {outcome.error}", highlight=False, soft_wrap=True)
