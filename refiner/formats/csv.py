"""CSV: a row per frame, a column per coordinate, for spreadsheets."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refiner.formats.motion import Motion
from refiner.skeleton import JOINTS


def write(motions: Sequence[Motion], path: Path) -> None:
    """Writes the columns frame, time_s and, for each joint, `<joint>_x_m`, `_y_m`, `_z_m` and `_confidence`; of several people
    first the column person.
    """
    heads = ["frame", "time_s"] + [
        f"{joint}_{part}" for joint in JOINTS for part in ("x_m", "y_m", "z_m", "confidence")
    ]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(heads if motions[0].person is None else ["person", *heads])
        for motion in motions:
            person = [] if motion.person is None else [motion.person]
            cells = np.concatenate([motion.joints, motion.confidence[..., None]], axis=-1).reshape(len(motion), -1)
            for frame, time, row in zip(motion.frames, motion.seconds, cells, strict=True):
                rows.writerow([*person, int(frame), f"{time:.6f}", *(f"{value:.5f}" for value in row)])
