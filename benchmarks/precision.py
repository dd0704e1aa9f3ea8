"""What lower precision brings on this CPU, and what it costs: speed for 1 and 256 poses, and millimetres of depth.

    python -m benchmarks.precision --checkpoint runs/checkpoint --pairs data/pairs

bf16 is PyTorch's autocast; int8 is ONNX Runtime's dynamic quantisation (weights per channel). The last line is one JSON
object.
"""

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.serve import seconds_of
from refiner import DepthRefiner
from refiner.command import parse
from refiner.data import records
from refiner.inference import onnx
from refiner.inference.depth_refiner import TorchNetwork
from refiner.model.inputs import Inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    checkpoint: str
    pairs: str
    """Folder of pairs; the test split is refined."""
    rounds: int = 5
    seconds: float = 0.5
    """Of one measurement."""


class Bf16Network(TorchNetwork):
    def __call__(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        with torch.autocast("cpu", torch.bfloat16):
            return super().__call__(inputs)


def quantised(exported: Path, into: Path) -> onnx.OnnxNetwork:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(exported, into, weight_type=QuantType.QInt8, per_channel=True)
    return onnx.OnnxNetwork(into)


def main() -> None:
    options = parse(Options)
    torch.set_num_threads(1)
    pairs = records.read_pairs(options.pairs, "test")
    plain = DepthRefiner(options.checkpoint, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        exported = onnx.export(options.checkpoint)
        networks = {
            "pytorch": plain.network,
            "pytorch_bf16": Bf16Network(plain.model, plain.device),
            "onnxruntime": onnx.OnnxNetwork(exported),
            "onnxruntime_int8": quantised(exported, Path(scratch, "int8.onnx")),
        }
        exact = plain.predict_pairs(pairs).poses
        times: dict[tuple[str, int], list[float]] = {(name, n): [] for name in networks for n in (1, 256)}
        for _ in range(options.rounds):
            for name, n in times:
                plain.network = networks[name]
                poses = pairs.corrupted[:n]
                times[name, n].append(seconds_of(lambda poses=poses: plain.predict(poses), options.seconds))
        rows = {}
        for name, network in networks.items():
            plain.network = network
            poses = plain.predict_pairs(pairs).poses
            rows[name] = {
                "ms_1": round(statistics.median(times[name, 1]) * 1e3, 3),
                "ms_256": round(statistics.median(times[name, 256]) * 1e3, 1),
                "depth_mm": round(float(np.abs(poses - pairs.ground_truth)[..., 2].mean()) * 1e3, 2),
                "moved_mm": round(float(np.abs(poses - exact)[..., 2].mean()) * 1e3, 3),
                "moved_most_mm": round(float(np.abs(poses - exact)[..., 2].max()) * 1e3, 2),
            }
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
