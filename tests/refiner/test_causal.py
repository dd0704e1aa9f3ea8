"""Live smoothing: of each stream its own past, and nothing else."""

import numpy as np
import pytest

from refiner.causal import GAP_S, LiveSmoother
from refiner.evaluation import metrics
from refiner.skeleton import root_centred

ALONE = np.zeros(1, int)


def trembling(make_pairs, fps: float, frames: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 17, 3) m as seen, the truth, (N,) seconds; of someone who moves."""
    pairs = make_pairs(1, frames=frames, cameras=1, fps=fps)
    noise = np.random.default_rng(1).normal(0, 0.01, pairs.ground_truth.shape)
    return root_centred(pairs.ground_truth + noise).astype(np.float32), pairs.ground_truth, np.arange(frames) / fps


def smoothed(poses: np.ndarray, seconds: np.ndarray, keep_bones: bool = True) -> np.ndarray:
    smoother = LiveSmoother(1)
    return np.concatenate(
        [smoother(ALONE, pose[None], np.array([time]), keep_bones) for pose, time in zip(poses, seconds, strict=True)]
    )


@pytest.mark.parametrize("fps", [15.0, 30.0, 60.0])
def test_it_takes_the_jitter_and_leaves_the_motion(make_pairs, fps):
    seen, truth, seconds = trembling(make_pairs, fps)
    live, clips = smoothed(seen, seconds), np.zeros(len(seen), int)
    before, after = (metrics.acceleration_error(poses, truth, seconds, clips)[0].mean() for poses in (seen, live))
    assert after < 0.75 * before
    assert metrics.joint_error(live, truth).mean() < metrics.joint_error(seen, truth).mean() + 0.03  # it lags
    assert metrics.bone_variation(live, clips)[0] < 0.6 * metrics.bone_variation(seen, clips)[0]
    np.testing.assert_allclose(root_centred(live), live, atol=1e-6)


def test_nothing_of_the_future_is_known(make_pairs):
    seen, _, seconds = trembling(make_pairs, 30)
    other = seen.copy()
    other[50:] *= 1.2
    np.testing.assert_array_equal(smoothed(seen, seconds)[:50], smoothed(other, seconds)[:50])


def test_streams_side_by_side_are_as_if_alone_whatever_comes_of_each(make_pairs):
    seen, _, seconds = trembling(make_pairs, 30)
    small = seen * 0.7
    smoother, out = LiveSmoother(5), {3: [], 1: []}
    for i in range(len(seen)):
        rows = [3, 1] if i % 3 else [3]  # the other has a frame less now and then
        poses = np.stack([seen[i], small[i]])[: len(rows)]
        for row, pose in zip(rows, smoother(np.array(rows), poses, np.full(len(rows), seconds[i]), True), strict=True):
            out[row].append(pose)
    there = np.arange(len(seen)) % 3 > 0
    np.testing.assert_allclose(out[3], smoothed(seen, seconds), atol=1e-6)
    np.testing.assert_allclose(out[1], smoothed(small[there], seconds[there]), atol=1e-6)


def test_after_a_gap_or_for_another_client_it_begins_anew(make_pairs):
    seen, _, seconds = trembling(make_pairs, 30, frames=20)
    smoother = LiveSmoother(1)
    for pose, time in zip(seen, seconds, strict=True):
        smoother(ALONE, pose[None], np.array([time]), True)
    other = seen[:1] * 0.6
    late = smoother(ALONE, other, np.array([seconds[-1] + GAP_S + 0.01]), True)
    np.testing.assert_allclose(late, other, atol=1e-6)
    smoother(ALONE, seen[1:2], np.array([seconds[-1] + GAP_S + 0.04]), True)
    smoother.begin(0)
    np.testing.assert_allclose(smoother(ALONE, other, np.array([0.0]), True), other, atol=1e-6)
