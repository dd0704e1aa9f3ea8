"""The Open Inference Protocol over gRPC, through Ray Serve's gRPC ingress: what its routes answer over HTTP, in its messages.

Off unless `grpc_options` in a config name `serve.grpc_service.add_service`, for Serve binds the gRPC ports of replicas to every
interface and has no option for that (docs/endpoint.md). A request is turned into the body that the HTTP route would get, so
every limit and every refusal is the same. Messages are those of the package tritonclient, the extra `grpc`.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

# A mixin: `self` is the `RefineEndpoint` that inherits these methods, which is no supertype of their class.
# pyright: reportGeneralTypeIssues=false

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import orjson
from google.protobuf import json_format, message_factory
from google.protobuf.message import DecodeError, Message
from starlette.exceptions import HTTPException

from refiner import UserError
from refiner.extras import require
from serve.bodies import Body
from serve.codec import InferenceCodec
from serve.codec.inference import HEADER_LENGTH, MOST_DIMENSIONS
from serve.codec.messages import shown
from serve.inference_protocol import SERVER
from serve.problems import DEFECT

if TYPE_CHECKING:
    from ray.serve.grpc_util import RayServegRPCContext

    from serve.deployments import RefineEndpoint

logger = logging.getLogger("ray.serve")

SERVICE = "GRPCInferenceService"
# Fields of a tensor's contents, by datatype. FP16 has none: it comes as raw bytes.
CONTENTS = {"FP32": ("fp32_contents", "<f4"), "FP64": ("fp64_contents", "<f8")}
# Numbers that come as protobuf's lists are read one by one; clips are to come as raw bytes, as every client sends them.
MOST_LISTED = 100_000
# What a message may have before anything is built of it, for its smallest parts take fifty times their bytes: outermost
# fields, and bytes beside `raw_input_contents`, which stay bytes. Parts of a part have limits of their own.
MOST_FIELDS, MOST_BUILT, MOST_PARAMETERS = 100, 1_000_000, 50
RAW_INPUT_CONTENTS = 7  # number of the field in ModelInferRequest
STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # all others are INVALID_ARGUMENT


def add_service(servicer: Any, server: Any) -> None:
    """For Serve's `grpc_servicer_functions`: registers the methods that `InferenceService` has, and no others.

    Raises:
        MissingPackage: the extra is not installed.
    """
    require("the Open Inference Protocol over gRPC", "tritonclient")
    from tritonclient.grpc import service_pb2

    service = service_pb2.DESCRIPTOR.services_by_name[SERVICE]
    # Requests stay bytes: Serve's proxies pickle them, and these messages' classes say that they are of another module.
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
        if method.name in vars(InferenceService)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


class InferenceService:
    """The methods of a replica that Serve calls by their names in the protocol. Without a token only its health is told."""

    async def ServerLive(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        return _reply("ServerLive", {"live": True})

    async def ServerReady(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        return _reply("ServerReady", {"ready": True})

    async def ServerMetadata(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        return _asked(self, "ServerMetadata", request, grpc_context, lambda asked: SERVER)

    async def ModelReady(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        def ready(asked: Any) -> dict[str, bool]:
            try:
                return {"ready": bool(self.about.named(asked.name, asked.version))}
            except LookupError:
                return {"ready": False}

        return _asked(self, "ModelReady", request, grpc_context, ready)

    async def ModelMetadata(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        def metadata(asked: Any) -> dict[str, Any]:
            return self.about.metadata(asked.name, asked.version)

        return _asked(self, "ModelMetadata", request, grpc_context, metadata)

    async def ModelConfig(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        def configuration(asked: Any) -> dict[str, Any]:
            return {"config": self.about.configuration(asked.name, asked.version)}

        return _asked(self, "ModelConfig", request, grpc_context, configuration)

    async def ModelStatistics(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        def statistics(asked: Any) -> dict[str, Any]:
            return self.about.statistics(asked.name, asked.version)

        return _asked(self, "ModelStatistics", request, grpc_context, statistics)

    async def RepositoryIndex(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        return _asked(self, "RepositoryIndex", request, grpc_context, lambda asked: {"models": self.about.index()})

    async def ModelInfer(self: "RefineEndpoint", request: bytes, grpc_context: "RayServegRPCContext") -> Message:
        try:
            _admit(self, grpc_context)
            asked = _parsed("ModelInfer", request)
            self.about.named(asked.model_name, asked.model_version)
            header, body = http_body(asked)
            if len(body) > self.args.max_body_mb * 1e6:
                raise HTTPException(
                    413, f"the tensors have more than {self.args.max_body_mb:g} MB: send the clip in parts"
                )
            with closing(Body.of(body)) as kept:
                payload, headers = await self.respond(
                    "ModelInfer", self.live.current, kept, InferenceCodec(str(header))
                )
            return infer_reply(payload, int(headers[HEADER_LENGTH]))
        except Exception as error:
            return _refused("ModelInfer", grpc_context, error)


def http_body(request: Any) -> tuple[int, bytes]:
    """
    Args:
        request: a ModelInferRequest.

    Returns:
        The body of the HTTP request that says the same, all tensors binary, and the length of the JSON in front.

    Raises:
        UserError: it has contents in both forms, or in neither.
    """
    raw = list(request.raw_input_contents)
    for tensor in request.inputs:
        if len(tensor.shape) > MOST_DIMENSIONS:
            raise UserError(f'the input "{shown(tensor.name)}" has an invalid shape')
    if raw and len(raw) != len(request.inputs):
        raise UserError(f"there are {len(request.inputs)} inputs and {len(raw)} raw_input_contents")
    inputs = []
    for number, tensor in enumerate(request.inputs):
        if tensor.HasField("contents"):
            if raw:
                raise UserError(f'the input "{tensor.name}" has contents beside raw_input_contents: send one of them')
            inputs.append((tensor, _listed(tensor)))
        else:
            inputs.append((tensor, raw[number] if raw else b""))
    content = {
        "parameters": {**_parameters(request.parameters), "binary_data_output": True},
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {**_parameters(tensor.parameters), "binary_data_size": len(numbers)},
            }
            for tensor, numbers in inputs
        ],
    }
    if request.id:
        content["id"] = request.id
    if request.outputs:
        content["outputs"] = [{"name": o.name, "parameters": _parameters(o.parameters)} for o in request.outputs]
    header = orjson.dumps(content)
    return len(header), b"".join([header, *(numbers for _, numbers in inputs)])


def check_fields(content: bytes) -> None:
    """Looks at a message's outermost fields as they lie there (https://protobuf.dev/programming-guides/encoding/).

    Raises:
        UserError: there are more than any request has.
        DecodeError: it is no message.
    """
    at = count = built = 0
    while at < len(content):
        start = at
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 2:  # bytes, strings and messages say how long they are
            size, at = _varint(content, at)
            at += size
        elif kind == 0:
            _, at = _varint(content, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise DecodeError
        count += 1
        built += at - start if key >> 3 != RAW_INPUT_CONTENTS else 0
        if count > MOST_FIELDS or built > MOST_BUILT:
            raise UserError(
                f"the message has more than {MOST_FIELDS} fields, or {MOST_BUILT:,} bytes beside raw_input_contents: send "
                "tensors as raw bytes"
            )
    if at != len(content):
        raise DecodeError


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends.

    Raises:
        DecodeError: it does not end.
    """
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        number |= (content[at] & 0x7F) << shift
        at += 1
        if content[at - 1] < 0x80:
            return number, at
    raise DecodeError


def infer_reply(payload: bytes, length: int) -> Message:
    """A ModelInferResponse that says what an HTTP answer says, whose tensors are all binary, behind `length` bytes of JSON."""
    content = orjson.loads(payload[:length])
    reply, at = _message("ModelInfer"), length
    reply.model_name, reply.model_version, reply.id = (
        content["model_name"], content["model_version"], content.get("id", ""),
    )  # fmt: skip
    for output in content["outputs"]:
        reply.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        size = output["parameters"]["binary_data_size"]
        reply.raw_output_contents.append(payload[at : at + size])
        at += size
    return reply


def _listed(tensor: Any) -> bytes:
    field, kind = CONTENTS.get(tensor.datatype, ("", ""))
    if not field:
        raise UserError(f'the input "{tensor.name}" is {tensor.datatype}: send its bytes as raw_input_contents')
    values = getattr(tensor.contents, field)
    if len(values) > MOST_LISTED:
        raise UserError(
            f'the input "{tensor.name}" has {len(values):,} numbers: send their bytes as raw_input_contents'
        )
    return np.array(values, dtype=kind).tobytes()


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    if len(given) > MOST_PARAMETERS:
        raise UserError(f"there are {len(given):,} parameters, more than any request has")
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in given.items()}
    values = {name: getattr(given[name], choice) if choice else None for name, choice in chosen.items()}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):  # JSON has no such numbers
            raise UserError(f'the parameter "{name}" is {value}: it must be a finite number')
    return values


def _admit(endpoint: "RefineEndpoint", context: "RayServegRPCContext") -> None:
    header = dict(context.invocation_metadata()).get("authorization", "")
    if endpoint.tokens.wanted and not endpoint.tokens.admit(header.encode()):
        raise HTTPException(401, "send one of this endpoint's tokens as metadata: 'authorization', 'Bearer …'")


def _asked(
    endpoint: "RefineEndpoint",
    method: str,
    request: bytes,
    context: "RayServegRPCContext",
    answer: Callable[[Any], Mapping[str, Any]],
) -> Message:
    try:
        _admit(endpoint, context)
        return _reply(method, answer(_parsed(method, request)))
    except Exception as error:
        return _refused(method, context, error)


def _parsed(method: str, request: bytes) -> Any:
    """
    Raises:
        UserError: these bytes are not the method's message.
    """
    try:
        check_fields(request)
        return message_factory.GetMessageClass(_described(method).input_type).FromString(request)
    except DecodeError:
        raise UserError(f"the message is not a {method}Request") from None


def _refused(method: str, context: "RayServegRPCContext", error: Exception) -> Message:
    """An empty reply, and in the context what is wrong. (Serve would log whatever is raised, with a traceback, and send the
    client its text.)
    """
    if isinstance(error, UserError):
        status, detail = 422, str(error)
    elif isinstance(error, LookupError) and type(error) is LookupError:
        status, detail = 404, str(error)
    elif isinstance(error, HTTPException):
        status, detail = error.status_code, error.detail
    else:
        logger.exception("%s failed", method, exc_info=error)
        status, detail = 500, DEFECT
    context.set_code(STATUS.get(status, grpc.StatusCode.INVALID_ARGUMENT))
    context.set_details(detail)
    return _message(method)


def _reply(method: str, content: Mapping[str, Any]) -> Message:
    return json_format.ParseDict(dict(content), _message(method))


def _message(method: str) -> Any:
    """An empty reply of this method."""
    return message_factory.GetMessageClass(_described(method).output_type)()


def _described(method: str) -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2.DESCRIPTOR.services_by_name[SERVICE].methods_by_name[method]
