"""The person in the room, on the real person whom four calibrated cameras filmed: `benchmarks.room` with a triangulated truth.

    python -m benchmarks.room_real_people --videos data/real_people

Each camera's clip by itself, refined by the model in the box, placed by its own lens (without its distortion) or by `--fov`;
the truth is the root that all cameras see, and Qualisys's z is up. A yardstick: nothing is chosen by it. The last line is one
JSON object.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import real_people
from refiner import DepthRefiner
from refiner.command import launch, log
from refiner.data import multiview
from refiner.inference import room
from refiner.inference.room import Lens
from refiner.skeleton import hips_midpoint, to_coco


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder of the clips and their calibration."""
    estimator: str = "blazepose"
    """Or mediapipe."""
    fov: float | None = None
    """The lens's angle of view along the longer side, degrees; the calibrated one by default."""


def run(options: Options) -> dict[str, object]:
    given = real_people.Options(videos=options.videos, estimator=options.estimator)
    cameras = multiview.read_qualisys(Path(options.videos, real_people.CALIBRATION))
    observations = real_people.observed(given, cameras)
    cameras = [real_people.as_filmed(camera, seen) for camera, seen in zip(cameras, observations, strict=True)]
    truth, refiner = real_people.triangulated(cameras, observations, given), DepthRefiner()
    rows: dict[str, dict[str, float]] = {}
    for camera, seen, lag in zip(cameras, observations, truth.lags, strict=True):
        own = multiview.at_frames(truth.poses, seen["frame"] - lag)  # (N, 17, 3) m, world
        here = np.flatnonzero(seen["detected"] & np.isfinite(own).all((1, 2)))
        times = seen["timestamp_us"][here]
        world, image, visibility = (seen[key][here] for key in ("world", "image", "visibility"))
        answer = refiner.predict(world, visibility, image_points=image, sequence=True, timestamps_us=times)
        points, weights = to_coco(image), to_coco(visibility[..., None])[..., 0]
        focal, centre = float(camera.matrix[0, 0]), (float(camera.matrix[0, 2]), float(camera.matrix[1, 2]))
        lens = Lens(focal=focal, centre=centre) if options.fov is None else Lens.of_fov(camera.size, options.fov)
        placed = room.stand(answer.poses, points, weights, lens, times * 1e-6, np.zeros(len(here), dtype=np.int64))
        root = hips_midpoint((placed.joints + placed.origin) @ placed.turn)[:, 0]  # back in the camera's frame
        true_root = hips_midpoint(camera.to_camera(own[here]))[:, 0]
        scale = (root * true_root).sum() / (root * root).sum()
        rows[camera.name] = {
            "root_path_error": float(np.linalg.norm(scale * root - true_root, axis=-1).mean() / true_root[:, 2].mean()),
            "floor_tilt_deg": float(
                np.degrees(np.arccos(np.clip(placed.floor.normal @ camera.rotation @ multiview.Z_UP, -1, 1)))
            ),
            "camera_pitch_deg": float(np.degrees(np.arcsin((camera.rotation @ multiview.Z_UP)[2]))),
            "scale": float(scale),
        }
        log(f"{camera.name}: " + ", ".join(f"{name} {value:.3f}" for name, value in rows[camera.name].items()))
    names = next(iter(rows.values()))
    return {"cameras": len(rows), **{name: float(np.median([row[name] for row in rows.values()])) for name in names}}


if __name__ == "__main__":
    launch(run, Options)
