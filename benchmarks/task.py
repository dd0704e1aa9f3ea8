"""The refined `.task`: how near it is to DepthRefiner on the stock file's answers, what it costs, and how far off depth is.

    python -m benchmarks.task --videos data/real_people

The folder is that of `benchmarks.real_people`, whose truth it is measured against: one person, **for measuring only**. Every
frame goes through PoseLandmarkers with either file one after the other, so that cost is compared on the same pictures at the
same time. In VIDEO mode MediaPipe filters over time *after* the network: the file refines what is not filtered yet,
DepthRefiner what is. So VIDEO mode is measured twice, as it is used and with frames so far apart that the filters let
everything through. The last line is one JSON object.
"""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks import real_people
from refiner import DepthRefiner, UserError
from refiner.command import launch, log
from refiner.data import multiview, video
from refiner.data.pairing import read_observations
from refiner.data.video import Frame
from refiner.estimators.base import Observation
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import observe
from refiner.evaluation import metrics
from refiner.evaluation.metrics import CM
from refiner.export import task
from refiner.skeleton import root_centred, to_coco

MM = 1000.0
IMAGE, TRACKED, VIDEO = "IMAGE", "VIDEO, frames far apart", "VIDEO"
MODES = (IMAGE, TRACKED, VIDEO)
# MediaPipe's filters of positions let everything through when frames are a day apart; that of visibility counts frames, and
# is undone.
FAR_APART_US = 10**11
SHARE = 0.1  # of a new visibility in the filtered one
PARITY_MM = 1.0  # what the two may differ by on average, where no filter lies between them
COST_SHARE = 0.05  # what a frame may cost more


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder of the clips and their calibration."""
    model: str = ""
    """A checkpoint's folder, or models:/…; the model in the box by default."""
    pose_model: str = "full"
    """lite, full, heavy or a .task file."""
    frames: int = 0
    """Of each clip; 0: all."""
    accuracy: bool = True
    """Also measure against the triangulated person."""

    def __post_init__(self) -> None:
        if not list(Path(self.videos).glob("*.mp4")):
            raise UserError(f"there are no clips in {self.videos}: give the folder of benchmarks.real_people")


@dataclass(frozen=True, slots=True)
class Seen:
    """One clip in one mode: what both files answered for the frames in which somebody was seen."""

    stock: list[Observation] = field(default_factory=list)
    refined: list[Observation] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)  # that a frame took, stock and refined


def look(frames: Iterable[Frame], stock: Path, refined: Path) -> dict[str, Seen]:
    """Every frame through both files in every mode; the two take turns in who goes first."""
    seen = {mode: Seen() for mode in MODES}
    before: dict[str, np.ndarray | None] = dict.fromkeys(MODES)  # the stock file's visibility in the frame before
    with contextlib.ExitStack() as stack:
        pairs = {
            mode: [stack.enter_context(PoseEstimator(path, stills=mode == IMAGE)) for path in (stock, refined)]
            for mode in MODES
        }
        for frame in frames:
            frame.rgb  # noqa: B018  converted here, not in the time of whoever asks first
            for mode, pair in pairs.items():
                shown = replace(frame, timestamp_us=(frame.index + 1) * FAR_APART_US) if mode == TRACKED else frame
                answers: list[Observation | None] = [None, None]
                took = [0.0, 0.0]
                for which in (0, 1) if frame.index % 2 else (1, 0):
                    start = time.perf_counter()
                    answers[which] = pair[which].estimate(shown)
                    took[which] = time.perf_counter() - start
                ours, theirs = answers[1], answers[0]
                last, before[mode] = before[mode], None if theirs is None else theirs.visibility
                if ours is None or theirs is None:
                    continue
                if mode == TRACKED and last is not None:
                    theirs = replace(theirs, visibility=((theirs.visibility - (1 - SHARE) * last) / SHARE).clip(0, 1))
                seen[mode].stock.append(theirs)
                seen[mode].refined.append(ours)
                seen[mode].seconds.append((took[0], took[1]))
    return seen


def apart(seen: Seen, refiner: DepthRefiner) -> tuple[np.ndarray, np.ndarray]:
    """(N, 17) mm between the refined file's joints and DepthRefiner on the stock file's, both about the hips; (N, 17) mm that
    DepthRefiner moved them.
    """
    world, visibility, image = (
        np.stack([getattr(answer, part) for answer in seen.stock]) for part in ("world", "visibility", "image")
    )
    expected = refiner.predict(world, visibility, image_points=image, recognise=False).poses
    got = root_centred(to_coco(np.stack([answer.world for answer in seen.refined])))
    moved = expected - root_centred(to_coco(world))
    return np.linalg.norm(got - expected, axis=-1) * MM, np.linalg.norm(moved, axis=-1) * MM


def accuracy(options: Options, files: dict[str, Path], refiner: DepthRefiner) -> dict[str, dict[str, float]]:
    """Depth error and MPJPE in cm of single frames: MediaPipe's, DepthRefiner's on them, and the refined file's."""
    cameras = multiview.read_qualisys(Path(options.videos, real_people.CALIBRATION))
    measured = real_people.Options(videos=options.videos)
    figures: dict[str, dict[str, float]] = {}
    for name, path in files.items():
        log(f"observing with {path.name}")
        with tempfile.TemporaryDirectory() as scratch:
            seen = []
            for camera in cameras:
                out = Path(scratch, f"{camera.name}.parquet")
                observe(video=str(Path(options.videos, f"{camera.name}.mp4")), out=str(out), model=str(path))
                seen.append(read_observations(out))
        filmed = [real_people.as_filmed(camera, o) for camera, o in zip(cameras, seen, strict=True)]
        pairs = real_people.paired(filmed, seen, real_people.triangulated(filmed, seen, measured))
        poses = {name: pairs.corrupted}
        if name == "stock":
            answer = refiner.predict(
                pairs.corrupted, pairs.visibility, image_points=pairs.image_points, recognise=False
            )
            poses["DepthRefiner, single frames"] = answer.poses
        for method, joints in poses.items():
            figures[method] = {
                "depth_cm": float(metrics.depth_error(joints, pairs.ground_truth).mean() * CM),
                "mpjpe_cm": float(metrics.joint_error(joints, pairs.ground_truth).mean() * CM),
            }
    return figures


def run(options: Options) -> dict:
    refiner = DepthRefiner(options.model or None, device="cpu")
    stock = model_path(options.pose_model)
    with tempfile.TemporaryDirectory() as scratch:
        refined = Path(scratch, "refined.task")
        refined.write_bytes(task.bundle(refiner, stock))
        distances: dict[str, list[np.ndarray]] = {mode: [] for mode in MODES}
        corrections: dict[str, list[np.ndarray]] = {mode: [] for mode in MODES}
        seconds: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
        for clip in sorted(Path(options.videos).glob("*.mp4")):
            log(f"looking at {clip.name}")
            frames = itertools.islice(video.frames(clip), options.frames or None)
            for mode, seen in look(frames, stock, refined).items():
                distance, moved = apart(seen, refiner)
                distances[mode].append(distance)
                corrections[mode].append(moved)
                seconds[mode] += seen.seconds
        report: dict = {
            "bytes": {"stock": stock.stat().st_size, "refined": refined.stat().st_size},
            "modes": {
                mode: figures(*map(np.concatenate, (distances[mode], corrections[mode])), np.array(seconds[mode]))
                for mode in MODES
            },
        }
        if options.accuracy:
            report["accuracy"] = accuracy(options, {"stock": stock, "refined file": refined}, refiner)
    print(table(report))
    return report


def figures(distances: np.ndarray, corrections: np.ndarray, seconds: np.ndarray) -> dict[str, float]:
    """(N, 17) mm, (N, 17) mm and (N, 2) s of one mode."""
    stock, refined = np.median(seconds, axis=0) * MM
    return {
        "frames": len(distances), "mean_mm": float(distances.mean()), "p99_mm": float(np.quantile(distances, 0.99)),
        "max_mm": float(distances.max()), "moved_mm": float(corrections.mean()), "stock_ms": float(stock),
        "refined_ms": float(refined),
        "cost": float(np.median(seconds[:, 1] - seconds[:, 0]) * MM / stock),
    }  # fmt: skip


def table(report: dict) -> str:
    lines = [
        f"{'':<26}{'frames':>8}{'mean mm':>10}{'p99':>8}{'max':>8}{'moved mm':>10}{'stock ms':>10}{'refined ms':>12}{'cost':>8}"
    ]
    for mode, row in report["modes"].items():
        lines.append(
            f"{mode:<26}{row['frames']:8}{row['mean_mm']:10.3f}{row['p99_mm']:8.2f}{row['max_mm']:8.2f}{row['moved_mm']:10.1f}"
            f"{row['stock_ms']:10.2f}{row['refined_ms']:12.2f}{row['cost']:8.1%}"
        )
    lines.append(f"goals: mean ≤ {PARITY_MM:g} mm where no filter lies between, cost ≤ {COST_SHARE:.0%}")
    for name, row in report.get("accuracy", {}).items():
        lines.append(f"{name:<30} mean |Δz| {row['depth_cm']:.2f} cm, MPJPE {row['mpjpe_cm']:.2f} cm")
    return "\n".join(lines)


if __name__ == "__main__":
    launch(run, Options)
