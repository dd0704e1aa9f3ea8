"""The refiner alone, as ONNX and as TFLite, for programs that run MediaPipe themselves. Both have one signature:

    world       float32 (N, 33, 3)  MediaPipe's world landmarks, metres
    visibility  float32 (N, 33)     0 … 1
    points      float32 (N, 33, 2)  image landmarks in pixels, or in any unit that is the same along x and y
    ->
    refined     float32 (N, 33, 3)  metres, hips' midpoint at the origin
    confidence  float32 (N, 17)     probability that each COCO joint's depth is within 5 cm

N is 1 in the TFLite file and anything in the ONNX file. Models that do not look at `points` take them all the same.
"""

from pathlib import Path

import torch

from refiner.export import lowering
from refiner.export.graph import Graph
from refiner.export.landmarks import LandmarkRefiner
from refiner.inference import onnx
from refiner.inference.depth_refiner import DepthRefiner
from refiner.skeleton import NUM_LANDMARKS

INPUTS = {"world": (NUM_LANDMARKS, 3), "visibility": (NUM_LANDMARKS,), "points": (NUM_LANDMARKS, 2)}
OUTPUTS: tuple[str, ...] = ("refined", "confidence")


def tflite(refiner: DepthRefiner) -> bytes:
    """A TFLite model for one pose, of builtin operators."""
    graph = Graph()
    inputs = {name: graph.input(name, (1, *shape)) for name, shape in INPUTS.items()}
    answers = lowering.append(graph, LandmarkRefiner(refiner.model.cpu()), list(inputs.values()))
    outputs = dict(zip(OUTPUTS, answers, strict=True))
    for name, value in outputs.items():
        graph.rename(value, name)
        graph.output(value)
    graph.sign(inputs, outputs)
    return graph.packed()


def write_onnx(refiner: DepthRefiner, path: Path) -> None:
    """An ONNX model for any number of poses."""
    examples = {name: torch.rand(3, *shape) for name, shape in INPUTS.items()}
    onnx.write(LandmarkRefiner(refiner.model.cpu()), path, examples, OUTPUTS)
