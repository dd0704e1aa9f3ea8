"""Carry-over to real people: how far off depth is for a person whom no model saw, against the triangulation of four views.

    python -m benchmarks.real_people --videos data/real_people

The folder holds one clip per camera (cam01.mp4 …) and their Qualisys calibration (Calib.qca.txt). **These clips are for
measuring only: nothing is trained, tuned or selected on them.** The truth is triangulated from the image points that
MediaPipe finds in the views: it has nothing of MediaPipe's depth, but MediaPipe's idea of where a joint is. One person and
1.7 s are few: intervals, by resampling blocks of time, say how sure a figure is for this clip, not for other people.
The last line is one JSON object.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from refiner import DepthRefiner, UserError, temporal
from refiner.command import launch, log
from refiner.data import aistpp, multiview
from refiner.data.multiview import Triangulated, at_frames
from refiner.data.pairing import pair_video, read_observations
from refiner.data.records import Pairs
from refiner.estimators import DEFAULT, named
from refiner.estimators.base import Smoothing
from refiner.estimators.observe import is_done, observe
from refiner.evaluation import baselines, metrics
from refiner.evaluation.confidence import confidence_summary
from refiner.evaluation.metrics import CM
from refiner.evaluation.style import LABELS
from refiner.geometry import Camera, virtual_camera_rotation
from refiner.model.network import CONFIDENT_WITHIN_M
from refiner.skeleton import hips_midpoint, to_coco

CALIBRATION = "Calib.qca.txt"
BOX = "model in the box"
# A joint needs this many views that agree: two lines of sight nearly meet somewhere even if one follows the wrong leg.
MIN_VIEWS = 3
# Shorter gaps in the truth of a joint are bridged by a straight line; frames in longer ones are left out.
BRIDGED_S = 0.1
# Encoders pad pictures to macroblocks: a video may be that much narrower than the sensor that was calibrated.
MACROBLOCK = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder of the clips and their calibration."""
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Another model to measure: a checkpoint's folder or models:/…; may be repeated. The one in the box always is."""
    estimator: str = DEFAULT
    """What looks at the clips: mediapipe or blazepose. The truth is triangulated from the image points of the same."""
    smoothing: Smoothing = "mediapipe"
    """MediaPipe's filters over time, or none (blazepose only)."""
    looks: int = 1
    """2 looks at the mirrored picture, too (blazepose only)."""
    camera_pitch: bool = False
    """Measure each model once more, told how far its camera looks down, as the calibration has it."""
    observations: str | None = None
    """Folder to keep the observations in; those that are there already, of the same estimator and options, are used."""
    truth_smoothing_s: float = 0.022
    """Sigma of the Gaussian that smooths the truth over time; 0: none, and accelerations are the image points' jitter.
    The default is −3 dB at 6 Hz, the usual cut-off for human movement."""
    block_frames: int = 15
    """Frames in a block of the bootstrap; a block holds the same moments of all cameras."""
    max_lag: int = multiview.MAX_LAG
    """Frames by which a camera may lag behind the first, or be ahead of it."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if self.block_frames < 1 or self.max_lag < 1 or self.truth_smoothing_s < 0:
            raise UserError("--block-frames and --max-lag are at least 1, --truth-smoothing-s at least 0")


class Clip(NamedTuple):
    """What `pair_video` asks of a video's name."""

    sequence: str
    camera: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """The triangulated person, by frames of the first camera."""

    poses: np.ndarray  # (F, 17, 3) m, world frame; NaN in gaps
    lags: np.ndarray  # (V,) frames
    triangulated: Triangulated
    bridged: int  # joints of a frame whose gap was bridged


def observed(options: Options, cameras: Sequence[Camera]) -> list[dict[str, np.ndarray]]:
    """MediaPipe's observations of each camera's clip."""
    chosen = {"smoothing": options.smoothing, "looks": options.looks}
    estimator = named(options.estimator, **chosen)
    with tempfile.TemporaryDirectory() as scratch:
        observations = []
        for camera in cameras:
            out = Path(options.observations or scratch, f"{camera.name}.parquet")
            if not is_done(out, estimator.info, 1):
                log(f"observing {camera.name}")
                clip = str(Path(options.videos, f"{camera.name}.mp4"))
                observe(video=clip, out=str(out), model=str(estimator.model), estimator=options.estimator, **chosen)
            observations.append(read_observations(out))
    return observations


def as_filmed(camera: Camera, observations: dict[str, np.ndarray]) -> Camera:
    """The camera with its video's size: what is missing at the right and below was the encoder's padding."""
    size = tuple(int(pixels) for pixels in observations["size"])
    if any(not 0 <= full - filmed < MACROBLOCK for full, filmed in zip(camera.size, size, strict=True)):
        raise UserError(
            f"{camera.name}.mp4 is {size[0]} × {size[1]}, but {CALIBRATION} is for {camera.size[0]} × {camera.size[1]}: "
            "give the videos as they were filmed"
        )
    return dataclasses.replace(camera, size=size)


def triangulated(cameras: Sequence[Camera], observations: Sequence[dict[str, np.ndarray]], options: Options) -> Truth:
    """The person in space, from the image points of all views at the same moments."""
    frames = min(len(o["frame"]) for o in observations)
    image = np.stack([to_coco(o["image"])[:frames] for o in observations])
    seen = np.stack(
        [o["detected"][:frames, None] * to_coco(o["visibility"][..., None])[:frames, :, 0] for o in observations]
    )
    lags = multiview.find_lags(cameras, image, seen, options.max_lag)
    moments = np.arange(frames)
    at = [moments + lag for lag in lags]
    person = multiview.triangulate(
        cameras,
        np.stack([at_frames(view, when) for view, when in zip(image, at, strict=True)]),
        np.stack([np.nan_to_num(at_frames(view, when)) for view, when in zip(seen, at, strict=True)]),
    )
    sure = person.kept.sum(0) >= MIN_VIEWS  # (F, 17)
    poses = np.full_like(person.points, np.nan)
    bridged = 0
    for joint, known in enumerate(sure.T):
        rows = np.flatnonzero(known)
        if len(rows) < 2:
            continue
        after = np.minimum(np.searchsorted(rows, moments), len(rows) - 1)
        before = np.maximum(np.searchsorted(rows, moments, side="right") - 1, 0)
        short = (rows[0] <= moments) & (moments <= rows[-1])
        short &= rows[after] - rows[before] <= BRIDGED_S * aistpp.FPS + 1
        whole = np.stack([np.interp(moments, rows, axis[rows]) for axis in person.points[:, joint].T], axis=-1)
        whole = temporal.smooth(whole, moments / aistpp.FPS, np.zeros(frames, dtype=int), options.truth_smoothing_s)
        poses[short, joint] = whole[short]
        bridged += int((short & ~known).sum())
    return Truth(poses=poses, lags=lags, triangulated=person, bridged=bridged)


def paired(cameras: Sequence[Camera], observations: Sequence[dict[str, np.ndarray]], truth: Truth) -> Pairs:
    """Each camera's observations beside the truth at their own moments, in its virtual camera frame."""
    parts = []
    for camera, seen, lag in zip(cameras, observations, truth.lags, strict=True):
        own = at_frames(truth.poses, seen["frame"] - lag)
        try:
            pairs = pair_video(seen, Clip("real_people", camera.name), own, camera, multiview.Z_UP).pairs
        except UserError as error:
            raise UserError(f"{camera.name}: {error}") from None
        if pairs is None:
            raise UserError(
                f"{camera.name}.mp4 shares no frame with the triangulated person: is it the same recording?"
            )
        parts.append(pairs)
    return Pairs.concatenate(parts)


def apart(poses: np.ndarray, pairs: Pairs, cameras: Sequence[Camera], truth: Truth) -> float:
    """Mean distance in metres between what any two cameras say of a joint at the same moment.

    Poses are turned from each virtual camera into the world frame by the calibration and the ray to the true hips.
    """
    frames = len(truth.poses)
    views = np.full((len(cameras), frames, *poses.shape[1:]), np.nan)
    for view, camera, lag in zip(views, cameras, truth.lags, strict=True):
        rows = np.flatnonzero(pairs.camera == camera.name)
        rows = rows[pairs.frame[rows] < frames]
        number = pairs.frame[rows]
        hips = hips_midpoint(camera.to_camera(at_frames(truth.poses, number - lag)))[:, 0]
        to_world = np.swapaxes(virtual_camera_rotation(hips) @ camera.rotation, -1, -2)
        own = np.full_like(view, np.nan)
        own[number] = np.einsum("nij,nkj->nki", to_world, poses[rows])
        view[:] = at_frames(own, np.arange(frames) + lag)
    a, b = np.triu_indices(len(cameras), 1)
    return float(np.nanmean(np.linalg.norm(views[a] - views[b], axis=-1)))


def measure(
    cameras: Sequence[Camera],
    observations: Sequence[dict[str, np.ndarray]],
    models: dict[str, DepthRefiner],
    options: Options,
) -> dict:
    """Everything that the table shows, by method."""
    truth = triangulated(cameras, observations, options)
    pairs = paired(cameras, observations, truth)
    lags = dict(zip([camera.name for camera in cameras], truth.lags, strict=True))
    moment = pairs.frame - np.array([lags[name] for name in pairs.camera])
    # for the bootstrap: rows that are drawn together
    blocks = dataclasses.replace(pairs, sequence=np.floor(moment / options.block_frames).astype(int).astype(str))
    told = {f"{name}, pitch": model for name, model in models.items() if options.camera_pitch}
    refinements = {name: model.predict_pairs(pairs) for name, model in models.items()}
    refinements |= {name: model.predict_pairs(pairs, camera_pitch=True) for name, model in told.items()}
    models = models | told
    methods = {
        "mediapipe": pairs.corrupted,
        "smoothing": baselines.smoothing(pairs),
        **{name: refinement.poses for name, refinement in refinements.items()},
    }
    joint = {name: metrics.joint_error(poses, pairs.ground_truth).mean(-1) * CM for name, poses in methods.items()}
    figures: dict[str, dict] = {}
    for name, poses in methods.items():
        depth = metrics.depth_error(poses, pairs.ground_truth).mean(-1) * CM
        figures[name] = metrics.summarise(poses, pairs) | {
            "depth_interval_cm": metrics.bootstrap(depth, blocks.sequence, seed=options.seed),
            "apart_cm": apart(poses, pairs, cameras, truth) * CM,
            "depth_by_camera_cm": {camera: float(depth[pairs.camera == camera].mean()) for camera in lags},
            "against": {
                other: {
                    "depth_cm": metrics.depth_difference(poses, methods[other], blocks, options.seed),
                    "mpjpe_cm": (
                        float((joint[name] - joint[other]).mean()),
                        *metrics.bootstrap(joint[name] - joint[other], blocks.sequence, seed=options.seed),
                    ),
                }
                for other in ("mediapipe", "smoothing")
                if other != name
            },
        }
        if name in refinements:
            figures[name]["strength"] = models[name].model.config.strength
            figures[name]["confidence"] = confidence_summary(
                refinements[name].confidence, metrics.depth_error(poses, pairs.ground_truth), CONFIDENT_WITHIN_M
            )
    return {
        "nothing_was_trained_tuned_or_selected_on_these_clips": True,
        "frames": sum(len(o["frame"]) for o in observations),
        "pairs": len(pairs),
        "blocks": len(np.unique(blocks.sequence)),
        "lags_frames": lags,
        "truth": how_sure(truth)
        | {
            "smoothing_s": options.truth_smoothing_s,
            "bone_cv": metrics.summarise(pairs.ground_truth, pairs)["bone_cv"],
        },
        "methods": figures,
    }


def how_sure(truth: Truth) -> dict:
    """How well the views agree on the triangulated person."""
    errors, kept = truth.triangulated.errors, truth.triangulated.kept
    views = kept.sum(0)  # (F, 17)
    return {
        "reprojection_median_px": float(np.nanmedian(errors)),
        "reprojection_95_px": float(np.nanquantile(errors, 0.95)),
        "reprojection_of_kept_median_px": float(np.median(errors[kept])),
        "reprojection_of_kept_95_px": float(np.quantile(errors[kept], 0.95)),
        "views_kept_mean": float(views.mean()),
        "joints_by_views_kept": {n: float((views == n).mean()) for n in range(len(kept) + 1)},
        "joints_bridged": truth.bridged,
    }


def table(figures: dict) -> str:
    """The figures in 80 columns."""
    truth, methods = figures["truth"], figures["methods"]
    lags = ", ".join(f"{name} {lag:+.1f}" for name, lag in figures["lags_frames"].items())
    lines = [
        "Nothing was trained, tuned or selected on these clips.",
        f"truth: lags in frames {lags}",
        f"  reprojection {truth['reprojection_median_px']:.1f} px median, {truth['reprojection_95_px']:.0f} px 95 %; of the "
        f"{truth['views_kept_mean']:.2f} views kept",
        f"  {truth['reprojection_of_kept_median_px']:.1f} and {truth['reprojection_of_kept_95_px']:.0f} px; "
        f"{truth['joints_bridged']} joints bridged; smoothed with σ = {truth['smoothing_s']:g} s; bone CV "
        f"{truth['bone_cv']:.1%}",
        f"{figures['pairs']} of {figures['frames']} frames have truth; {figures['blocks']} blocks of time; "
        "95 % intervals; cm, m/s²",
        "",
        f"{'':<17} {'mean |Δz|':<20}{'MPJPE':>7}{'accel':>8}{'bone CV %':>11}{'cameras apart':>15}",
    ]
    for name, row in methods.items():
        low, high = row["depth_interval_cm"]
        lines.append(
            f"{LABELS.get(name, name):<17} {row['depth_cm']:5.2f} {f'({low:.2f} … {high:.2f})':<14}{row['mpjpe_cm']:7.2f}"
            f"{row['acceleration_error']:8.1f}{row['bone_cv'] * 100:11.1f}{row['apart_cm']:15.2f}"
        )
    lines += ["", f"{'difference':<17} {'|Δz| to MediaPipe':<21}{'|Δz| to smoothing':<21}MPJPE to MediaPipe"]
    for name, row in methods.items():
        cells = [
            row["against"].get(other, {}).get(key) for other, key in
            (("mediapipe", "depth_cm"), ("smoothing", "depth_cm"), ("mediapipe", "mpjpe_cm"))
        ]  # fmt: skip
        if any(cells):
            text = (f"{c[0]:+.2f} ({c[1]:+.2f}…{c[2]:+.2f})" if c else "" for c in cells)
            lines.append(f"{LABELS.get(name, name):<17} " + "".join(f"{cell:<21}" for cell in text).rstrip())
    return "\n".join(lines)


def run(options: Options) -> dict:
    cameras = multiview.read_qualisys(Path(options.videos, CALIBRATION))
    models = {BOX: DepthRefiner()} | {f"model {i}": DepthRefiner(m) for i, m in enumerate(options.model, 1)}
    observations = observed(options, cameras)
    cameras = [as_filmed(camera, seen) for camera, seen in zip(cameras, observations, strict=True)]
    figures = measure(cameras, observations, models, options)
    print(table(figures))
    for i, (name, model) in enumerate(models.items()):
        source = options.model[i - 1] if i else "DepthRefiner()"
        print(f"{name}: {source}, strength {model.model.config.strength:g}")
    return figures


if __name__ == "__main__":
    launch(run, Options)
