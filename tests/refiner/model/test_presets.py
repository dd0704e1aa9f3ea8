"""Networks by name: the preset's, a checkpoint's, and either with another dropout."""

from dataclasses import replace

from refiner.model.checkpoint import save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from refiner.model.presets import PRESETS, network


def test_a_checkpoints_network_goes_before_the_presets_and_dropout_before_both(tmp_path):
    config = RefinerConfig(width=16, layers=1, heads=2, feedforward=32)
    folder = str(save_checkpoint(PoseAwareDepthRefiner(config), tmp_path))
    assert network("best") == PRESETS["best"] and network("baseline", folder) == config
    assert network("best", dropout=0.05) == replace(PRESETS["best"], dropout=0.05) != PRESETS["best"]
    assert network("best", folder, 0.1) == replace(config, dropout=0.1) != config
