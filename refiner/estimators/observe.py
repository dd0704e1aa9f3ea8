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
from refiner.data.cuts import CutFinder
from refiner.errors import UserError
from refiner.estimators import DEFAULT, named
from refiner.estimators.base import Estimator, EstimatorInfo, Smoothing
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
    stride: int = 1,
    threads: int = 1,
    on_progress: Callable[[int], None] = lambda frames: None,
) -> dict[str, float]:
    """Observes a whole video and writes its file. `Observed` as a dict, for it crosses a process boundary.

    Args:
        video: the video.
        out: the Parquet file to write, path or URI; it appears when it is whole.
        model: the estimator's file.
        estimator: its name.
        smoothing, looks: see `estimators.named`.
        stride: observe every stride-th frame.
        threads: with 2 or more, decoding has one of its own.
        on_progress: called with the number of frames so far.

    Raises:
        UserError: it is no video, truncated, or nothing in it can be decoded; nothing is written.
    """
    chosen = named(estimator, model, smoothing=smoothing, looks=looks)
    return dataclasses.asdict(_observe(Path(video), out, chosen, stride, threads, on_progress))


def _observe(
    source: Path, out: str, estimator: Estimator, stride: int, threads: int, on_progress: Callable[[int], None]
) -> Observed:
    started = time.perf_counter()
    info = video.probe(source)
    sequence, camera = _sequence_and_camera(source)
    numbers, timestamps, observations, begins, damaged, notes = [], [], [], [], [], list(info.notes)
    cuts = CutFinder()
    with contextlib.ExitStack() as stack:
        watching = stack.enter_context(estimator.open())
        frames = video.frames(source, stride, notes.append)
        for frame in ahead(frames) if threads > 1 else frames:
            numbers.append(frame.index)
            timestamps.append(frame.timestamp_us)
            damaged.append(frame.damaged)
            begins.append(cuts.begins(frame) | frame.joined)
            if begins[-1]:  # what it tracks and smooths ends with the scene
                stack.close()
                watching = stack.enter_context(estimator.open())
            observations.append(watching.estimate(frame))
            on_progress(len(numbers))
    detected = np.array([o is not None for o in observations])

    def gathered(name: str, *shape: int) -> np.ndarray:
        values = np.zeros((len(observations), *shape), dtype=np.float32)
        if detected.any():
            values[detected] = [getattr(o, name) for o in observations if o is not None]
        return values

    world, image = gathered("world", NUM_LANDMARKS, 3), gathered("image", NUM_LANDMARKS, 2)
    clip = clips.clip_numbers(np.array(timestamps), detected, world, image, np.array(begins))
    columns = {
        "video": [files.plain_name(source.stem)] * len(numbers),
        "sequence": [sequence] * len(numbers),
        "camera": [camera] * len(numbers),
        "frame": numbers,
        "timestamp_us": timestamps,
        "detected": detected,
        "world": world,
        "image": image,
        "visibility": gathered("visibility", NUM_LANDMARKS),
        "presence": gathered("presence", NUM_LANDMARKS),
        "clip": clip,
        "damaged": damaged,
    }
    metadata = {
        "estimator": dataclasses.asdict(estimator.info),
        "stride": stride,
        "fps": info.fps,
        "size": [info.width, info.height],
        "frames": len(numbers),
        "detected": int(detected.sum()),
        "clips": int(clip[-1]) + 1,
        "damaged": int(sum(damaged)),
        "notes": notes,
    }
    schema = records.OBSERVATIONS
    if estimator.info.looks > 1:
        schema = schema.append(records.LOOKS_DIFFER)
        columns["looks_differ"] = gathered("looks_differ", NUM_LANDMARKS, 3)
    records.write_atomically(records.table(schema, columns), out, metadata)
    return Observed(len(numbers), int(detected.sum()), time.perf_counter() - started, tuple(notes))


def ahead(frames: Iterator[video.Frame]) -> Iterator[video.Frame]:
    """The same frames, decoded on a thread of their own, a few ahead of whoever takes them.

    FFmpeg and the networks let go of Python's lock, so that both work at once where a core is free.
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
