"""The model in the box: there after the installation, small, documented, and behaving as a refiner should."""

import json

import numpy as np
import pytest

from refiner import DepthRefiner
from refiner.inference import onnx
from refiner.inference.depth_refiner import SHIPPED
from refiner.skeleton import INDEX, root_centred


@pytest.fixture(scope="module")
def refiner() -> DepthRefiner:
    return DepthRefiner()


@pytest.fixture(scope="module")
def standing() -> np.ndarray:
    """(17, 3) somebody who stands upright, arms down, and faces the camera."""
    pose = np.zeros((17, 3), np.float32)
    for side, sign in (("left", 1), ("right", -1)):
        for joint, place in {
            "hip": (0.1, 0, 0), "knee": (0.11, 0.42, -0.02), "ankle": (0.12, 0.82, 0.03), "shoulder": (0.17, -0.48, 0),
            "elbow": (0.2, -0.2, 0.03), "wrist": (0.2, 0.04, -0.03), "eye": (0.03, -0.68, -0.1), "ear": (0.07, -0.66, -0.02),
        }.items():  # fmt: skip
            pose[INDEX[f"{side}_{joint}"]] = (sign * place[0], *place[1:])
    pose[INDEX["nose"]] = (0, -0.65, -0.12)
    return root_centred(pose)


def test_it_is_small_and_says_what_it_is():
    shipped = [path for path in SHIPPED.iterdir() if path.name != onnx.FILE]  # which is made where it is served
    assert sum(path.stat().st_size for path in shipped) < 2_000_000
    card = json.loads((SHIPPED / "config.json").read_text())["card"]
    assert card["trained_on"] and card["figures"]["refined_depth_cm"] < 0.8 * card["figures"]["mediapipe_depth_cm"]


def test_a_standing_person_stays_standing(refiner, standing):
    refined = refiner.refine(standing)
    assert np.linalg.norm(refined - standing, axis=-1).max() < 0.2
    upright = refined[[INDEX["left_shoulder"], INDEX["right_shoulder"]]].mean(0)
    assert upright[1] < -0.4 and abs(upright[2]) < 0.15


def test_a_mirrored_pose_gets_nearly_the_mirrored_answer(refiner, make_pairs):
    from refiner.geometry import mirror

    poses = make_pairs(4, cameras=4).corrupted
    difference = refiner.refine(mirror(poses)) - mirror(refiner.refine(poses))
    correction = np.abs(refiner.refine(poses) - poses)[..., 2].mean()
    assert np.abs(difference).mean() < 0.25 * correction


def test_what_the_camera_sees_moves_less_than_depth(refiner, make_pairs):
    poses = root_centred(make_pairs(4, cameras=4).corrupted)
    moved = np.abs(refiner.refine(poses) - poses).mean((0, 1))
    assert moved[:2].max() < 0.5 * moved[2] and moved[:2].max() < 0.03


def test_every_output_is_finite_and_every_confidence_a_probability(refiner, rng):
    for reach in (0.11, 0.7, 2.9):
        poses = root_centred(rng.normal(0, 1, (200, 17, 3)))
        poses *= reach / np.linalg.norm(poses, axis=-1).max(-1)[:, None, None]
        answer = refiner.predict(poses, rng.uniform(0, 1, (200, 17)), recognise=False)  # they are no people
        assert np.isfinite(answer.poses).all()
        assert (answer.confidence >= 0).all() and (answer.confidence <= 1).all()


def test_hips_are_surer_than_wrists(refiner, make_pairs):
    confidence = refiner.predict(make_pairs(4, cameras=4).corrupted).confidence.mean(0)
    assert (
        confidence[[INDEX["left_hip"], INDEX["right_hip"]]].min()
        > confidence[[INDEX["left_wrist"], INDEX["right_wrist"]]].max()
    )
