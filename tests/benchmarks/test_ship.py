"""What goes into the box: weights between the old model and the new one, at one strength, with a card of its own."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import ship
from refiner import DepthRefiner, UserError
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner


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
