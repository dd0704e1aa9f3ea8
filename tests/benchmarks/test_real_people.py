"""The yardstick: an invented person whose every figure is known beforehand; and the real clips, in part."""

import itertools

import numpy as np
import pytest

from benchmarks.real_people import BOX, CALIBRATION, Options, as_filmed, measure, table
from refiner import DepthRefiner
from refiner.data import video
from refiner.data.multiview import at_frames, read_qualisys
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.geometry import to_virtual_camera
from refiner.skeleton import FROM_MEDIAPIPE, MIRROR, NOT_HIPS

pytestmark = pytest.mark.slow

LAGS = (0.0, 0.4, 3.0, -1.5)


def landmarks(joints: np.ndarray) -> np.ndarray:
    """(F, 17, C) -> (F, 33, C), the other landmarks zero."""
    whole = np.zeros((len(joints), 33, joints.shape[-1]))
    whole[:, FROM_MEDIAPIPE] = joints
    return whole


@pytest.fixture(scope="module")
def person(make_pairs) -> np.ndarray:
    """(44, 17, 3) m, world frame with z up."""
    body = make_pairs(1, frames=44, cameras=1, fps=60.0).ground_truth.astype(float)
    return np.stack([body[..., 0], body[..., 2], -body[..., 1]], axis=-1)


def seen(cameras, person, offset_z: float = 0.0) -> list[dict[str, np.ndarray]]:
    """What a MediaPipe would see that errs by a constant depth of all joints but the hips, and in nothing else."""
    observations = []
    for camera, lag in zip(cameras, LAGS, strict=True):
        poses = at_frames(person, np.clip(np.arange(40) + 2 - lag, 0, 43))
        world = to_virtual_camera(camera.to_camera(poses))
        world[:, NOT_HIPS, 2] += offset_z
        observations.append(
            {
                "frame": np.arange(40),
                "timestamp_us": np.rint(np.arange(40) * 1e6 / 60).astype(np.int64),
                "detected": np.ones(40, dtype=bool),
                "world": landmarks(world),
                "image": landmarks(camera.project(poses)),
                "visibility": np.full((40, 33), 0.9, dtype=np.float32),
                "size": np.array(camera.size),
            }
        )
    return observations


def test_known_lags_and_errors_are_found_though_a_view_exchanges_the_legs(ring, person):
    options = Options(videos="", truth_smoothing_s=0, max_lag=5)
    perfect = measure(ring, seen(ring, person), {}, options)
    assert perfect["methods"]["mediapipe"]["mpjpe_cm"] < 0.3
    assert perfect["methods"]["mediapipe"]["apart_cm"] < 0.4

    observations = seen(ring, person, 0.10)
    image = observations[1]["image"]
    image[10:20, FROM_MEDIAPIPE[11:]] = image[10:20, FROM_MEDIAPIPE[MIRROR[11:]]]
    measured = measure(ring, observations, {}, options)
    assert list(measured["lags_frames"].values()) == pytest.approx(LAGS, abs=0.15)
    mediapipe = measured["methods"]["mediapipe"]
    assert mediapipe["depth_cm"] == pytest.approx(10 * 15 / 17, abs=0.2)
    assert mediapipe["mpjpe_cm"] == pytest.approx(10 * 15 / 17, abs=0.4)
    # cameras stand 80 to 170 degrees apart: 10 cm along each one's ray are 13 to 20 cm between them, hips none
    assert 12 < mediapipe["apart_cm"] < 18
    low, high = mediapipe["depth_interval_cm"]
    assert low <= mediapipe["depth_cm"] <= high
    assert measured["truth"]["reprojection_of_kept_median_px"] < 1
    # ten frames of hips, knees and ankles in one view are not used, and little else
    exchanged = perfect["truth"]["views_kept_mean"] - measured["truth"]["views_kept_mean"]
    assert exchanged == pytest.approx(10 * 6 / (40 * 17), abs=0.01)


def test_the_model_in_the_box_is_measured_on_real_people(real_people):
    cameras, observations = [], []
    for camera in read_qualisys(real_people / CALIBRATION):
        frames = list(itertools.islice(video.frames(real_people / f"{camera.name}.mp4"), 24, 42))
        with PoseEstimator(model_path()) as estimator:
            estimates = [estimator.estimate(frame) for frame in frames]
        assert all(estimates)
        height, width = frames[0].rgb.shape[:2]
        view = {name: np.stack([getattr(e, name) for e in estimates]) for name in ("world", "image", "visibility")}
        view["frame"] = np.arange(len(frames))
        view["timestamp_us"] = np.array([frame.timestamp_us - frames[0].timestamp_us for frame in frames])
        view |= {"detected": np.ones(len(frames), dtype=bool), "size": np.array([width, height])}
        observations.append(view)
        cameras.append(as_filmed(camera, view))
    options = Options(videos=str(real_people), max_lag=5, block_frames=6)
    box = DepthRefiner()
    measured = measure(cameras, observations, {BOX: box}, options)
    assert measured["lags_frames"]["cam03"] == pytest.approx(3, abs=1)
    assert measured["truth"]["reprojection_of_kept_median_px"] < 15
    assert measured["truth"]["views_kept_mean"] > 3.3
    assert measured["truth"]["bone_cv"] < measured["methods"]["mediapipe"]["bone_cv"]
    # a wrong frame, a mirrored or an untriangulated truth makes tens of centimetres
    assert 4 < measured["methods"]["mediapipe"]["depth_cm"] < 15
    assert measured["methods"][BOX]["strength"] == box.model.config.strength < 1
    assert measured["methods"][BOX]["against"]["mediapipe"]["depth_cm"][0] == pytest.approx(
        measured["methods"][BOX]["depth_cm"] - measured["methods"]["mediapipe"]["depth_cm"], abs=1e-4
    )
    assert max(map(len, table(measured).splitlines())) <= 80
