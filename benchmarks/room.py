"""The person in the room: root path, standing feet and floor of `refiner.inference.room`, against a dataset's exact truth.

    python -m benchmarks.room --dataset data/studio --observations data/observations

The dataset is one of `rayjobs.studio` (or AIST++ itself), extracted. Each video is refined by the model in the box and placed
with the lens that filmed it, or with `--fov`. A table; the last line is one JSON object.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from refiner import DepthRefiner, UserError, files, geometry
from refiner.command import launch, log
from refiner.data.aistpp import Dataset, Name
from refiner.data.pairing import read_observations
from refiner.evaluation import metrics
from refiner.inference import room
from refiner.inference.feet import ANKLES
from refiner.inference.room import Lens
from refiner.skeleton import hips_midpoint, to_coco

UP = np.array([0.0, 1.0, 0.0])  # of AIST++'s world


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    dataset: str
    """Root of the dataset."""
    observations: str
    """Folder of its observations."""
    fov: float | None = None
    """The lens's angle of view along the longer side, degrees; the calibrated one by default."""
    model: str = ""
    """A checkpoint's folder or models:/…; the model in the box by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of one video, or the medians over all."""

    root_path_error: float  # after aligning scale: mean distance from the true path, as a share of that from the camera
    floor_tilt_deg: float
    standing_share: float  # of the frames and feet that truly stand
    slide_before_m_s: float  # speed of feet that truly stand: the root's smoothed path and the refined pose
    slide_after_m_s: float  # the same as placed
    depth_change_mm: float  # mean |Δz| about the hips, placed minus refined
    mpjpe_change_mm: float
    path_change_m: float  # how far the anchored path is from the seen one, mean


def run(options: Options) -> dict[str, object]:
    dataset, refiner = Dataset(options.dataset), DepthRefiner(options.model or None)
    rows: dict[str, Figures] = {}
    for file in files.find(options.observations, {".parquet"}):
        name = Name.parse(file.name)
        if (figures := measure(dataset, name, file.where, refiner, options.fov)) is not None:
            rows[file.name] = figures
            log(f"{file.name}: " + ", ".join(f"{k} {v:.3f}" for k, v in dataclasses.asdict(figures).items()))
    if not rows:
        raise UserError(f"{options.observations} holds no observations of {options.dataset} in which somebody stands")
    names = [f.name for f in dataclasses.fields(Figures)]
    summary = {n: float(np.median([getattr(f, n) for f in rows.values()])) for n in names}
    summary |= {f"{n}_mean": float(np.mean([getattr(f, n) for f in rows.values()])) for n in names}
    return {"videos": len(rows), **summary}


def measure(dataset: Dataset, name: Name, path: str, refiner: DepthRefiner, fov: float | None) -> Figures | None:
    """One video; None where nobody stands for long enough to say anything."""
    seen = read_observations(path)
    camera = dataset.cameras(name.sequence)[name.camera]
    truth_world = dataset.keypoints3d(name.sequence)  # (F, 17, 3) m
    moments = np.round(seen["timestamp_us"] * 60e-6).astype(int)
    usable = seen["detected"] & (moments < len(truth_world))
    rows = np.flatnonzero(usable)
    if len(rows) < 10:
        return None
    truth_world = truth_world[moments[rows]]
    truth = camera.to_camera(truth_world)
    world, image, visibility = (seen[key][rows] for key in ("world", "image", "visibility"))
    times = seen["timestamp_us"][rows]
    seconds, clips = times * 1e-6, np.zeros(len(rows), dtype=np.int64)
    answer = refiner.predict(world, visibility, image_points=image, sequence=True, timestamps_us=times)
    points, weights = to_coco(image), to_coco(visibility[..., None])[..., 0]
    lens = (
        Lens(focal=float(camera.matrix[0, 0]), centre=(float(camera.matrix[0, 2]), float(camera.matrix[1, 2])))
        if fov is None
        else Lens.of_fov(camera.size, fov)
    )
    placed = room.stand(answer.poses, points, weights, lens, seconds, clips)
    turned = room.camera_poses(answer.poses.astype(float), points, lens)
    path = room.smoothed_path(room.root_path(turned, points, weights, lens), turned, points, lens, seconds, clips)
    in_camera = (placed.joints + placed.origin) @ placed.turn
    root, true_root = hips_midpoint(in_camera)[:, 0], hips_midpoint(truth)[:, 0]
    scale = (root * true_root).sum() / (root * root).sum()
    ankles = truth_world[:, ANKLES]
    still = room.speeds(ankles, seconds, clips) < 0.1
    still &= ankles[..., 1] < np.quantile(ankles[..., 1], 0.05) + 0.06
    if still.sum() < 10:
        return None

    def slide(joints: np.ndarray) -> float:
        return float(room.speeds(joints[:, ANKLES], seconds, clips)[still].mean() * scale)

    reference = geometry.to_virtual_camera(truth)
    after = geometry.to_virtual_camera(in_camera)
    return Figures(
        root_path_error=float(np.linalg.norm(scale * root - true_root, axis=-1).mean() / true_root[:, 2].mean()),
        floor_tilt_deg=float(np.degrees(np.arccos(np.clip(placed.floor.normal @ camera.rotation @ UP, -1, 1)))),
        standing_share=float(placed.standing[still].mean()),
        slide_before_m_s=slide(turned + path[:, None]),
        slide_after_m_s=slide(in_camera),
        depth_change_mm=1000
        * float((metrics.depth_error(after, reference) - metrics.depth_error(answer.poses, reference)).mean()),
        mpjpe_change_mm=1000
        * float((metrics.joint_error(after, reference) - metrics.joint_error(answer.poses, reference)).mean()),
        path_change_m=float(np.linalg.norm(hips_midpoint(in_camera)[:, 0] - path, axis=-1).mean()),
    )


if __name__ == "__main__":
    launch(run, Options)
