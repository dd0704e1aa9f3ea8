"""What goes into the box: weights between the old model and the new one, at one strength, with a card of its own."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fit import fit
from rayjobs import ship
from refiner import DepthRefiner, UserError
from refiner.data import checks, records
from refiner.evaluation import metrics
from refiner.model.checkpoint import read_card, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from refiner.training.trainer import TrainingConfig
from tests.invented import write_splits


@pytest.fixture(scope="module")
def box() -> DepthRefiner:
    return DepthRefiner(device="cpu")


def test_a_share_lies_between_the_box_and_what_started_from_it(box, make_pairs):
    other = PoseAwareDepthRefiner(dataclasses.replace(box.model.config, strength=1.0))
    weights = {name: value + 1e-3 * torch.ones_like(value) for name, value in box.model.state_dict().items()}
    other.load_state_dict(weights)
    quarter = ship.blended(DepthRefiner.of(other), 0.25)
    for name, value in quarter.model.state_dict().items():
        torch.testing.assert_close(value, box.model.state_dict()[name] + 2.5e-4)
    assert quarter.model.config.strength == 1.0
    whole = ship.blended(DepthRefiner.of(other), 1.0)
    poses = make_pairs(1, frames=4).corrupted
    np.testing.assert_array_equal(whole.refine(poses), DepthRefiner.of(other).refine(poses))


def test_another_network_has_no_share():
    with pytest.raises(UserError, match="another network"):
        ship.blended(DepthRefiner.of(PoseAwareDepthRefiner(RefinerConfig(width=32, heads=2, feedforward=64))), 0.5)
    with pytest.raises(UserError, match="--share"):
        ship.Options(model="a", pairs="b", share=1.5)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    sequences = {"train": 24, "val": 4, "test": 8}
    return write_splits(tmp_path_factory.mktemp("pairs"), sequences, real_motion=3, frames=12)


@pytest.fixture(scope="module")
def checkpoint(pairs, tmp_path_factory) -> Path:
    train, val = (checks.read_checked(pairs, split) for split in ("train", "val"))
    config = RefinerConfig(encoder="whole_pose", width=64, layers=1)
    model, _ = fit(config, TrainingConfig(batch_size=64, learning_rate=3e-3), train, val)
    return save_checkpoint(model.model, tmp_path_factory.mktemp("model"))


@pytest.mark.slow
def test_strengths_are_compared_on_the_validation_split(pairs, checkpoint):
    rows = ship.run(ship.Options(model=str(checkpoint), pairs=str(pairs), strengths=(0.01, 0.5, 1.0)))["all"]
    depth = {name: row["depth_cm"] for name, row in rows.items()}
    assert depth["strength 1"] < depth["strength 0.5"] < depth["strength 0.01"]
    assert depth["strength 0.01"] == pytest.approx(depth["mediapipe"], abs=0.1)


@pytest.mark.slow
def test_what_ships_is_what_was_measured_and_says_so(pairs, checkpoint, tmp_path):
    options = ship.Options(
        model=str(checkpoint),
        pairs=str(pairs),
        strengths=(0.5,),
        out=str(tmp_path),
        trained_on="invented",
        limits="all",
    )
    figures = ship.run(options)
    card, shipped = read_card(tmp_path), DepthRefiner(tmp_path)
    assert shipped.model.config.strength == 0.5
    assert (card["trained_on"], card["limits"]) == ("invented", "all")
    assert card["dataset_fingerprint"] == records.fingerprint(pairs, ("train", "val", "test"))
    test = checks.read_checked(pairs, "test")
    depth = metrics.depth_error(shipped.predict_pairs(test).poses, test.ground_truth).mean() * metrics.CM
    assert card["figures"]["refined_depth_cm"] == pytest.approx(depth, abs=0.006)
    assert card["figures"]["real_motion"]["refined_depth_cm"] == round(figures["sRM"]["refined"]["depth_cm"], 2)
    full = figures["all"]["refined, in full"]["depth_cm"]
    assert card["figures"]["refined_depth_cm_at_full_strength"] == round(full, 2) != round(depth, 2)


def test_shipping_wants_one_strength_and_words_for_the_card():
    with pytest.raises(UserError, match="--out needs a single"):
        ship.Options(model="", pairs="", strengths=(0.5, 1.0), out="x", trained_on="a", limits="b")
    with pytest.raises(UserError, match="above 0"):
        ship.Options(model="", pairs="", strengths=(0.0,))
