"""Poses as the Open Inference Protocol, version 2, has them (KServe, Triton and others speak it).

Tensors travel as JSON lists or, with the binary tensor extension, as raw little-endian bytes behind the JSON. Inputs are
`poses` [N, 17 or 33, 3], and if wanted `visibility` and `image_points`, in FP16, FP32 or FP64; the request's parameters
`sequence`, `fps` and `keep_bones` are those of /v1/refine. Outputs are `refined`, `confidence` and `view_angle`, in FP32 or
in what the parameter `output_datatype` says.
https://github.com/kserve/open-inference-protocol
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from refiner import UserError
from serve.codec.messages import (
    BINARY,
    COORDINATES,
    JSON,
    RefineRequest,
    RefineResponse,
    boolean,
    frame_rate,
    numbers,
    shown,
)

HEADER_LENGTH = "inference-header-content-length"  # bytes of the JSON in front of the binary tensors
TYPES = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}


INPUTS = (*COORDINATES, "bone_lengths")
OUTPUTS = ("refined", "confidence", "view_angle")
# What Triton's clients add of themselves (sequences, priority, timeout) is left alone: it changes no answer.
PARAMETERS = (
    "sequence", "fps", "keep_bones", "output_datatype", "binary_data_output",
    "priority", "timeout", "sequence_id", "sequence_start", "sequence_end",
)  # fmt: skip
INPUT_PARAMETERS = ("binary_data_size",)
OUTPUT_PARAMETERS = ("binary_data", "binary_data_size")
MOST_DIMENSIONS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """In what form a request wants its answer."""

    outputs: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(OUTPUTS, False))  # name -> as bytes
    datatype: str = "FP32"
    id: str | None = None


class InferenceCodec:
    """Remembers of the request in what form it wants the outputs."""

    def __init__(self, header_length: str | None) -> None:
        """Args:
        header_length: the request's header of that name.
        """
        self.header_length = header_length
        self.wanted = Wanted()

    def json_length(self, body: bytes | memoryview) -> int:
        """Bytes of the JSON in front of the binary tensors.

        Raises:
            UserError: the header says more than there are.
        """
        given = self.header_length
        if given is None:
            return len(body)
        # (Python reads no numbers of thousands of digits)
        if not (given.isascii() and given.isdecimal() and len(given) < 10) or int(given) > len(body):
            raise UserError(f"the header {HEADER_LENGTH} is {shown(given)}: the body has {len(body)} bytes")
        return int(given)

    def decode(self, body: bytes | memoryview) -> RefineRequest:
        """
        Raises:
            UserError: the body is not what the protocol says.
        """
        length = self.json_length(body)
        try:
            content = orjson.loads(memoryview(body)[:length])
        except orjson.JSONDecodeError as error:
            raise UserError(f"the inference header is not JSON: {error}") from None
        return self.read(content, memoryview(body)[length:])

    def read(self, content: Any, rest: memoryview) -> RefineRequest:
        """
        Args:
            content: the JSON part of a request.
            rest: bytes of its binary tensors.

        Raises:
            UserError: it is not what the protocol says.
        """
        if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
            raise UserError('the inference request must be an object with a list of "inputs"')
        arrays = {}
        for tensor in content["inputs"]:
            name, array, rest = _tensor(tensor, rest)
            if name in arrays:
                raise UserError(f'the input "{name}" comes twice')
            arrays[name] = array
        if len(rest):
            raise UserError(f"{len(rest)} bytes follow the last binary tensor")
        if "poses" not in arrays:
            raise UserError('the inference request has no input "poses"')
        parameters = _parameters(content, PARAMETERS)
        self.wanted = Wanted(
            datatype=_datatype(parameters.get("output_datatype", "FP32"), '"output_datatype"'),
            outputs=_outputs(
                content.get("outputs"), boolean("binary_data_output", parameters.get("binary_data_output"), False)
            ),
            id=_id(content.get("id")),
        )
        return RefineRequest(
            **arrays,
            sequence=boolean("sequence", parameters.get("sequence"), False),
            keep_bones=boolean("keep_bones", parameters.get("keep_bones"), True),
            fps=frame_rate(parameters.get("fps")),
        )

    def encode(self, response: RefineResponse) -> tuple[bytes, dict[str, str]]:
        """
        Raises:
            UserError: the request wants an output that there is not.
        """
        content, blobs = self.write(response)
        header = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        if not blobs:
            return header, {"content-type": JSON}
        return b"".join([header, *blobs]), {"content-type": BINARY, HEADER_LENGTH: str(len(header))}

    def write(self, response: RefineResponse) -> tuple[dict[str, Any], list[bytes]]:
        """
        Returns:
            The JSON part of the answer, with arrays in it, and the binary tensors that belong behind it.
        """
        arrays, outputs, blobs = response.arrays, [], []
        for name, binary in self.wanted.outputs.items():
            array = np.ascontiguousarray(arrays[name], dtype=TYPES[self.wanted.datatype])
            described = {"name": name, "datatype": self.wanted.datatype, "shape": list(array.shape)}
            if binary:
                blobs.append(array.tobytes())
                described["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                described["data"] = array.reshape(-1)
            outputs.append(described)
        content = {"model_name": response.model["name"], "model_version": response.model["version"], "outputs": outputs}
        if self.wanted.id is not None:
            content["id"] = self.wanted.id
        return content, blobs


def _outputs(wanted: Any, all_binary: bool) -> dict[str, bool]:
    """Names of the outputs, each with whether it travels as bytes. All of them where none is named.

    Raises:
        UserError: one is unknown, or named twice: an answer is never larger than what there is to say.
    """
    if wanted is None:
        return dict.fromkeys(OUTPUTS, all_binary)
    if not isinstance(wanted, list):
        raise UserError('"outputs" must be a list')
    as_bytes: dict[str, bool] = {}
    for output in wanted:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in OUTPUTS:
            raise UserError(f"there is no such output; there are {', '.join(OUTPUTS)}")
        if name in as_bytes:
            raise UserError(f'the output "{name}" is asked for twice')
        as_bytes[name] = boolean("binary_data", _parameters(output, OUTPUT_PARAMETERS).get("binary_data"), all_binary)
    return as_bytes


def _id(given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise UserError('"id" must be a string')
    return given


def _datatype(given: Any, what: str) -> str:
    if not isinstance(given, str) or given not in TYPES:
        raise UserError(f"{what} is {shown(given)}: only {', '.join(TYPES)} are accepted")
    return given


def _tensor(tensor: Any, rest: memoryview) -> tuple[str, np.ndarray, memoryview]:
    """An input's name and its array, and the binary tensors behind it."""
    name = tensor.get("name") if isinstance(tensor, dict) else tensor
    if not isinstance(tensor, dict) or not isinstance(name, str) or name not in INPUTS:
        raise UserError(f"the input {shown(name)} is unknown: send {', '.join(INPUTS)}")
    shape, datatype = tensor.get("shape"), _datatype(tensor.get("datatype"), f'the datatype of the input "{name}"')
    if (
        not isinstance(shape, list)
        or not 0 < len(shape) <= MOST_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
    ):
        raise UserError(f'the input "{name}" has an invalid shape')
    size, count = _parameters(tensor, INPUT_PARAMETERS).get("binary_data_size"), math.prod(shape)
    if size is None:
        values = numbers(f"data of the input {name}", tensor.get("data")).reshape(-1)
    else:
        if "data" in tensor:
            raise UserError(f'the input "{name}" has both "data" and "binary_data_size"')
        if type(size) is not int or size != count * TYPES[datatype].itemsize or size > len(rest):
            raise UserError(
                f'the input "{name}" says {shown(size)} bytes for the shape {shape}, but {len(rest):,} are there'
            )
        values, rest = np.frombuffer(rest[:size], dtype=TYPES[datatype]), rest[size:]
    if len(values) != count:
        raise UserError(f'the input "{name}" has {len(values)} numbers for the shape {shape}')
    with np.errstate(over="ignore"):
        return name, values.astype(np.float32, copy=False).reshape(shape), rest


def _parameters(described: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """
    Raises:
        UserError: there is one among them that is not known: it would be misspelt.
    """
    parameters = described.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise UserError('"parameters" must be an object')
    if unknown := parameters.keys() - set(known):
        raise UserError(f'the parameter "{shown(min(unknown))}" is unknown: send {", ".join(known)}')
    return parameters
