"""One video, from its frames to its files. Runs in a child process, so that a decoder's crash costs this video alone."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from refiner import formats, geometry
from refiner.cli.overlay import OverlayWriter
from refiner.data import clips, records, video
from refiner.errors import UserError
from refiner.estimators.observe import observe
from refiner.evaluation import metrics
from refiner.formats import Motion
from refiner.inference import room
from refiner.inference.depth_refiner import DepthRefiner
from refiner.inference.observations import refined_observations
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

    observed: pa.Table  # of `records.OBSERVATIONS`, these frames only
    frames: np.ndarray  # (N,)
    seconds: np.ndarray  # (N,)
    clips: np.ndarray  # (N,) numbers of the scenes
    poses: np.ndarray  # (N, 17, 3) m, as the estimator gives them, about the hips
    points: np.ndarray  # (N, 17, 2) pixels
    visibility: np.ndarray  # (N, 17)
    total: int  # frames of the video
    fps: float
    size: tuple[int, int]
    notes: list[str]  # what a user should know of the video


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
    table, model = refined(seen, options)
    poses, confidence = records.column(table, "pose"), records.column(table, "confidence")
    lens = Lens.of_fov(seen.size, options["fov"] or room.DEFAULT_FOV_DEG)
    placed = room.stand(poses, seen.points, seen.visibility, lens, seen.seconds, seen.clips, options["height"])
    folder.mkdir(parents=True, exist_ok=True)
    files = [write_table(folder / f"{source.stem}.refined.parquet", table, placed, seen, model, options)]
    motion = Motion(
        name=source.stem, fps=seen.fps, frames=seen.frames, timestamps_us=np.round(seen.seconds * 1e6).astype(np.int64),
        joints=placed.joints, confidence=confidence,
    )  # fmt: skip
    files += [formats.write(motion, folder / f"{source.stem}.{ending}") for ending in options["to"]]
    if options["overlay"]:
        files.append(draw(folder / f"{source.stem}.overlay.mp4", source, seen, poses, placed, lens))
    return dataclasses.asdict(report(source, files, seen, poses, confidence))


def see(source: Path, options: dict[str, Any], on_progress: Callable[[int], None]) -> Seen:
    """Every frame of a video through the estimator."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "observations.parquet")
        how = {key: options[key] for key in ("estimator", "smoothing", "looks")}
        observe(video=str(source), out=str(path), model=options["pose_model"], on_progress=on_progress, **how)
        table, metadata = records.read_table(path, records.OBSERVATIONS), records.read_metadata(path)
    detected = records.column(table, "detected")
    observed = table.append_column("scene", pa.array(clips.of_observations(table))).filter(detected)
    world, image, visibility = (records.column(observed, name) for name in ("world", "image", "visibility"))
    return Seen(
        observed=observed, frames=records.column(observed, "frame"),
        seconds=records.column(observed, "timestamp_us") * 1e-6, clips=records.column(observed, "scene"),
        poses=root_centred(to_coco(world)), points=to_coco(image), visibility=to_coco(visibility[..., None])[..., 0],
        total=len(table), fps=json.loads(metadata["fps"]), size=tuple(json.loads(metadata["size"])),
        notes=json.loads(metadata.get("notes", "[]")),
    )  # fmt: skip


def refined(seen: Seen, options: dict[str, Any]) -> tuple[pa.Table, dict[str, str]]:
    """The refined poses and the model's name and version; with --no-learned-depth-refinement the estimator's own poses."""
    if options["learned_depth_refinement"]:
        refiner = _refiner(options["model"])
        return refined_observations(refiner, seen.observed), {"name": refiner.name, "version": refiner.version}
    azimuth = geometry.azimuth(seen.poses)
    columns = {name: seen.observed.column(name) for name in ("video", "sequence", "camera", "frame", "timestamp_us")}
    columns |= {
        "pose": seen.poses, "confidence": np.full(seen.poses.shape[:2], np.nan), "azimuth": azimuth,
        "view_angle": geometry.view_angle(azimuth), "clip": seen.clips,
    }  # fmt: skip
    return records.table(records.REFINED, columns), {"name": "none", "version": "0"}


@functools.cache
def _refiner(source: str) -> DepthRefiner:
    return DepthRefiner(source or None)


def write_table(
    path: Path, table: pa.Table, placed: Placed, seen: Seen, model: dict[str, str], options: dict[str, Any]
) -> Path:
    """The refined poses as `rayjobs.refine` writes them, and where they are in the room."""
    flat = pa.array(placed.joints.astype(np.float32).ravel())
    table = table.append_column(ROOM, pa.FixedSizeListArray.from_arrays(flat, NUM_JOINTS * 3))
    metadata = {
        "model": model, "fps": seen.fps, "size": list(seen.size), "frames": seen.total, "notes": seen.notes,
        "options": {key: options[key] for key in sorted(options)},
        "floor": {"normal": placed.floor.normal.tolist(), "height": placed.floor.height},
    }  # fmt: skip
    records.write_atomically(table, path, metadata)
    return path


def draw(path: Path, source: Path, seen: Seen, poses: np.ndarray, placed: Placed, lens: Lens) -> Path:
    """The overlay: a second pass over the video."""
    rows = {int(frame): row for row, frame in enumerate(seen.frames)}
    camera = (placed.joints + placed.origin) @ placed.turn  # back from the room
    projected = camera[..., :2] / np.maximum(camera[..., 2:], 0.1) * lens.focal + np.asarray(lens.centre)
    with OverlayWriter(path, seen.size, seen.fps) as overlay:
        for frame in video.frames(source):
            row = rows.get(frame.index)
            skeletons = {}
            if row is not None:
                skeletons = {
                    "mediapipe": (seen.points[row], seen.poses[row]),
                    "refined": (projected[row], poses[row]),
                }
            overlay.write(frame, skeletons)
    return path


def report(source: Path, files: list[Path], seen: Seen, poses: np.ndarray, confidence: np.ndarray) -> Report:
    """Figures before and after."""

    def variation(poses: np.ndarray) -> float:
        values, frames = metrics.bone_variation(poses, clip)
        return float(np.average(values, weights=frames))

    def jitter(poses: np.ndarray) -> float:
        accelerations, _ = metrics.acceleration_error(poses, np.zeros_like(poses), seen.seconds, clip)
        return float(accelerations.mean()) if len(accelerations) else 0.0

    _, clip = np.unique(seen.clips, return_inverse=True)
    sure = confidence.mean(-1)
    return Report(
        video=str(source),
        files=[str(file) for file in files],
        frames=seen.total,
        with_person=len(seen.frames),
        fps=seen.fps,
        bone_cv=(variation(seen.poses), variation(poses)),
        jitter_m_s2=(jitter(seen.poses), jitter(poses)),
        confidence=float(sure.mean()),
        low_confidence_s=stretches(sure < LOW_CONFIDENCE, seen.seconds),
        notes=seen.notes,
    )


def stretches(low: np.ndarray, seconds: np.ndarray) -> list[tuple[float, float]]:
    """Where a mask (N,) holds for half a second or longer: (start, end) in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(int), [0]])))
    spans = [(float(seconds[a]), float(seconds[b - 1])) for a, b in edges.reshape(-1, 2)]
    return [span for span in spans if span[1] - span[0] >= LEAST_LOW_S]
