"""What is no world landmark is refused with what was sent and what to send; what is one is taken, upside down, too."""

from dataclasses import dataclass

import numpy as np
import pytest

from refiner import UserError
from refiner.data.aistpp import Dataset
from refiner.geometry import to_virtual_camera
from refiner.inference.validation import validate_poses
from refiner.skeleton import FROM_MEDIAPIPE, MIRROR


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
