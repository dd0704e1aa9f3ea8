"""What is no world landmark is refused with what was sent and what to send; what is one is taken, upside down, too."""

from dataclasses import dataclass

import numpy as np
import pytest

from refiner import UserError
from refiner.data.aistpp import Dataset
from refiner.geometry import to_virtual_camera
from refiner.inference.sides import in_front, upright
from refiner.inference.validation import validate_poses
from refiner.skeleton import FROM_MEDIAPIPE, LANDMARK_MIRROR, MIRROR, root_centred


@pytest.fixture(scope="module")
def dance(aistpp) -> list[np.ndarray]:
    """Real dance as nine real cameras see it: clips of (N, 17, 3) metres, virtual camera frame."""
    data, clips = Dataset(aistpp), []
    for name in data.sequences:
        truth = data.keypoints3d(name)
        truth = truth[np.isfinite(truth).all((1, 2))][::4]
        clips += [to_virtual_camera(c.to_camera(truth)).astype(np.float32) for c in data.cameras(name).values()]
    return clips


WRONG = {
    "image landmarks": (lambda p: p * (0.3, 0.5, 0.3) + (0.5, 0.55, 0), "pose_landmarks"),
    "centred image landmarks": (lambda p: p * (0.2, 0.35, 0.2), "moved to the hips"),
    "pixels": (lambda p: p * 400 + (640, 360, 0), "not pixels"),
    "millimetres": (lambda p: p * 1000, "no person does in metres"),
    "y and z up": (lambda p: p * (1, -1, -1), "y seems to point up"),
    "y up": (lambda p: p * (1, -1, 1), "y seems to point up"),
    "mirrored": (lambda p: p * (-1, 1, 1), "left and right are exchanged"),
    "exchanged": (lambda p: p[:, MIRROR], "left and right are exchanged"),
}


def test_real_dance_is_taken_pose_by_pose_and_clip_by_clip(dance):
    for clip in dance:
        validate_poses(clip)
        for pose in clip[::5]:
            validate_poses(pose[None])


@pytest.mark.parametrize("kind", WRONG)
def test_each_wrong_kind_is_told(dance, kind):
    change, says = WRONG[kind]
    for clip in dance:
        with pytest.raises(UserError, match=says) as caught:
            validate_poses(change(clip))
        assert "\n" not in str(caught.value)


def test_handstands_cartwheels_and_lying_people_are_taken(dance):
    for clip in dance[::4]:
        handstand = clip * (-1, -1, 1)  # the same body turned by half a turn in the picture
        handstand[:, [9, 10]] = np.add(handstand[:, :5].max(1, keepdims=True), (0, 0.4, 0))  # on its hands
        validate_poses(handstand)
        validate_poses(clip[..., [1, 0, 2]] * (1, -1, 1))  # lies on its side
        candle = clip * (-1, -1, 1)
        candle[:, :5] = np.add(candle[:, [5, 6]].mean(1, keepdims=True), (0, 0, 0.2))  # the head lies on the floor
        candle[:, [7, 8]] = candle[:, [5, 6]] + (0, 0.02, -0.25)  # on its shoulders and elbows, hands at the hips
        candle[:, [9, 10]] = candle[:, [11, 12]] + (0, 0.1, -0.1)
        validate_poses(candle)
        for pose in candle[::5]:
            validate_poses(pose[None])


def test_who_lies_has_more_room_before_a_pose_counts_as_mirrored(dance):
    """Nose and knees of someone on the floor may seem to be behind the body by what would not do for somebody who stands."""
    clip = max(
        (clip[i : i + 20] for clip in dance for i in range(0, len(clip) - 20, 20)), key=lambda c: upright(c).mean()
    )
    assert upright(clip).mean() > 0.8
    lying = clip[..., [1, 0, 2]] * (1, -1, 1)
    assert abs(upright(lying).mean()) < 0.5

    def facing(poses: np.ndarray, front: float) -> np.ndarray:
        """Noses, eyes and knees moved along where the shoulders face, so that `in_front` is so much."""
        across = poses[:, 5] - poses[:, 6]
        ahead = np.cross(across, (poses[:, 5] + poses[:, 6] - poses[:, 11] - poses[:, 12]) / 2)
        ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
        moved = poses.copy()
        moved[:, [0, 1, 2, 13, 14]] += ahead[:, None]
        at_once, before = (in_front(root_centred(p)).sum() for p in (moved, poses))
        moved = poses.copy()
        moved[:, [0, 1, 2, 13, 14]] += (front - before) / (at_once - before) * ahead[:, None]
        return moved

    validate_poses(facing(lying, -7))
    for poses in (facing(clip, -7), facing(lying, -10)):
        with pytest.raises(UserError, match="point backwards"):
            validate_poses(poses)


EXCHANGED = {
    "arms": ((5, 7, 9), "face opposite ways"),
    "legs": ((11, 13, 15), "face opposite ways"),
    "elbows and wrists": ((7, 9), "the upper arms cross"),
}


@pytest.mark.parametrize("limbs", EXCHANGED)
def test_limbs_whose_left_and_right_are_exchanged_are_told(dance, limbs):
    left, says = EXCHANGED[limbs]
    for clip in dance:
        exchanged = clip.copy()
        for joint in left:
            exchanged[:, [joint, joint + 1]] = clip[:, [joint + 1, joint]]
        with pytest.raises(UserError, match=says):
            validate_poses(exchanged)


@dataclass
class Landmark:
    x: float
    y: float
    z: float


@dataclass
class NormalizedLandmark(Landmark):
    pass


@dataclass
class Result:
    pose_world_landmarks: list[list[Landmark]]


def test_mediapipes_own_lists_are_taken_and_its_image_landmarks_named(dance):
    pose = np.zeros((33, 3))
    pose[FROM_MEDIAPIPE] = dance[0][0]
    listed = [Landmark(*point) for point in pose.tolist()]
    expected = validate_poses(pose[None])[0]
    for form in ([listed], [listed, listed], listed, Result([listed])):
        np.testing.assert_allclose(validate_poses(form)[0][:1], expected, atol=1e-6)
    with pytest.raises(UserError, match=r"NormalizedLandmark.*pose_world_landmarks"):
        validate_poses([[NormalizedLandmark(*point) for point in pose.tolist()]])
    for gap in ([pose.tolist(), None], [None, pose]):
        with pytest.raises(UserError, match=r"poses\[[01]\] is None: leave out"):
            validate_poses(gap)


@pytest.fixture(scope="module")
def from_mediapipe(cases) -> tuple[np.ndarray, np.ndarray]:
    """MediaPipe's own world landmarks and image landmarks of a real video, (N, 33, 3) each."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    from refiner.data import video
    from refiner.estimators.mediapipe_assets import model_path

    base = BaseOptions(model_asset_path=str(model_path()))
    options = vision.PoseLandmarkerOptions(base_options=base, running_mode=vision.RunningMode.VIDEO)
    world, image = [], []
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        for frame in video.frames(cases / "plain.mp4"):
            picture = mediapipe.Image(mediapipe.ImageFormat.SRGB, frame.rgb)
            told = landmarker.detect_for_video(picture, frame.timestamp_us // 1000)
            world.append([(p.x, p.y, p.z) for p in told.pose_world_landmarks[0]])
            image.append([(p.x, p.y, p.z) for p in told.pose_landmarks[0]])
    return np.array(world), np.array(image)


@pytest.mark.parametrize("aspect", [9 / 16, 3 / 4, 1, 16 / 9])
def test_mediapipes_image_landmarks_are_told_wherever_they_are_moved_to(from_mediapipe, aspect):
    world, image = from_mediapipe
    validate_poses(world)
    image = image * (1, aspect * 16 / 9, 1)  # as of a picture of another shape; the video's is 9:16
    hips = image[:, 23:25].mean(1, keepdims=True)
    for moved in (image, image - hips, image - hips * (1, 1, 0), (image - hips) * 1.5):
        for batch in (moved, moved[:20], moved[10:15]):
            with pytest.raises(UserError, match=r"not pose_landmarks|send MediaPipe's pose_world_landmarks"):
                validate_poses(batch)


def test_five_poses_with_mouth_and_feet_are_enough_to_tell_a_mirror_image(from_mediapipe):
    world, _ = from_mediapipe
    for i in range(0, len(world) - 5, 5):
        validate_poses(world[i : i + 5])
        for mirrored in (world * (-1, 1, 1), world[:, LANDMARK_MIRROR]):
            with pytest.raises(UserError, match="left and right are exchanged"):
                validate_poses(mirrored[i : i + 5])


def test_small_people_of_other_proportions_are_taken_from_everywhere(dance, from_mediapipe):
    rng = np.random.default_rng(0)
    for clip in [*dance[::3], from_mediapipe[0][:, FROM_MEDIAPIPE].astype(np.float32)]:
        child = clip.copy()
        shoulders = clip[:, 5:7].mean(1, keepdims=True)
        child[:, :5] = shoulders + 1.25 * (clip[:, :5] - shoulders)  # a big head
        for joint, parent in ((7, 5), (8, 6), (9, 7), (10, 8), (13, 11), (14, 12), (15, 13), (16, 14)):  # short limbs
            child[:, joint] = child[:, parent] + 0.8 * (clip[:, joint] - clip[:, parent])
        turn = rng.uniform(-np.pi / 2, np.pi / 2)
        lying = child.copy()
        lying[..., 0] = np.cos(turn) * child[..., 0] - np.sin(turn) * child[..., 1]
        lying[..., 1] = np.sin(turn) * child[..., 0] + np.cos(turn) * child[..., 1]
        for poses in (child * 0.6, child * 1.2, lying[:15] * 0.6):
            validate_poses(poses)
            for pose in poses[::7]:
                validate_poses(pose[None])


def ordered(poses: np.ndarray) -> dict[str, np.ndarray]:
    """The same people with their joints in other orders."""
    hips, neck, ears = ((poses[:, a] + poses[:, b]) / 2 for a, b in ((11, 12), (5, 6), (3, 4)))
    spine, top, mouth = (hips + neck) / 2, ears + (ears - neck) / 2, 0.9 * poses[:, 0] + 0.1 * neck

    def put(*joints: int | np.ndarray) -> np.ndarray:
        return np.stack([poses[:, joint] if isinstance(joint, int) else joint for joint in joints], axis=1)

    ahead = np.cross(poses[:, 11] - poses[:, 12], neck - hips)
    toes = 0.12 * ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
    return {
        "SMPL": root_centred(
            put(
                hips,
                0.6 * poses[:, 11] + 0.4 * hips,
                0.6 * poses[:, 12] + 0.4 * hips,
                0.7 * hips + 0.3 * neck,
                13,
                14,
                spine,
                15,
                16,
                0.4 * hips + 0.6 * neck,
                poses[:, 15] + toes,
                poses[:, 16] + toes,
                neck,
                0.6 * neck + 0.4 * poses[:, 5],
                0.6 * neck + 0.4 * poses[:, 6],
                ears,
                5,
            )
        ),
        "Human3.6M": put(hips, 12, 14, 16, 11, 13, 15, spine, neck, ears, top, 5, 7, 9, 6, 8, 10),
        "MPI-INF-3DHP": put(top, neck, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, hips, spine, ears),
        "OpenPose": put(0, neck, 6, 8, 10, 5, 7, 9, hips, 12, 14, 16, 11, 13, 15, 2, 1),
        "backwards": poses[:, ::-1],
        "MediaPipe's first 17": put(0, 1, 1, 1, 2, 2, 2, 3, 4, mouth, mouth, 5, 6, 7, 8, 9, 10),
    }


@pytest.mark.parametrize(
    "order", ["SMPL", "Human3.6M", "MPI-INF-3DHP", "OpenPose", "backwards", "MediaPipe's first 17"]
)
def test_joints_in_another_order_are_told(dance, order):
    said = "first 17 of MediaPipe's 33" if order.startswith("MediaPipe") else "another order|too short for a person"
    for clip in dance:
        with pytest.raises(UserError, match=said):
            validate_poses(ordered(clip)[order])


def test_a_single_pose_in_smpls_order_is_told_by_its_hips(dance):
    for clip in dance:
        for pose in ordered(clip)["SMPL"][::7]:
            with pytest.raises(UserError, match=r"another order|too long|image landmarks"):
                validate_poses(pose[None])


def test_people_in_feet_are_too_long(dance):
    for clip in dance:
        for poses in (clip, clip[:1]):
            with pytest.raises(UserError, match=r"are these feet|no person does in metres"):
                validate_poses(poses / 0.3048)
        validate_poses(clip * 1.3)  # the tallest there were


def test_who_bends_over_upside_down_is_told_though_the_hands_are_seldom_free(from_mediapipe):
    world, _ = from_mediapipe  # bends over: hands and elbows are near the head in most of these frames
    for turned in (world * (1, -1, -1), world * (1, -1, 1)):
        with pytest.raises(UserError, match="y seems to point up"):
            validate_poses(turned)
