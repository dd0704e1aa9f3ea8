"""The Open Inference Protocol's routes, for KServe's, Triton's and others' clients; its bodies are `serve.codec.inference`'s.
https://github.com/kserve/open-inference-protocol
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from refiner.registry import NAME
from serve.codec import BINARY, JSON, Codec, InferenceCodec
from serve.codec.inference import HEADER_LENGTH

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


def add_routes(
    api: FastAPI,
    model: Callable[[], dict[str, str]],
    infer: Callable[[Request, Codec], Awaitable[Response]],
) -> None:
    """
    Args:
        api: gets the routes.
        model: {"name", "version"} of what serves now.
        infer: reads a request's body, refines, and answers; told in which form.
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
        return await infer(request, InferenceCodec(request.headers.get(HEADER_LENGTH)))

    api.include_router(router)
