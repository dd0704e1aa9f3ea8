"""Standard clients: tritonclient against the real endpoint, and bodies that no client would send."""

import numpy as np
import orjson
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from refiner import DepthRefiner, UserError
from serve.codec import InferenceCodec, RefineResponse
from serve.live import standing_poses
from tests.waiting import PATIENCE_S, post

NAME = "pose-depth-refiner"


@pytest.fixture
def standard_client(endpoint):
    patience = {"connection_timeout": PATIENCE_S, "network_timeout": PATIENCE_S}
    with triton.InferenceServerClient(endpoint.removeprefix("http://"), **patience) as client:
        yield client


def tensor(name: str, array: np.ndarray, binary: bool) -> triton.InferInput:
    described = triton.InferInput(name, list(array.shape), "FP32")
    described.set_data_from_numpy(array, binary_data=binary)
    return described


@pytest.mark.cluster
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_the_standard_client_gets_what_the_library_answers(standard_client, binary_in, binary_out):
    poses, visibility = standing_poses(20), np.full((20, 17), 0.7, np.float32)
    answer = standard_client.infer(
        NAME,
        [tensor("poses", poses, binary_in), tensor("visibility", visibility, binary_in)],
        outputs=[triton.InferRequestedOutput(name, binary_out) for name in ("refined", "confidence", "view_angle")],
        parameters={"sequence": True},
        request_id="7",
    )
    head = answer.get_response()
    # of the version that answered: tests before this one change champions, and replicas follow one by one
    refiner = DepthRefiner(f"models:/{NAME}/{head['model_version']}", device="cpu")
    expected = refiner.predict(poses, visibility, sequence=True)
    np.testing.assert_allclose(answer.as_numpy("refined"), expected.poses, atol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("confidence"), expected.confidence, atol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("view_angle"), expected.view_angle, atol=1e-3)
    assert (head["id"], head["model_name"], refiner.version) == ("7", NAME, head["model_version"])


@pytest.mark.cluster
def test_the_standard_client_learns_what_is_served(standard_client):
    assert standard_client.is_server_live() and standard_client.is_server_ready()
    assert standard_client.is_model_ready(NAME) and not standard_client.is_model_ready("another")
    metadata = standard_client.get_model_metadata(NAME)
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["refined", "confidence", "view_angle"]
    (version,) = metadata["versions"]
    assert standard_client.is_model_ready(NAME, version) and not standard_client.is_model_ready(NAME, "999")
    assert "binary_tensor_data" in standard_client.get_server_metadata()["extensions"]
    with pytest.raises(InferenceServerException, match="metres"):
        standard_client.infer(NAME, [tensor("poses", standing_poses(1) * 1000, True)])
    with pytest.raises(InferenceServerException, match="not served"):
        standard_client.infer(NAME, [tensor("poses", standing_poses(1), True)], model_version="999")


POSES = {"name": "poses", "datatype": "FP32", "shape": [1, 17, 3]}
BAD = [
    (b"{", None, "not JSON"),
    (b"[]", None, "inputs"),
    (b'{"inputs": [1]}', None, "unknown"),
    (b'{"inputs": []}', None, "no input"),
    (b'{"inputs": []}', "99", "99"),
    (b'{"inputs": []} rest', "14", "5 bytes"),
    ({**POSES, "data": [1.0]}, None, "1 numbers"),
    ({**POSES, "data": ["a"] * 51}, None, "numbers"),
    ({**POSES, "datatype": "BYTES"}, None, "BYTES"),
    ({**POSES, "shape": [-1, 17, 3], "data": []}, None, "shape"),
    ({**POSES, "shape": [1 << 40], "data": []}, None, "shape"),
    ({**POSES, "shape": [1 << 30] * 9, "data": []}, None, "numbers for the shape"),
    ({**POSES, "parameters": {"binary_data_size": 204}}, None, "204 bytes"),
    ({**POSES, "parameters": {"binary_data_size": -4}}, None, "-4 bytes"),
]


@pytest.mark.parametrize(("body", "length", "says"), BAD)
def test_a_malformed_inference_request_is_named(body, length, says):
    if isinstance(body, dict):
        body = orjson.dumps({"inputs": [body]})
    with pytest.raises(UserError, match=says):
        InferenceCodec(length).decode(body)


@pytest.mark.cluster
def test_an_output_that_there_is_not_is_refused(endpoint):
    request = {"inputs": [{**POSES, "data": standing_poses(1).ravel().tolist()}], "outputs": [{"name": "bones"}]}
    answer = post(f"{endpoint}/v2/models/{NAME}/infer", json=request)
    assert answer.status_code == 400 and "refined" in answer.json()["error"]


def test_half_precision_goes_in_and_comes_out():
    poses = standing_poses(3).astype("<f2")
    for data in ({"parameters": {"binary_data_size": poses.nbytes}}, {"data": poses.ravel().tolist()}):
        binary = "data" not in data
        request = {
            "inputs": [{"name": "poses", "datatype": "FP16", "shape": [3, 17, 3], **data}],
            "parameters": {"output_datatype": "FP16", "binary_data_output": binary},
        }
        head = orjson.dumps(request)
        codec = InferenceCodec(str(len(head)))
        decoded = codec.decode(head + (poses.tobytes() if binary else b""))
        assert decoded.poses.dtype == np.float32
        np.testing.assert_array_equal(decoded.poses, poses)
        arrays = {"poses": decoded.poses, "confidence": decoded.poses[..., 0], "view_angle": decoded.poses[:, 0, 0]}
        body, headers = codec.encode(RefineResponse(**arrays, model={"name": "a", "version": "1"}))
        length = int(headers.get("inference-header-content-length", len(body)))
        outputs = orjson.loads(body[:length])["outputs"]
        assert [o["datatype"] for o in outputs] == ["FP16"] * 3
        refined = np.frombuffer(body, "<f2", 153, length) if binary else np.array(outputs[0]["data"], np.float16)
        np.testing.assert_array_equal(refined.reshape(3, 17, 3), poses)


def test_an_output_datatype_that_there_is_not_is_refused():
    request = {"inputs": [{**POSES, "data": [0.0] * 51}], "parameters": {"output_datatype": ["FP8"]}}
    with pytest.raises(UserError, match="output_datatype"):
        InferenceCodec(None).decode(orjson.dumps(request))
