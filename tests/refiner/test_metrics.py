"""Metrics, against computations by hand and against what they must not depend on."""

import numpy as np
import pytest

from refiner import baselines, metrics, temporal
from refiner.records import Pairs


@pytest.fixture(scope="module")
def pairs(make_pairs) -> Pairs:
    return make_pairs(6, frames=20, cameras=2, seed=4)


def test_perfect_poses_have_no_error_and_every_sign_right(pairs):
    found = metrics.summarise(pairs.ground_truth, pairs)
    for name in ("depth_cm", "depth_without_hips_cm", "mpjpe_cm", "n_mpjpe_cm", "pa_mpjpe_cm", "acceleration_error"):
        assert found[name] == pytest.approx(0, abs=1e-3)
    assert found["pck_150mm"] == found["limb_sign_accuracy"] == 1
    assert found["bone_cv"] < 5e-3  # these bodies keep their bones


def test_a_wrist_that_is_17_cm_too_deep_costs_one_centimetre(pairs):
    poses = pairs.ground_truth.copy()
    poses[:, 9, 2] += 0.17
    found = metrics.summarise(poses, pairs)
    assert found["depth_cm"] == pytest.approx(1.0, rel=1e-4) and found["mpjpe_cm"] == pytest.approx(1.0, rel=1e-4)
    assert found["depth_without_hips_cm"] == pytest.approx(17 / 15, rel=1e-4)
    assert found["pck_150mm"] == pytest.approx(16 / 17)


def test_where_a_pose_stands_does_not_matter_and_scale_only_where_it_should(pairs, rng):
    moved = pairs.corrupted + rng.normal(0, 1, (len(pairs), 1, 3))
    assert metrics.summarise(moved, pairs)["depth_cm"] == pytest.approx(
        metrics.summarise(pairs.corrupted, pairs)["depth_cm"], rel=1e-4
    )
    larger = metrics.summarise(pairs.ground_truth * 1.2, pairs)
    assert larger["mpjpe_cm"] > 5 and larger["n_mpjpe_cm"] < 1e-3 and larger["pa_mpjpe_cm"] < 1e-3


def test_pa_mpjpe_forgives_a_turn_but_no_reflection(pairs):
    c, s = np.cos(0.7), np.sin(0.7)
    turned = pairs.ground_truth @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    assert metrics.aligned_joint_error(turned, pairs.ground_truth).max() < 1e-5
    assert metrics.aligned_joint_error(pairs.ground_truth * [-1, 1, 1], pairs.ground_truth).mean() > 0.01


def test_the_acceleration_error_is_in_metres_per_second_squared(pairs):
    clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
    seconds = pairs.timestamp_us * 1e-6
    poses = pairs.ground_truth.astype(float).copy()
    poses[:, 9, 2] += 0.5 * 3.0 * seconds**2  # a wrist that accelerates by 3 m/s² more than it should
    error, rows = metrics.acceleration_error(poses, pairs.ground_truth, seconds, clips)
    np.testing.assert_allclose(error, 3.0 / 17, rtol=2e-2)
    assert len(rows) == len(pairs) - 2 * (clips[-1] + 1)  # each clip's ends have one neighbour only


def test_a_missing_frame_makes_no_acceleration(pairs):
    gap = pairs.take(np.delete(np.arange(20), 10))
    _, rows = metrics.acceleration_error(gap.corrupted, gap.ground_truth, gap.timestamp_us * 1e-6, np.zeros(19, int))
    assert not {9, 10} & set(rows)


def test_bones_that_breathe_are_noticed(pairs):
    clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
    breathing = pairs.ground_truth * (1 + 0.1 * np.where(np.arange(len(pairs)) % 2, 1, -1))[:, None, None]
    variation, frames = metrics.bone_variation(breathing, clips)
    np.testing.assert_allclose(variation, 0.1, rtol=0.02)
    assert frames.tolist() == [20] * 12


def test_the_interval_is_over_sequences_not_frames(rng):
    """A thousand frames of each of ten sequences that differ: the interval is that of ten numbers."""
    means = rng.normal(10, 2, 10)
    values, sequences = np.repeat(means, 1000), np.repeat(np.arange(10), 1000)
    low, high = metrics.bootstrap(values, sequences)
    expected = means.std() / np.sqrt(10)
    assert 2 * 1.6 * expected < high - low < 2 * 2.3 * expected and low < means.mean() < high
    assert metrics.bootstrap(values[:1000], sequences[:1000]) == (-np.inf, np.inf)


def test_a_small_gain_on_every_sequence_is_significant_though_sequences_differ(pairs):
    better = pairs.corrupted + 0.1 * (pairs.ground_truth - pairs.corrupted)
    difference, low, high = metrics.depth_difference(better, pairs.corrupted, pairs)
    assert low < difference < high < 0
    assert metrics.depth_difference(pairs.corrupted, pairs.corrupted, pairs) == (0, 0, 0)


def test_slices_part_the_pairs_and_average_to_the_whole(pairs):
    table = metrics.depth_by_slice({"mediapipe": pairs.corrupted}, pairs)
    whole = metrics.summarise(pairs.corrupted, pairs)["depth_cm"]
    assert np.mean([row["mediapipe"] for row in table["joint"].values()]) == pytest.approx(whole, rel=1e-5)
    for dimension in ("view angle", "azimuth", "visibility", "camera", "genre"):
        rows = table[dimension].values()
        assert sum(row["pairs"] for row in rows) == len(pairs)
        assert sum(row["mediapipe"] * row["pairs"] for row in rows) / len(pairs) == pytest.approx(whole, rel=1e-5)


def test_calibration_and_order_of_a_confidence(rng):
    confidence = rng.uniform(0, 1, (4000, 17))
    honest = rng.uniform(0, 1, confidence.shape) < confidence
    assert metrics.calibration_error(confidence, honest) < 0.01
    assert metrics.calibration_error(np.full_like(confidence, 0.9), honest) == pytest.approx(0.4, abs=0.01)
    errors = rng.exponential(1, confidence.shape)
    assert metrics.ause(errors, -errors) == pytest.approx(0, abs=1e-9)
    assert metrics.ause(errors, rng.uniform(0, 1, errors.shape)) > 0.3
    assert metrics.confidence_summary(1 / (1 + errors), errors, 1.0)["lowest_decile_error"] > 3


def test_baselines_take_away_what_they_know_of(make_pairs):
    train, test = make_pairs(40, seed=1), make_pairs(10, seed=3, first=200)
    error = {
        name: metrics.summarise(method(test), test)["depth_cm"] for name, method in baselines.fit_all(train).items()
    }
    assert error["ridge"] < error["azimuth_bias"] < error["mediapipe"] < error["zero"]
    shifted = test.take(np.arange(len(test)))
    shifted.corrupted[:, [7, 8], 2] += 0.2  # the elbows are always too deep: a bias by joint is enough
    fitted = baselines.fit_all(shifted)
    assert metrics.depth_error(fitted["bias"](shifted), shifted.ground_truth)[:, [7, 8]].mean() < 0.12
    assert metrics.depth_error(shifted.corrupted, shifted.ground_truth)[:, [7, 8]].mean() > 0.18


def test_smoothing_takes_noise_away_and_leaves_a_line_a_line(rng):
    seconds, clips = np.arange(60) / 30, np.zeros(60, int)
    line = np.linspace(0, 1, 60)
    np.testing.assert_allclose(temporal.smooth(line, seconds, clips, 0.05)[10:-10], line[10:-10], atol=1e-9)
    noise = rng.normal(0, 1, 60)
    assert temporal.smooth(noise, seconds, clips, 0.1).std() < 0.5 * noise.std()
    assert temporal.smooth(noise, seconds, clips, 0.0) is noise


def test_smoothing_and_windows_stop_at_the_end_of_a_clip():
    seconds, clips = np.tile(np.arange(10) / 30, 2), np.repeat([0, 1], 10)
    steps = np.repeat([0.0, 1.0], 10)
    np.testing.assert_array_equal(temporal.smooth(steps, seconds, clips, 0.2), steps)
    taps = temporal.tap_rows(seconds, clips, (-0.2, 0.0, 0.2))
    assert (clips[taps] == clips[:, None]).all()
    assert taps[0].tolist() == [0, 0, 6] and taps[9].tolist() == [3, 9, 9] and taps[10].tolist() == [10, 10, 16]


def test_a_window_over_a_gap_takes_the_nearest_frame():
    seconds = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    taps = temporal.tap_rows(seconds, np.zeros(5, int), (-0.2, 0.0, 0.2))
    assert taps[2].tolist() == [0, 2, 2] and taps[3].tolist() == [3, 3, 4]
