"""Simulated observations are wrong as real ones are, and teach what real ones teach."""

import dataclasses

import numpy as np
import pytest

from benchmarks.fit import fit
from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.geometry import azimuth, view_angle
from refiner.model.presets import PRESETS
from refiner.skeleton import HIPS, root_centred
from refiner.training.error_model import ErrorModel
from refiner.training.trainer import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(make_pairs) -> Pairs:
    return make_pairs(60, seed=1)


@pytest.fixture(scope="module")
def others(make_pairs) -> Pairs:
    return make_pairs(200, seed=2, first=1000)


@pytest.fixture(scope="module")
def model(few) -> ErrorModel:
    return ErrorModel.fit(few)


@pytest.fixture(scope="module")
def simulated(model, others) -> Pairs:
    """The others as the model thinks that they would have been seen."""
    return seen(model, others, seed=3)


def seen(model: ErrorModel, pairs: Pairs, seed: int) -> Pairs:
    observed = model.observe(pairs.ground_truth, seed)
    azimuths = azimuth(observed.poses).astype(np.float32)
    columns = {name: getattr(pairs, name) for name in ("sequence", "camera", "frame", "timestamp_us", "ground_truth")}
    return Pairs(
        **columns,
        corrupted=observed.poses,
        visibility=observed.visibility,
        image_points=observed.image_points,
        view_angle=view_angle(azimuths),
        azimuth=azimuths,
    )


def depth(pairs: Pairs) -> np.ndarray:
    return (pairs.corrupted - pairs.ground_truth)[..., 2]


def test_errors_of_people_it_never_saw_have_the_size_and_the_pattern_of_real_ones(model, simulated, others):
    assert 0.4 < model.explained < 1
    joints = np.delete(np.arange(17), HIPS)
    real, drawn = depth(others)[:, joints], depth(simulated)[:, joints]
    assert 0.85 < np.abs(drawn).mean() / np.abs(real).mean() < 1.2
    by_joint = np.abs(drawn).mean(0) / np.abs(real).mean(0)
    assert by_joint.min() > 0.6 and by_joint.max() < 1.7
    assert np.corrcoef(real.ravel(), drawn.ravel())[0, 1] > 0.5  # right for the very pose
    together = [np.corrcoef(errors, rowvar=False)[np.triu_indices(len(joints), 1)] for errors in (real, drawn)]
    assert np.corrcoef(*together)[0, 1] > 0.7  # joints are wrong together


def test_what_it_says_can_be_used_as_an_observation(simulated):
    np.testing.assert_allclose(root_centred(simulated.corrupted), simulated.corrupted, atol=1e-6)
    assert simulated.visibility.min() >= 0 and simulated.visibility.max() <= 1
    np.testing.assert_allclose(np.abs(simulated.image_points).max((1, 2)), 1, atol=1e-5)


def test_the_same_seed_says_the_same_and_another_seed_something_else(model, few, others):
    part = others.take(slice(0, 96))
    first, same, other = (seen(model, part, seed).corrupted for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    assert np.array_equal(seen(ErrorModel.fit(few), part, 0).corrupted, first)


@pytest.mark.slow
def test_simulated_motion_alone_teaches_to_refine_what_is_real(simulated, make_pairs):
    held_out = make_pairs(30, seed=4, first=3000)
    training = TrainingConfig(epochs=6, batch_size=128, patience=99)
    narrow = dataclasses.replace(PRESETS["best"], width=128)  # a network that learns it in seconds
    refiner, _ = fit(narrow, training, simulated, held_out)
    before = metrics.depth_error(held_out.corrupted, held_out.ground_truth).mean()
    after = metrics.depth_error(refiner.predict_pairs(held_out).poses, held_out.ground_truth).mean()
    assert after < 0.8 * before
