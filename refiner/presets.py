"""Networks by name. `best` is what did best on dancers and choreographies that were held out."""

from typing import Literal

from refiner.model import RefinerConfig

PresetName = Literal["best", "baseline"]
PRESETS: dict[str, RefinerConfig] = {
    "baseline": RefinerConfig(),
    # Chosen by cross-validation over 45 rendered sequences (docs/decisions.md).
    "best": RefinerConfig(taps_s=(-0.13, 0.0, 0.13), linear=True, dropout=0.2, smoothing_s=0.07),
}
