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
from refiner.cli.remote import remote_refiner
from refiner.cli.report import OBSERVED, OVERLAY, POINTS, RESULT, ROOM, Report
from refiner.command import cores, unwritten
from refiner.data import clips, records, video
from refiner.errors import UserError
from refiner.estimators import named
from refiner.estimators.observe import observe
from refiner.evaluation import metrics
from refiner.files import plain_name, printable
from refiner.formats import Motion
from refiner.inference import room
from refiner.inference.depth_refiner import DepthRefiner
from refiner.inference.observations import refined_observations
from refiner.inference.room import Lens, Placed, Refined
from refiner.skeleton import HIPS, root_centred, to_coco

# A stretch in which the mean confidence of a pose stays below this is worth a look.
LOW_CONFIDENCE, LEAST_LOW_S = 0.5, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One person, in the N frames in which they were seen."""

    number: int
    frames: np.ndarray  # (N,)
    seconds: np.ndarray  # (N,)
    clips: np.ndarray  # (N,) numbers of the scenes
    poses: np.ndarray  # (N, 17, 3) m, as the estimator gives them, about the hips
    points: np.ndarray  # (N, 17, 2) pixels of a picture of the first one's size
    sizes: np.ndarray  # (N, 2) width and height of each frame's own picture
    visibility: np.ndarray  # (N, 17)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Who was seen in a video."""

    observed: pa.Table  # of `records.OBSERVATIONS`, those rows only in which somebody was
    file: str  # the video's name
    people: list[Person]  # of whom each was seen in one frame at least
    total: int  # frames of the video
    fps: float
    size: tuple[int, int]  # of the first picture
    sizes: list[tuple[int, int, int]]  # (frame, width, height) from where on pictures have another size
    fov: float | None  # degrees along the longer side, where the file says it
    notes: list[str]  # what a user should know of the video


def work(
    *, video: str, out: str, options: dict[str, Any], token: str = "", on_progress: Callable[[int], None]
) -> dict[str, Any]:
    """Observes, refines and writes one video.

    Args:
        video: the file; none: what all videos need is loaded, and nothing done.
        out: folder to write into.
        options: of `refiner.cli.video.Options`, as a dict.
        token: for the endpoint that refines, if one does.
        on_progress: called with the number of frames so far.

    Returns:
        `Report` as a dict, for it crosses a process boundary.

    Raises:
        UserError: it is not a video, shows nobody, or a file cannot be written.
    """
    if not video:
        return _prepare(options)
    try:
        return dataclasses.asdict(_work(Path(video), Path(out), options, token, on_progress))
    except OSError as error:
        sentence = unwritten(error)
        if sentence is None:
            raise
        raise UserError(f"{video} is not refined: {sentence}") from None


def _prepare(options: dict[str, Any]) -> dict[str, Any]:
    """Loads the estimator and the model. Raises: UserError: one of them is not to be had, or has no such option."""
    how = {key: options[key] for key in ("smoothing", "looks", "people")}
    estimator = named(options["estimator"], options["pose_model"], **how)
    if options["people"] > 1:
        estimator.crowd()
    else:
        with estimator.open():
            pass
    if options["learned_depth_refinement"] and not options["endpoint"]:
        _refiner(options["model"])
    return {}


def _work(
    source: Path, folder: Path, options: dict[str, Any], token: str, on_progress: Callable[[int], None]
) -> Report:
    name = plain_name(source.stem)
    seen = see(source, options, on_progress)
    if not seen.people:
        raise UserError(f"{source} shows nobody: the estimator finds no person in its {seen.total} frames")
    table, model = refined(seen, options, token)
    lens = Lens.of_fov(seen.size, fov_of(seen, options))
    person = records.column(table, "person")
    poses, confidence = (
        [records.column(table, name)[person == one.number] for one in seen.people] for name in ("pose", "confidence")
    )
    placed = room.stand_together(
        [
            Refined(
                poses=pose, image_points=one.points, weights=one.visibility, seconds=one.seconds, clips=one.clips,
                height_m=dict(enumerate(options["height"])).get(one.number),
            )
            for one, pose in zip(seen.people, poses, strict=True)
        ],
        lens,
        options["camera_pitch"],
    )  # fmt: skip
    files = [write_table(folder / f"{name}{RESULT}", table, placed, seen, model, options)]
    motions = motions_of(name, seen, placed, confidence, options["people"] > 1)
    for ending in options["to"]:
        files += formats.write_people(motions, folder, name, ending)
    if options["overlay"]:
        files.append(draw(folder / f"{name}{OVERLAY}", source, seen, poses, placed, lens))
    return dataclasses.replace(report(source, files, seen, poses, confidence), estimator=options["estimator"])


def see(source: Path, options: dict[str, Any], on_progress: Callable[[int], None]) -> Seen:
    """Every frame of a video through the estimator."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "observations.parquet")
        how = {key: options[key] for key in ("estimator", "smoothing", "looks", "people")}
        how["threads"] = min(2, cores())  # one video at a time: a second core decodes
        observe(video=str(source), out=str(path), model=options["pose_model"], on_progress=on_progress, **how)
        table, metadata = records.read_table(path, records.OBSERVATIONS), records.read_metadata(path)
    size = tuple(json.loads(metadata["size"]))
    sizes = [tuple(change) for change in json.loads(metadata.get("sizes", "[]"))] or [(0, *size)]
    people, observed = [], []
    for number, rows in records.by_person(table).items():
        seen = rows.append_column("scene", pa.array(clips.of_observations(rows)))
        seen = _in_one_picture(seen.filter(records.column(rows, "detected")), sizes)
        observed.append(seen)
        if len(seen):
            people.append(_person(number, seen, sizes))
    info, notes = video.probe(source), json.loads(metadata.get("notes", "[]"))
    if options["fov"] is None and info.fov is not None:
        notes.append(f"the lens sees {info.fov:.0f}° along the longer side, as the file says (--fov says otherwise)")
    return Seen(
        observed=pa.concat_tables(observed), file=printable(source.name), people=people, total=json.loads(metadata["frames"]),
        fps=json.loads(metadata["fps"]), size=size, sizes=sizes, fov=info.fov, notes=notes,
    )  # fmt: skip


def _sizes_of(frames: np.ndarray, sizes: list[tuple[int, int, int]]) -> np.ndarray:
    """(N,) numbers of frames -> (N, 2) width and height of their pictures."""
    changes = np.array(sizes)
    return changes[np.searchsorted(changes[:, 0], frames, side="right") - 1, 1:]


def _in_one_picture(rows: pa.Table, sizes: list[tuple[int, int, int]]) -> pa.Table:
    """Observations with image points as if all pictures had the first one's size, so that one lens serves all."""
    if len(sizes) == 1:
        return rows
    own = _sizes_of(records.column(rows, "frame"), sizes)
    points = room.rescaled(records.column(rows, "image"), own, np.array(sizes[0][1:]))
    field = records.OBSERVATIONS.field("image")
    moved = records.table(pa.schema([field]), {"image": points}).column("image")
    return rows.set_column(rows.column_names.index("image"), field, moved)


def _person(number: int, seen: pa.Table, sizes: list[tuple[int, int, int]]) -> Person:
    world, image, visibility = (records.column(seen, name) for name in ("world", "image", "visibility"))
    return Person(
        number=number, frames=records.column(seen, "frame"), seconds=records.column(seen, "timestamp_us") * 1e-6,
        clips=records.column(seen, "scene"), poses=root_centred(to_coco(world)), points=to_coco(image),
        visibility=to_coco(visibility[..., None])[..., 0], sizes=_sizes_of(records.column(seen, "frame"), sizes),
    )  # fmt: skip


def refined(seen: Seen, options: dict[str, Any], token: str) -> tuple[pa.Table, dict[str, str]]:
    """The refined poses and the model's name and version; with --no-learned-depth-refinement the estimator's own poses."""
    if options["learned_depth_refinement"]:
        refiner = remote_refiner(options["endpoint"], token) if options["endpoint"] else _refiner(options["model"])
        lens, pitch = Lens.of_fov(seen.size, fov_of(seen, options)), options["camera_pitch"]
        pitch_at = None if pitch is None else lambda hips: room.pitch_of_sight(pitch, hips, lens)
        table = refined_observations(refiner, seen.observed, pitch_at)
        return table, {"name": refiner.name, "version": refiner.version}
    poses = np.concatenate([person.poses for person in seen.people])
    azimuth = geometry.azimuth(poses)
    names = ("video", "sequence", "camera", "frame", "timestamp_us", "person")
    columns = {name: seen.observed.column(name) for name in names}
    columns |= {
        "pose": poses, "confidence": np.full(poses.shape[:2], np.nan), "azimuth": azimuth,
        "view_angle": geometry.view_angle(azimuth), "clip": seen.observed.column("scene"),
    }  # fmt: skip
    return records.table(records.REFINED, columns), {"name": "none", "version": "0"}


@functools.cache
def _refiner(source: str) -> DepthRefiner:
    return DepthRefiner(source or None)


def fov_of(seen: Seen, options: dict[str, Any]) -> float:
    """The lens's angle of view in degrees: as given, as the file says it, or as assumed."""
    return options["fov"] or seen.fov or room.DEFAULT_FOV_DEG


def write_table(
    path: Path, table: pa.Table, placed: list[Placed], seen: Seen, model: dict[str, str], options: dict[str, Any]
) -> Path:
    """The refined poses as `rayjobs.refine` writes them, beside them `ROOM`, `OBSERVED` and `POINTS`."""
    beside = {
        ROOM: [one.joints for one in placed],
        OBSERVED: [person.poses for person in seen.people],
        POINTS: [in_own_picture(person, person.points, seen.size) for person in seen.people],
    }
    for field, arrays in beside.items():
        flat = pa.array(np.concatenate(arrays).astype(np.float32).ravel())
        table = table.append_column(field, pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
    floor = placed[0].floor
    metadata = {
        "file": seen.file, "model": model, "fps": seen.fps, "size": list(seen.size), "frames": seen.total, "notes": seen.notes,
        "sizes": seen.sizes, "options": {key: options[key] for key in sorted(options)}, "fov": fov_of(seen, options),
        "people": [person.number for person in seen.people],
        "floor": {"normal": floor.normal.tolist(), "height": floor.height},
    }  # fmt: skip
    records.write_atomically(table, path, metadata)
    return path


def in_own_picture(person: Person, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, 17, 2) pixels of a picture of that size -> of each frame's own picture."""
    return room.rescaled(points, np.array(size), person.sizes)


def motions_of(
    name: str, seen: Seen, placed: list[Placed], confidence: list[np.ndarray], several: bool
) -> list[Motion]:
    """What is written into files for other tools; `several`: the people have numbers, and one time line."""
    span = min(one.seconds[0] for one in seen.people), max(one.seconds[-1] for one in seen.people)
    return [
        Motion(
            name=name, fps=seen.fps, frames=one.frames, timestamps_us=np.round(one.seconds * 1e6).astype(np.int64),
            joints=place.joints, confidence=sure,
            person=one.number if several else None, span_s=span if several else None,
        )
        for one, place, sure in zip(seen.people, placed, confidence, strict=True)
    ]  # fmt: skip


def draw(path: Path, source: Path, seen: Seen, poses: list[np.ndarray], placed: list[Placed], lens: Lens) -> Path:
    """The overlay: a second pass over the video."""
    rows = [{int(frame): row for row, frame in enumerate(person.frames)} for person in seen.people]
    drawn = []  # of each person, by method: (N, 17, 2) pixels, and (N, 17, 2) m from the side
    for person, pose, one in zip(seen.people, poses, placed, strict=True):
        camera = (one.joints + one.origin) @ one.turn  # back from the room
        there = camera[..., :2] / np.maximum(camera[..., 2:], 0.1) * lens.focal + np.asarray(lens.centre)
        sides = [  # as the floor says what is level, for cameras look up or down
            -(room.camera_poses(p, person.points, lens) @ one.turn.T)[..., (2, 1)] for p in (person.poses, pose)
        ]
        points = [in_own_picture(person, p, seen.size) for p in (person.points, there)]
        drawn.append(dict(zip(("mediapipe", "refined"), zip(points, sides, strict=True), strict=True)))
    with OverlayWriter(path, seen.size, seen.fps, len(seen.people)) as overlay:
        for frame in video.frames(source):
            row = [row_of.get(frame.index) for row_of in rows]
            skeletons = [
                {} if at is None else {method: (points[at], side[at]) for method, (points, side) in of.items()}
                for at, of in zip(row, drawn, strict=True)
            ]
            floors = [
                None if at is None else float(one.joints[at, HIPS, 1].mean())
                for at, one in zip(row, placed, strict=True)
            ]
            overlay.write(frame, *skeletons, floors=floors)
    return path


def report(
    source: Path, files: list[Path], seen: Seen, poses: list[np.ndarray], confidence: list[np.ndarray]
) -> Report:
    """Figures before and after."""
    number = [np.full(len(person.frames), place) for place, person in enumerate(seen.people)]
    scenes = np.stack([np.concatenate(number), np.concatenate([person.clips for person in seen.people])])
    _, clip = np.unique(scenes, axis=1, return_inverse=True)
    seconds = np.concatenate([person.seconds for person in seen.people])

    def variation(poses: np.ndarray) -> float:
        values, frames = metrics.bone_variation(poses, clip)
        return float(np.average(values, weights=frames))

    def jitter(poses: np.ndarray) -> float:
        accelerations, _ = metrics.acceleration_error(poses, np.zeros_like(poses), seconds, clip)
        return float(accelerations.mean()) if len(accelerations) else 0.0

    before, after = np.concatenate([person.poses for person in seen.people]), np.concatenate(poses)
    low = [
        span
        for person, sure in zip(seen.people, confidence, strict=True)
        for span in stretches(sure.mean(-1) < LOW_CONFIDENCE, person.seconds)
    ]
    return Report(
        video=printable(source),
        files=[str(file) for file in files],
        frames=seen.total,
        with_person=len(np.unique(np.concatenate([person.frames for person in seen.people]))),
        fps=seen.fps,
        bone_cv=(variation(before), variation(after)),
        jitter_m_s2=(jitter(before), jitter(after)),
        confidence=float(np.concatenate(confidence).mean()),
        low_confidence_s=sorted(low),
        notes=seen.notes,
        people=len(seen.people),
    )


def stretches(low: np.ndarray, seconds: np.ndarray) -> list[tuple[float, float]]:
    """Where a mask (N,) holds for half a second or longer: (start, end) in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(int), [0]])))
    spans = [(float(seconds[a]), float(seconds[b - 1])) for a, b in edges.reshape(-1, 2)]
    return [span for span in spans if span[1] - span[0] >= LEAST_LOW_S]
