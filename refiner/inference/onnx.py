"""The refiner's network on ONNX Runtime: the same weights and the same answers, three to four times quicker for one pose.

For 17 tokens of 64 numbers, starting PyTorch's operators takes longer than computing them. From about a hundred poses on
the arithmetic rules and both are equally fast (docs/benchmarks/endpoint.md). CPU only. Used by the endpoint, which puts
the network made here in the place of `DepthRefiner.network`.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from refiner.errors import UserError
from refiner.model.checkpoint import WEIGHTS_FILE, load_checkpoint
from refiner.model.inputs import Inputs
from refiner.model.network import PoseAwareDepthRefiner
from refiner.skeleton import NUM_JOINTS

FILE = "network.onnx"


class OnnxNetwork:
    """What `TorchNetwork` is on PyTorch. Safe to share between threads."""

    runtime: Literal["onnxruntime", "pytorch"] = "onnxruntime"

    def __init__(self, onnx: str | Path, threads: int = 1) -> None:
        """
        Args:
            onnx: the file that `export` wrote.
            threads: that one call may use.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # a waiting thread that spins takes a core from the other replicas
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        # the exporter drops inputs that nobody reads
        self._names = [field.name for field in self._session.get_inputs()]

    def __call__(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """B poses -> (B, 17, 3) m corrected, (B, 17) confidence."""
        poses, confidence = self._session.run(None, {name: getattr(inputs, name).numpy() for name in self._names})
        return np.asarray(poses), np.asarray(confidence)


def export(checkpoint: str | Path) -> Path:
    """Writes network.onnx beside a checkpoint, in a child process: it takes seconds, which a serving process cannot spare.

    Replicas of one machine that start together wait for the first one's file, in place of each making its own.

    Returns:
        The file; one that is no older than the checkpoint's weights is left as it is.

    Raises:
        UserError: the export failed.
    """
    path = Path(checkpoint, FILE)
    if _current(path):
        return path
    with _alone(Path(checkpoint)), tempfile.TemporaryDirectory(dir=checkpoint, prefix=".") as scratch:
        if _current(path):
            return path
        part = Path(scratch, FILE)
        command = [sys.executable, "-m", "refiner.inference.onnx", str(checkpoint), str(part)]
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if child.returncode:
            reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{checkpoint} cannot be exported to ONNX: {reason}")
        os.replace(part, path)  # whole or not at all
    return path


def _current(path: Path) -> bool:
    """Whether the file is there and was made of the weights beside it: another version of the package brings others."""
    weights = path.with_name(WEIGHTS_FILE)
    return path.exists() and not (weights.exists() and weights.stat().st_mtime_ns > path.stat().st_mtime_ns)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process of this machine is in such a block of that folder meanwhile; one that dies is out of it."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # NFS has no locks on folders: there, each makes its own
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


class _Forward(nn.Module):
    """The network and its confidence with plain tensors in and out, as the exporter wants it."""

    def __init__(self, model: PoseAwareDepthRefiner) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, poses: Tensor, visibility: Tensor, azimuth: Tensor, image_points: Tensor, pitch: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs = self.model(Inputs(poses, visibility, azimuth, image_points, pitch))
        return outputs.poses, self.model.confidence(outputs.log_scale)


def write(module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """Writes a module as an ONNX file.

    Args:
        module: in evaluation mode.
        path: of the file.
        inputs: name -> an example, the batch first and larger than 1, which the exporter would take for a constant.
        outputs: their names.
    """
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of what its own next version changes
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=True,
            dynamic_shapes=({0: batch},) * len(inputs),
            input_names=list(inputs),
            output_names=list(outputs),
            external_data=False,
            verbose=False,
        )


def _write(checkpoint: Path, path: Path) -> None:
    os.nice(10)  # a replica goes on serving beside this
    torch.set_num_threads(1)
    count = 3
    example = Inputs(
        poses=torch.randn(count, NUM_JOINTS, 3),
        visibility=torch.rand(count, NUM_JOINTS),
        azimuth=torch.rand(count),
        image_points=torch.randn(count, NUM_JOINTS, 2),
        pitch=torch.rand(count),
    )
    write(_Forward(load_checkpoint(checkpoint)), path, example._asdict(), ("refined", "confidence"))


if __name__ == "__main__":
    _write(Path(sys.argv[1]), Path(sys.argv[2]))
