"""The Open Inference Protocol, version 2 (KServe, Triton and others speak it): its bodies into arrays and back, its routes.

Tensors travel as JSON lists or, with the binary tensor extension, as raw little-endian bytes behind the JSON. Inputs are
`poses` FP32 [N, 17 or 33, 3], and if wanted `visibility` and `image_points`; the request's parameters `sequence` and `fps`
are those of /v1/refine. Outputs are `refined`, `confidence` and `view_angle`.
https://github.com/kserve/open-inference-protocol
"""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from refiner import UserError
from refiner.registry import NAME
from serve.codec import COORDINATES, JSON, RefineRequest, RefineResponse

HEADER_LENGTH = "inference-header-content-length"  # bytes of the JSON in front of the binary tensors
BINARY = "application/octet-stream"
TYPES = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
INPUTS = [
    {"name": "poses", "datatype": "FP32", "shape": [-1, -1, 3]},
    {"name": "visibility", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "image_points", "datatype": "FP32", "shape": [-1, -1, 2]},
]
OUTPUTS = [
    {"name": "refined", "datatype": "FP32", "shape": [-1, 17, 3]},
    {"name": "confidence", "datatype": "FP32", "shape": [-1, 17]},
    {"name": "view_angle", "datatype": "FP32", "shape": [-1]},
]


def decode(body: bytes, header_length: str | None) -> tuple[RefineRequest, dict[str, Any]]:
    """
    Returns:
        The poses, and the request's JSON, which says in what form the outputs are wanted.

    Raises:
        UserError: the body is not what the protocol says.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise UserError(f"the header {HEADER_LENGTH} is {header_length}: the body has {len(body)} bytes")
        length = int(header_length)
    try:
        content = orjson.loads(memoryview(body)[:length])
    except orjson.JSONDecodeError as error:
        raise UserError(f"the inference header is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
        raise UserError('the inference request is to be an object with a list of "inputs"')
    arrays, rest = {}, memoryview(body)[length:]
    for tensor in content["inputs"]:
        name, array, rest = _tensor(tensor, rest)
        arrays[name] = array
    if len(rest):
        raise UserError(f"{len(rest)} bytes follow the last binary tensor")
    if "poses" not in arrays:
        raise UserError('the inference request has no input "poses"')
    parameters = content.get("parameters") or {}
    sequence, fps = (
        (parameters.get(key) for key in ("sequence", "fps")) if isinstance(parameters, dict) else (None, None)
    )
    if sequence not in (None, True, False) or isinstance(fps, bool) or not isinstance(fps, int | float | None):
        raise UserError('of the parameters, "sequence" is to be true or false and "fps" a number')
    return RefineRequest(**arrays, sequence=bool(sequence), fps=fps), content


def _tensor(tensor: Any, rest: memoryview) -> tuple[str, np.ndarray, memoryview]:
    if not isinstance(tensor, dict) or tensor.get("name") not in COORDINATES:
        name = tensor.get("name") if isinstance(tensor, dict) else tensor
        raise UserError(f"the input {name} is unknown: known are {', '.join(COORDINATES)}")
    name, shape, datatype = tensor["name"], tensor.get("shape"), tensor.get("datatype")
    if datatype not in TYPES:
        raise UserError(f'the input "{name}" is {datatype}: FP32 and FP64 are taken')
    if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        raise UserError(f'the input "{name}" has no proper shape')
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
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


def encode(response: RefineResponse, request: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """
    Returns:
        The body, and the headers that belong to it.

    Raises:
        UserError: the request wants an output that there is not.
    """
    arrays = {"refined": response.poses, "confidence": response.confidence, "view_angle": response.view_angle}
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
        array = np.ascontiguousarray(arrays[output["name"]], dtype=TYPES["FP32"])
        described = {"name": output["name"], "datatype": "FP32", "shape": list(array.shape)}
        if _flag(output, "binary_data", all_binary):
            blobs.append(array.tobytes())
            described["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            described["data"] = array.reshape(-1)
        outputs.append(described)
    content = {"model_name": response.model["name"], "model_version": response.model["version"], "outputs": outputs}
    if isinstance(request.get("id"), str):
        content["id"] = request["id"]
    header = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return header, {"content-type": JSON}
    return b"".join([header, *blobs]), {"content-type": BINARY, HEADER_LENGTH: str(len(header))}


def _flag(described: dict[str, Any], name: str, default: bool) -> bool:
    parameters = described.get("parameters")
    return bool(parameters.get(name, default)) if isinstance(parameters, dict) else default


def add_routes(
    api: FastAPI,
    model: Callable[[], dict[str, str]],
    infer: Callable[[Request, Callable, Callable], Awaitable[Response]],
) -> None:
    """
    Args:
        api: gets the routes.
        model: {"name", "version"} of what serves now.
        infer: reads a request's body, refines, and answers; told how to decode and encode.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    def named(name: str, version: str | None) -> dict[str, str]:
        served = model()
        if name != served["name"] or version not in (None, served["version"]):
            wanted = name if version is None else f"{name} version {version}"
            raise HTTPException(404, f"{wanted} is not served: {served['name']} version {served['version']} is")
        return served

    @router.get("")
    async def server() -> dict[str, Any]:
        return {"name": NAME, "version": "1", "extensions": ["binary_tensor_data"]}

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}  # a replica gets requests only once its model has answered

    @router.get("/models/{name}")
    @router.get("/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        served = named(name, version)
        return {
            "name": served["name"],
            "versions": [served["version"]],
            "platform": "pytorch",
            "inputs": INPUTS,
            "outputs": OUTPUTS,
        }

    @router.get("/models/{name}/ready")
    @router.get("/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        return {"name": named(name, version)["name"], "ready": True}

    body = {
        "schema": {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": {}}}}
    }

    @router.post(
        "/models/{name}/infer",
        openapi_extra={"requestBody": {"content": {JSON: body, BINARY: {}}}},
        response_model=None,
    )
    @router.post(
        "/models/{name}/versions/{version}/infer",
        openapi_extra={"requestBody": {"content": {JSON: body, BINARY: {}}}},
        response_model=None,
    )
    async def inference(request: Request, name: str, version: str | None = None) -> Response:
        named(name, version)
        return await infer(request, lambda content: decode(content, request.headers.get(HEADER_LENGTH)), encode)

    api.include_router(router)
