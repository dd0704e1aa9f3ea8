"""A file of observations refined: what the job `rayjobs.refine` and the command `refiner video` share."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from refiner.data import clips, records
from refiner.inference.depth_refiner import Refinement
from refiner.skeleton import HIPS, to_coco

# (N, 2) pixels -> (N,) degrees by which the line of sight there looks down.
PitchAt = Callable[[np.ndarray], np.ndarray]


class Refiner(Protocol):
    """A `DepthRefiner`, or what stands for one."""

    def predict(
        self,
        poses: np.ndarray,
        visibility: np.ndarray,
        *,
        image_points: np.ndarray,
        sequence: bool,
        timestamps_us: np.ndarray,
        clip: np.ndarray,
        recognise: bool,
        camera_pitch: np.ndarray | None = None,
    ) -> Refinement: ...


def refined_observations(refiner: Refiner, seen: pa.Table, pitch_at: PitchAt | None = None) -> pa.Table:
    """Observations of one video as refined poses; frames in which a person is not seen are left out.

    Args:
        refiner: the model.
        seen: of `records.OBSERVATIONS`.
        pitch_at: how far the camera looks down where the hips are in the picture, where that is known.

    Returns:
        Of `records.REFINED`, one person after the other; every clip is refined by itself.

    Raises:
        UserError: the observations are not poses.
    """
    parts = [_person(refiner, rows, number, pitch_at) for number, rows in records.by_person(seen).items()]
    return pa.concat_tables(parts) if parts else records.REFINED.empty_table()


def _person(refiner: Refiner, seen: pa.Table, number: int, pitch_at: PitchAt | None) -> pa.Table:
    detected = records.column(seen, "detected")
    clip = clips.of_observations(seen)[detected]
    seen = seen.filter(detected)
    columns: dict[str, Any] = {n: seen.column(n).to_pylist() for n in ("video", "sequence", "camera")}
    columns |= {n: records.column(seen, n) for n in ("frame", "timestamp_us")}
    if not len(seen):
        return records.REFINED.empty_table()
    image = records.column(seen, "image")
    known = {} if pitch_at is None else {"camera_pitch": pitch_at(to_coco(image)[:, HIPS].mean(1))}
    answer = refiner.predict(
        records.column(seen, "world"),
        records.column(seen, "visibility"),
        image_points=image,
        sequence=True,
        timestamps_us=records.column(seen, "timestamp_us"),
        clip=clip,
        recognise=False,  # the project's own
        **known,
    )
    columns |= {
        "pose": answer.poses,
        "confidence": answer.confidence,
        "view_angle": answer.view_angle,
        "azimuth": answer.azimuth,
        "clip": clip,
        "person": np.full(len(clip), number),
    }
    return records.table(records.REFINED, columns)
