"""One video, from its frames to its files. Runs in a child process, so that a decoder's crash costs this video alone."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from refiner import formats, geometry
from refiner.cli.overlay import OverlayWriter
from refiner.data import records, video
from refiner.errors import UserError
from refiner.estimators import named
from refiner.evaluation import metrics
from refiner.formats import Motion
from refiner.inference import room
from refiner.inference.depth_refiner import DepthRefiner, Refinement
from refiner.inference.room import Lens, Placed
from refiner.skeleton import NUM_JOINTS, root_centred, to_coco

# A stretch in which the mean confidence of a pose stays below this is worth a look.
LOW_CONFIDENCE, LEAST_LOW_S = 0.5, 0.5
ROOM = pa.field(
    "room", pa.list_(pa.float32(), NUM_JOINTS * 3)
)  # m, room frame: y up, the floor at 0, z towards the camera


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What became of one video; figures before and after are MediaPipe's and the refined ones."""

    video: str
    files: list[str]
    frames: int
    with_person: int
    fps: float
    bone_cv: tuple[float, float]
    jitter_m_s2: tuple[float, float]  # mean acceleration of the joints about the hips
    confidence: float  # mean
    low_confidence_s: list[tuple[float, float]]  # from, to
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The frames of a video in which somebody was seen; N of them."""

    frames: np.ndarray  # (N,)
    timestamps_us: np.ndarray  # (N,)
    world: np.ndarray  # (N, 33, 3) m
    image: np.ndarray  # (N, 33, 2) pixels
    visibility: np.ndarray  # (N, 33)
    total: int  # frames of the video
    info: video.VideoInfo


def work(*, video: str, out: str, options: dict[str, Any], on_progress: Callable[[int], None]) -> dict[str, Any]:
    """Observes, refines and writes one video.

    Args:
        video: the file.
        out: folder to write into.
        options: of `refiner.cli.video.Options`, as a dict.
        on_progress: called with the number of frames so far.

    Returns:
        `Report` as a dict, for it crosses a process boundary.

    Raises:
        UserError: it is no video, shows nobody, or a file cannot be written.
    """
    source, folder = Path(video), Path(out)
    seen = see(source, options, on_progress)
    if not len(seen.frames):
        raise UserError(f"{source} shows nobody whom the estimator finds in any of its {seen.total} frames")
    refinement, source_name = refined(seen, options)
    lens = Lens.of_fov((seen.info.width, seen.info.height), options["fov"] or room.DEFAULT_FOV_DEG)
    visibility = to_coco(seen.visibility[..., None])[..., 0]
    clips = np.zeros(len(seen.frames), dtype=np.int64)
    seconds = seen.timestamps_us * 1e-6
    points = to_coco(seen.image)
    placed = room.stand(refinement.poses, points, visibility, lens, seconds, clips, options["height"])
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        write_table(folder / f"{source.stem}.refined.parquet", source, seen, refinement, placed, source_name, options)
    ]
    motion = Motion(
        name=source.stem, fps=seen.info.fps, frames=seen.frames, timestamps_us=seen.timestamps_us,
        joints=placed.joints, confidence=refinement.confidence,
    )  # fmt: skip
    files += [formats.write(motion, folder / f"{source.stem}.{ending}") for ending in options["to"]]
    if options["overlay"]:
        files.append(draw(folder / f"{source.stem}.overlay.mp4", source, seen, refinement, placed, lens))
    return dataclasses.asdict(report(source, files, seen, refinement))


def see(source: Path, options: dict[str, Any], on_progress: Callable[[int], None]) -> Seen:
    """Every frame of a video through the estimator."""
    info = video.probe(source)
    numbers, times, observations, total = [], [], [], 0
    with named(options["estimator"], options["pose_model"]).open() as watching:
        for frame in video.frames(source):
            total += 1
            if (observation := watching.estimate(frame)) is not None:
                numbers.append(frame.index)
                times.append(frame.timestamp_us)
                observations.append(observation)
            on_progress(total)

    def gathered(name: str) -> np.ndarray:
        return np.array([getattr(o, name) for o in observations], dtype=np.float32)

    return Seen(
        frames=np.array(numbers), timestamps_us=np.array(times), world=gathered("world"), image=gathered("image"),
        visibility=gathered("visibility"), total=total, info=info,
    )  # fmt: skip


def refined(seen: Seen, options: dict[str, Any]) -> tuple[Refinement, dict[str, str]]:
    """The refiner's answer and its name and version; with --no-learned-depth-refinement MediaPipe's own poses."""
    if not options["learned_depth_refinement"]:
        poses = root_centred(to_coco(seen.world))
        azimuth = geometry.azimuth(poses)
        confidence = np.full(poses.shape[:2], np.nan, dtype=np.float32)
        view_angle = geometry.view_angle(azimuth)
        return Refinement(poses=poses, confidence=confidence, view_angle=view_angle, azimuth=azimuth), {"name": "none"}
    refiner = _refiner(options["model"])
    answer = refiner.predict(
        seen.world, seen.visibility, image_points=seen.image, sequence=True, timestamps_us=seen.timestamps_us
    )
    return answer, {"name": refiner.name, "version": refiner.version}


@functools.cache
def _refiner(source: str) -> DepthRefiner:
    return DepthRefiner(source or None)


def write_table(
    path: Path,
    source: Path,
    seen: Seen,
    refinement: Refinement,
    placed: Placed,
    model: dict[str, str],
    options: dict[str, Any],
) -> Path:
    """The refined poses as `rayjobs.refine` writes them, and where they are in the room."""
    columns = {
        "video": [source.stem] * len(seen.frames), "sequence": [source.stem] * len(seen.frames),
        "camera": [""] * len(seen.frames), "frame": seen.frames, "timestamp_us": seen.timestamps_us,
        "pose": refinement.poses, "confidence": refinement.confidence,
        "view_angle": refinement.view_angle, "azimuth": refinement.azimuth, "room": placed.joints,
    }  # fmt: skip
    table = records.table(records.REFINED.append(ROOM), columns)
    metadata = {
        "model": model, "fps": seen.info.fps, "size": [seen.info.width, seen.info.height], "frames": seen.total,
        "options": {key: options[key] for key in sorted(options)},
        "floor": {"normal": placed.floor.normal.tolist(), "height": placed.floor.height},
    }  # fmt: skip
    records.write_atomically(table, path, metadata)
    return path


def draw(path: Path, source: Path, seen: Seen, refinement: Refinement, placed: Placed, lens: Lens) -> Path:
    """The overlay: a second pass over the video."""
    rows = {int(frame): row for row, frame in enumerate(seen.frames)}
    camera = (placed.joints + placed.origin) @ placed.turn  # back from the room
    projected = camera[..., :2] / np.maximum(camera[..., 2:], 0.1) * lens.focal + np.asarray(lens.centre)
    observed, points = root_centred(to_coco(seen.world)), to_coco(seen.image)
    with OverlayWriter(path, (seen.info.width, seen.info.height), seen.info.fps) as overlay:
        for frame in video.frames(source):
            row = rows.get(frame.index)
            skeletons = {}
            if row is not None:
                skeletons = {
                    "mediapipe": (points[row], observed[row]),
                    "refined": (projected[row], refinement.poses[row]),
                }
            overlay.write(frame, skeletons)
    return path


def report(source: Path, files: list[Path], seen: Seen, refinement: Refinement) -> Report:
    observed = root_centred(to_coco(seen.world))
    seconds = seen.timestamps_us * 1e-6
    clips = np.zeros(len(seconds), dtype=np.int64)

    def variation(poses: np.ndarray) -> float:
        return float(metrics.bone_variation(poses, clips)[0].mean())

    def jitter(poses: np.ndarray) -> float:
        accelerations, _ = metrics.acceleration_error(poses, np.zeros_like(poses), seconds, clips)
        return float(accelerations.mean()) if len(accelerations) else 0.0

    confidence = refinement.confidence.mean(-1)
    return Report(
        video=str(source),
        files=[str(file) for file in files],
        frames=seen.total,
        with_person=len(seen.frames),
        fps=seen.info.fps,
        bone_cv=(variation(observed), variation(refinement.poses)),
        jitter_m_s2=(jitter(observed), jitter(refinement.poses)),
        confidence=float(confidence.mean()),
        low_confidence_s=stretches(confidence < LOW_CONFIDENCE, seconds),
        notes=list(seen.info.notes),
    )


def stretches(low: np.ndarray, seconds: np.ndarray) -> list[tuple[float, float]]:
    """Where a mask (N,) holds for half a second or longer: (start, end) in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(int), [0]])))
    spans = [(float(seconds[a]), float(seconds[b - 1])) for a, b in edges.reshape(-1, 2)]
    return [span for span in spans if span[1] - span[0] >= LEAST_LOW_S]
