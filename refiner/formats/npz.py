"""NPZ: plain arrays, for NumPy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refiner.formats.motion import Motion
from refiner.skeleton import JOINTS


def write(motions: Sequence[Motion], path: Path) -> None:
    """Writes `poses` (N, 17, 3) m, `confidence` (N, 17), `frames`, `timestamps_us` (N,), `fps` and `joint_names` (17,); of
    several people, one after the other, also `person` (N,).
    """
    columns = {
        "poses": np.concatenate([motion.joints for motion in motions]).astype(np.float32),
        "confidence": np.concatenate([motion.confidence for motion in motions]).astype(np.float32),
        "frames": np.concatenate([motion.frames for motion in motions]),
        "timestamps_us": np.concatenate([motion.timestamps_us for motion in motions]),
    }
    if motions[0].person is not None:
        columns["person"] = np.concatenate([np.full(len(motion), motion.person) for motion in motions])
    np.savez_compressed(path, **columns, fps=np.float64(motions[0].fps), joint_names=np.array(JOINTS))
