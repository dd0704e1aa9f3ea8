"""The studio's truth is what is seen in its pictures."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from refiner.data.aistpp import CAMERAS
from refiner.data.multiview import triangulate
from refiner.data.video import Frame
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.geometry import azimuth, to_virtual_camera
from refiner.skeleton import INDEX, to_coco
from studio import rig
from studio.bodies.drawn import Dancer
from studio.bodies.person import Person
from studio.cameras import FLOOR
from studio.dataset import plan
from studio.pictures.footage import Footage
from studio.pictures.renderer import Renderer
from studio.pictures.stage import Set
from tests.studio.specs import spec


@pytest.mark.slow
@pytest.mark.parametrize("bodies", ["drawn", "makehuman"])
def test_every_joint_projects_onto_the_body_in_every_view_and_lies_behind_its_surface(bodies):
    size = (960, 540)
    for take in plan(spec(bodies=bodies, size=size)):
        renderer = Renderer(take.dancer, take.room.light, FLOOR)
        turned, placed = take.bones(np.array([0.1, 0.4]))
        joints = take.dancer.joints(turned, placed)
        for i in range(2):
            posed = renderer.pose(turned[i], placed[i])
            for camera in take.cameras.values():
                depth = renderer.depth(posed, camera)
                at = np.rint(camera.project(joints[i])).astype(int)  # (17, 2) x, y
                inside = ((at >= 0) & (at < size)).all(1)
                seen = depth[at[inside, 1], at[inside, 0]]
                # eyes and nose lie on the surface: at 7 mm to the pixel one of them may just miss
                assert np.isfinite(seen).mean() > 0.9
                body = np.flatnonzero(inside) >= INDEX["left_shoulder"]
                assert (seen[body] < camera.to_camera(joints[i])[inside][body, 2] + 0.01).all()


@pytest.mark.parametrize("body", [Dancer, Person])
@pytest.mark.parametrize("seed", range(4))
def test_the_truth_of_the_face_is_the_depth_of_its_pixel(seed, body):
    dancer = body.draw(seed)
    rotations, root = np.tile(np.eye(3), (rig.NUM_BONES, 1, 1)), np.array([0.2, FLOOR + 0.95, -0.1])
    turned, placed = rig.forward_kinematics(rotations, root, dancer.offsets)
    joints = dancer.joints(turned, placed)
    take = plan(spec(size=(1920, 1080), seed=seed))[0]
    renderer = Renderer(dancer, take.room.light, FLOOR)
    posed = renderer.pose(turned, placed)
    for camera, names in (("c01", ("nose", "left_eye", "right_eye")), ("c09", ("nose", "left_eye", "right_eye"))):
        lens = take.cameras[camera]
        depth = renderer.depth(posed, lens)
        for name in names:
            x, y = np.rint(lens.project(joints[INDEX[name]])).astype(int)
            assert depth[y, x] == pytest.approx(lens.to_camera(joints[INDEX[name]])[2], abs=0.01), (camera, name)


def test_a_dancer_who_faces_c01_shows_each_camera_the_side_that_it_stands_on():
    takes = plan(spec())
    dancer = takes[0].dancer
    placed = rig.forward_kinematics(
        np.tile(np.eye(3), (rig.NUM_BONES, 1, 1)), np.array([0, FLOOR + 0.95, 0]), dancer.offsets
    )
    pose = dancer.joints(*placed)
    angles = [azimuth(to_virtual_camera(takes[0].cameras[c].to_camera(pose))) for c in CAMERAS]
    expected = np.array([0, 45, 90, 135, 180, -135, -90, -45, 0])
    assert np.abs((angles - expected + 180) % 360 - 180).max() < 8


@dataclass(frozen=True)
class NineViews:
    """What MediaPipe sees in the nine pictures of some moments, beside the truth."""

    seen: int
    pictures: int
    turned: np.ndarray  # degrees between the azimuth seen and the true one, of each picture in which somebody is seen
    apart: dict[
        str, np.ndarray
    ]  # "marked", "joints" -> (17,) m from the views' triangulated joints, median of the takes


@pytest.fixture(scope="module", params=["drawn", "makehuman"])
def nine_views(request) -> NineViews:
    """Three takes from nine sides: four moments of the first, one of the others."""
    turned, pictures, apart = [], 0, {"marked": [], "joints": []}
    for number, take in enumerate(plan(spec(bodies=request.param))):
        renderer = Renderer(take.dancer, take.room.light, FLOOR)
        bones = take.bones(np.arange(4 if number == 0 else 1) / 30)
        truth = take.dancer.joints(*bones)
        moments = [renderer.pose(*moment) for moment in zip(*bones, strict=True)]
        image, weights = np.zeros((9, 17, 2)), np.zeros((9, 17))
        for view, camera in enumerate(take.cameras.values()):
            stage = Set(take.room, camera)
            with PoseEstimator(model_path()) as pose:
                for i, moment in enumerate(moments):
                    pictures += 1
                    estimate = pose.estimate(Frame(i, i * 33333, stage.shoot(renderer, moment)))
                    if estimate is None:
                        continue
                    error = azimuth(to_coco(estimate.world)) - azimuth(camera.to_camera(truth[i]))
                    turned.append(abs((error + 180) % 360 - 180))
                    if i == 0:  # not yet filtered
                        image[view] = to_coco(estimate.image)
                        weights[view] = to_coco(estimate.visibility[:, None])[:, 0]
        points = triangulate(list(take.cameras.values()), image, weights).points
        first = bones[0][:1], bones[1][:1]
        for name, rows in apart.items():
            rows.append(np.linalg.norm(getattr(take.dancer, name)(*first)[0] - points, axis=-1))
    return NineViews(
        len(turned), pictures, np.array(turned), {name: np.median(rows, axis=0) for name, rows in apart.items()}
    )


@pytest.mark.slow
def test_mediapipe_finds_people_from_all_nine_sides_and_tells_front_from_back(nine_views):
    assert nine_views.seen >= 0.95 * nine_views.pictures
    assert np.mean(nine_views.turned < 45) > 0.9


@pytest.mark.slow
def test_the_truth_is_where_nine_views_of_mediapipe_see_the_joints(nine_views):
    marked, joints = nine_views.apart["marked"], nine_views.apart["joints"]
    assert marked.mean() < 0.03
    assert marked.mean() < 0.8 * joints.mean()  # closer than the skeleton's own joints


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280)])
def test_free_viewpoints_keep_the_dancer_in_the_picture_from_everywhere(size):
    takes = plan(spec(sequences=30, viewpoints="free", size=size))
    cameras = [camera for take in takes for camera in take.cameras.values()]
    person = np.array([[0, FLOOR, 0], [0, FLOOR + 1.75, 0], [0, FLOOR + 0.9, 0]])
    seen = np.stack([camera.project(person) for camera in cameras])
    assert (np.abs(seen[:, 2] - np.array(size) / 2) < 0.25 * np.array(size)).all()
    tall = np.linalg.norm(seen[:, 1] - seen[:, 0], axis=-1) / size[1]
    assert tall.min() > 0.3 and tall.max() < 1.0
    positions = np.stack([camera.position for camera in cameras])
    heights = positions[:, 1] - FLOOR
    assert heights.min() < 0.6 and heights.max() > 2.2
    around = np.degrees(np.arctan2(positions[:, 0], positions[:, 2])) % 360
    assert (np.histogram(around, 12, (0, 360))[0] > 8).all()
    # none stands in another's picture, where the dancer would be drawn over it
    places = np.stack([camera.position for camera in takes[0].cameras.values()])[:, None, [0, 2]]
    assert np.linalg.norm(places - takes[0].room.things[:, [1, 3]], axis=-1).min() > 0.3


# --- a real camera's faults -------------------------------------------------------------------------------------------


def test_a_cameras_faults_are_its_own_and_come_again():
    faults = [Footage.draw(seed, 720) for seed in range(200)]
    assert 0.1 < np.mean([fault.shutter > 0 for fault in faults]) < 0.3
    assert len({fault.crf for fault in faults}) == 4
    noisy = next(fault for fault in faults if fault.noise > 3 and fault.defocus == 0)
    grey = np.full((72, 128, 3), 128, np.uint8)
    once, again, later = noisy.spoil(grey, 0), noisy.spoil(grey, 0), noisy.spoil(grey, 1)
    np.testing.assert_array_equal(once, again)
    assert (once != later).any()
    assert once.astype(float).std() == pytest.approx(noisy.noise, rel=0.15)
    np.testing.assert_array_equal(Footage.clean().spoil(grey, 0), grey)


def test_a_blurred_picture_is_of_the_truth_in_the_middle_of_its_exposure():
    times = np.arange(5) / 10
    blurred = dataclasses.replace(Footage.clean(), shutter=0.6)
    moments = blurred.moments(times, 10)
    np.testing.assert_allclose(moments[1:-1].mean(1), times[1:-1])
    assert np.ptp(moments[2]) == pytest.approx(0.04)
