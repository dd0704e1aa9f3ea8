"""One video in, one file of observations out: decoded, converted and estimated frame by frame, written when whole."""

import contextlib
import dataclasses
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from refiner import files
from refiner.data import clips, records, video
from refiner.data.aistpp import Name
from refiner.data.clock import frame_rate
from refiner.data.cuts import CutFinder
from refiner.errors import UserError
from refiner.estimators import DEFAULT, named
from refiner.estimators.base import Estimator, EstimatorInfo, Observation, Sighting, Smoothing
from refiner.skeleton import NUM_LANDMARKS

AHEAD = 4  # frames that a decoding thread may be ahead: they hold memory, and one would do if both took equally long


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """What became of one video."""

    frames: int
    detected: int  # frames with a person
    seconds: float  # of work
    notes: tuple[str, ...] = ()  # what a user should know of the video, a sentence each


def observe(
    *,
    video: str,
    out: str,
    model: str,
    estimator: str = DEFAULT,
    smoothing: Smoothing = "mediapipe",
    looks: int = 1,
    people: int = 1,
    stride: int = 1,
    threads: int = 1,
    on_progress: Callable[[int], None] = lambda frames: None,
) -> dict[str, Any]:
    """Observes a whole video and writes its file. `Observed` as a dict, for it crosses a process boundary.

    Args:
        video: the video.
        out: the Parquet file to write, path or URI; it appears when it is whole.
        model: the estimator's file.
        estimator: its name.
        smoothing: see `estimators.named`.
        looks: see there.
        people: see there.
        stride: observe every stride-th frame.
        threads: with 2 or more, decoding has one of its own.
        on_progress: called with the number of frames so far.

    Raises:
        UserError: it is not a video, truncated, or nothing in it can be decoded; nothing is written.
    """
    chosen = named(estimator, model, smoothing=smoothing, looks=looks, people=people)
    return dataclasses.asdict(_observe(Path(video), out, chosen, stride, threads, on_progress))


@dataclasses.dataclass(frozen=True, slots=True)
class _Watched:
    """What came of the frames of a video, one of each for a frame."""

    numbers: list[int]
    timestamps: list[int]
    damaged: list[bool]
    begins: list[bool]  # whether a scene does
    sizes: list[tuple[int, int, int]]  # (frame, width, height) wherever the shown picture has another size than before
    people: list[list[Observation | None]]  # of each person, one for each frame


def gathered(observations: list[Observation | None], name: str, *shape: int) -> np.ndarray:
    """(F, …) of one field of a person's observations; zeros where they are not seen."""
    values = np.zeros((len(observations), *shape), dtype=np.float32)
    for row, observation in enumerate(observations):
        if observation is not None:
            values[row] = getattr(observation, name)
    return values


def _observe(
    source: Path, out: str, estimator: Estimator, stride: int, threads: int, on_progress: Callable[[int], None]
) -> Observed:
    started = time.perf_counter()
    info = video.probe(source)
    notes = list(info.notes)
    watched = _watched(video.frames(source, stride, notes.append), estimator, threads, on_progress)
    schema = records.OBSERVATIONS
    if estimator.info.looks > 1:
        schema = schema.append(records.LOOKS_DIFFER)
    table = pa.concat_tables(
        records.table(schema, _columns(source, watched, observations, person, estimator.info.looks > 1))
        for person, observations in enumerate(watched.people)
    )
    detected = np.any([[o is not None for o in observations] for observations in watched.people], axis=0)
    count = len(watched.numbers)
    fps, uneven = frame_rate(np.array(watched.timestamps), info.fps, stride)
    notes += [uneven] if uneven else []
    if len(watched.sizes) > 1:
        notes.append("its pictures change their size on the way: points are pixels of each frame's own picture")
    metadata = {
        "estimator": dataclasses.asdict(estimator.info), "stride": stride, "fps": fps,
        "size": [info.width, info.height], "frames": count, "detected": int(detected.sum()),
        "clips": int(records.column(table, "clip").max()) + 1, "damaged": int(sum(watched.damaged)), "notes": notes,
    }  # fmt: skip
    if len(watched.sizes) > 1:
        metadata["sizes"] = watched.sizes
    if estimator.info.people > 1:
        metadata["people"] = len(watched.people)
    records.write_atomically(table, out, metadata)
    return Observed(count, int(detected.sum()), time.perf_counter() - started, tuple(notes))


def _columns(
    source: Path, watched: _Watched, observations: list[Observation | None], person: int, two_looks: bool
) -> dict[str, Any]:
    """Of one person: a row for each frame."""
    detected = np.array([o is not None for o in observations])
    world, image = gathered(observations, "world", NUM_LANDMARKS, 3), gathered(observations, "image", NUM_LANDMARKS, 2)
    clip = clips.clip_numbers(np.array(watched.timestamps), detected, world, image, np.array(watched.begins))
    sequence, camera = _sequence_and_camera(source)
    count = len(observations)
    columns = {
        "video": [files.plain_name(source.stem)] * count, "sequence": [sequence] * count, "camera": [camera] * count,
        "frame": watched.numbers, "timestamp_us": watched.timestamps, "detected": detected, "world": world, "image": image,
        "visibility": gathered(observations, "visibility", NUM_LANDMARKS),
        "presence": gathered(observations, "presence", NUM_LANDMARKS), "clip": clip, "damaged": watched.damaged,
        "person": [person] * count,
    }  # fmt: skip
    if two_looks:
        columns["looks_differ"] = gathered(observations, "looks_differ", NUM_LANDMARKS, 3)
    return columns


def _watched(
    frames: Iterator[video.Frame], estimator: Estimator, threads: int, on_progress: Callable[[int], None]
) -> _Watched:
    """Every frame through the estimator; what it tracks and smooths ends with each scene."""
    watched, cuts = _Watched([], [], [], [], [], []), CutFinder()
    with _Alone(estimator) if estimator.info.people == 1 else _Together(estimator) as watching:
        for frame in ahead(frames, as_rgb=estimator.reads_rgb) if threads > 1 else frames:
            watched.numbers.append(frame.index)
            watched.timestamps.append(frame.timestamp_us)
            watched.damaged.append(frame.damaged)
            watched.begins.append(cuts.begins(frame) | frame.joined)
            if not watched.sizes or watched.sizes[-1][1:] != frame.size:
                watched.sizes.append((frame.index, *frame.size))
            watching.see(frame, watched.begins[-1])
            on_progress(len(watched.numbers))
        watched.people.extend(watching.people(watched))
    return watched


class _Alone(contextlib.ExitStack):
    """One person."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self._estimator, self._observations = estimator, list[Observation | None]()
        self._watching = self.enter_context(estimator.open())

    def see(self, frame: video.Frame, begins: bool) -> None:
        if begins:
            self.close()
            self._watching = self.enter_context(self._estimator.open())
        self._observations.append(self._watching.estimate(frame))

    def people(self, watched: _Watched) -> list[list[Observation | None]]:
        return [self._observations]


class _Together(contextlib.ExitStack):
    """Several people, who are told apart when all is seen."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self._crowd, self._most = estimator.crowd(), estimator.info.people
        self._sightings: list[list[Sighting]] = []

    def see(self, frame: video.Frame, begins: bool) -> None:
        if begins:
            self._crowd.scene()
        self._sightings.append(self._crowd.everybody(frame))

    def people(self, watched: _Watched) -> list[list[Observation | None]]:
        from refiner.estimators.people import told_apart  # with SciPy, for which one person need not wait

        return told_apart(self._sightings, np.array(watched.timestamps), np.array(watched.begins), self._most)


def ahead(frames: Iterator[video.Frame], as_rgb: bool = False) -> Iterator[video.Frame]:
    """The same frames, decoded on a thread of their own, a few ahead of whoever takes them.

    FFmpeg and the networks let go of Python's lock, so that both work at once where a core is free.

    Args:
        frames: of a video.
        as_rgb: whether they are converted there, too.
    """
    done, left = object(), threading.Event()
    decoded: queue.Queue[Any] = queue.Queue(AHEAD)

    def put(item: object) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                return decoded.put(item, timeout=0.1)

    def decode() -> None:
        try:
            for frame in frames:
                if as_rgb:
                    _ = frame.rgb  # which the frame keeps
                put(frame)
                if left.is_set():
                    return
            put(done)
        except BaseException as error:  # whatever it is, it is the taker's to see
            put(error)

    thread = threading.Thread(target=decode, name="decoding", daemon=True)
    thread.start()
    try:
        while (item := decoded.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        thread.join()


def _sequence_and_camera(source: Path) -> tuple[str, str]:
    """From an AIST++ name; of another video its own name and no camera."""
    try:
        name = Name.parse(source.stem)
    except UserError:
        return files.plain_name(source.stem), ""
    return name.sequence, name.camera


def is_done(path: str | Path, estimator: EstimatorInfo, stride: int) -> bool:
    """Whether a file of observations (path or URI) is there, whole, readable, and made by this very estimator."""
    try:
        metadata = records.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return (
        metadata.get("schema_version") in records.READABLE
        and EstimatorInfo.of(json.loads(metadata.get("estimator", "{}"))) == estimator
        and json.loads(metadata.get("stride", "0")) == stride
    )
