"""Bones of constant length within a clip."""

import numpy as np
import pytest

from refiner import temporal
from refiner.skeleton import BONES


def lengths(poses: np.ndarray) -> np.ndarray:
    return np.linalg.norm(poses[:, BONES[:, 0]] - poses[:, BONES[:, 1]], axis=-1)


@pytest.fixture(scope="module")
def poses(make_pairs):
    return make_pairs(1, cameras=1).ground_truth


@pytest.fixture
def trembling(poses):
    """Two clips of a pose whose joints tremble by 2 cm, the second of a person 20 % larger."""
    rng = np.random.default_rng(0)
    still = np.repeat(poses[:1], 60, axis=0) * np.repeat([1.0, 1.2], 30)[:, None, None]
    return (still + rng.normal(0, 0.02, still.shape)).astype(np.float32), np.repeat([0, 1], 30)


def test_every_bone_gets_the_median_of_its_clip(trembling):
    poses, clips = trembling
    kept = temporal.keep_bone_lengths(poses, temporal.clip_bone_lengths(poses, clips))
    for clip in (0, 1):
        before, after = lengths(poses[clips == clip]), lengths(kept[clips == clip])
        np.testing.assert_allclose(after, np.broadcast_to(np.median(before, axis=0), after.shape), rtol=0.005)
    assert kept.dtype == poses.dtype


def test_joints_move_no_further_than_lengths_were_off(trembling):
    poses, clips = trembling
    kept = temporal.keep_bone_lengths(poses, temporal.clip_bone_lengths(poses, clips))
    off = np.abs(lengths(poses) - lengths(kept)).mean()
    assert np.linalg.norm(kept - poses, axis=-1).mean() < 1.5 * off


def test_poses_whose_bones_have_one_length_stay_as_they_are(poses):
    clips = np.arange(len(poses))  # each a clip of its own
    np.testing.assert_allclose(
        temporal.keep_bone_lengths(poses, temporal.clip_bone_lengths(poses, clips)), poses, atol=1e-6
    )


def test_the_trembling_itself_becomes_less(trembling, poses):
    shaking, clips = trembling
    truth = np.repeat(poses[:1], 60, axis=0) * np.repeat([1.0, 1.2], 30)[:, None, None]
    kept = temporal.keep_bone_lengths(shaking, temporal.clip_bone_lengths(shaking, clips))
    assert np.abs(kept - truth).mean() < np.abs(shaking - truth).mean()
