"""Networks by name. `best` is what did best on dancers and choreographies that were held out."""

from dataclasses import replace
from typing import Literal

from refiner.model.checkpoint import load_checkpoint
from refiner.model.config import RefinerConfig

PresetName = Literal["best", "baseline"]
PRESETS: dict[str, RefinerConfig] = {
    "baseline": RefinerConfig(),
    # Chosen on rendered dancers and choreographies that were held out (docs/benchmarks/refiner.md); as wide as fits into 2 MB
    # with half precision, so that what ships is what everybody trains.
    "best": RefinerConfig(
        encoder="whole_pose",
        width=464,
        layers=2,
        frequencies=3,
        dropout=0.2,
        image_points=True,
        camera_pitch=True,
        axes="xyz",
        upright=True,
        symmetric=True,
        smoothing_s=0.07,
        constant_bones=True,
    ),
}


def network(preset: PresetName, checkpoint: str = "", dropout: float | None = None) -> RefinerConfig:
    """The network of a checkpoint's folder, where one is given, or of a preset; with another dropout, where one is given."""
    config = load_checkpoint(checkpoint).config if checkpoint else PRESETS[preset]
    return config if dropout is None else replace(config, dropout=dropout)
