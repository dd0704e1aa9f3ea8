"""Poses as the Open Inference Protocol, version 2, has them (KServe, Triton and others speak it).

Tensors travel as JSON lists or, with the binary tensor extension, as raw little-endian bytes behind the JSON. Inputs are
`poses` [N, 17 or 33, 3], and if wanted `visibility` and `image_points`, in FP16, FP32 or FP64; the request's parameters
`sequence` and `fps` are those of /v1/refine. Outputs are `refined`, `confidence` and `view_angle`, in FP32 or in what the
parameter `output_datatype` says.
https://github.com/kserve/open-inference-protocol
"""

from typing import Any

import numpy as np
import orjson

from refiner import UserError
from serve.codec.messages import BINARY, COORDINATES, JSON, RefineRequest, RefineResponse

HEADER_LENGTH = "inference-header-content-length"  # bytes of the JSON in front of the binary tensors
TYPES = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}


class InferenceCodec:
    """Remembers of the request in what form it wants the outputs."""

    def __init__(self, header_length: str | None) -> None:
        """Args:
        header_length: the request's header of that name.
        """
        self._header_length = header_length
        self._request: dict[str, Any] = {}
        self._datatype = "FP32"  # of the outputs

    def decode(self, body: bytes) -> RefineRequest:
        """
        Raises:
            UserError: the body is not what the protocol says.
        """
        length = len(body)
        if self._header_length is not None:
            if not self._header_length.isdecimal() or int(self._header_length) > len(body):
                raise UserError(f"the header {HEADER_LENGTH} is {self._header_length}: the body has {len(body)} bytes")
            length = int(self._header_length)
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
            raise UserError('the inference request is to be an object with a list of "inputs"')
        arrays = {}
        for tensor in content["inputs"]:
            name, array, rest = _tensor(tensor, rest)
            arrays[name] = array
        if len(rest):
            raise UserError(f"{len(rest)} bytes follow the last binary tensor")
        if "poses" not in arrays:
            raise UserError('the inference request has no input "poses"')
        sequence, fps = (_parameters(content).get(key) for key in ("sequence", "fps"))
        if sequence not in (None, True, False) or isinstance(fps, bool) or not isinstance(fps, int | float | None):
            raise UserError('of the parameters, "sequence" is to be true or false and "fps" a number')
        self._datatype = _parameters(content).get("output_datatype", "FP32")
        if self._datatype not in tuple(TYPES):  # by equality: it may be anything
            raise UserError(f'of the parameters, "output_datatype" is to be one of {", ".join(TYPES)}')
        self._request = content
        return RefineRequest(**arrays, sequence=bool(sequence), fps=fps)

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

        Raises:
            UserError: the request wants an output that there is not.
        """
        arrays, request = response.arrays, self._request
        all_binary = _flag(request, "binary_data_output", False)
        wanted = request.get("outputs")
        if wanted is None:
            wanted = [{"name": name} for name in arrays]
        if not isinstance(wanted, list):
            raise UserError('"outputs" is to be a list')
        outputs, blobs = [], []
        for output in wanted:
            if not isinstance(output, dict) or output.get("name") not in arrays:
                raise UserError(f"there is no such output; there are {', '.join(arrays)}")
            array = np.ascontiguousarray(arrays[output["name"]], dtype=TYPES[self._datatype])
            described = {"name": output["name"], "datatype": self._datatype, "shape": list(array.shape)}
            if _flag(output, "binary_data", all_binary):
                blobs.append(array.tobytes())
                described["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                described["data"] = array.reshape(-1)
            outputs.append(described)
        content = {"model_name": response.model["name"], "model_version": response.model["version"], "outputs": outputs}
        if isinstance(request.get("id"), str):
            content["id"] = request["id"]
        return content, blobs


def _tensor(tensor: Any, rest: memoryview) -> tuple[str, np.ndarray, memoryview]:
    if not isinstance(tensor, dict) or tensor.get("name") not in COORDINATES:
        name = tensor.get("name") if isinstance(tensor, dict) else tensor
        raise UserError(f"the input {name} is unknown: known are {', '.join(COORDINATES)}")
    name, shape, datatype = tensor["name"], tensor.get("shape"), tensor.get("datatype")
    if datatype not in TYPES:
        raise UserError(f'the input "{name}" is {datatype}: {", ".join(TYPES)} are taken')
    if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        raise UserError(f'the input "{name}" has no proper shape')
    size = _parameters(tensor).get("binary_data_size")
    count = int(np.prod(shape, dtype=object))
    if size is None:
        try:
            values = np.asarray(tensor.get("data"), dtype=TYPES[datatype]).reshape(-1)
        except (ValueError, TypeError, OverflowError):
            raise UserError(f'the data of the input "{name}" are to be numbers') from None
    else:
        if type(size) is not int or size != count * TYPES[datatype].itemsize or size > len(rest):
            raise UserError(f'the input "{name}" says {size} bytes for the shape {shape}, and {len(rest)} are there')
        values, rest = np.frombuffer(rest[:size], dtype=TYPES[datatype]), rest[size:]
    if len(values) != count:
        raise UserError(f'the input "{name}" has {len(values)} numbers for the shape {shape}')
    return name, values.astype(np.float32, copy=False).reshape(shape), rest


def _parameters(described: dict[str, Any]) -> dict[str, Any]:
    parameters = described.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _flag(described: dict[str, Any], name: str, default: bool) -> bool:
    return bool(_parameters(described).get(name, default))
