"""JSON: every frame with its pose and confidence, for programs."""

from pathlib import Path

import orjson

from refiner.formats.motion import Motion
from refiner.skeleton import JOINTS


def write(motion: Motion, path: Path) -> None:
    """Writes `{"name", "fps", "joints", "unit", "axes", "frames": [{"frame", "time_s", "pose", "confidence"}]}`."""
    content = {
        "name": motion.name,
        "fps": motion.fps,
        "joints": JOINTS,
        "unit": "m",
        "axes": "x to the image's right, y up, z towards the camera",
        "frames": [
            {
                "frame": int(frame),
                "time_s": float(time),
                "pose": pose.round(5).tolist(),
                "confidence": c.round(3).tolist(),
            }
            for frame, time, pose, c in zip(
                motion.frames, motion.seconds.round(6), motion.joints, motion.confidence.astype(float), strict=True
            )
        ],
    }
    path.write_bytes(orjson.dumps(content))
