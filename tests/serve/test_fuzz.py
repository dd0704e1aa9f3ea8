"""Two thousand mutations of each kind of body against the real application: nothing that a stranger sends is a defect."""

import json
import random
from collections import Counter

import httpx
import numpy as np
import orjson
import pytest

from serve import codec
from serve.codec.inference import HEADER_LENGTH
from serve.live import standing_poses

MUTATIONS = 2_000
POSES = standing_poses(2)
# What is put in a value's place.
STRANGE = (
    None, True, False, 0, -1, 5, 1e308, -0.0, 10**18, 2**64, 10**400,
    "", "NaN", "1", "x" * 300, "\x00", "é", [], [[]], {}, [None], [True],
    ["1"], [[1], [2, 3]], {"a": 1}, [1] * 100, 72 * [1], [1 << 31], "models:/x", "/etc/passwd",
)  # fmt: skip


def json_body() -> dict:
    return {
        "poses": POSES.tolist(),
        "visibility": np.ones((2, 17)).tolist(),
        "image_points": POSES[..., :2].tolist(),
        "sequence": True,
        "fps": 25,
        "keep_bones": True,
        "bone_lengths": [0.3] * 12,
    }


def inference_body() -> dict:
    def tensor(name: str, array: np.ndarray) -> dict:
        return {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}

    return {
        "id": "7",
        "inputs": [tensor("poses", POSES), tensor("visibility", np.ones((2, 17)))],
        "outputs": [{"name": "refined", "parameters": {"binary_data": False}}, {"name": "confidence"}],
        "parameters": {"sequence": True, "fps": 25, "output_datatype": "FP32", "binary_data_output": False},
    }


def export_body() -> dict:
    return {
        "refined": POSES.tolist(),
        "confidence": np.ones((2, 17)).tolist(),
        "timestamp_us": [0, 40_000],
        "fps": 25,
        "name": "me",
        "image_points": (POSES[..., :2] * 200 + 300).tolist(),
        "visibility": np.ones((2, 17)).tolist(),
        "size": [640, 480],
    }


def places(value: object) -> list[tuple[list | dict, object]]:
    """(container, key) of everything in a document; of long lists only some."""
    inside = []
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:3] if isinstance(value, list) else []
    for key, inner in items:
        inside.append((value, key))
        inside += places(inner)
    return inside


def mutated_document(document: dict, chance: random.Random) -> bytes:
    """One to three changes: a value replaced, removed, wrapped, or doubled; a key misspelt."""
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(places(document) or [(document, "poses")])
        what = chance.randrange(5)
        if what == 0 or not isinstance(container, dict | list):
            container[key] = chance.choice(STRANGE)
        elif what == 1:
            del container[key]
        elif what == 2:
            container[key] = [container[key]]
        elif what == 3 and isinstance(container, dict):
            container[f"{key}s"] = container.pop(key)
        elif isinstance(container, list):
            container.append(container[key])
        else:
            container[key] = chance.choice(STRANGE)
    body = json.dumps(document).encode()
    return mutated_bytes(body, chance) if chance.random() < 0.2 else body


def mutated_bytes(body: bytes, chance: random.Random) -> bytes:
    content = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(content))
        what = chance.randrange(4)
        if what == 0:
            content[at] = chance.randrange(256)
        elif what == 1:
            del content[at : at + chance.randint(1, 40)]
        elif what == 2:
            content[at:at] = content[at : at + chance.randint(1, 40)]
        else:
            content[at:at] = chance.choice((b"[", b"]", b'"', b"{", b"1e999", b"\xff", b"\x00", b"-", b",,"))
        if not content:
            return b""
    return bytes(content)


async def statuses(application, path: str, bodies: list[tuple[bytes, dict[str, str]]]) -> Counter:
    counts: Counter = Counter()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        for body, headers in bodies:
            answer = await client.post(path, content=body, headers=headers)
            counts[answer.status_code] += 1
            assert answer.status_code < 500, (path, answer.text, headers, body[:2000])
            if answer.status_code != 200:
                document = answer.json()
                assert document["status"] == answer.status_code and document["error"] == document["detail"]
                assert len(document["detail"]) < 500 and "/tmp" not in document["detail"], document
    return counts


@pytest.mark.slow
@pytest.mark.anyio
async def test_json(application):
    chance = random.Random(1)
    bodies = [(mutated_document(json_body(), chance), {"content-type": codec.JSON}) for _ in range(MUTATIONS)]
    counts = await statuses(application, "/v1/refine", bodies)
    assert counts[200] and counts[422] > MUTATIONS / 2 and set(counts) == {200, 422}


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_open_inference_protocol(application):
    chance = random.Random(2)
    bodies = [(mutated_document(inference_body(), chance), {"content-type": codec.JSON}) for _ in range(MUTATIONS // 2)]
    header = orjson.dumps(
        {
            "inputs": [
                {"name": "poses", "datatype": "FP32", "shape": [2, 17, 3], "parameters": {"binary_data_size": 408}}
            ]
        }
    )
    for _ in range(MUTATIONS // 2):  # with tensors as bytes
        changed = mutated_bytes(header, chance) if chance.random() < 0.7 else header
        length = chance.choice((str(len(changed)), str(len(changed) + 1), "0", "-1", "9" * 5_000, "x", "²"))
        tensors = POSES.tobytes() if chance.random() < 0.5 else mutated_bytes(POSES.tobytes(), chance)
        bodies.append((changed + tensors, {"content-type": codec.BINARY, HEADER_LENGTH: length.encode("latin-1")}))
    counts = await statuses(application, "/v2/models/checkpoint/infer", bodies)
    assert counts[200] and counts[400] > MUTATIONS / 2 and set(counts) == {200, 400}


@pytest.mark.slow
@pytest.mark.anyio
async def test_arrow(application):
    chance = random.Random(3)
    request = codec.RefineRequest(
        poses=POSES, visibility=np.ones((2, 17), np.float32), sequence=True, fps=25.0, bone_lengths=np.full(12, 0.3)
    )
    body = codec.ArrowCodec().encode_request(request)
    bodies = [(mutated_bytes(body, chance), {"content-type": codec.ARROW}) for _ in range(MUTATIONS)]
    counts = await statuses(application, "/v1/refine", bodies)
    assert counts[422] > MUTATIONS / 2 and set(counts) <= {200, 422}


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("to", ["bvh", "csv"])
async def test_exports(application, to):
    chance = random.Random(4)
    bodies = [(mutated_document(export_body(), chance), {"content-type": codec.JSON}) for _ in range(MUTATIONS // 2)]
    counts = await statuses(application, f"/v1/export?to={to}", bodies)
    assert counts[200] and counts[422] > MUTATIONS / 4 and set(counts) == {200, 422}


@pytest.mark.anyio
async def test_headers(application):
    """What is said about a body that is good."""
    chance, names = (
        random.Random(5),
        ("content-type", "content-encoding", "accept", "origin", "x-request-id", HEADER_LENGTH),
    )
    parts = (
        "", ",", ";", "=", "gzip", "identity", "deflate", codec.JSON, codec.ARROW, "multipart/form-data", "boundary=",
        '"', "*/*", "9" * 5_000, "-1", " ", "é", "\x7f", "charset=utf-8", "q=0", "null", "https://x",
    )  # fmt: skip
    for path, document in (("/v1/refine", json_body()), ("/v2/models/checkpoint/infer", inference_body())):
        body = orjson.dumps(document)
        bodies = []
        for _ in range(300):
            chosen = chance.sample(names, chance.randint(1, 3))
            said = {name: "".join(chance.choices(parts, k=chance.randint(1, 4))).encode("latin-1") for name in chosen}
            bodies.append((body, said))
        counts = await statuses(application, path, bodies)
        assert counts[200] and set(counts) <= {200, 400, 415, 422}
