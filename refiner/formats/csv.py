"""CSV: a row per frame, a column per coordinate, for spreadsheets."""

import csv
from pathlib import Path

import numpy as np

from refiner.formats.motion import Motion
from refiner.skeleton import JOINTS


def write(motion: Motion, path: Path) -> None:
    """Writes the columns frame, time_s and, for each joint, `<joint>_x_m`, `_y_m`, `_z_m` and `_confidence`."""
    heads = ["frame", "time_s"] + [
        f"{joint}_{part}" for joint in JOINTS for part in ("x_m", "y_m", "z_m", "confidence")
    ]
    cells = np.concatenate([motion.joints, motion.confidence[..., None]], axis=-1).reshape(len(motion), -1)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(heads)
        for frame, time, row in zip(motion.frames, motion.seconds, cells, strict=True):
            rows.writerow([int(frame), f"{time:.6f}", *(f"{value:.5f}" for value in row)])
