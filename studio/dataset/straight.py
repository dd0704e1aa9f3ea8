"""A sequence filmed straight into MediaPipe's landmark network: pairs of it, without a video.

Every frame is looked at twice, as a crop and as its mirror image, and kept as three estimators would have seen it: through
MediaPipe's filters with one look, one look without filters, and the mean of two. Used by `rayjobs.film`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from refiner.data import records
from refiner.data.aistpp import FPS
from refiner.data.pairing import pair_video
from refiner.data.records import Pairs, Seen
from refiner.errors import UserError
from refiner.estimators.base import Observation
from refiner.estimators.blazepose.estimator import BlazePose, answered
from refiner.estimators.blazepose.tracking import Filtering, Sight
from refiner.skeleton import NUM_LANDMARKS
from studio.cameras import FLOOR
from studio.dataset.take import Take
from studio.pictures.renderer import Renderer
from studio.pictures.viewfinder import Viewfinder


def estimator(model: str = "full") -> BlazePose:
    """What looks: MediaPipe's networks, twice at each crop, their answers as they are.

    Args:
        model: lite, full, heavy, or the path of a `.task` file.
    """
    return BlazePose(model, smoothing="none", looks=2)


@dataclass(frozen=True, slots=True)
class Filmed:
    """What became of one sequence."""

    pairs: pa.Table | None  # as `records.seen_otherwise`, by camera and frame; None where no camera gives any
    frames: int  # that were drawn
    detected: int  # of them with a person
    problems: dict[str, str]  # cameras whose frames cannot be paired: why


def film(take: Take, estimator: BlazePose) -> Filmed:
    """Films a sequence with all the cameras that film it."""
    cameras = take.filming
    seen = dict(zip(cameras, zip(*sights(take, cameras, estimator), strict=True), strict=True))
    truth = take.joints(np.arange(take.spec.annotations) / FPS)
    tables: list[pa.Table] = []
    problems: dict[str, str] = {}
    for camera, frames in seen.items():
        try:
            pairs: dict[Seen, Pairs] = {}
            for way, observations in _ways(frames).items():
                name, lens = take.name.with_camera(camera), take.cameras[camera]
                pairs_of_way = pair_video(_observations(observations, take), name, truth, lens).pairs
                if pairs_of_way is not None:
                    pairs[way] = pairs_of_way
        except UserError as error:
            problems[camera] = str(error)
            continue
        if pairs:  # in all ways, or in none
            tables.append(records.seen_otherwise(pairs))
        else:
            problems[camera] = "nobody detected"
    detected = sum(sight is not None for frames in seen.values() for sight in frames)
    return Filmed(pa.concat_tables(tables) if tables else None, len(cameras) * take.spec.frames, detected, problems)


def sights(take: Take, cameras: Sequence[str], estimator: BlazePose) -> Iterator[list[Sight | None]]:
    """Frame by frame what is seen through each of these cameras."""
    renderer = Renderer(take.dancer, take.room.light, FLOOR)
    kinds = [take.footage(camera) for camera in cameras]
    finders = [
        Viewfinder(take.room, take.cameras[camera], kind, take.spec.fps)
        for camera, kind in zip(cameras, kinds, strict=True)
    ]
    detect, look = estimator.networks
    trackers = [estimator.tracker(detect) for _ in cameras]
    for i, (posed, timestamp) in enumerate(zip(take.exposures(renderer, kinds), timestamps_us(take), strict=True)):
        yield [
            tracker.seen(answered(look, tracker.look(finder.at(renderer, posed[kind.shutter], i), int(timestamp))))
            for finder, kind, tracker in zip(finders, kinds, trackers, strict=True)
        ]


def timestamps_us(take: Take) -> np.ndarray:
    """(F,) int64 of the frames of a take, microseconds."""
    return np.rint(np.arange(take.spec.frames) * (1e6 / take.spec.fps)).astype(np.int64)


def _ways(frames: Sequence[Sight | None]) -> dict[Seen, list[Observation | None]]:
    """What one camera's frames show, in every way that they are kept."""
    filtering = Filtering()
    return {
        "mediapipe": [filtering(sight, 1) for sight in frames],
        "raw": [None if sight is None else sight.observed(1) for sight in frames],
        "two_looks": [None if sight is None else sight.observed(2) for sight in frames],
    }


def _observations(observations: Sequence[Observation | None], take: Take) -> dict[str, np.ndarray]:
    """As `pair_video` takes them."""
    count = len(observations)
    arrays = {
        "frame": np.arange(count, dtype=np.int32),
        "timestamp_us": timestamps_us(take),
        "detected": np.array([o is not None for o in observations]),
        "world": np.zeros((count, NUM_LANDMARKS, 3), np.float32),
        "image": np.zeros((count, NUM_LANDMARKS, 2), np.float32),
        "visibility": np.zeros((count, NUM_LANDMARKS), np.float32),
        "size": np.array(take.spec.size),
    }
    for i, observation in enumerate(observations):
        for name in ("world", "image", "visibility") if observation is not None else ():
            arrays[name][i] = getattr(observation, name)
    return arrays
