"""Extract: videos in, observations out. MediaPipe on every frame, one Parquet file per video.

    python -m rayjobs.extract --videos data/aistpp/videos --out data/observations

A video whose file is there, whole and made by the same estimator is done; the same command again does exactly the rest.
A video that cannot be read, crashes its decoder or hangs costs that video alone: see the folder `failures` in --out.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import ray
import tyro

from rayjobs.actors import Answer, Row, over_actors, workers
from rayjobs.estimate import Estimate, estimate
from rayjobs.extract_worker import Extractor
from rayjobs.progress import Progress
from rayjobs.session import ray_session
from rayjobs.storage import list_videos
from refiner import UserError, files
from refiner.command import launch, log
from refiner.estimators import DEFAULT, named
from refiner.estimators.base import Estimator, EstimatorInfo, Smoothing
from refiner.estimators.observe import is_done

FAILURES = "failures"  # folder in --out
# Handing a video out and taking its result back costs some 0.1 s in which its worker waits, so short ones go together: as
# many as hold a few seconds of footage. AIST++'s shortest has 4 MB.
TASK_VIDEOS = 8
TASK_BYTES = 1_500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder or glob of the videos: a path, or a URI like s3://bucket/videos."""
    out: str
    """Folder (path or URI) of the observations: <video>.parquet for each video, failures/<video>.json for those that failed."""
    estimator: str = DEFAULT
    """What looks at the frames, by name."""
    model: str = "full"
    """The estimator's model: lite, full, heavy, or the path of a .task file."""
    smoothing: Smoothing = "mediapipe"
    """Smoothing over time: MediaPipe's filters, which lag behind, or none (blazepose only)."""
    looks: int = 1
    """Looks at each person; 2: at the mirrored picture, too, and their mean counts (blazepose only)."""
    people: int = 1
    """Most people to follow in each video (several with blazepose only)."""
    stride: int = 1
    """Observe every stride-th frame."""
    threads: int = 1
    """Cores for each video: with 2, decoding has a thread of its own. One is best where there are more videos than cores."""
    actors: int = 0
    """Videos at once; 0: as many as the cluster has cores for."""
    stall_s: float = 120
    """A video that makes no progress for this many seconds is given up."""
    retry_failed: bool = False
    """Take up again what an earlier run recorded under failures/."""
    max_failures: int = 100
    """End the run when more videos than this have failed: then something is wrong with more than the videos."""
    dry_run: bool = False
    """Extract nothing: say what is done, what is to do, and what that will take on the connected cluster."""
    price: float | None = None
    """Price of one core for one hour, for the estimate of --dry-run."""
    observe: Annotated[str, tyro.conf.Suppress] = "refiner.estimators.observe:observe"
    """What turns a video into a file: another one simulates a cluster's load, or a fault."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"--stride is {self.stride}: give 1 for every frame, 2 for every second one, …")
        if self.threads not in (1, 2):
            raise UserError(f"--threads is {self.threads}: give 1, or 2 to decode on a core of its own")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    videos: int
    """Found."""
    done_before: int
    """Already there, whole and by the same estimator."""
    failed_before: int
    """Failed in an earlier run, and left alone."""
    extracted: int
    failed: int
    frames: int
    detected: int
    """Frames with a person."""
    seconds: float
    """Of work, added up over all actors."""
    failures: dict[str, str]
    """Reason by video."""


def run(options: Options) -> Summary | Estimate:
    """Observes every video that has no whole file of this estimator yet; with --dry-run says what that would take.

    Raises:
        UserError: there are no videos, none could be observed, or more than --max-failures failed.
    """
    videos = list_videos(options.videos)
    estimator = named(
        options.estimator, options.model, smoothing=options.smoothing, looks=options.looks, people=options.people
    )
    with estimator.open():
        pass  # a wrong model or a missing system library ends the run here, not every video
    out = files.absolute(options.out)
    failed_before = {file.name for file in files.find(files.join(out, FAILURES), {".json"})}
    rows = [
        {"video": v.where, "size": v.size, "out": files.join(out, f"{v.name}.parquet"),
         "failure": files.join(out, FAILURES, f"{v.name}.json"), "failed": v.name in failed_before}
        for v in videos
    ]  # fmt: skip
    done, failed, todo = plan(rows, estimator.info, options.stride, options.retry_failed)
    log(f"{len(videos):,} videos: {done:,} done, {failed:,} failed before, {len(todo):,} to do")
    if options.dry_run:
        with ray_session():
            at_once = workers(options.actors, options.threads)
        return estimate(todo, done, failed, estimator, options.stride, at_once, options.price)
    answers: list[Answer] = []
    if todo:
        files.check_writable(out)
        with ray_session(), Progress("videos", len(todo), sum(row["size"] for row in todo)) as progress:
            for answer in extracted(todo, estimator, options):
                answers.append(answer)
                frames, reason = answer.values.get("frames", 0), answer.error
                progress.add(1, answer.row["size"], failed=bool(reason), reason=reason, frames=frames)
                if (count := sum(bool(a.error) for a in answers)) > options.max_failures:
                    raise UserError(
                        f"{count} videos failed, more than --max-failures, the last one because {reason}; "
                        f"every reason is in {files.join(out, FAILURES)}"
                    )
    failures = {files.printable(a.row["video"]): a.error for a in answers if a.error}
    for video, reason in failures.items():
        log(f"failed: {video}: {reason}")
    observed = [a for a in answers if not a.error]
    for answer in observed:
        if note := answer.values["notes"]:
            log(f"note: {files.printable(answer.row['video'])}: {note}")
    if len(failures) == len(videos):
        raise UserError(
            f"none of the {len(videos)} videos could be observed; every reason is in {files.join(out, FAILURES)}"
        )
    return Summary(
        videos=len(videos),
        done_before=done,
        failed_before=failed,
        extracted=len(observed),
        failed=len(failures),
        frames=sum(a.values["frames"] for a in observed),
        detected=sum(a.values["detected"] for a in observed),
        seconds=sum(a.values["seconds"] for a in observed),
        failures=failures,
    )


def plan(
    rows: list[dict[str, Any]], estimator: EstimatorInfo, stride: int, retry_failed: bool
) -> tuple[int, int, list[dict[str, Any]]]:
    """Which videos are done, how many failed before and are left alone, and the rows of those to do, longest first."""
    with ThreadPoolExecutor(32) as pool:  # reads the end of each file: mostly waiting
        done = list(pool.map(lambda row: is_done(row["out"], estimator, stride), rows))
    rest = [row for row, is_there in zip(rows, done, strict=True) if not is_there]
    todo = [row for row in rest if retry_failed or not row["failed"]]
    # a long video that starts last would keep one core busy while all others are idle
    return sum(done), len(rest) - len(todo), sorted(todo, key=lambda row: row["size"], reverse=True)


def tasks(rows: Sequence[Row], actors: int) -> Iterator[Sequence[Row]]:
    """Rows, longest first, as they are handed out: a long video alone, several short ones together, fewer towards the end."""
    start = 0
    while start < len(rows):
        end, size = start + 1, rows[start]["size"]
        most = min(TASK_VIDEOS, (len(rows) - start) // (2 * actors))
        while end < len(rows) and end - start < most and size + rows[end]["size"] <= TASK_BYTES:
            size += rows[end]["size"]
            end += 1
        yield rows[start:end]
        start = end


def extracted(rows: list[Row], estimator: Estimator, options: Options) -> Iterator[Answer]:
    """What became of the rows, as they come."""
    of_all = ("estimator", "smoothing", "looks", "people", "stride", "threads")
    arguments = {name: getattr(options, name) for name in of_all}
    model = [ray.put(estimator.model.read_bytes())]
    return over_actors(
        Extractor,
        (model, options.observe, arguments, options.stall_s),
        rows,
        actors=options.actors,
        cpus=options.threads,
        portions=tasks,
    )


if __name__ == "__main__":
    launch(run, Options)
