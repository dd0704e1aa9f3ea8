"""MediaPipe as a witness: its answers, and what goes on inside it, read out through networks that only copy.

A `.task` file is two TFLite networks. Put others in their place, and MediaPipe says which region it crops (a landmark
network whose answer is always the crop's corners) and what is in its crop (one that hands through some of its pixels).
"""

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from refiner.data.video import Frame
from refiner.estimators import mediapipe_assets as assets
from refiner.estimators.base import Observation
from refiner.estimators.blazepose import detector
from refiner.estimators.blazepose.crop import Region

POINTS = 39


def _observation(answer: Any, rgb: np.ndarray) -> Observation | None:
    if not answer.pose_landmarks:
        return None
    height, width = rgb.shape[:2]
    world, points = answer.pose_world_landmarks[0], answer.pose_landmarks[0]
    return Observation(
        world=np.array([(p.x, p.y, p.z) for p in world]),
        image=np.array([(p.x * width, p.y * height) for p in points]),
        visibility=np.array([p.visibility for p in points]),
        presence=np.array([p.presence for p in points]),
    )


@contextlib.contextmanager
def _landmarker(task: bytes, mode: str) -> Iterator[Any]:
    from mediapipe.tasks.python import BaseOptions, vision

    base = BaseOptions(model_asset_buffer=task)
    options = vision.PoseLandmarkerOptions(base_options=base, running_mode=vision.RunningMode[mode])
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        yield landmarker


def _image(rgb: np.ndarray) -> Any:
    import mediapipe

    return mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(rgb))


@contextlib.contextmanager
def image_mode(crop: Region | None = None) -> Iterator[Callable[[np.ndarray], Observation | None]]:
    """MediaPipe looking at single pictures: no tracking, no filters. Its crop is what its detector finds, or this one."""
    task = assets.model_path().read_bytes()
    if crop is not None:  # upright, of a picture of its own size
        centre = np.array([crop.x, crop.y])
        task = _bundle(_detecting(centre, centre - (0, crop.side / 2.5), round(crop.side), round(crop.side))[0])
    with _landmarker(task, "IMAGE") as landmarker:
        yield lambda rgb: _observation(landmarker.detect(_image(rgb)), rgb)


@contextlib.contextmanager
def video_mode() -> Iterator[Callable[[Frame], Observation | None]]:
    with _landmarker(assets.model_path().read_bytes(), "VIDEO") as landmarker:
        yield lambda frame: _observation(
            landmarker.detect_for_video(_image(frame.rgb), round(frame.timestamp_us / 1000)), frame.rgb
        )


@contextlib.contextmanager
def region_of() -> Iterator[Callable[[np.ndarray], Region | None]]:
    """Which region MediaPipe's own detector leads its crop to."""
    corners = np.zeros((POINTS, 5), dtype=np.float32)
    corners[1, 0], corners[2, :2] = 256, 128  # landmark 0 the top left corner, 1 the top right one, 2 the middle
    with _landmarker(_bundle(landmarks=_constant(_parts()[1], {0: corners, 1: 1, 3: -50})), "IMAGE") as landmarker:

        def where(rgb: np.ndarray) -> Region | None:
            seen = _observation(landmarker.detect(_image(rgb)), rgb)
            if seen is None:
                return None
            (x, y), across = seen.image[2], seen.image[1] - seen.image[0]
            return Region(float(x), float(y), float(np.hypot(*across)), float(np.arctan2(across[1], across[0])))

        yield where


def crop_pixels(
    rgb: np.ndarray, centre: np.ndarray, top: np.ndarray, pixels: Sequence[int]
) -> tuple[np.ndarray, Region]:
    """33 pixels (by their number in the crop) of the crop that MediaPipe makes for two key points, and its region.

    Returns:
        (33, 3) 0 … 255, the region
    """
    detecting, region = _detecting(centre, top, rgb.shape[1], rgb.shape[0])
    with _landmarker(_bundle(detecting, _copying(_parts()[1], pixels)), "IMAGE") as landmarker:
        world = _observation(landmarker.detect(_image(rgb)), rgb).world
    back = Region(0, 0, 1, -region.angle)  # MediaPipe takes them for positions and turns them
    return 255 * back.turned(world), region


def _detecting(centre: np.ndarray, top: np.ndarray, width: int, height: int) -> tuple[bytes, Region]:
    """A detector that always finds these two key points (pixels of a picture of that size), and the region they mean."""
    side, anchor = max(width, height), detector._anchors()[0]
    boxes, scores = np.zeros((2254, 12), dtype=np.float32), np.full((2254, 1), -50, dtype=np.float32)
    scores[0], boxes[0, 2:4] = 9, 50
    padded = (np.stack([centre, top]) + np.array([side - width, side - height]) / 2) / side
    boxes[0, 4:8] = ((padded - anchor) * detector.SIZE).reshape(-1)
    region = detector.Detector().regions(boxes, scores, Region.whole((width, height)))[0]
    return _constant(_parts()[0], {0: boxes, 1: scores}), region


def _parts() -> tuple[bytes, bytes]:
    with zipfile.ZipFile(assets.model_path()) as bundle:
        return bundle.read(assets.DETECTOR), bundle.read(assets.LANDMARKS)


def _bundle(detecting: bytes | None = None, landmarks: bytes | None = None) -> bytes:
    usual = _parts()
    return assets.bundled({assets.DETECTOR: detecting or usual[0], assets.LANDMARKS: landmarks or usual[1]})


def _hold(content: Any, tensor: int, value: np.ndarray) -> None:
    from mediapipe.tasks.metadata import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(value.tobytes(), dtype=np.uint8)
    content.subgraphs[0].tensors[tensor].buffer = len(content.buffers)
    content.buffers.append(buffer)


def _constant(model: bytes, values: dict[int, Any]) -> bytes:
    """A network that computes nothing: its outputs (by number) are these values, the others 0."""

    def edit(content: Any) -> None:
        graph = content.subgraphs[0]
        graph.operators = []
        for number, tensor in enumerate(graph.outputs):
            shape, value = graph.tensors[tensor].shape, np.asarray(values.get(number, 0), dtype=np.float32)
            value = value.reshape(shape) if value.size > 1 else np.full(shape, value)
            _hold(content, tensor, np.ascontiguousarray(value, dtype=np.float32))

    return assets.edited(model, edit)


def _copying(model: bytes, pixels: Sequence[int]) -> bytes:
    """A landmark network whose world landmarks are the colours of these pixels of its input."""
    from mediapipe.tasks.metadata import schema_py_generated as schema

    kinds = schema.BuiltinOperator

    def edit(content: Any) -> None:
        graph = content.subgraphs[0]

        def tensor(shape: Sequence[int], kind: int, value: np.ndarray | None = None) -> int:
            new = schema.TensorT()
            new.shape, new.type, new.name, new.buffer = list(shape), kind, b"added%d" % len(graph.tensors), 0
            graph.tensors.append(new)
            if value is not None:
                _hold(content, len(graph.tensors) - 1, value.astype(np.int32))
            return len(graph.tensors) - 1

        def operator(kind: int, inputs: list[int], output: int) -> Any:
            code, new = schema.OperatorCodeT(), schema.OperatorT()
            code.builtinCode = code.deprecatedBuiltinCode = kind
            code.version = 1
            content.operatorCodes.append(code)
            new.opcodeIndex, new.inputs, new.outputs = len(content.operatorCodes) - 1, inputs, [output]
            return new

        whole, numbers = schema.TensorType.FLOAT32, schema.TensorType.INT32
        flat, picked = tensor((65536, 3), whole), tensor((POINTS, 3), whole)
        gather = operator(
            kinds.GATHER, [flat, tensor((POINTS,), numbers, np.resize(np.asarray(pixels), POINTS))], picked
        )
        gather.builtinOptions, gather.builtinOptionsType = schema.GatherOptionsT(), schema.BuiltinOptions.GatherOptions
        shapes = [tensor((2,), numbers, np.array(shape)) for shape in ((65536, 3), (1, 3 * POINTS))]
        graph.operators = [
            operator(kinds.RESHAPE, [graph.inputs[0], shapes[0]], flat),
            gather,
            operator(kinds.RESHAPE, [picked, shapes[1]], graph.outputs[4]),
        ]

    copying = assets.edited(model, edit)

    def rest(content: Any) -> None:
        graph = content.subgraphs[0]
        for number, value in ((0, 0), (1, 1), (2, 0), (3, 0)):
            output = graph.outputs[number]
            _hold(content, output, np.full(graph.tensors[output].shape, value, dtype=np.float32))

    return assets.edited(copying, rest)
