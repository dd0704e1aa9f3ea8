"""Checkpoints as tests want them."""

from pathlib import Path

from refiner.inference import onnx


def on_pytorch(checkpoint: Path) -> Path:
    """The checkpoint, whose replicas stay with PyTorch: making an ONNX file takes 12 s of a core, and answers are the same."""
    (checkpoint / onnx.FILE).touch()  # nothing that runs
    return checkpoint
