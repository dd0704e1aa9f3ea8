"""Triangulation, lags and calibration: invented cameras whose answers are known, and a real calibration file."""

import dataclasses

import numpy as np
import pytest

from refiner import UserError
from refiner.data.multiview import at_frames, find_lags, read_qualisys, triangulate


def filmed(cameras, points):
    return np.stack([camera.project(points) for camera in cameras])


def test_undistorting_is_projecting_backwards(ring, rng):
    camera = dataclasses.replace(ring[0], matrix=ring[0].matrix + np.array([[0, 3.0, 0], [0, 0, 0], [0, 0, 0]]))
    points = rng.normal((0, 0, 3.5), 0.5, (50, 3))
    assert np.allclose(camera.undistort(camera.project_camera(points)), points[:, :2] / points[:, 2:], atol=1e-9)


def test_points_come_back_exactly_though_one_view_saw_something_else(ring, rng):
    points = rng.normal(0, 0.5, (5, 40, 3))
    image, weights = filmed(ring, points), rng.uniform(0.6, 1, (4, 5, 40))
    wrong = rng.integers(0, 4, (5, 40)) == np.arange(4)[:, None, None]  # one of the four views of each point
    image[wrong] += rng.choice([-1, 1], (wrong.sum(), 2)) * rng.uniform(100, 300, (wrong.sum(), 2))
    triangulated = triangulate(ring, image, weights)
    # on its own ray a wrong view is right by chance: then the point may keep it, and is as good
    assert np.allclose(triangulated.points, points, atol=1e-6)
    assert (triangulated.kept == ~wrong).mean() > 0.97
    assert triangulated.errors[~wrong].max() < 1e-3 and triangulated.errors[wrong].min() > 50


def test_noise_in_all_views_is_averaged(ring, rng):
    points = rng.normal(0, 0.5, (500, 3))
    triangulated = triangulate(ring, filmed(ring, points) + rng.normal(0, 5, (4, 500, 2)), np.ones((4, 500)))
    two = triangulate(ring[:2], filmed(ring[:2], points) + rng.normal(0, 5, (2, 500, 2)), np.ones((2, 500)))
    off = np.linalg.norm(triangulated.points - points, axis=-1)
    assert np.median(off) < 0.013  # 5 px are 1 cm here
    assert np.median(off) < np.median(np.linalg.norm(two.points - points, axis=-1))
    assert triangulated.kept.mean() > 0.99


def test_what_too_few_views_show_is_nowhere(ring, rng):
    points = rng.normal(0, 0.5, (20, 3))
    image, weights = filmed(ring, points), np.ones((4, 20))
    weights[1:, :5] = 0  # seen once
    image[1:, 5:10] = np.nan
    image[1:, 10:15] += rng.normal(0, 500, (3, 5, 2))  # nobody agrees with anybody, but for chance
    triangulated = triangulate(ring, image, weights)
    assert np.isnan(triangulated.points[:10]).all() and not triangulated.kept[:, :10].any()
    assert np.allclose(triangulated.points[15:], points[15:], atol=1e-6)
    # two cameras that stand side by side do not say how far away a point is
    beside = dataclasses.replace(ring[0], translation=ring[0].translation + np.array([0.2, 0, 0]))
    assert np.isnan(triangulate([ring[0], beside], filmed([ring[0], beside], points), np.ones((2, 20))).points).all()


def test_lags_beyond_what_was_looked_at_are_an_error(ring, rng):
    moments = np.arange(40)[:, None, None]
    walk = 0.4 * np.sin(moments / 6 + rng.uniform(0, 6, (1, 17, 3)))
    late = np.stack(
        [
            c.project(0.4 * np.sin((moments - lag) / 6 + np.ones((1, 17, 3))))
            for c, lag in zip(ring, (0, 0, 8, 0), strict=True)
        ]
    )
    with pytest.raises(UserError, match="cam03 agrees best"):
        find_lags(ring, late, np.ones(late.shape[:-1]), 4)
    with pytest.raises(UserError, match="too short"):
        find_lags(ring, filmed(ring, walk)[:, :8], np.ones((4, 8, 17)), 4)


def test_between_frames_values_are_interpolated_and_beyond_them_unknown():
    values = np.array([[0.0, 1], [2, 1], [4, 3]])
    assert np.allclose(at_frames(values, np.array([0, 0.5, 1.25, 2])), [[0, 1], [1, 1], [2.5, 1.5], [4, 3]])
    assert np.isnan(at_frames(values, np.array([-0.1, 2.1]))).all()


def qualisys(camera) -> str:
    m = np.diag([1, -1, -1]) @ camera.rotation
    transform = " ".join(f'r{i + 1}{j + 1}="{float(m[i, j])!r}"' for i in range(3) for j in range(3))
    position = " ".join(f'{axis}="{float(v * 1000)!r}"' for axis, v in zip("xyz", camera.position, strict=True))
    (fx, _, cx), (_, fy, cy) = camera.matrix[:2] * 64
    k1, k2, p1, p2, k3 = camera.distortion
    return (
        f'<camera serial="{camera.name}"><fov_video left="0" top="0" right="1087" bottom="1919"/><transform {transform} '
        f'{position}/><intrinsic focalLengthU="{fx}" focalLengthV="{fy}" centerPointU="{cx}" centerPointV="{cy}" skew="0" '
        f'radialDistortion1="{k1}" radialDistortion2="{k2}" radialDistortion3="{k3}" tangentalDistortion1="{p1}" '
        f'tangentalDistortion2="{p2}"/></camera>'
    )


def test_a_qualisys_calibration_is_read_into_the_axes_of_opencv(ring, rng, tmp_path):
    path = tmp_path / "Calib.qca.txt"
    path.write_text(f"<calibration><cameras>{''.join(map(qualisys, ring))}</cameras></calibration>")
    points = rng.normal(0, 0.5, (10, 3))
    for camera, read in zip(ring, read_qualisys(path), strict=True):
        assert (read.name, read.size) == (camera.name, camera.size)
        assert np.allclose(read.project(points), camera.project(points), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12 34", "not a Qualisys"),
        ("<calibration/>", "no camera"),
        ("<c><cameras><camera/></cameras></c>", "not a Qualisys"),
    ],
)
def test_what_is_no_calibration_is_named(tmp_path, text, message):
    path = tmp_path / "Calib.qca.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_qualisys(path)
    with pytest.raises(UserError, match="missing"):
        read_qualisys(tmp_path / "other.txt")


def test_the_real_cameras_stand_upright_around_the_person(real_people):
    cameras = read_qualisys(real_people / "Calib.qca.txt")
    assert [camera.name for camera in cameras] == ["cam01", "cam02", "cam03", "cam04"]
    for camera in cameras:
        assert 1.5 < camera.position[2] < 2.5  # metres above the floor
        assert camera.rotation[1, 2] < -0.8  # up in the world is up in the image
