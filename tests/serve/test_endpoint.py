"""The endpoint as its users meet it: a real Serve over HTTP, with a registered model."""

import asyncio
import contextlib
import os

import numpy as np
import orjson
import pytest

from refiner import DepthRefiner, UserError
from refiner.skeleton import FROM_MEDIAPIPE, NUM_LANDMARKS
from serve import codec
from serve.client import PART_POSES, AsyncClient, Client
from serve.live import standing_poses
from serve.stream.client import LiveClient
from tests.processes import command_of, marked
from tests.waiting import PATIENCE_S, get, post, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def poses(rng) -> np.ndarray:
    clip = standing_poses(40)
    return clip + rng.normal(scale=0.02, size=clip.shape).astype(np.float32)


@pytest.fixture
def visibility(rng) -> np.ndarray:
    return rng.uniform(size=(40, 17)).astype(np.float32)


@pytest.fixture(scope="module")
def champion(endpoint) -> DepthRefiner:
    """Tests before these change champions, and replicas follow one by one: waits until all have."""
    champion = DepthRefiner("models:/pose-depth-refiner@champion", device="cpu")
    wait_for(lambda: {get(f"{endpoint}/info").json()["model"]["version"] for _ in range(20)} == {champion.version})
    return champion


@pytest.mark.parametrize("transport", ["json", "arrow"])
@pytest.mark.parametrize("sequence", [False, True])
def test_http_answers_what_the_library_answers(endpoint, champion, poses, visibility, transport, sequence):
    with Client(endpoint, transport=transport) as client:
        refined = client.refine(poses, visibility, sequence=sequence, fps=25 if sequence else None)
    expected = champion.predict(poses, visibility, sequence=sequence, **({"fps": 25} if sequence else {}))
    np.testing.assert_allclose(refined.poses, expected.poses, atol=1e-6)
    np.testing.assert_allclose(refined.confidence, expected.confidence, atol=1e-5)
    np.testing.assert_allclose(refined.view_angle, expected.view_angle, atol=1e-3)
    assert refined.model == {"name": "pose-depth-refiner", "version": champion.version}
    assert np.abs(refined.poses - poses).max() > 1e-3  # or this test compares two refiners that do nothing


def test_mediapipe_landmarks_and_a_single_pose_are_taken_too(endpoint, poses, visibility):
    landmarks = np.zeros((40, NUM_LANDMARKS, 3), dtype=np.float32)
    landmarks[:, FROM_MEDIAPIPE] = poses
    seen = np.zeros((40, NUM_LANDMARKS), dtype=np.float32)
    seen[:, FROM_MEDIAPIPE] = visibility
    with Client(endpoint) as client:
        clip = client.refine(poses, visibility)
        np.testing.assert_allclose(client.refine(landmarks, seen).poses, clip.poses, atol=1e-6)
        np.testing.assert_allclose(client.refine(poses[3], visibility[3]).poses[0], clip.poses[3], atol=1e-5)
    answer = post(f"{endpoint}/v1/refine", json={"poses": poses[3].tolist(), "visibility": visibility[3].tolist()})
    np.testing.assert_allclose(answer.json()["refined"][0], clip.poses[3], atol=1e-5)


def test_a_long_clip_sent_in_parts_comes_back_as_one(endpoint, champion):
    clip = np.tile(standing_poses(50), (PART_POSES // 40, 1, 1))
    assert len(clip) > PART_POSES
    expected = champion.predict(clip, sequence=True).poses
    with Client(endpoint) as client:
        np.testing.assert_allclose(client.refine(clip, sequence=True).poses, expected, atol=1e-5)

    async def refine() -> np.ndarray:
        async with AsyncClient(endpoint) as client:
            return (await client.refine(clip, sequence=True)).poses

    np.testing.assert_allclose(asyncio.run(refine()), expected, atol=1e-5)


def test_a_stream_goes_through_haproxy_and_answers_what_the_library_answers(endpoint, champion, poses, visibility):
    expected = champion.predict(poses, visibility)
    with LiveClient(endpoint, smooth=False, timeout_s=PATIENCE_S) as live:
        for i, pose in enumerate(poses):
            answer = live.refine(pose, visibility[i])
            assert (answer.frame, answer.dropped) == (i, 0)
            np.testing.assert_allclose(answer.refined, expected.poses[i], atol=1e-5)
        assert live.model == {"name": "pose-depth-refiner", "version": champion.version}


BAD_BODIES = [
    (b"not json", "not JSON"),
    (b"", "not JSON"),
    (b"[]", "object with"),
    (orjson.dumps({"pose": []}), "object with"),
    (orjson.dumps({"poses": []}), "empty"),
    (orjson.dumps({"poses": [[[0, 0]] * 17]}), "1×17×2"),
    (orjson.dumps({"poses": [[[0, 0, 0]] * 16]}), "1×16×3"),
    (orjson.dumps({"poses": [[[0, 0, 0]] * 17, [[0, 0, 0]]]}), "same length"),
    (orjson.dumps({"poses": "seventeen"}), "lists of numbers"),
    (orjson.dumps({"poses": [[["a", 0, 0]] * 17]}), "lists of numbers"),
    (orjson.dumps({"poses": [[[None, 0, 0]] * 17]}), "lists of numbers"),
    (orjson.dumps({"poses": 5}), "shape"),
    (orjson.dumps({"poses": [[[True, 0, 0]] * 17]}), "lists of numbers"),
    (orjson.dumps({"poses": [[["0.5", 0, 0]] * 17]}), "lists of numbers"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "visibility": 1}), "visibility"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "sequence": True, "fps": 1e300}), "fps"),
    (b'{"poses": [[[0,0,0]]], "fps": 1e999}', "infinity"),
    (orjson.dumps({"poses": [[[1e39, 0, 0]] * 17]}), "inf"),
    (orjson.dumps({"poses": [[[400.0, 300.0, 0]] * 17]}), "metres"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "visibility": [[1]]}), "visibility"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "visbility": [[1] * 17]}), "visbility"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "sequence": "yes"}), "sequence"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "sequence": True, "fps": 0}), "fps is 0"),
    (
        orjson.dumps({"poses": standing_poses(1).tolist(), "fps": 1e-300}),
        "fps is 1e-300: it must be from 0.001",
    ),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "fps": "30"}), "fps is '30'"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "fps": True}), "fps is True"),
    (orjson.dumps({"poses": standing_poses(1).tolist(), "image_points": [[[0, 0]] * 3]}), "image_points"),
    (orjson.dumps({"poses": np.zeros((16_385, 17, 3), np.float32).tolist()}), "more than the 16384"),
]


@pytest.mark.parametrize(("body", "says"), BAD_BODIES, ids=[says for _, says in BAD_BODIES])
def test_bad_json_gets_one_sentence_that_helps(endpoint, body, says):
    answer = post(f"{endpoint}/v1/refine", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 422 and problem["title"] == "Unprocessable content"
    assert says in problem["detail"] and "\n" not in problem["detail"]


def test_bad_arrow_other_types_and_large_bodies_are_refused(endpoint, poses):
    good = codec.ArrowCodec().encode_request(codec.RefineRequest(poses=poses))
    headers = {"Content-Type": codec.ARROW}
    for body in (b"", b"junk", good[: len(good) // 2], good[:-400], good[100:]):
        answer = post(f"{endpoint}/v1/refine", content=body, headers=headers)
        assert answer.status_code == 422, answer.text
    answer = post(f"{endpoint}/v1/refine", content=b"", headers={"Content-Type": "application/x-pickle"})
    assert answer.status_code == 415
    answer = post(f"{endpoint}/v1/refine", content=bytes(33_000_000), headers=headers)
    assert answer.status_code == 413
    answer = post(f"{endpoint}/v1/refine", content=iter([bytes(1_000_000)] * 33), headers=headers)  # no length
    assert answer.status_code == 413
    assert get(f"{endpoint}/v1/refine").status_code == 405
    assert get(f"{endpoint}/nowhere").headers["content-type"] == "application/problem+json"


def test_the_client_says_why_it_was_refused(endpoint):
    with Client(endpoint) as client, pytest.raises(UserError, match="metres"):
        client.refine(standing_poses(2) * 100)


def test_onnx_runtime_takes_over_with_the_same_answers(endpoint, champion, poses):
    with Client(endpoint) as client:
        wait_for(lambda: client.info()["runtime"] == "onnxruntime")  # exporting takes 8 s on a quiet core
        for sequence in (False, True):
            expected = champion.predict(poses, sequence=sequence)
            refined = client.refine(poses, sequence=sequence)
            np.testing.assert_allclose(refined.poses, expected.poses, atol=1e-6)
            np.testing.assert_allclose(refined.confidence, expected.confidence, atol=1e-6)


def test_it_says_who_answers_and_documents_itself(endpoint, champion):
    assert get(f"{endpoint}/healthz").json() == {"status": "ok"}
    with Client(endpoint) as client:
        info = client.info()
    assert info["model"] == {"name": "pose-depth-refiner", "version": champion.version}
    assert info["registry"] == "reachable" and info["device"] == "cpu" and not info["refused"]
    assert len(info["tags"]["git_commit"]) == 40 and info["tags"]["dataset_fingerprint"] == "none"
    answer = post(f"{endpoint}/v1/refine", json={"poses": standing_poses(1).tolist()})
    assert answer.headers["x-model-version"] == champion.version == answer.json()["model"]["version"]
    assert get(f"{endpoint}/docs").status_code == 200
    operation = get(f"{endpoint}/openapi.json").json()["paths"]["/v1/refine"]["post"]
    assert set(operation["requestBody"]["content"]) == {codec.JSON, codec.ARROW}


def test_no_batch_job_goes_before_what_every_request_passes(cluster, endpoint):
    """Ray lets its workers make way for whatever else runs: HAProxy once had less of a CPU than what reads strangers' JSON."""

    def priorities(word: str) -> set[int]:
        nice = set()
        for process in marked(str(cluster.token_path)):
            with contextlib.suppress(ProcessLookupError):
                if word in " ".join(command_of(process)):
                    nice.add(os.getpriority(os.PRIO_PROCESS, process))
        return nice

    assert post(f"{endpoint}/v1/refine", json={"poses": standing_poses(1).tolist()}).status_code == 200
    (usual,) = priorities("raylet/raylet")
    wait_for(lambda: priorities("haproxy.cfg") == priorities("RefineEndpoint") == {usual})
    assert priorities("VideoPoses") <= {min(usual + 15, 19)}  # videos, of which there may be none, do make way
