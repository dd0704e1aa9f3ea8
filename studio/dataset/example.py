"""The clip that the endpoint's page begins with: a rendered dancer, what MediaPipe sees of them, and the truth.

    python -m studio.dataset.example --out serve/page/clip

The two files lie in git: they are small, and a page that plays at once should need no MediaPipe.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refiner.command import launch
from refiner.data import records, video
from refiner.data.video import VideoWriter
from refiner.errors import UserError
from refiner.estimators import named
from refiner.estimators.observe import observe
from refiner.geometry import to_virtual_camera
from studio.dataset.layout import plan
from studio.dataset.spec import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    out: str
    """Folder of clip.mp4 and clip.json."""
    seconds: float = 3.0
    fps: float = 30.0
    seed: int = 23
    number: int = 1
    """Of the sequence among those of the seed; number 1 is of the test split."""
    camera: str = "c02"
    size: tuple[int, int] = (640, 480)
    crf: int = 30
    """Quality of the small video; MediaPipe sees the large one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    frames: int
    with_person: int
    bytes: int


def run(options: Options) -> Summary:
    """Films and observes one clip, and writes video, landmarks and truth into --out.

    Raises:
        UserError: MediaPipe misses a frame of it.
    """
    spec = Spec(
        sequences=options.number + 1, seconds=options.seconds, fps=options.fps, seed=options.seed, size=options.size,
        bodies="makehuman",
    )  # fmt: skip
    take = plan(spec)[options.number]
    out = Path(options.out)
    with tempfile.TemporaryDirectory() as scratch:
        take.film(Path(scratch), [options.camera])
        path, seen = take.video(Path(scratch), options.camera), Path(scratch, "seen.parquet")
        observe(video=str(path), out=str(seen), model=str(named("mediapipe").model))
        table = records.read_table(seen, records.OBSERVATIONS)
        with VideoWriter(out / "clip.mp4", options.size, options.fps, crf=options.crf, preset="veryslow") as writer:
            for frame in video.frames(path):
                writer.write(frame.rgb)
    detected = records.column(table, "detected")
    if not detected.all():
        raise UserError(f"MediaPipe misses {np.count_nonzero(~detected)} frames of that clip: choose another --seed")
    joints = take.joints(np.arange(spec.frames) / options.fps)
    truth = to_virtual_camera(take.cameras[options.camera].to_camera(joints))
    (out / "clip.json").write_text(json.dumps(content(table, truth, options), separators=(",", ":")) + "\n")
    size = sum((out / name).stat().st_size for name in ("clip.mp4", "clip.json"))
    return Summary(frames=len(detected), with_person=int(detected.sum()), bytes=size)


def content(table: Any, truth: np.ndarray, options: Options) -> dict[str, Any]:
    """What `POST /v1/refine` takes, and beside it the truth and the picture's size; in millimetres and tenths of a pixel."""

    def rounded(values: np.ndarray, digits: int) -> list[Any]:
        return values.astype(np.float64).round(digits).tolist()

    return {
        "fps": options.fps,
        "size": list(options.size),
        "poses": rounded(records.column(table, "world"), 3),
        "visibility": rounded(records.column(table, "visibility"), 2),
        "image_points": rounded(records.column(table, "image"), 1),
        "truth": rounded(truth, 3),
    }


if __name__ == "__main__":
    launch(run, Options)
