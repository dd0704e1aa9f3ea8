"""MediaPipe's PoseLandmarker: where its model comes from, and one landmarker per video.

MediaPipe ≥ 1.0 ships no model. `model_path` finds one: a file the user names, the cache, the official download, or an
assembly from the last wheel that still carries the parts, which works wherever a Python package index is reachable.
Either way the landmark model loses the segmentation mask that nobody here reads: a third of the work, and the
landmarks stay bit-identical.
"""

import functools
import io
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refiner.errors import UserError
from refiner.wheels import Unavailable, cached, check_sha256, keep, read_wheel

# Part of the cached file's name: raise it when what is done to the models changes.
ASSET_VERSION = 1

_OFFICIAL_URL = (
    "https://storage.googleapis.com/mediapipe-models/pose_landmarker/"
    "pose_landmarker_{model}/float16/1/pose_landmarker_{model}.task"
)
_OFFICIAL_SHA256 = {
    "lite": "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a",
    "full": "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
    "heavy": "64437af838a65d18e5ba7a0d39b465540069bc8aae8308de3e318aad31fcbc7b",
}
MODELS = tuple(_OFFICIAL_SHA256)
_DOWNLOAD_TIMEOUT_S = 10  # to connect, and between two reads

_WHEEL = "mediapipe==0.10.21"
# One wheel whatever machine this is: the models in all of them are the same, and newer Pythons have none.
_WHEEL_TAGS = (
    "--python-version=3.11", "--implementation=cp", "--abi=cp311",
    "--platform=manylinux_2_28_x86_64",
)  # fmt: skip
DETECTOR, LANDMARKS = "pose_detector.tflite", "pose_landmarks_detector.tflite"
# Name in the bundle -> where it is in the wheel, its SHA-256, mean and standard deviation its input is normalised with.
_PARTS = {
    DETECTOR: (
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        (127.5, 127.5),
    ),
    LANDMARKS: (
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        (0.0, 255.0),
    ),
}
_METADATA = b"TFLITE_METADATA"
_MASK_SHAPE = [1, 256, 256, 1]  # of the landmark model's segmentation output


def model_path(model: str = "full", cache: str | Path | None = None) -> Path:
    """The PoseLandmarker bundle (`.task`), fetched or assembled if need be. Safe to call from many processes at once.

    Args:
        model: 'lite', 'full', 'heavy', or the path of a `.task` file, which is used as it is.
        cache: folder to keep it in; else $POSE_DEPTH_REFINER_CACHE, $XDG_CACHE_HOME/pose-depth-refiner, ~/.cache/….

    Raises:
        UserError: there is no such file, or no model can be had here.
    """
    if model not in MODELS:
        if Path(model).is_file():
            return Path(model)
        raise UserError(f"there is no pose model '{model}': give {', '.join(MODELS)} or the path of a .task file")
    name = f"pose_landmarker_{model}-{ASSET_VERSION}.task"
    path = Path(cache, name) if cache else cached(name)
    if path.is_file():
        return path
    tried = []
    sources: list[Callable[[], bytes]] = [functools.partial(_official, model)]
    if model == "full":
        sources.append(assembled)
    for source in sources:
        try:
            bundle = source()
            break
        except Unavailable as error:
            tried.append(str(error))
    else:
        raise UserError(
            f"no pose model '{model}': {'; '.join(tried)}. Connect this machine once, or fetch "
            f"{_OFFICIAL_URL.format(model=model)} elsewhere and name the file with --model"
        )
    keep(path, bundle)
    return path


def _official(model: str) -> bytes:
    """The bundle that Google publishes, without its segmentation branch."""
    url = _OFFICIAL_URL.format(model=model)
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as response:
            content = response.read()
    except (OSError, urllib.error.URLError) as error:
        raise Unavailable(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from None
    check_sha256(content, _OFFICIAL_SHA256[model], url)
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        parts = {name: bundle.read(name) for name in bundle.namelist()}
    parts[LANDMARKS] = without_segmentation(parts[LANDMARKS])
    return bundled(parts)


def assembled(*, segmentation: bool = False) -> bytes:
    """The same from the two official TFLite models inside an old MediaPipe wheel, which is downloaded, never installed.

    Args:
        segmentation: keep the segmentation branch, as in stock MediaPipe; for tests and benchmarks to compare with.
    """
    paths = {inside: name for name, (inside, _, _) in _PARTS.items()}
    parts = read_wheel(_WHEEL, paths.__contains__, tags=_WHEEL_TAGS)
    content = {paths[inside]: part for inside, part in parts.items()}
    for name, (_, sha256, (mean, std)) in _PARTS.items():
        check_sha256(content[name], sha256, f"{name} in {_WHEEL}")
        content[name] = _with_normalisation(content[name], mean, std)
    if not segmentation:
        content[LANDMARKS] = without_segmentation(content[LANDMARKS])
    return bundled(content)


def bundled(parts: dict[str, bytes]) -> bytes:
    """Zips models uncompressed and aligned, as MediaPipe maps them into memory. The same parts give the same bytes."""
    from mediapipe.tasks.python.metadata.metadata_writers.model_asset_bundle_utils import AlignZipFile

    content = io.BytesIO()
    with AlignZipFile(content, mode="w", alignment=4) as bundle:
        for name in sorted(parts):
            bundle.writestr(zipfile.ZipInfo(name), parts[name])  # dated 1980, so that only the content counts
    return content.getvalue()


def edited(model: bytes, edit: Callable[[Any], None]) -> bytes:
    """A TFLite flatbuffer taken apart, edited and put together again."""
    import flatbuffers
    from mediapipe.tasks.metadata import schema_py_generated as schema

    content = schema.ModelT.InitFromPackedBuf(model, 0)
    edit(content)
    builder = flatbuffers.Builder(len(model))
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _with_normalisation(model: bytes, mean: float, std: float) -> bytes:
    """Adds the TFLite metadata from which MediaPipe reads how to normalise the input: (value − mean) / std."""
    from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata

    def edit(content: Any) -> None:  # the generated classes say None of everything
        options = metadata.NormalizationOptionsT()
        options.mean, options.std = [mean], [std]
        unit = metadata.ProcessUnitT()
        unit.optionsType, unit.options = metadata.ProcessUnitOptions.NormalizationOptions, options
        tensors = []
        graph = content.subgraphs[0]
        for number in [*graph.inputs, *graph.outputs]:
            tensor = metadata.TensorMetadataT()
            tensor.name = graph.tensors[number].name.decode()
            tensor.processUnits = [unit] if number in graph.inputs else None
            tensors.append(tensor)
        subgraph = metadata.SubGraphMetadataT()
        subgraph.inputTensorMetadata = tensors[: len(graph.inputs)]
        subgraph.outputTensorMetadata = tensors[len(graph.inputs) :]
        root = metadata.ModelMetadataT()
        root.subgraphMetadata = [subgraph]
        describe(content, root)

    return edited(model, edit)


def description(content: Any) -> Any:
    """The TFLite metadata (`ModelMetadataT`) inside a model as `edited` hands it out; an empty one where it has none."""
    from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata

    for entry in content.metadata or []:
        if entry.name == _METADATA:
            return metadata.ModelMetadataT.InitFromPackedBuf(bytes(content.buffers[entry.buffer].data))
    return metadata.ModelMetadataT()


def describe(content: Any, described: Any) -> None:
    """Puts TFLite metadata into a model, in place of what is there."""
    import flatbuffers
    from mediapipe.tasks.metadata import schema_py_generated as schema

    builder = flatbuffers.Builder(1024)
    builder.Finish(described.Pack(builder), b"M001")
    entry: Any = schema.MetadataT()
    buffer: Any = schema.BufferT()
    entry.name, entry.buffer = _METADATA, len(content.buffers)
    buffer.data = np.frombuffer(bytes(builder.Output()), dtype=np.uint8)
    content.buffers.append(buffer)
    content.metadata = [m for m in content.metadata or [] if m.name != _METADATA] + [entry]
    content.metadataBuffer = None  # an index of older TFLite, which `metadata` replaces


def without_segmentation(model: bytes) -> bytes:
    """The landmark model without the operators that feed only its segmentation mask, which becomes a constant of zeros.

    A model without such an output keeps all its operators.
    """
    from mediapipe.tasks.metadata import schema_py_generated as schema

    def edit(content: Any) -> None:  # the generated classes say None of everything
        graph = content.subgraphs[0]
        masks = [number for number in graph.outputs if list(graph.tensors[number].shape) == _MASK_SHAPE]
        # backwards through the operators, which are in order of execution
        needed, kept = set(graph.outputs) - set(masks), []
        for operator in reversed(graph.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.inputs)
                kept.append(operator)
        for number in masks:
            zeros: Any = schema.BufferT()
            zeros.data = np.zeros(int(np.prod(_MASK_SHAPE)) * 4, dtype=np.uint8)
            graph.tensors[number].buffer = len(content.buffers)
            content.buffers.append(zeros)
        graph.operators = kept[::-1]

    return edited(model, edit)
