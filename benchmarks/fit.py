"""Training without Ray, in this process: for the benchmarks that compare ways to train, and for tests."""

import numpy as np
import torch

from refiner import DepthRefiner
from refiner.data.records import Pairs
from refiner.geometry import azimuth as azimuth_of
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from refiner.training.dataset import TrainingData
from refiner.training.trainer import Trainer, TrainingConfig, initialise


def fit(
    config: RefinerConfig,
    training: TrainingConfig,
    train: Pairs,
    val: Pairs,
    *,
    true_angle: bool = False,
    start: PoseAwareDepthRefiner | None = None,
) -> tuple[DepthRefiner, dict[str, float]]:
    """Trains one model in this process.

    Args:
        config: of the network.
        training: how.
        train: pairs to learn from.
        val: pairs to stop early and to calibrate on.
        true_angle: learn with the truth's azimuth, which in use nobody knows.
        start: whose weights to begin with.

    Returns:
        The model; its `epochs`, whether training was `cut` short by the clock, `seconds` and `parameters`.
    """
    data, check = TrainingData(train, config), TrainingData(val, config)
    if true_angle:
        azimuth = torch.from_numpy(azimuth_of(train.ground_truth).astype(np.float32))
        data.frames = data.frames._replace(azimuth=azimuth)
    model = initialise(config, training, data, start)
    trainer = Trainer(model, training, data, check)
    for _ in trainer.epochs():
        pass
    facts = {
        "epochs": trainer.epoch,
        "cut": trainer.epoch < training.epochs and trainer.seconds >= training.max_seconds,
        "seconds": trainer.seconds,
        "parameters": model.num_parameters(),
    }
    return DepthRefiner.of(trainer.best_model()), facts
