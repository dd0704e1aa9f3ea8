"""NPZ: plain arrays, for NumPy."""

from pathlib import Path

import numpy as np

from refiner.formats.motion import Motion
from refiner.skeleton import JOINTS


def write(motion: Motion, path: Path) -> None:
    """Writes `poses` (N, 17, 3) m, `confidence` (N, 17), `frames`, `timestamps_us` (N,), `fps` and `joint_names` (17,)."""
    np.savez_compressed(
        path,
        poses=motion.joints.astype(np.float32),
        confidence=motion.confidence.astype(np.float32),
        frames=motion.frames,
        timestamps_us=motion.timestamps_us,
        fps=np.float64(motion.fps),
        joint_names=np.array(JOINTS),
    )
