"""Cameras, virtual camera, angles, alignment: each claim against an independent computation or real annotations."""

import cv2
import numpy as np
import pytest

from refiner import geometry
from refiner.data.aistpp import CAMERAS, Dataset
from refiner.skeleton import INDEX, MIRROR, hips_midpoint, root_centred


def standing(facing: float) -> np.ndarray:
    """(17, 3) a standing person in camera axes, turned by `facing` degrees (0 looks into the camera, +90 to image right)."""
    pose = np.zeros((17, 3))
    for side, sign in (("left", 1), ("right", -1)):  # facing the camera, the left side is at the image's right
        pose[INDEX[f"{side}_shoulder"]] = (0.2 * sign, -0.5, 0)
        pose[INDEX[f"{side}_hip"]] = (0.1 * sign, 0, 0)
        pose[INDEX[f"{side}_knee"]] = (0.1 * sign, 0.45, -0.02)
        pose[INDEX[f"{side}_ankle"]] = (0.1 * sign, 0.9, 0)
        pose[INDEX[f"{side}_eye"]] = (0.03 * sign, -0.75, -0.1)
    pose[INDEX["nose"]] = (0, -0.7, -0.12)
    a = np.radians(facing)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    return pose @ turn.T


@pytest.mark.parametrize("facing", [0, 30, 90, 135, 179, -45, -90, -150])
def test_azimuth_is_the_way_the_body_faces(facing):
    assert geometry.azimuth(standing(facing)) == pytest.approx(facing, abs=1e-6)
    assert geometry.view_angle(geometry.azimuth(standing(facing))) == pytest.approx(
        min(abs(facing), 180 - abs(facing)), abs=1e-6
    )


def test_a_person_who_faces_right_has_the_nose_at_the_right():
    assert standing(90)[INDEX["nose"], 0] > 0.1


def test_a_mirrored_pose_faces_the_other_way_and_mirroring_twice_changes_nothing(rng):
    pose = standing(50) + rng.normal(0, 0.02, (17, 3))
    assert geometry.azimuth(geometry.mirror(pose)) == pytest.approx(-geometry.azimuth(pose))
    assert np.array_equal(geometry.mirror(geometry.mirror(pose)), pose)
    assert np.array_equal(MIRROR[MIRROR], np.arange(17))


def test_projection_agrees_with_opencv(rng):
    camera = geometry.Camera(
        "c01",
        (1920, 1080),
        np.array([[1400.0, 0, 960], [0, 1410, 540], [0, 0, 1]]),
        np.array([-0.3, 0.1, 0.01, -0.02, 0.05]),
        geometry.rotation_matrix([0.3, -2.0, 0.4]),
        np.array([0.1, 1.8, 5.0]),
    )
    points = rng.normal(0, 0.7, (50, 3))
    expected, _ = cv2.projectPoints(
        points, geometry.rotation_vector(camera.rotation), camera.translation, camera.matrix, camera.distortion
    )
    assert np.allclose(camera.project(points), expected[:, 0], atol=1e-6)
    assert np.allclose(camera.to_camera(camera.position), 0, atol=1e-12)


def test_a_point_behind_the_camera_has_no_image():
    camera = geometry.Camera("c", (10, 10), np.eye(3), np.zeros(5), np.eye(3), np.zeros(3))
    assert np.isnan(camera.project(np.array([[0.0, 0, -1]]))).all()


def test_the_virtual_camera_looks_at_the_hips_and_keeps_the_shape(rng):
    poses = standing(20) + np.array([1.5, -0.8, 4.0]) + rng.normal(0, 0.05, (6, 17, 3))
    turned = geometry.to_virtual_camera(poses)
    assert np.allclose(hips_midpoint(turned), 0, atol=1e-12)
    distances = np.linalg.norm(poses[:, :, None] - poses[:, None], axis=-1)
    assert np.allclose(np.linalg.norm(turned[:, :, None] - turned[:, None], axis=-1), distances)
    # seen along the optical axis nothing changes; seen off it, the ray to the person becomes +z
    ahead = standing(20) + np.array([0, 0, 4.0])
    assert np.allclose(geometry.to_virtual_camera(ahead), root_centred(ahead))
    camera_at = -hips_midpoint(poses)  # the camera's centre, seen from the hips
    at = np.linalg.norm(camera_at, axis=-1)
    for pose, hips, out, distance in zip(poses, hips_midpoint(poses), turned, at, strict=True):
        toward = (pose - hips) @ (-hips[0] / distance[0])  # how much nearer to the camera each joint is than the hips
        assert np.allclose(out[:, 2], -toward)


@pytest.mark.parametrize("pitch", [-30.0, 0.0, 25.0])
def test_how_far_a_camera_looks_down_at_a_person(pitch):
    upright = standing(40) * [1, -1, -1]  # in a world whose y is up
    level, down = np.diag([1.0, -1.0, -1.0]), np.radians(pitch)  # the first looks along the world's -z
    tilt = np.array([[1, 0, 0], [0, np.cos(down), -np.sin(down)], [0, np.sin(down), np.cos(down)]])
    camera = geometry.Camera("c", (10, 10), np.eye(3), np.zeros(5), tilt @ level, np.array([0, 0, 4.0]))
    assert geometry.pitch(camera, upright) == pytest.approx(pitch)
    # who stands upright leans towards the virtual camera by as much, wherever in the picture
    places = np.array([[0, 0, 0], [0.9, 0.3, -1.0], [-1.5, -0.4, 0.5]])
    seen = geometry.to_virtual_camera(camera.to_camera(upright + places[:, None]))
    shoulders, ankles = (seen[:, [INDEX[f"left_{j}"], INDEX[f"right_{j}"]]].mean(1) for j in ("shoulder", "ankle"))
    leaning = np.degrees(np.arcsin((ankles - shoulders)[:, 2] / 1.4))
    assert np.allclose(leaning, geometry.pitch(camera, upright + places[:, None]))
    # of a world whose z is up, the same
    turned = geometry.Camera("c", (10, 10), np.eye(3), np.zeros(5), camera.rotation[:, [0, 2, 1]], camera.translation)
    assert geometry.pitch(turned, upright[..., [0, 2, 1]], np.array([0, 0, 1.0])) == pytest.approx(pitch)


def test_procrustes_undoes_turning_scaling_and_moving(rng):
    target = rng.normal(0, 0.5, (4, 17, 3))
    turn = geometry.rotation_matrix(rng.normal(0, 1, (4, 3)))
    moved = 0.7 * target @ np.swapaxes(turn, -1, -2) + rng.normal(0, 1, (4, 1, 3))
    assert np.allclose(geometry.procrustes(moved, target), target)
    reflected = target * np.array([-1, 1, 1])
    assert not np.allclose(geometry.procrustes(reflected, target), target, atol=0.05)


def test_real_truth_projects_onto_the_real_image_points_in_all_nine_views(aistpp):
    dataset = Dataset(aistpp)
    for sequence in dataset.sequences:
        truth = dataset.keypoints3d(sequence)
        points, _ = dataset.keypoints2d(sequence)
        for i, name in enumerate(CAMERAS):
            off = np.linalg.norm(dataset.cameras(sequence)[name].project(truth) - points[i, ..., :2], axis=-1)
            sure = points[i, ..., 2] > 0.5
            assert np.nanmedian(off[sure]) < 12, (sequence, name)
