"""What a video has become: figures for the table, and the columns that its file has beside the usual ones.

Apart from `work`, so that the command starts without what only its child process needs.
"""

from dataclasses import dataclass

import pyarrow as pa

from refiner.skeleton import NUM_JOINTS

RESULT, OVERLAY = ".refined.parquet", ".overlay.mp4"  # behind a video's name

# What `refiner video` adds to `records.REFINED`: where the joints are in the room (m: y up, the floor at 0, z towards the
# camera), the estimator's own pose (m, as `pose`), and where it saw the joints in the picture (pixels).
ROOM, OBSERVED, POINTS = (
    pa.field(name, pa.list_(pa.float32(), NUM_JOINTS * numbers))
    for name, numbers in (("room", 3), ("observed", 3), ("points", 2))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What became of one video; figures before and after are MediaPipe's and the refined ones, over all people."""

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
    people: int = 1
    estimator: str = ""  # that found the landmarks
