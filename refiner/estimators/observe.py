"""One video in, one file of observations out: decoded, converted and estimated frame by frame, written when whole."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from refiner.data import records, video
from refiner.data.aistpp import Name
from refiner.errors import UserError
from refiner.estimators import DEFAULT, named
from refiner.estimators.base import Estimator, EstimatorInfo
from refiner.skeleton import NUM_LANDMARKS


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """What became of one video."""

    frames: int
    detected: int  # frames with a person
    seconds: float  # of work


def observe(
    *,
    video: str,
    out: str,
    model: str,
    estimator: str = DEFAULT,
    stride: int = 1,
    on_progress: Callable[[int], None] = lambda frames: None,
) -> dict[str, float]:
    """Observes a whole video and writes its file. `Observed` as a dict, for it crosses a process boundary.

    Args:
        video: the video.
        out: the Parquet file to write, path or URI; it appears when it is whole.
        model: the estimator's file.
        estimator: its name.
        stride: observe every stride-th frame.
        on_progress: called with the number of frames so far.

    Raises:
        UserError: it is no video, truncated, or nothing in it can be decoded; nothing is written.
    """
    return dataclasses.asdict(_observe(Path(video), out, named(estimator, model), stride, on_progress))


def _observe(source: Path, out: str, estimator: Estimator, stride: int, on_progress: Callable[[int], None]) -> Observed:
    started = time.perf_counter()
    info = video.probe(source)
    sequence, camera = _sequence_and_camera(source)
    numbers, timestamps, observations = [], [], []
    with estimator.open() as watching:
        for frame in video.frames(source, stride):
            numbers.append(frame.index)
            timestamps.append(frame.timestamp_us)
            observations.append(watching.estimate(frame))
            on_progress(len(numbers))
    detected = np.array([o is not None for o in observations])

    def gathered(name: str, *shape: int) -> np.ndarray:
        values = np.zeros((len(observations), *shape), dtype=np.float32)
        if detected.any():
            values[detected] = [getattr(o, name) for o in observations if o is not None]
        return values

    columns = {
        "video": [source.stem] * len(numbers),
        "sequence": [sequence] * len(numbers),
        "camera": [camera] * len(numbers),
        "frame": numbers,
        "timestamp_us": timestamps,
        "detected": detected,
        "world": gathered("world", NUM_LANDMARKS, 3),
        "image": gathered("image", NUM_LANDMARKS, 2),
        "visibility": gathered("visibility", NUM_LANDMARKS),
        "presence": gathered("presence", NUM_LANDMARKS),
    }
    metadata = {
        "estimator": dataclasses.asdict(estimator.info),
        "stride": stride,
        "fps": info.fps,
        "size": [info.width, info.height],
        "frames": len(numbers),
        "detected": int(detected.sum()),
    }
    records.write_atomically(records.table(records.OBSERVATIONS, columns), out, metadata)
    return Observed(len(numbers), int(detected.sum()), time.perf_counter() - started)


def _sequence_and_camera(source: Path) -> tuple[str, str]:
    """From an AIST++ name; of another video its own name and no camera."""
    try:
        name = Name.parse(source.stem)
    except UserError:
        return source.stem, ""
    return name.sequence, name.camera


def is_done(path: str | Path, estimator: EstimatorInfo, stride: int) -> bool:
    """Whether a file of observations (path or URI) is there, whole, of this version, and made by this very estimator."""
    try:
        metadata = records.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return (
        metadata.get("schema_version") == str(records.SCHEMA_VERSION)
        and EstimatorInfo.of(json.loads(metadata.get("estimator", "{}"))) == estimator
        and json.loads(metadata.get("stride", "0")) == stride
    )
