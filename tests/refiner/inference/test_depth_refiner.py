"""Pre-processing and what a caller of the refiner may rely on."""

import dataclasses
import types

import numpy as np
import pytest
import torch

from refiner import DepthRefiner, UserError
from refiner.geometry import azimuth, crop_normalise, mirror
from refiner.inference.validation import validate_poses
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from refiner.skeleton import BONES, FROM_MEDIAPIPE, MIRROR, hips_midpoint

SMOOTHED = RefinerConfig(symmetric=True, smoothing_s=0.05)


def random_model(config: RefinerConfig) -> PoseAwareDepthRefiner:
    torch.manual_seed(0)
    model = PoseAwareDepthRefiner(config).eval()
    torch.nn.init.normal_(model.encoder.correction[-1].weight, std=0.3)
    torch.nn.init.normal_(model.encoder.scale[-1].weight, std=0.3)
    return model


@pytest.fixture(scope="module", params=[RefinerConfig(), SMOOTHED], ids=["published", "smoothed"])
def refiner(request) -> DepthRefiner:
    return DepthRefiner.of(random_model(request.param))


@pytest.fixture(scope="module")
def clip(make_pairs):
    return make_pairs(1, frames=20, cameras=1)


def test_33_landmarks_and_their_17_joints_get_the_same_answer(refiner, clip, rng):
    landmarks, visibility = rng.normal(0, 0.3, (20, 33, 3)), rng.uniform(0, 1, (20, 33))
    landmarks[:, FROM_MEDIAPIPE], visibility[:, FROM_MEDIAPIPE] = clip.corrupted, clip.visibility
    full, joints = refiner.predict(landmarks, visibility), refiner.predict(clip.corrupted, clip.visibility)
    np.testing.assert_allclose(full.poses, joints.poses, atol=1e-6)
    np.testing.assert_allclose(full.confidence, joints.confidence, atol=1e-6)


def test_a_batch_is_its_single_poses(refiner, clip):
    batch = refiner.refine(clip.corrupted, clip.visibility)
    singles = [refiner.refine(p, v) for p, v in zip(clip.corrupted, clip.visibility, strict=True)]
    np.testing.assert_allclose(batch, singles, atol=1e-5)


def test_a_clip_of_one_frame_is_a_single_pose(refiner, clip):
    as_clip = refiner.refine(clip.corrupted[:1], clip.visibility[:1], sequence=True)
    np.testing.assert_allclose(as_clip[0], refiner.refine(clip.corrupted[0], clip.visibility[0]), atol=1e-6)


def test_a_clip_that_stands_still_is_a_single_pose_many_times(refiner, clip):
    still = np.repeat(clip.corrupted[:1], 9, axis=0)
    refined = refiner.refine(still, np.repeat(clip.visibility[:1], 9, axis=0), sequence=True)
    np.testing.assert_allclose(refined, np.repeat(refiner.refine(still[:1], clip.visibility[:1]), 9, axis=0), atol=1e-5)


def test_the_frame_rate_does_not_matter_only_the_time(clip, make_pairs):
    """The same motion at twice the rate, every second frame of it, gets (nearly) the same answer."""
    fast = make_pairs(1, frames=40, cameras=1, fps=60)
    refiner = DepthRefiner.of(random_model(SMOOTHED))
    whole = refiner.refine(fast.ground_truth, sequence=True, fps=60)[::2]
    half = refiner.refine(fast.ground_truth[::2], sequence=True, fps=30)
    np.testing.assert_allclose(whole[6:-6], half[6:-6], atol=2e-3)


def test_pairs_of_many_clips_are_refined_as_each_clip_alone(refiner, make_pairs):
    pairs = make_pairs(2, frames=12, cameras=2)
    together = refiner.predict_pairs(pairs)
    for start in pairs.clip_starts():
        rows = slice(start, start + 12)
        alone = refiner.predict(pairs.corrupted[rows], pairs.visibility[rows], sequence=True, fps=30)
        np.testing.assert_allclose(together.poses[rows], alone.poses, atol=1e-4)


def test_the_hips_stay_the_origin_and_the_angle_is_that_of_the_given_pose(refiner, clip):
    refined = refiner.predict(clip.corrupted, clip.visibility)
    np.testing.assert_allclose(hips_midpoint(refined.poses), 0, atol=1e-6)
    np.testing.assert_allclose(refined.azimuth, azimuth(clip.corrupted), atol=1e-3)
    assert (refined.view_angle >= 0).all() and (refined.view_angle <= 90).all()
    assert refined.poses.dtype == refined.confidence.dtype == np.float32


def test_where_the_person_stands_does_not_matter(refiner, clip):
    moved = clip.corrupted + np.float32([0.5, -0.2, 1.0])
    np.testing.assert_allclose(refiner.refine(moved), refiner.refine(clip.corrupted), atol=1e-5)


def test_a_mirrored_pose_gets_the_mirrored_answer(clip):
    refiner = DepthRefiner.of(random_model(SMOOTHED))
    straight = refiner.refine(clip.corrupted, clip.visibility)
    turned = refiner.refine(mirror(clip.corrupted), clip.visibility[:, MIRROR])
    np.testing.assert_allclose(turned, mirror(straight), atol=1e-5)


def test_image_points_change_what_a_model_with_image_points_says(clip, rng):
    refiner = DepthRefiner.of(random_model(RefinerConfig(image_points=True)))
    pixels = rng.uniform(0, 500, (20, 17, 2))
    assert not np.allclose(
        refiner.refine(clip.corrupted, image_points=pixels), refiner.refine(clip.corrupted), atol=1e-3
    )
    # where the crop lies and how large it is says nothing
    np.testing.assert_allclose(
        refiner.refine(clip.corrupted, image_points=pixels), refiner.refine(clip.corrupted, image_points=3 * pixels + 70),
        atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_image_points_that_are_shares_of_the_picture_are_refused(clip, rng, share):
    refiner = DepthRefiner.of(random_model(RefinerConfig(image_points=True)))
    pixels = rng.uniform(100, 500, (20, 17, 2))
    with pytest.raises(UserError, match=r"lie between 0 and 1.*send pixels"):
        refiner.refine(clip.corrupted, image_points=share * pixels / (640, 480))
    with pytest.raises(UserError, match="image_points of pose 3 lie"):
        pixels[3] = 0
        refiner.refine(clip.corrupted, image_points=pixels)
    # what the project itself keeps in pairs says the same as pixels
    pixels[3] = pixels[4]
    refined = refiner.refine(clip.corrupted, image_points=pixels)
    np.testing.assert_allclose(refiner.refine(clip.corrupted, image_points=crop_normalise(pixels)), refined, atol=1e-5)


@pytest.mark.parametrize(
    ("stamps", "says"),
    [
        (np.r_[0, np.nan, np.arange(2, 20) * 40_000], "rising numbers"),
        (np.r_[np.arange(19) * 40_000, np.inf], "rising numbers"),
        (np.full(20, np.nan), "rising numbers"),
        (np.arange(20)[None] * 40_000, "rising numbers"),
        (np.array([str(40_000 * i) for i in range(20)]), "rising numbers"),
        (np.arange(20) * 0.04, "give microseconds, not seconds"),
        (np.arange(20) * 40, "give microseconds, not seconds"),
    ],
)
def test_stamps_that_are_no_microseconds_are_refused(clip, stamps, says):
    with pytest.raises(UserError, match=says):
        DepthRefiner.of(random_model(SMOOTHED)).predict(clip.corrupted, sequence=True, timestamps_us=stamps)


def test_a_model_that_is_told_how_the_camera_looks_says_something_else_for_each_pitch(clip):
    refiner = DepthRefiner.of(random_model(RefinerConfig(camera_pitch=True, symmetric=True)))
    level, steep = (refiner.refine(clip.corrupted, camera_pitch=pitch) for pitch in (0, 20))
    for other in (steep, refiner.refine(clip.corrupted)):
        assert np.abs(level - other).max() > 1e-3
    each = np.r_[np.zeros(10), np.full(10, 20.0)]
    np.testing.assert_allclose(
        refiner.refine(clip.corrupted, camera_pitch=each), np.concatenate([level[:10], steep[10:]]), atol=1e-6
    )
    np.testing.assert_allclose(refiner.refine(clip.corrupted[3], camera_pitch=20), steep[3], atol=1e-6)
    # pairs know it, and say so where they are asked to
    known = dataclasses.replace(clip, pitch=each.astype(np.float32))
    np.testing.assert_array_equal(
        refiner.predict_pairs(known).poses, refiner.predict_pairs(clip, camera_pitch=True).poses
    )
    as_sequence = refiner.predict(
        clip.corrupted, clip.visibility, timestamps_us=clip.timestamp_us, sequence=True, camera_pitch=each
    )
    np.testing.assert_allclose(refiner.predict_pairs(known, camera_pitch=True).poses, as_sequence.poses, atol=1e-6)


@pytest.mark.parametrize("pitch", [np.nan, 91, "down", [1.0, 2.0]])
def test_a_camera_pitch_that_is_none_is_refused(refiner, clip, pitch):
    with pytest.raises(UserError, match="camera_pitch"):
        refiner.refine(clip.corrupted, camera_pitch=pitch)


GOOD = np.random.default_rng(0).normal(0, 0.3, (2, 17, 3))


def _with(value, where):
    poses = GOOD.copy()
    poses[where] = value
    return poses


@pytest.mark.parametrize(
    ("poses", "visibility", "says"),
    [
        (GOOD[0], None, "17×3: expected N×17×3"),
        (GOOD[:, :16], None, "2×16×3: expected"),
        (GOOD[..., :2], None, "2×17×2: expected"),
        (GOOD[:0], None, "is empty"),
        (np.zeros((9, 17, 3)) + GOOD[0], None, "9 poses are more than the 8"),
        (_with(np.nan, (1, 2, 0)), None, r"poses\[1\]\[2\]\[0\] is nan"),
        (_with(np.inf, (0, 0, 0)), None, r"is inf"),
        (GOOD * 100, None, "which no person does in metres"),
        (GOOD * 1000, None, "which no person does in metres"),
        (GOOD * 0, None, "which no person does in metres"),
        ([[[1, 2, 3]] * 17, [[1, 2, 3]] * 16], None, "not a regular array"),
        ("pose", None, "not a regular array"),
        (GOOD, np.ones((2, 33)), "visibility has the shape 2×33: expected 2×17"),
        (GOOD, np.full((2, 17), np.nan), "is nan"),
        (GOOD, np.full((2, 17), 50.0), "between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence_that_says_what_is_wrong(poses, visibility, says):
    with pytest.raises(UserError, match=says):
        validate_poses(poses, visibility, max_poses=8)


def test_a_wrong_frame_rate_is_refused(refiner, clip):
    with pytest.raises(UserError, match="fps is 0"):
        refiner.refine(clip.corrupted, sequence=True, fps=0)
    with pytest.raises(UserError, match="20 rising numbers"):
        refiner.predict(clip.corrupted, sequence=True, timestamps_us=np.zeros(20))


def _landmark(**values):
    return types.SimpleNamespace(**values)


LANDMARKS = [_landmark(x=0.1, y=0.2, z=0.0)] * 17
STAMPS = np.arange(20) * 40_000


@pytest.mark.parametrize(
    "arguments",
    [
        {"fps": fps} for fps in ("25", None, True, [25], np.nan, np.inf, -1, 0, 1e-300, 1e-9, 1e9, 10**400, 25j)
    ] + [
        {"timestamps_us": stamps} for stamps in (
            STAMPS.astype(str), STAMPS[:, None], STAMPS.astype("datetime64[us]"), STAMPS[::-1], [None] * 20, 5, "now",
            [[1], [2, 3]],
        )
    ] + [
        {"clip": clip} for clip in (
            np.zeros((20, 1), int), "a", [[0], [1, 2]], np.arange(20, dtype=np.uint8)[::-1], np.zeros(20), [], 0,
        )
    ] + [
        {"bone_lengths": lengths} for lengths in (
            np.full(len(BONES), 1e-30), np.full(len(BONES), 2.9), np.full(len(BONES), np.nan), "a", [[0.3] * 6] * 2,
        )
    ] + [
        {"visibility": visibility} for visibility in ("a", [[None] * 17] * 20, [[1.0] * 17, [1.0]], np.ones(17), [])
    ] + [
        {"image_points": points} for points in ("a", [None] * 20, [[[1, 2]] * 17, [[1, 2]]], np.ones((20, 17, 3)) * 50, [])
    ],
)  # fmt: skip
def test_whatever_is_said_of_a_clip_is_one_sentence_or_right(clip, arguments):
    refiner = DepthRefiner.of(random_model(SMOOTHED))
    with pytest.raises(UserError) as caught:
        refiner.predict(clip.corrupted, **{"sequence": True, "fps": 25, **arguments})
    assert "\n" not in str(caught.value) and next(iter(arguments)) in str(caught.value)


class _Unwilling:
    """As a PyTorch tensor that wants a gradient."""

    def __array__(self, *_, **__):
        raise RuntimeError("use tensor.detach()")


@pytest.mark.parametrize(
    "poses",
    [
        None, [], [None], "pose", ["a", "b"], {"poses": GOOD}, 3, [[1], [2, 3]], [GOOD[0], None], [GOOD[0], GOOD[1][:5]],
        np.array([GOOD[0], None], object), [GOOD[0], "pose"], GOOD.astype(str), GOOD.astype(complex), GOOD > 0, iter(GOOD),
        [[["0", "1", "2"]] * 17], [LANDMARKS, []], [LANDMARKS, GOOD[0]], [LANDMARKS, None],
        [[_landmark(x=0.0, y=0.0)] * 17],
        [[_landmark(x=None, y=0, z=0)] * 17], [[_landmark(x="a", y=0, z=0)] * 17], [_landmark(x=0.0, y=0.0, z=0.0), None],
        [[], LANDMARKS], [[]], [[[]]], _landmark(pose_world_landmarks=None), _landmark(pose_world_landmarks=[]),
        GOOD * 1e38, GOOD + 1e6,
        np.ma.masked_array(GOOD, GOOD > 0.5), _Unwilling(), GOOD[None],
    ],
)  # fmt: skip
def test_whatever_is_sent_in_place_of_poses_is_one_sentence(refiner, poses):
    for call in (refiner.predict, refiner.refine):
        with pytest.raises(UserError) as caught:
            call(poses)
        assert str(caught.value) and "\n" not in str(caught.value)
