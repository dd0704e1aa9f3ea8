"""Networks by name. `best` is what the ablation (`benchmarks/ablation.py`) on held-out dancers and choreographies chose."""

from typing import Literal

from refiner.model import RefinerConfig

PresetName = Literal["best", "baseline"]
PRESETS: dict[str, RefinerConfig] = {
    "baseline": RefinerConfig(),
    "best": RefinerConfig(
        taps_s=(-0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4),
        linear=True,
        symmetric=True,
        dropout=0.1,
    ),
}
