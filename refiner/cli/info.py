"""refiner info: versions, extras, estimators, the model, the device, and where models come from."""

import json
import platform
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from refiner.cli.help import Flag, Model
from refiner.estimators import default_estimator
from refiner.extras import extras, is_there
from refiner.wheels import cache_folder

PACKAGES = ("pose-depth-refiner", "mediapipe", "torch", "numpy", "pyarrow", "av", "ray", "mlflow")
COLUMN, MOST_COLUMNS = 22, 120  # where values begin, and where lines end at the latest


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Print versions, extras, estimators, model, device and where models come from."""

    model: Model = ""
    """A checkpoint's folder; the model in the box by default."""
    json: Flag = False
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
        "extras": {extra: _extra(packages) for extra, packages in extras().items()},
        "estimators": {
            "mediapipe": "PoseLandmarker",
            "blazepose": "its networks without its graph"
            if is_there("ai_edge_litert")
            else "not here: wants the extra [blazepose]",
            "blazepose-bf16": "the same in bfloat16"
            if is_there("openvino")
            else "not here: wants the extra [blazepose-bf16]",
            "refiner video": default_estimator(),
        },
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
    width = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    print(json.dumps(facts) if options.json else "\n".join(_lines(facts, width)))
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _extra(packages: list[str]) -> str:
    missing = [package for package in packages if not is_there(package)]
    return f"not installed (lacks {', '.join(missing)})" if missing else "installed"


def _lines(facts: dict[str, Any], width: int, indent: str = "") -> Iterator[str]:
    """Names and values, one below the other, no line wider than that but for what cannot be broken."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, width, indent + "  ")
        elif value is not None:
            heading = f"{indent}{name.replace('_', ' '):<{COLUMN - len(indent)}}"
            yield from textwrap.wrap(
                str(value), width, initial_indent=heading, subsequent_indent=" " * COLUMN,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
