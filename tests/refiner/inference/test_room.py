"""The person in the room, on a walker whose place, floor and steps are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from refiner import geometry
from refiner.inference import feet, room
from refiner.inference.feet import ANKLES, KNEES
from refiner.inference.room import Lens
from refiner.skeleton import HIPS, INDEX, hips_midpoint

FPS = 30.0
SIZE = (1280, 720)
LENS = Lens.of_fov(SIZE, 62)
ABOUT_HIPS = {
    "nose": (0, 0.65, 0.1), "left_eye": (0.03, 0.69, 0.08), "right_eye": (-0.03, 0.69, 0.08),
    "left_ear": (0.07, 0.67, 0), "right_ear": (-0.07, 0.67, 0),
    "left_shoulder": (0.18, 0.48, 0), "right_shoulder": (-0.18, 0.48, 0),
    "left_elbow": (0.24, 0.2, -0.03), "right_elbow": (-0.24, 0.2, -0.03),
    "left_wrist": (0.26, -0.04, 0.05), "right_wrist": (-0.26, -0.04, 0.05),
    "left_hip": (0.1, 0, 0), "right_hip": (-0.1, 0, 0),
}  # fmt: skip


def walker(steps: int = 8, frames_a_step: int = 18) -> tuple[np.ndarray, np.ndarray]:
    """Somebody who walks towards +z. (N, 17, 3) m, room frame; (N, 2) bool whether the left and right foot stands."""
    count = steps * frames_a_step
    share = np.arange(count) / frames_a_step
    hips = np.stack([0 * share, 0.86 + 0.015 * np.cos(2 * np.pi * share), 0.3 * share], axis=-1)
    joints = np.zeros((count, 17, 3))
    for name, offset in ABOUT_HIPS.items():
        joints[:, INDEX[name]] = hips + offset
    standing = np.zeros((count, 2), dtype=bool)
    for foot, side in enumerate(("left", "right")):
        phase = (share + foot) / 2  # a foot steps every second step
        within = phase % 1
        standing[:, foot] = within < 0.55
        swing = np.clip((within - 0.55) / 0.45, 0, 1)
        eased = swing * swing * (3 - 2 * swing)
        ankle = np.stack(
            [
                np.full(count, 0.1 if side == "left" else -0.1),
                room.ANKLE_HEIGHT_M + 0.12 * np.sin(np.pi * swing),
                0.6 * (np.floor(phase) + eased) - 0.3 * foot + 0.16,
            ],
            axis=-1,
        )
        hip = joints[:, INDEX[f"{side}_hip"]]
        knee = hip + np.array([0, -0.4, 0.25])
        knee, ankle = feet._reach(hip, hip + geometry.unit(knee - hip) * 0.44, hip + np.array([0, -0.83, 0]), ankle)
        joints[:, INDEX[f"{side}_knee"]], joints[:, INDEX[f"{side}_ankle"]] = knee, ankle
    return joints, standing


def filmed(joints: np.ndarray, pitch_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The camera 4 m in front and 1.5 m up. Joints in its frame, the virtual camera's poses, image points."""
    pitch = Rotation.from_euler("x", pitch_deg, degrees=True).as_matrix()
    camera = geometry.to_room(joints - np.array([0.4, 1.5, 6.0])) @ pitch.T
    points = LENS.focal * camera[..., :2] / camera[..., 2:] + np.array(LENS.centre)
    return camera, geometry.to_virtual_camera(camera), points


def clock(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count) / FPS, np.zeros(count, dtype=int)


def test_the_root_is_found_exactly_where_pose_and_picture_agree():
    camera, poses, points = filmed(walker()[0], pitch_deg=8)
    turned = room.camera_poses(poses, points, LENS)
    np.testing.assert_allclose(
        turned, camera - hips_midpoint(camera), atol=0.01
    )  # the hips' points are not quite their midpoint's
    root = room.root_path(turned, points, np.ones(points.shape[:2]), LENS)
    np.testing.assert_allclose(root, hips_midpoint(camera)[:, 0], atol=0.05)


def test_joints_that_are_seen_elsewhere_hardly_move_the_root(rng):
    camera, poses, points = filmed(walker()[0])
    turned = room.camera_poses(poses, points, LENS)
    wrong = points.copy()
    wrong[:, [INDEX["left_wrist"], INDEX["right_wrist"]]] += rng.normal(0, 60, (len(points), 2, 2))
    root = room.root_path(turned, wrong, np.ones(points.shape[:2]), LENS)
    distance = hips_midpoint(camera)[:, 0, 2]
    assert np.abs(root[:, 2] / distance - 1).max() < 0.03


@pytest.mark.parametrize("pitch_deg", [-10.0, 0.0, 6.0])
def test_the_floor_is_under_the_feet_and_level(pitch_deg):
    joints, _ = walker()
    camera, _, points = filmed(joints, pitch_deg)
    floor = room.find_floor(camera, room.slow_ankles(camera, points, LENS, *clock(len(camera))))
    true_up = Rotation.from_euler("x", pitch_deg, degrees=True).as_matrix() @ np.array([0.0, -1.0, 0.0])
    assert np.degrees(np.arccos(floor.normal @ true_up)) < 1.5
    lowest = np.quantile(camera[:, ANKLES] @ floor.normal - floor.height, 0.1)
    assert abs(lowest - room.ANKLE_HEIGHT_M) < 0.03


def test_a_camera_whose_pitch_is_known_has_its_floor_though_who_stands_seems_to_lean():
    joints = np.repeat(walker()[0][:1], 90, axis=0)
    camera, _, _ = filmed(joints, pitch_deg=25)
    hips = hips_midpoint(camera)
    # MediaPipe shows but a part of the lean that a camera from above sees
    leaning = Rotation.from_euler("x", -12, degrees=True).as_matrix()
    camera = (camera - hips) @ leaning.T + hips
    true_up = Rotation.from_euler("x", 25, degrees=True).as_matrix() @ np.array([0.0, -1.0, 0.0])
    tilts = [
        np.degrees(np.arccos(room.find_floor(camera, np.ones((90, 2), dtype=bool), pitch).normal @ true_up))
        for pitch in (None, 25.0)
    ]
    assert tilts[0] > 8 and tilts[1] < 2


@pytest.mark.parametrize("pitch_deg", [-15.0, 0.0, 20.0])
def test_a_line_of_sight_looks_down_as_far_as_the_camera_and_the_place_in_the_picture_say(pitch_deg):
    joints, _ = walker()
    _, _, points = filmed(joints, pitch_deg)
    at = np.array([0.4, 1.5, 6.0])
    for joint in (INDEX["nose"], INDEX["left_ankle"]):
        away = geometry.unit(joints[:, joint] - at)
        seen = room.pitch_of_sight(pitch_deg, points[:, joint], LENS)
        np.testing.assert_allclose(seen, np.degrees(np.arcsin(-away[:, 1])), atol=1e-6)
    assert room.pitch_of_sight(pitch_deg, np.array(LENS.centre), LENS) == pytest.approx(pitch_deg)


def test_who_leans_to_one_side_leans_alone():
    joints = np.repeat(walker()[0][:1], 90, axis=0)
    lean = np.tan(np.radians(12 + 8 * np.sin(np.arange(90) / 7)))  # to the left, now more, now less, on feet that stand
    joints[..., 0] += (joints[..., 1] - room.ANKLE_HEIGHT_M) * lean[:, None]
    camera, _, _ = filmed(joints)
    floor = room.find_floor(camera, np.ones((90, 2), dtype=bool))
    assert np.degrees(np.arccos(floor.normal @ np.array([0.0, -1.0, 0.0]))) < 3


def test_feet_stand_when_they_stand():
    joints, standing = walker()
    camera, _, points = filmed(joints)
    seconds, clips = clock(len(camera))
    slow = room.slow_ankles(camera, points, LENS, seconds, clips)
    assert (room.find_standing(camera, slow, room.find_floor(camera, slow), seconds, clips) == standing).mean() > 0.9


def test_standing_feet_stand_still_and_nothing_else_gets_worse(rng):
    joints, standing = walker()
    camera, poses, points = filmed(joints)
    seconds, clips = clock(len(camera))
    # what a refiner leaves: errors of some centimetres that change slowly, in depth above all
    noise = np.cumsum(rng.normal(0, 0.004, poses.shape) * (0.3, 0.3, 1.0), axis=0)
    noise -= noise.mean(0)
    seen = poses + noise
    placed = room.stand(seen, points, np.ones(points.shape[:2]), LENS, seconds, clips)
    turned = room.camera_poses(seen, points, LENS)
    plain = (
        turned
        + room.smoothed_path(
            room.root_path(turned, points, np.ones(points.shape[:2]), LENS), turned, points, LENS, seconds, clips
        )[:, None]
    )

    def slide(joints: np.ndarray) -> float:
        return float(room.speeds(joints[:, ANKLES], seconds, clips)[standing & placed.standing].mean())

    assert placed.standing[standing].mean() > 0.5
    assert slide(placed.joints) < slide(plain) / 3
    for upper, lower in ((HIPS, KNEES), (KNEES, ANKLES)):
        for a, b in zip(upper, lower, strict=True):
            after, before = (np.linalg.norm(p[:, a] - p[:, b], axis=-1) for p in (placed.joints, seen))
            np.testing.assert_allclose(after, before, atol=1e-6)


def test_the_room_has_its_floor_at_zero_and_looks_at_the_camera():
    joints, _ = walker()
    _, poses, points = filmed(joints, pitch_deg=5)
    placed = room.stand(poses, points, np.ones(points.shape[:2]), LENS, *clock(len(poses)))
    assert np.abs(placed.joints[:, ANKLES, 1].min() - room.ANKLE_HEIGHT_M) < 0.05
    assert placed.joints[0, INDEX["nose"], 1] > 1.4
    walked = hips_midpoint(placed.joints)[-1, 0] - hips_midpoint(placed.joints)[0, 0]
    assert walked[2] > 2 and abs(walked[1]) < 0.1  # towards the camera, on the level


def test_a_stature_fixes_the_scale():
    joints, _ = walker()
    _, poses, points = filmed(joints)
    tall = room.stand(poses, points, np.ones(points.shape[:2]), LENS, *clock(len(poses)), height_m=1.9)
    assert room.stature(tall.joints) == pytest.approx(1.9, abs=0.02)


def test_nothing_of_one_clip_reaches_into_the_next():
    joints, standing = walker()
    camera, poses, points = filmed(joints)
    seconds, _ = clock(len(poses))
    clips = (np.arange(len(poses)) >= 70).astype(int)
    turned, root = room.camera_poses(poses, points, LENS), hips_midpoint(camera)[:, 0]
    together = feet.anchored_path(root, turned, standing, seconds, clips)
    parts = [
        feet.anchored_path(root[rows], turned[rows], standing[rows], seconds[rows], clips[rows])
        for rows in (slice(None, 70), slice(70, None))
    ]
    np.testing.assert_allclose(together, np.concatenate(parts), atol=1e-9)
    planted = feet.plant(camera, standing, seconds, clips)
    alone = feet.plant(camera[:70], standing[:70], seconds[:70], clips[:70])
    np.testing.assert_allclose(planted[:70], alone, atol=1e-9)


def test_one_frame_has_a_place_too():
    joints, _ = walker()
    _, poses, points = filmed(joints[:1])
    assert np.isfinite(room.stand(poses, points, np.ones((1, 17)), LENS, *clock(1)).joints).all()


def test_two_people_stand_on_one_floor_as_far_apart_as_they_are():
    joints, _ = walker()
    camera, people, hips = [], [], []
    for beside, late in ((0.0, 0), (-0.9, 40)):
        there = joints[late:] + np.array([beside, 0, -0.5])
        seen, poses, points = filmed(there, pitch_deg=4)
        camera.append(seen)
        hips.append(hips_midpoint(there)[:, 0])
        seconds, clips = np.arange(late, len(joints)) / FPS, np.zeros(len(there), dtype=int)
        people.append(
            room.Refined(
                poses=poses, image_points=points, weights=np.ones(points.shape[:2]), seconds=seconds, clips=clips
            )
        )
    first, second = room.stand_together(people, LENS)
    alone = room.stand_together(people[:1], LENS)[0]
    assert first.floor is second.floor and np.array_equal(first.turn, second.turn)
    assert np.linalg.norm(alone.joints - first.joints, axis=-1).max() < 0.1
    apart = hips_midpoint(second.joints)[-1, 0] - hips_midpoint(first.joints)[-1, 0]
    np.testing.assert_allclose(apart[[0, 2]], (hips[1][-1] - hips[0][-1])[[0, 2]], atol=0.15)
    for placed in (first, second):
        assert np.abs(placed.joints[:, ANKLES, 1].min() - room.ANKLE_HEIGHT_M) < 0.05
