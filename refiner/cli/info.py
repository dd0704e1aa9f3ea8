"""refiner info: versions, the model, the device, and where models come from."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from refiner.wheels import cache_folder

PACKAGES = ("pose-depth-refiner", "mediapipe", "torch", "numpy", "pyarrow", "av", "ray", "mlflow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Versions, the model, the device, and where models come from."""

    model: str = ""
    """A checkpoint's folder; the model in the box by default."""
    json: bool = False
    """Print one JSON object."""


def run(options: Options) -> int:
    """Prints; returns the exit status."""
    import torch

    from refiner.inference.depth_refiner import SHIPPED
    from refiner.model.checkpoint import load_checkpoint, read_card

    folder = Path(options.model) if options.model else SHIPPED
    network = load_checkpoint(folder)
    card = read_card(folder)
    facts = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "model": {
            "folder": str(folder),
            "parameters": network.num_parameters(),
            "encoder": network.config.encoder,
            "strength": network.config.strength,
            "trained_on": card.get("trained_on"),
            "limits": card.get("limits"),
        },
        "cache": str(cache_folder()),
    }
    print(json.dumps(facts) if options.json else _text(facts))
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _text(facts: dict[str, object], indent: str = "") -> str:
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}", _text(value, indent + "  ")]
        elif value is not None:
            lines.append(f"{indent}{key.replace('_', ' '):<{22 - len(indent)}}{value}")
    return "\n".join(lines)
