"""JSON: every frame with its pose and confidence, for programs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from refiner.formats.motion import Motion
from refiner.skeleton import JOINTS


def write(motions: Sequence[Motion], path: Path) -> None:
    """Writes `{"name", "fps", "joints", "unit", "axes", "frames": [{"frame", "time_s", "pose", "confidence"}]}`; of several
    people each frame has its "person", too.
    """
    content = {
        "name": motions[0].name,
        "fps": motions[0].fps,
        "joints": JOINTS,
        "unit": "m",
        "axes": "x to the image's right, y up, z towards the camera",
        "frames": [frame for motion in motions for frame in _frames(motion)],
    }
    path.write_bytes(orjson.dumps(content))


def _frames(motion: Motion) -> Iterator[dict[str, object]]:
    person = {} if motion.person is None else {"person": motion.person}
    rows = zip(motion.frames, motion.seconds.round(6), motion.joints, motion.confidence.astype(float), strict=True)
    for frame, time, pose, sure in rows:
        place = {"pose": pose.round(5).tolist(), "confidence": sure.round(3).tolist()}
        yield {**person, "frame": int(frame), "time_s": float(time), **place}
