"""A file of observations refined: what the job `rayjobs.refine` and the command `refiner video` share."""

from typing import Any

import pyarrow as pa

from refiner.data import clips, records
from refiner.inference.depth_refiner import DepthRefiner


def refined_observations(refiner: DepthRefiner, seen: pa.Table) -> pa.Table:
    """Observations of one video as refined poses; frames without a person are left out.

    Args:
        refiner: the model.
        seen: of `records.OBSERVATIONS`.

    Returns:
        Of `records.REFINED`; every clip is refined by itself.

    Raises:
        UserError: the observations are no poses.
    """
    detected = records.column(seen, "detected")
    clip = clips.of_observations(seen)[detected]
    seen = seen.filter(detected)
    columns: dict[str, Any] = {n: seen.column(n).to_pylist() for n in ("video", "sequence", "camera")}
    columns |= {n: records.column(seen, n) for n in ("frame", "timestamp_us")}
    if not len(seen):
        return records.REFINED.empty_table()
    answer = refiner.predict(
        records.column(seen, "world"),
        records.column(seen, "visibility"),
        image_points=records.column(seen, "image"),
        sequence=True,
        timestamps_us=records.column(seen, "timestamp_us"),
        clip=clip,
        recognise=False,  # the project's own
    )
    columns |= {
        "pose": answer.poses,
        "confidence": answer.confidence,
        "view_angle": answer.view_angle,
        "azimuth": answer.azimuth,
        "clip": clip,
    }
    return records.table(records.REFINED, columns)
