"""The Open Inference Protocol's routes, for KServe's, Triton's and others' clients; its bodies are `serve.codec.inference`'s.

What is said about the server and its model is made here, as plain dictionaries, for HTTP and for `serve.grpc_service`.
https://github.com/kserve/open-inference-protocol, and Triton's extensions: model configuration, statistics, repository.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from refiner.registry import NAME
from refiner.skeleton import NUM_JOINTS
from serve.codec import BINARY, JSON, Codec, InferenceCodec
from serve.codec.inference import HEADER_LENGTH
from serve.codec.messages import shown
from serve.documentation import problems
from serve.live import rounded, standing_poses
from serve.metrics import Statistics

INPUTS = [
    {"name": "poses", "datatype": "FP32", "shape": [-1, -1, 3]},
    {"name": "visibility", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "image_points", "datatype": "FP32", "shape": [-1, -1, 2]},
]
OUTPUTS = [
    {"name": "refined", "datatype": "FP32", "shape": [-1, NUM_JOINTS, 3]},
    {"name": "confidence", "datatype": "FP32", "shape": [-1, NUM_JOINTS]},
    {"name": "view_angle", "datatype": "FP32", "shape": [-1]},
]
SERVER = {
    "name": NAME,
    "version": "1",
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
}


class About:
    """What clients ask about the model."""

    def __init__(self, model: Callable[[], Mapping[str, str]], statistics: Statistics, max_poses: int) -> None:
        """
        Args:
            model: {"name", "version"} of what serves now.
            statistics: of this replica.
            max_poses: that a request may have.
        """
        self._model, self._statistics, self._max_poses = model, statistics, max_poses

    def named(self, name: str, version: str | None) -> Mapping[str, str]:
        """The model that serves, if it is the one that is meant.

        Raises:
            LookupError: it is not; the sentence says which is.
        """
        served = self._model()
        if name != served["name"] or version not in (None, "", served["version"]):
            wanted = f"{shown(name)} version {shown(version)}" if version else shown(name)
            raise LookupError(f"{wanted} is not served: {served['name']} version {served['version']} is")
        return served

    def metadata(self, name: str, version: str | None) -> dict[str, Any]:
        """
        Raises:
            LookupError: another model serves.
        """
        served = self.named(name, version)
        return {
            "name": served["name"],
            "versions": [served["version"]],
            "platform": "pytorch",
            "inputs": INPUTS,
            "outputs": OUTPUTS,
        }

    def configuration(self, name: str, version: str | None) -> dict[str, Any]:
        """As Triton's model_config.proto has it: shapes without the first axis, the number of poses.

        Raises:
            LookupError: another model serves.
        """
        served = self.named(name, version)

        def tensor(described: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "name": described["name"],
                "data_type": f"TYPE_{described['datatype']}",
                "dims": described["shape"][1:] or [1],
            }

        return {
            "name": served["name"],
            "platform": "pytorch",
            "backend": "python",
            "version_policy": {
                "specific": {"versions": [int(served["version"])] if served["version"].isdecimal() else []}
            },
            "max_batch_size": self._max_poses,
            "input": [{**tensor(t), "optional": t["name"] != "poses"} for t in INPUTS],
            "output": [tensor(t) for t in OUTPUTS],
        }

    def statistics(self, name: str, version: str | None) -> dict[str, Any]:
        """Of this replica since it started; for every model if `name` is empty.

        Raises:
            LookupError: another model serves.
        """
        served = self.named(name, version) if name else self._model()
        return {"model_stats": [self._statistics.of(served)]}

    def index(self) -> list[dict[str, str]]:
        """All models, of which there is one."""
        return [{**self._model(), "state": "READY", "reason": ""}]


def example() -> dict[str, Any]:
    """A request that works."""
    poses = standing_poses(1)
    return {
        "inputs": [{"name": "poses", "datatype": "FP32", "shape": list(poses.shape), "data": rounded(poses.ravel())}]
    }


Infer = Callable[[Request, Codec, Callable[[], object]], Awaitable[Response]]


def add_routes(api: FastAPI, about: About, infer: Infer) -> None:
    """
    Args:
        api: gets the routes.
        about: the model.
        infer: reads a request's body, refines, and answers; told in which form, and what raises where another model serves.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    _add_server(router, about)
    _add_model(router, about)
    _add_inference(router, about, infer)
    api.include_router(router)


def _add_server(router: APIRouter, about: About) -> None:
    @router.get("")
    async def server() -> dict[str, Any]:
        """What this server is, and which extensions of the protocol it speaks."""
        return SERVER

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """The replica is there."""
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        """It answers requests."""
        return {"ready": True}  # a replica gets requests only once its model has answered

    @router.get("/models")
    async def models() -> dict[str, list[str]]:
        """Names of the models that are served."""
        return {"models": [model["name"] for model in about.index()]}

    @router.post("/repository/index")
    async def index() -> list[dict[str, str]]:
        """Triton's list of models, with their versions."""
        return about.index()

    @router.get("/models/stats")
    async def all_statistics() -> dict[str, Any]:
        """Requests, poses and times of every model, counted by the replica that answers, since it started."""
        return about.statistics("", None)


def _add_model(router: APIRouter, about: About) -> None:
    unknown = problems(404)

    @router.get("/models/{name}", responses=unknown)
    @router.get("/models/{name}/versions/{version}", responses=unknown)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs and outputs."""
        return _or_404(about.metadata, name, version)

    @router.get("/models/{name}/ready", responses=unknown)
    @router.get("/models/{name}/versions/{version}/ready", responses=unknown)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """The model answers requests."""
        return {"name": _or_404(about.named, name, version)["name"], "ready": True}

    @router.get("/models/{name}/config", responses=unknown)
    @router.get("/models/{name}/versions/{version}/config", responses=unknown)
    async def configuration(name: str, version: str | None = None) -> dict[str, Any]:
        """Triton's model configuration: inputs, outputs, and how many poses a request may have."""
        return _or_404(about.configuration, name, version)

    @router.get("/models/{name}/stats", responses=unknown)
    @router.get("/models/{name}/versions/{version}/stats", responses=unknown)
    async def statistics(name: str, version: str | None = None) -> dict[str, Any]:
        """Requests, poses and times, counted by the replica that answers, since it started."""
        return _or_404(about.statistics, name, version)


def _add_inference(router: APIRouter, about: About, infer: Infer) -> None:
    schema = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": {}}}}
    documented: dict[str, Any] = {
        "openapi_extra": {"requestBody": {"content": {JSON: {"schema": schema, "example": example()}, BINARY: {}}}},
        "responses": problems(404, 413, 415, 429),
        "response_model": None,
    }

    @router.post("/models/{name}/infer", **documented)
    @router.post("/models/{name}/versions/{version}/infer", **documented)
    async def inference(request: Request, name: str, version: str | None = None) -> Response:
        """Corrects poses. Tensors as JSON, or as bytes behind it."""
        codec = InferenceCodec(request.headers.get(HEADER_LENGTH))
        return await infer(request, codec, lambda: _or_404(about.named, name, version))


def _or_404(answer: Callable[[str, str | None], Any], name: str, version: str | None) -> Any:
    try:
        return answer(name, version)
    except LookupError as error:
        raise HTTPException(404, str(error)) from None
