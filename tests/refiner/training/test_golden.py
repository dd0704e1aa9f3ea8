"""Golden: seeded trainings have the losses, and the model in the box gives the answers, that they always had.

A change that is meant to be none leaves these as they are; one that is meant to change them puts new values here, and says
why. On one machine they repeat to the last bit; between processors sums are added in other orders, which six epochs of
training make no larger than the tolerance.
"""

import numpy as np
import pytest

from refiner import DepthRefiner
from refiner.model.config import RefinerConfig
from refiner.training.trainer import Trainer, TrainingConfig, TrainingData, initialise

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 2e-4  # relative
SMALL = {"width": 32, "layers": 2, "heads": 2, "feedforward": 64, "frequencies": 3, "dropout": 0.1}
EVERYTHING = {"image_points": True, "axes": "xyz", "upright": True, "symmetric": True, "constant_bones": True}


def golden(make_pairs, config: RefinerConfig) -> tuple[list[float], float]:
    training = TrainingConfig(epochs=4, batch_size=64, seed=3)
    train, val = make_pairs(10, seed=1, frames=12), make_pairs(3, seed=2, first=50, frames=12)
    data = TrainingData(train, config)
    trainer = Trainer(initialise(config, training, data), training, data, TrainingData(val, config))
    losses = [figures["train/loss"] for figures in trainer.epochs()]
    return losses, trainer.best_error


@pytest.mark.parametrize(
    ("config", "losses", "val_depth_cm"),
    [
        (RefinerConfig(encoder="attention", **SMALL), (5.057497, 4.949206, 4.793461, 4.859357), 4.083937),
        (RefinerConfig(encoder="attention", **SMALL, **EVERYTHING), (7.695446, 7.636726, 7.538946, 7.594080), 4.225611),
        (RefinerConfig(encoder="whole_pose", **SMALL), (5.071991, 4.784788, 4.519064, 4.544212), 4.139595),
        (
            RefinerConfig(encoder="whole_pose", **SMALL, **EVERYTHING),
            (8.059568, 7.642703, 7.388507, 7.400795),
            4.017337,
        ),
    ],
    ids=["attention", "attention with everything", "whole pose", "whole pose with everything"],
)
def test_a_seeded_run_has_the_losses_it_always_had(make_pairs, config, losses, val_depth_cm):
    ours, error = golden(make_pairs, config)
    np.testing.assert_allclose(ours, losses, rtol=TOLERANCE)
    assert error == pytest.approx(val_depth_cm, rel=TOLERANCE)


def test_the_model_in_the_box_gives_the_answers_it_always_gave(make_pairs):
    pairs = make_pairs(1, seed=2, frames=12, cameras=2)
    answer = DepthRefiner(device="cpu").predict_pairs(pairs)
    moved = answer.poses - pairs.corrupted
    figures = [
        np.abs(moved).mean(),
        moved[5, 9, 2],
        moved[17, 0, 0],
        answer.confidence.mean(),
        answer.confidence[3, 10],
    ]
    np.testing.assert_allclose(figures, (0.0416065, 0.0398210, 0.0006704, 0.3352260, 0.0917960), atol=2e-6)
