"""Checkpoints: `model.safetensors` beside `config.json`. Nothing is unpickled."""

import json
import os
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from refiner.errors import UserError
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner

ARCHITECTURE = "PoseAwareDepthRefiner"
# Options of older versions that went because they won nothing, at the values at which they changed nothing.
GONE = {"linear": False, "taps_s": [0.0]}
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


def save_checkpoint(
    model: PoseAwareDepthRefiner, folder: str | Path, card: dict[str, Any] | None = None, *, half: bool = False
) -> Path:
    """Writes `model.safetensors` and `config.json` into a folder, each whole or not at all.

    Args:
        model: the network; its weights are written as fp32.
        half: write the encoder's weights as fp16: half the size, and answers that differ by less than 0.3 mm.
        folder: made where it is not there.
        card: facts about the model (what it was trained on, its figures), kept under "card" in config.json.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in model.state_dict().items()}
    if half:
        tensors = {name: t.half() if name.startswith("encoder.") else t for name, t in tensors.items()}
    content = {"architecture": ARCHITECTURE, "config": asdict(model.config), "card": card or {}}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as part:
        save_file(tensors, Path(part, WEIGHTS_FILE))
        Path(part, CONFIG_FILE).write_text(json.dumps(content, indent=1) + "\n")
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            os.replace(Path(part, name), folder / name)
    return folder


def read_card(folder: str | Path) -> dict[str, Any]:
    """The facts that `save_checkpoint` was given."""
    return _read_config(Path(folder))["card"]


def load_checkpoint(folder: str | Path) -> PoseAwareDepthRefiner:
    """Reads a checkpoint, ready for inference, on the CPU.

    Raises:
        UserError: a file is missing or damaged, or the weights belong to another architecture.
    """
    folder = Path(folder)
    content = _read_config(folder)
    options = {name: value for name, value in content["config"].items() if value != GONE.get(name, ...)}
    if gone := sorted(options.keys() & GONE):
        raise UserError(
            f"{folder / CONFIG_FILE} describes a network with {' and '.join(gone)}, which this version no longer has: "
            "train it again, or use it with the version that wrote it"
        )
    known = {f.name for f in fields(RefinerConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UserError(
            f"{folder / CONFIG_FILE} has options this version does not know ({', '.join(unknown)}): "
            "it was written by a newer one; update pose-depth-refiner"
        )
    model = PoseAwareDepthRefiner(RefinerConfig(**options))
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
        for name in ("offset", "spread"):  # older versions kept a first axis, of the moments in a temporal window
            if name in tensors and tensors[name].ndim == 3 and len(tensors[name]) == 1:
                tensors[name] = tensors[name][0]
        model.load_state_dict(tensors)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: a checkpoint is {WEIGHTS_FILE} beside {CONFIG_FILE}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a complete safetensors file ({error}): fetch or train it again") from None
    except RuntimeError:
        raise UserError(
            f"{path} does not hold the weights that {CONFIG_FILE} beside it describes: the two belong to different models"
        ) from None
    if not all(t.isfinite().all() for t in model.state_dict().values()):
        raise UserError(f"{path} holds weights that are not finite: its training diverged; train it again")
    return model.eval()


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is not a checkpoint: it has no {CONFIG_FILE}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch or train the checkpoint again") from None
    if (
        not isinstance(content, dict)
        or content.get("architecture") != ARCHITECTURE
        or not isinstance(content.get("config"), dict)
    ):
        architecture = content.get("architecture") if isinstance(content, dict) else None
        raise UserError(
            f"{path} describes the architecture {architecture}, not {ARCHITECTURE}: it is another model's checkpoint"
        )
    return {"card": {}, **content}
