"""Metrics, against computations by hand and against what they must not depend on."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refiner import temporal
from refiner.data.records import Pairs
from refiner.evaluation import baselines, metrics
from refiner.evaluation.confidence import ConfidenceCounts, calibration_error, confidence_summary
from refiner.evaluation.tally import Tally, interval


@pytest.fixture(scope="module")
def pairs(make_pairs) -> Pairs:
    return make_pairs(6, frames=20, cameras=2, seed=4)


def test_perfect_poses_have_no_error_and_every_sign_right(pairs):
    figures = metrics.summarise(pairs.ground_truth, pairs)
    for name in ("depth_cm", "depth_without_hips_cm", "mpjpe_cm", "n_mpjpe_cm", "pa_mpjpe_cm", "acceleration_error"):
        assert figures[name] == pytest.approx(0, abs=1e-3)
    assert figures["pck_150mm"] == figures["limb_sign_accuracy"] == 1
    assert figures["bone_cv"] < 5e-3  # these bodies keep their bones


def test_a_wrist_that_is_17_cm_too_deep_costs_one_centimetre(pairs):
    poses = pairs.ground_truth.copy()
    poses[:, 9, 2] += 0.17
    figures = metrics.summarise(poses, pairs)
    assert figures["depth_cm"] == pytest.approx(1.0, rel=1e-4) and figures["mpjpe_cm"] == pytest.approx(1.0, rel=1e-4)
    assert figures["depth_without_hips_cm"] == pytest.approx(17 / 15, rel=1e-4)
    assert figures["pck_150mm"] == pytest.approx(16 / 17)


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


def test_motion_that_trails_the_truth_is_told_by_how_much(pairs):
    seconds = np.arange(92) / 30  # three whole turns between the ends, which have one neighbour only
    phases, reach = np.linspace(0, 6, 51).reshape(17, 3), np.linspace(0.05, 0.3, 51).reshape(17, 3)

    def danced(at: np.ndarray) -> np.ndarray:
        return (reach * np.sin(2 * np.pi * at[:, None, None] + phases)).astype(np.float32)

    whole = pairs.take(np.zeros(92, int))
    clip = dataclasses.replace(
        whole,
        frame=np.arange(92, dtype=np.int32),
        timestamp_us=(seconds * 1e6).astype(np.int64),
        ground_truth=danced(seconds),
    )
    for delay_s in (-0.008, 0.0, 0.02):
        for share in (1.0, 0.8):  # smaller motion is no lag
            poses = share * danced(seconds - delay_s)
            assert metrics.summarise(poses, clip)["lag_ms"] == pytest.approx(1e3 * share * delay_s, abs=0.3)
    smoothed = temporal.smooth(clip.ground_truth, seconds, np.zeros(92, int), 0.07)
    assert abs(metrics.summarise(smoothed, clip)["lag_ms"]) < 1


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


def test_calibration_and_order_of_a_confidence(rng):
    confidence = rng.uniform(0, 1, (4000, 17))
    honest = rng.uniform(0, 1, confidence.shape) < confidence
    assert calibration_error(confidence, honest) < 0.01
    assert calibration_error(np.full_like(confidence, 0.9), honest) == pytest.approx(0.4, abs=0.01)
    errors = rng.exponential(0.05, confidence.shape)
    knowing = confidence_summary(np.exp(-errors / 0.1), errors, 0.05)
    assert knowing["ause"] == pytest.approx(0, abs=2e-3) and knowing["lowest_decile_error"] > 3
    guessing = confidence_summary(confidence, errors, 0.05)
    assert guessing["ause"] > 0.3
    # the mean of an exponential distribution is 1 / ln 2 times its median
    assert guessing["lowest_decile_error"] == pytest.approx(1 / np.log(2), rel=0.05)


def sorted_ause(errors: np.ndarray, confidence: np.ndarray, steps: int = 20) -> float:
    """By definition: both curves from all joints in order."""

    def curve(order: np.ndarray) -> np.ndarray:
        ranked = errors[np.argsort(-order, kind="stable")]
        return np.array([ranked[len(ranked) * i // steps :].mean() for i in range(steps)])

    return float((curve(-confidence) - curve(errors)).mean() / errors.mean())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.03, 0.12), st.floats(0, 1))
def test_counting_in_bins_changes_no_figure(seed, scale, knowledge):
    rng = np.random.default_rng(seed)
    expected = rng.lognormal(np.log(scale), 0.5, 5000)
    errors = rng.exponential(expected)
    confidence = 1 / (1 + (expected / 0.05) ** knowledge * rng.lognormal(0, 0.3, 5000))
    counts = ConfidenceCounts.of(confidence, errors, 0.05)
    summary = counts.summary()
    assert summary["ause"] == pytest.approx(sorted_ause(errors, confidence), abs=0.02)
    lowest = errors[np.argsort(confidence)[:500]].mean() / np.median(errors)
    assert summary["lowest_decile_error"] == pytest.approx(lowest, rel=0.06)
    tenth = np.minimum((confidence * 10).astype(int), 9)
    by_hand = sum(
        abs(confidence[tenth == b].mean() - (errors[tenth == b] < 0.05).mean()) * (tenth == b).mean()
        for b in np.unique(tenth)
    )
    assert summary["ece"] == pytest.approx(by_hand, abs=1e-9)
    # parts add up
    halves = [ConfidenceCounts.of(confidence[h], errors[h], 0.05) for h in (slice(2000), slice(2000, None))]
    assert ConfidenceCounts.stack(halves).total().summary() == pytest.approx(summary)


pose = arrays(np.float64, (2, 17, 3), elements=st.floats(-1, 1, width=32))


@settings(max_examples=50, deadline=None)
@given(pose, pose, st.floats(0.3, 3), st.floats(-3, 3))
def test_each_metric_forgives_exactly_what_its_definition_forgives(a, b, scale, angle):
    """MPJPE a translation (root-centred), N-MPJPE a scale, too (Rhodin et al. 2018), PA-MPJPE a similarity (Kendall)."""
    rng = np.random.default_rng(0)
    a, b = a + rng.normal(0, 0.1, a.shape), b + rng.normal(0, 0.1, b.shape)  # no pose is a single point
    mpjpe, n, pa = metrics.joint_error(a, b), metrics.scaled_joint_error(a, b), metrics.aligned_joint_error(a, b)
    assert (metrics.depth_error(a, b) <= mpjpe + 1e-9).all()
    np.testing.assert_allclose(metrics.joint_error(a + 0.7, b), mpjpe, atol=1e-6)
    np.testing.assert_allclose(metrics.scaled_joint_error(a * scale - 0.2, b), n, atol=1e-6)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    np.testing.assert_allclose(metrics.aligned_joint_error(scale * a @ turn + 0.3, b), pa, atol=1e-5)

    # each alignment is the best of its kind in the sum of squares, so the next one is never worse
    def squares(error):
        return np.square(error).sum(-1)

    assert (squares(n) <= squares(mpjpe) + 1e-6).all() and (squares(pa) <= squares(n) + 1e-6).all()


def test_pck_counts_joints_that_are_less_than_150_mm_off_in_space(pairs):
    poses = pairs.ground_truth.copy()
    poses[:, 9] += (0.10, 0.10, 0.04)  # 147 mm
    poses[:, 10] += (0.10, 0.10, 0.06)  # 154 mm
    assert metrics.summarise(poses, pairs)["pck_150mm"] == pytest.approx(16 / 17)


def test_parts_add_up_to_the_whole(pairs):
    """The figures of a set from the sums of its sequences, whatever parts they were added up from."""
    methods = {"mediapipe": pairs.corrupted, "flat": pairs.corrupted * np.float32([1, 1, 0.5])}
    confidence = {"flat": pairs.visibility}
    whole = Tally.of(pairs, methods, confidence)

    def part(rows: np.ndarray) -> Tally:
        return Tally.of(
            pairs.take(rows), {n: p[rows] for n, p in methods.items()}, {n: c[rows] for n, c in confidence.items()}
        )

    sequences = np.unique(pairs.sequence)
    first = np.isin(pairs.sequence, sequences[[1, 4]])
    # the last part shares its sequences with the one before, but not its cameras
    joined = Tally.concatenate(
        [part(first), part(~first & (pairs.camera == "c02")), part(~first & (pairs.camera == "c01"))]
    )
    assert joined.sequences == whole.sequences and set(joined.cells) == set(whole.cells)
    order = [joined.cells.index(cell) for cell in whole.cells]
    np.testing.assert_allclose(joined.sums[..., order], whole.sums, rtol=1e-9)
    np.testing.assert_allclose(joined.weights[..., order], whole.weights, rtol=1e-12)
    np.testing.assert_array_equal(joined.pairs, whole.pairs)
    ours, theirs = (t.confidence["flat"].total().summary() for t in (joined, whole))
    assert ours == pytest.approx(theirs)
    np.testing.assert_allclose(joined.confidence["flat"].by_error, whole.confidence["flat"].by_error)
    figures = metrics.summarise(pairs.corrupted, pairs)
    for name, mean in zip(metrics.FIGURES, whole.means()[0], strict=False):
        assert mean == pytest.approx(figures[name], rel=1e-6)


def test_a_tallys_interval_is_that_of_the_rows(pairs):
    tally = Tally.of(pairs, {"mediapipe": pairs.corrupted}, {})
    low, high = interval(tally.resampled(seed=3))
    rows = metrics.depth_error(pairs.corrupted, pairs.ground_truth).mean(-1) * 100
    assert (low[0, 0], high[0, 0]) == pytest.approx(metrics.bootstrap(rows, pairs.sequence, seed=3), rel=1e-5)


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


def test_baselines_fitted_in_parts_are_those_of_the_whole(make_pairs):
    train, test = make_pairs(9, seed=1), make_pairs(2, seed=3, first=200)
    halves = [baselines.Moments.of(train.take(rows)) for rows in (slice(0, 100), slice(100, None))]
    added = pickle.loads(pickle.dumps((halves[0] + halves[1]).fit()))  # and travel to other processes
    for name, method in baselines.fit_all(train).items():
        np.testing.assert_allclose(added[name](test), method(test), atol=1e-5)


def test_smoothing_takes_noise_away_and_leaves_a_line_a_line(rng):
    seconds, clips = np.arange(60) / 30, np.zeros(60, int)
    line = np.linspace(0, 1, 60)
    np.testing.assert_allclose(temporal.smooth(line, seconds, clips, 0.05)[10:-10], line[10:-10], atol=1e-9)
    noise = rng.normal(0, 1, 60)
    assert temporal.smooth(noise, seconds, clips, 0.1).std() < 0.5 * noise.std()
    assert temporal.smooth(noise, seconds, clips, 0.0) is noise


def test_smoothing_stops_at_the_end_of_a_clip():
    seconds, clips = np.tile(np.arange(10) / 30, 2), np.repeat([0, 1], 10)
    steps = np.repeat([0.0, 1.0], 10)
    np.testing.assert_array_equal(temporal.smooth(steps, seconds, clips, 0.2), steps)
