"""The Open Inference Protocol over gRPC with the standard client: a replica's methods, and Serve's own ingress before them."""

import asyncio
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.serve.grpc_util import RayServegRPCContext
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from cluster.local import local_cluster
from cluster.running import CHECKOUT, free_ports
from refiner import DepthRefiner
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve.deployments import RefineEndpoint
from serve.grpc_service import MOST_LISTED, InferenceService, add_service
from serve.live import standing_poses
from serve.schemas import AppArgs
from tests.checkpoints import on_pytorch
from tests.waiting import PATIENCE_S

NAME = "checkpoint"
TOKEN = {"authorization": "Bearer secret"}


class Servicer:
    """Calls a replica's methods as Serve's replica does (ray.serve._private.replica, direct ingress)."""

    def __init__(self, endpoint: RefineEndpoint) -> None:
        self.endpoint = endpoint

    def __getattr__(self, name: str):
        method = getattr(self.endpoint, name)

        async def call(request, context):
            wrapped = RayServegRPCContext(context)
            handed_on = pickle.loads(pickle.dumps(request))  # as Serve's proxies do
            reply = await method(handed_on, grpc_context=wrapped)
            wrapped._set_on_grpc_context(context)
            return reply

        return call


@contextmanager
def serving(endpoint: RefineEndpoint) -> Iterator[str]:
    loop, started, address = asyncio.new_event_loop(), threading.Event(), []

    async def run() -> None:
        server = grpc.aio.server()
        add_service(Servicer(endpoint), server)
        address.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        started.set()
        await server.wait_for_termination()

    task = None

    def main() -> None:
        nonlocal task
        asyncio.set_event_loop(loop)
        task = loop.create_task(run())
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=main)
    thread.start()
    assert started.wait(PATIENCE_S)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return on_pytorch(save_checkpoint(PoseAwareDepthRefiner(), tmp_path_factory.mktemp("grpc") / NAME))


@pytest.fixture(scope="module")
def address(checkpoint) -> Iterator[str]:
    tokens = checkpoint.parent / "tokens"
    tokens.write_text("secret\n")
    endpoint = RefineEndpoint(AppArgs(model=str(checkpoint), token_file=str(tokens), max_body_mb=1), videos=None)
    with serving(endpoint) as where:
        yield where


@pytest.fixture
def client(address) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


def tensor(name: str, array: np.ndarray) -> triton.InferInput:
    described = triton.InferInput(name, list(array.shape), f"FP{array.dtype.itemsize * 8}")
    described.set_data_from_numpy(array)
    return described


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_standard_client_gets_what_the_library_answers(client, checkpoint, kind):
    poses, visibility = standing_poses(20).astype(kind), np.full((20, 17), 0.75, kind)
    answer = client.infer(
        NAME,
        [tensor("poses", poses), tensor("visibility", visibility)],
        outputs=[triton.InferRequestedOutput(name) for name in ("confidence", "refined", "view_angle")],
        parameters={"sequence": True, "fps": 25.0, "output_datatype": f"FP{kind().itemsize * 8}"},
        request_id="7",
        headers=TOKEN,
    )
    expected = DepthRefiner(checkpoint, device="cpu").predict(
        poses.astype(np.float32), visibility.astype(np.float32), sequence=True, fps=25
    )
    loose = 1e-3 if kind is np.float16 else 1e-5
    np.testing.assert_allclose(answer.as_numpy("refined"), expected.poses, atol=loose)
    np.testing.assert_allclose(answer.as_numpy("confidence"), expected.confidence, atol=loose)
    np.testing.assert_allclose(answer.as_numpy("view_angle"), expected.view_angle, atol=0.1 if loose > 1e-4 else 1e-3)
    assert answer.as_numpy("refined").dtype == kind
    head = answer.get_response()
    assert (head.id, head.model_name, head.model_version) == ("7", NAME, "0")


def test_numbers_may_come_as_a_list_too(address):
    poses = standing_poses(2)
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name=NAME)
        request.inputs.add(name="poses", datatype="FP32", shape=poses.shape).contents.fp32_contents.extend(
            poses.ravel()
        )
        answer = stub.ModelInfer(request, metadata=list(TOKEN.items()))
        refined = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(2, 17, 3)
        assert answer.outputs[0].name == "refined" and np.abs(refined - poses).max() < 0.5
        request.inputs[0].contents.fp32_contents.extend([0.0] * MOST_LISTED)
        with pytest.raises(grpc.RpcError, match="raw_input_contents"):
            stub.ModelInfer(request, metadata=list(TOKEN.items()))
        request.raw_input_contents.append(b"")
        with pytest.raises(grpc.RpcError, match="send one of them"):
            stub.ModelInfer(request, metadata=list(TOKEN.items()))


def test_the_standard_client_learns_what_is_served(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME, headers=TOKEN) and not client.is_model_ready("another", headers=TOKEN)
    assert client.is_model_ready(NAME, "0", headers=TOKEN) and not client.is_model_ready(NAME, "9", headers=TOKEN)
    assert "statistics" in client.get_server_metadata(headers=TOKEN).extensions
    metadata = client.get_model_metadata(NAME, headers=TOKEN)
    assert [output.name for output in metadata.outputs] == ["refined", "confidence", "view_angle"]
    config = client.get_model_config(NAME, headers=TOKEN).config
    assert config.max_batch_size == 16_384 and list(config.output[0].dims) == [17, 3]
    (listed,) = client.get_model_repository_index(headers=TOKEN).models
    assert (listed.name, listed.version, listed.state) == (NAME, "0", "READY")
    counts = []
    for _ in range(2):
        (stats,) = client.get_inference_statistics(NAME, headers=TOKEN).model_stats
        counts.append(stats.inference_stats.success.count)
        client.infer(NAME, [tensor("poses", standing_poses(1))], headers=TOKEN)
    assert counts[1] == counts[0] + 1


def test_without_a_token_only_health_is_told(client):
    calls = {
        "ServerMetadata": client.get_server_metadata,
        "ModelReady": lambda **options: client.is_model_ready(NAME, **options),
        "ModelMetadata": lambda **options: client.get_model_metadata(NAME, **options),
        "ModelConfig": lambda **options: client.get_model_config(NAME, **options),
        "ModelStatistics": lambda **options: client.get_inference_statistics(NAME, **options),
        "RepositoryIndex": client.get_model_repository_index,
        "ModelInfer": lambda **options: client.infer(NAME, [tensor("poses", standing_poses(1))], **options),
    }
    assert {*calls, "ServerLive", "ServerReady"} == {name for name in vars(InferenceService) if name[0].isupper()}
    for call in calls.values():
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            with pytest.raises(InferenceServerException, match="tokens") as refused:
                call(headers=headers)
            assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        call(headers=TOKEN)


@pytest.mark.parametrize(
    ("poses", "options", "status", "says"),
    [
        (standing_poses(1) * 1000, {}, "INVALID_ARGUMENT", "metres"),
        (standing_poses(1), {"model_version": "999"}, "NOT_FOUND", "not served"),
        (standing_poses(1)[:, :3], {}, "INVALID_ARGUMENT", "1×3×3"),
        (np.zeros((6000, 17, 3), np.float32), {}, "RESOURCE_EXHAUSTED", "send the clip in parts"),
        (standing_poses(1), {"outputs": [triton.InferRequestedOutput("bones")]}, "INVALID_ARGUMENT", "refined"),
        (standing_poses(1), {"parameters": {"output_datatype": "FP8"}}, "INVALID_ARGUMENT", "FP16"),
        (standing_poses(1), {"parameters": {"fps": float("nan")}}, "INVALID_ARGUMENT", "finite"),
        (standing_poses(1).astype(int), {}, "INVALID_ARGUMENT", "INT64"),
    ],
)
def test_what_is_refused_is_named(client, poses, options, status, says):
    given = triton.InferInput("poses", list(poses.shape), "INT64" if poses.dtype.kind == "i" else "FP32")
    given.set_data_from_numpy(poses)
    with pytest.raises(InferenceServerException, match=says) as refused:
        client.infer(NAME, [given], headers=TOKEN, **options)
    assert refused.value.status() == f"StatusCode.{status}"


def test_methods_that_there_are_not_are_unimplemented(client):
    for call in (lambda: client.load_model(NAME, headers=TOKEN), lambda: client.get_trace_settings(headers=TOKEN)):
        with pytest.raises(InferenceServerException) as refused:
            call()
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def nested(number: int, content: bytes) -> bytes:
    """A field of bytes on the wire."""
    size, length = b"", len(content)
    while length > 0x7F:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


CRUMBS = {
    "inputs": nested(5, b"") * 1_500_000,
    "outputs": nested(6, b"") * 1_500_000,
    "raw contents": nested(7, b"") * 1_500_000,
    "unknown fields": b"\x78\x00" * 1_500_000,
    "a shape": nested(5, b"\x18\x01" * 1_500_000),
    "a shape of many": nested(1, NAME.encode()) + nested(5, b"\x18\x01" * 400_000),
    "parameters": nested(1, NAME.encode()) + b"".join(nested(5, nested(4, nested(1, b"%d" % n))) for n in range(90)),
    "more parameters": nested(1, NAME.encode())
    + nested(5, b"".join(nested(4, nested(1, b"%d" % n)) for n in range(60_000))),
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a number without an end": b"\x08" + b"\xff" * 20,
}


@pytest.mark.parametrize("crumbs", CRUMBS)
def test_crumbs_are_refused_before_anything_is_built_of_them(address, crumbs):
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        call(CRUMBS[crumbs], metadata=tuple(TOKEN.items()), timeout=PATIENCE_S)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(refused.value.details()) < 300


def test_bytes_that_are_no_message_are_refused(address):
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match="not a ModelInferRequest"):
            call(b"\xff\xff", metadata=list(TOKEN.items()))


parameter = st.one_of(
    st.builds(lambda value: {"bool_param": value}, st.booleans()),
    st.builds(lambda value: {"int64_param": value}, st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda value: {"double_param": value}, st.floats()),
    st.builds(lambda value: {"string_param": value}, st.text(max_size=9)),
    st.just({}),
)
parameters = st.dictionaries(
    st.sampled_from(["sequence", "fps", "output_datatype", "binary_data_size", "binary_data", "x"]),
    parameter,
    max_size=3,
)
dimensions = st.lists(st.one_of(st.sampled_from([-1, 0, 1, 3, 17, 33]), st.integers(-(2**63), 2**63 - 1)), max_size=5)
datatypes = st.sampled_from(["FP16", "FP32", "FP64", "BYTES", "", "INT8"])
inputs = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["poses", "visibility", "image_points", "", "poses2"]),
        "datatype": datatypes,
        "shape": dimensions,
        "parameters": parameters,
    },
    optional={
        "contents": st.builds(lambda values: {"fp32_contents": values}, st.lists(st.floats(width=32), max_size=60))
    },
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    given=st.lists(inputs, max_size=3),
    outputs=st.lists(
        st.builds(lambda name, p: {"name": name, "parameters": p}, st.sampled_from(["refined", "x"]), parameters),
        max_size=3,
    ),
    general=parameters,
    raw=st.lists(st.one_of(st.binary(max_size=300), st.just(standing_poses(1).tobytes())), max_size=3),
    identity=st.text(max_size=5),
)
def test_no_message_breaks_it(address, given, outputs, general, raw, identity):
    message = service_pb2.ModelInferRequest(
        model_name=NAME, id=identity, inputs=given, outputs=outputs, parameters=general, raw_input_contents=raw
    )
    with grpc.insecure_channel(address) as channel:
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, metadata=list(TOKEN.items()))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            assert error.details() and "\n" not in error.details()


@pytest.mark.cluster
def test_serves_own_ingress_answers_on_loopback_only_and_refuses_without_a_token(checkpoint, tmp_path):
    (port,) = free_ports([0])
    (tokens := tmp_path / "tokens").write_text("secret\n")
    config = yaml.safe_load((CHECKOUT / "serve/config.yaml").read_text())
    config["grpc_options"] = {"port": port, "grpc_servicer_functions": ["serve.grpc_service.add_service"]}
    config["applications"][0]["args"] = {"model": str(checkpoint), "token_file": str(tokens)}
    (deployed := tmp_path / "grpc.yaml").write_text(yaml.safe_dump(config))
    expected = DepthRefiner(checkpoint, device="cpu").predict(standing_poses(3))
    with local_cluster(tmp_path / "state", usual_ports=False) as running:
        url = running.deploy(deployed, port=0)
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.is_server_ready()
            answer = client.infer(NAME, [tensor("poses", standing_poses(3))], headers=TOKEN)
            np.testing.assert_allclose(answer.as_numpy("refined"), expected.poses, atol=1e-5)
            with pytest.raises(InferenceServerException, match="tokens"):
                client.infer(NAME, [tensor("poses", standing_poses(3))])
            large = np.zeros((200_000, 17, 3), np.float32)  # 40 MB: more than a body may have
            with pytest.raises(InferenceServerException) as refused:
                client.infer(NAME, [tensor("poses", large)], headers=TOKEN)
            assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
            assert client.is_server_ready()
        assert listening_on(port) == {"0100007F"}  # 127.0.0.1
        assert httpx.get(f"{url}/v2/models", headers=TOKEN).json() == {"models": [NAME]}


def listening_on(port: int) -> set[str]:
    """Addresses, as the kernel writes them, on which somebody listens on this port."""
    lines = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return {
        address
        for fields in lines
        for address, _, at in [fields[1].partition(":")]
        if fields[3] == "0A" and int(at, 16) == port
    }
