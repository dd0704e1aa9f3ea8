"""Bodies as strangers send them: large, deep, compressed, in forms, slow. All but Serve's queue, in this process."""

import asyncio
import gzip
import io
import os
import tempfile
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest

from serve import bodies, codec, exports
from serve.bodies import SMALL_BYTES, UNWRITTEN_BYTES, Body, read
from serve.limits import Disk, Pace
from serve.live import standing_poses
from tests.killing import killed_at_work
from tests.serve.conftest import before_the_queue

JSON_HEADERS = {"content-type": codec.JSON}
NAME = "checkpoint"


def http(application) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x", timeout=None)


def clip(count: int) -> np.ndarray:
    return np.tile(standing_poses(50), (count // 50 + 1, 1, 1))[:count]


def memory_mb() -> float:
    """Of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.anyio
@pytest.mark.parametrize("route", ["/v1/refine", f"/v2/models/{NAME}/infer"])
async def test_a_large_body_of_json_gets_the_answer_of_a_small_one(application, replica, route):
    poses = clip(1_000)
    content = {"poses": poses.tolist(), "sequence": True}
    if route != "/v1/refine":
        tensor = {"name": "poses", "datatype": "FP32", "shape": list(poses.shape), "data": poses.ravel().tolist()}
        content = {"id": "7", "inputs": [tensor], "parameters": {"sequence": True}}
    body = orjson.dumps(content)
    assert len(body) > 10 * SMALL_BYTES
    async with http(application) as client:
        answer = await client.post(route, content=body, headers=JSON_HEADERS)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    refined = content["refined"] if route == "/v1/refine" else content["outputs"][0]["data"]
    expected = replica.live.current.refiner.predict(poses, sequence=True).poses
    np.testing.assert_allclose(np.reshape(refined, expected.shape), expected, atol=1e-5)
    assert replica.uploads.held == replica.memory.held == 0


HOSTILE = {
    "numbers": lambda: b'{"poses":[' + b"1.25," * 6_000_000 + b"1]}",
    "lists": lambda: b'{"poses":[' + b"[]," * 10_000_000 + b"[]]}",
    "depth": lambda: b'{"poses":' + b"[" * 15_000_000 + b"]" * 15_000_000 + b"}",
    "less depth": lambda: b'{"poses":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b" " * 28_000_000 + b"}",
    "objects": lambda: b'{"poses":[' + b"{}," * 10_000_000 + b"{}]}",
    "keys": lambda: b'{"poses":[' + b'{"a":1},' * 3_750_000 + b"1]}",
    "strings": lambda: b'{"poses":[' + b'"ab",' * 6_000_000 + b"1]}",
    "one string": lambda: b'{"poses":"' + b"a" * 30_000_000 + b'"}',
    "one number": lambda: b'{"poses":' + b"1" * 30_000_000 + b"}",
    "nothing": lambda: b" " * 30_000_000,
}


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("route", ["/v1/refine", f"/v2/models/{NAME}/infer"])
async def test_hostile_json_is_refused_beside_single_poses_that_are_answered(application, route):
    single = orjson.dumps({"poses": standing_poses(1).tolist()})
    answered, before, most = 0, memory_mb() + 60, 0.0  # two bodies are the test's own
    async with http(application) as client:
        for name, made in HOSTILE.items():
            body = made()
            attack = asyncio.ensure_future(client.post(route, content=body, headers=JSON_HEADERS))
            while not attack.done():
                assert (await client.post("/v1/refine", content=single, headers=JSON_HEADERS)).status_code == 200
                answered, most = answered + 1, max(most, memory_mb())
            refusal = await attack
            assert refusal.status_code == (422 if route == "/v1/refine" else 400), name
            assert len(refusal.content) < 2_000 and "error" in refusal.json(), name
    assert answered > len(HOSTILE)
    assert most - before < 300, f"grew by {most - before:.0f} MB"


@pytest.mark.anyio
@pytest.mark.parametrize("compress", [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=lambda c: c[0])
async def test_compressed_bodies_are_taken_within_the_limits(application, replica, compress):
    encoding, function = compress
    headers = {**JSON_HEADERS, "content-encoding": encoding}
    body = orjson.dumps({"poses": standing_poses(2).tolist()})
    async with http(application) as client:
        plain = await client.post("/v1/refine", content=body, headers=JSON_HEADERS)
        answer = await client.post("/v1/refine", content=function(body), headers=headers)
        assert answer.content == plain.content
        bomb = await client.post("/v1/refine", content=function(bytes(100_000_000)), headers=headers)
        assert bomb.status_code == 413
        for damaged in (function(body)[:-9], b"none of it", function(body) + b"more", b""):
            assert (await client.post("/v1/refine", content=damaged, headers=headers)).status_code == 422
        for nothing in ("identity", ",", "identity, identity", "Identity,"):
            same = await client.post("/v1/refine", content=body, headers={**JSON_HEADERS, "content-encoding": nothing})
            assert same.content == plain.content
        other = await client.post("/v1/refine", content=body, headers={**JSON_HEADERS, "content-encoding": "br"})
        assert other.status_code == 415 and "gzip" in other.json()["detail"]
    assert replica.uploads.held == 0


@pytest.mark.anyio
async def test_slow_bodies_are_ended_and_take_no_place(replica):
    """The queue has two places; a hundred slow clients have none of them."""
    inside = 0

    async def queue(scope, receive, send):
        nonlocal inside
        inside += 1
        assert inside <= 2
        await replica.app(scope, receive, send)
        inside -= 1

    application = before_the_queue(replica, queue, pace=Pace(patience_s=1.0, bytes_per_s=1_000.0))
    body = orjson.dumps({"poses": standing_poses(1).tolist()})

    async def trickle():
        for byte in body:
            yield bytes([byte])
            await asyncio.sleep(0.05)

    async with http(application) as client:
        slow = [
            asyncio.ensure_future(client.post("/v1/refine", content=trickle(), headers=JSON_HEADERS))
            for _ in range(100)
        ]
        honest = 0
        while not all(request.done() for request in slow):
            assert (await client.post("/v1/refine", content=body, headers=JSON_HEADERS)).status_code == 200
            honest += 1
        assert {(await request).status_code for request in slow} == {408}
    assert honest > 1


@pytest.mark.anyio
async def test_a_reader_that_takes_nothing_holds_no_place_and_is_given_up(replica):
    places = 0

    async def queue(scope, receive, send):
        nonlocal places
        places += 1
        await replica.app(scope, receive, send)
        places -= 1

    application = before_the_queue(replica, queue, pace=Pace(patience_s=0.5, bytes_per_s=1e9))
    body = orjson.dumps({"poses": standing_poses(1).tolist()})
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        return next(messages, None) or await asyncio.sleep(3600)

    async def stuck(message):
        assert places == 0
        await asyncio.sleep(3600)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/refine", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }  # fmt: skip
    with pytest.raises(ConnectionAbortedError):
        await application(scope, receive, stuck)
    assert places == 0 and replica.memory.held == 0


@pytest.mark.anyio
async def test_what_serve_says_in_plain_text_is_a_problem_document(replica):
    async def full(scope, receive, send):
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"3")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b"Request dropped due to backpressure"})

    async with http(before_the_queue(replica, full)) as client:
        answer = await client.post("/v1/refine", content=b"{}", headers=JSON_HEADERS)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "3"
        assert answer.headers["content-type"] == "application/problem+json" and "backpressure" in answer.json()["error"]
        for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):  # beside the queue
            assert (await client.get(path)).status_code == 200


@pytest.mark.anyio
async def test_headers_that_are_no_text_do_not_come_in(replica):
    seen = []

    async def queue(scope, receive, send):
        seen.extend(value.decode("utf-8") for _, value in scope["headers"])  # as Serve does
        await replica.app(scope, receive, send)

    async with http(before_the_queue(replica, queue)) as client:
        headers = {**JSON_HEADERS, "x-request-id": b"\xff\xfe", "x-session-id": "é".encode("latin-1")}
        answer = await client.post("/v1/refine", content=b"{}", headers=headers)
    assert answer.status_code == 422 and codec.JSON in seen


@pytest.mark.anyio
async def test_beyond_its_budget_a_replica_says_later_and_small_requests_have_room(make_replica):
    small = make_replica(memory_mb=1)
    async with http(before_the_queue(small)) as client:
        poses = codec.ArrowCodec().encode_request(codec.RefineRequest(poses=clip(300), sequence=True))
        headers = {"content-type": codec.ARROW}
        answers = await asyncio.gather(*(client.post("/v1/refine", content=poses, headers=headers) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
        single = orjson.dumps({"poses": standing_poses(1).tolist()})
        assert (await client.post("/v1/refine", content=single, headers=JSON_HEADERS)).status_code == 200
    assert small.memory.held == 0


def test_a_budget_is_kept_and_given_back():
    budget, bodies = Disk(300_000), []
    for _ in range(2):
        bodies.append(Body(budget))
        bodies[-1].append(bytes(100_000))
    with pytest.raises(Exception, match="under way"):
        Body(budget).append(bytes(150_000))
    Body(budget).append(bytes(SMALL_BYTES))
    for body in bodies:
        body.close()
        body.close()
    assert budget.held == 0


@pytest.mark.slow
@pytest.mark.anyio
async def test_small_requests_are_answered_while_a_large_one_is_decoded(application):
    """The largest honest body takes seconds to decode; the event loop is not what it takes them of."""
    body = orjson.dumps({"poses": clip(16_000).tolist()})
    single = orjson.dumps({"poses": standing_poses(1).tolist()})
    async with http(application) as client:
        large = asyncio.ensure_future(client.post("/v1/refine", content=body, headers=JSON_HEADERS))
        answered, start = 0, time.monotonic()
        while not large.done():
            await client.post("/v1/refine", content=single, headers=JSON_HEADERS)
            answered += 1
        assert (await large).status_code == 200
        print(f"{answered} single poses in {time.monotonic() - start:.1f} s beside it")
    assert answered > 20


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_decoder_that_is_killed_is_no_fault_of_the_body(application, replica):
    """As the kernel does where memory is short: the same body is taken when it comes again."""
    body = orjson.dumps({"poses": clip(1_000).tolist()})
    async with http(application) as client:
        assert (await client.post("/v1/refine", content=body, headers=JSON_HEADERS)).status_code == 200
        with killed_at_work(replica._decoder._child):
            lost = await client.post("/v1/refine", content=body, headers=JSON_HEADERS)
        again = await client.post("/v1/refine", content=body, headers=JSON_HEADERS)
    assert lost.status_code == 503 and lost.headers["retry-after"] and "again" in lost.json()["detail"]
    assert again.status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1, UNWRITTEN_BYTES, UNWRITTEN_BYTES + 1, 1_000_003])
@pytest.mark.parametrize("piece", [7_001, 65_536, 300_000])
@pytest.mark.parametrize("others", [0, 4_000])  # beside which little of it stays in memory
async def test_a_body_is_what_was_sent_however_it_comes(size, piece, others, tmp_path):
    disk, sent = Disk(10_000_000), bytes(i * 7 % 251 for i in range(size))
    disk.coming = others
    body = await read(messages_of(sent, piece), size, 2_000_000, Pace(), disk)
    assert (body.size, body.is_small) == (size, size <= SMALL_BYTES)
    assert bytes(body.content()) == b"".join(body.chunks(50_000)) == sent
    assert Path(body.as_file(tmp_path)).read_bytes() == sent  # as another process has it
    body.close()
    assert disk.held == 0


@pytest.mark.anyio
async def test_however_many_bodies_come_at_once_they_share_their_memory(monkeypatch):
    """Clients send 120 kB each and then nothing."""
    monkeypatch.setattr(bodies, "ALL_UNWRITTEN_BYTES", 8_000_000)
    disk, waiting = Disk(1_000_000_000), 0

    async def receive() -> dict:
        nonlocal waiting
        waiting += 1
        await asyncio.Event().wait()

    def client():
        pieces = iter([{"type": "http.request", "body": bytes(10_000), "more_body": True} for _ in range(12)])

        async def come() -> dict:
            return next(pieces, None) or await receive()

        return come

    tracemalloc.start()
    try:
        uploads = [asyncio.create_task(read(client(), None, 1_000_000, Pace(), disk)) for _ in range(400)]
        while waiting < len(uploads):
            await asyncio.sleep(0.1)
        held, _ = tracemalloc.get_traced_memory()
        assert disk.held == len(uploads) * 120_000 and held < 24_000_000  # of 48
    finally:
        tracemalloc.stop()
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
    assert disk.held == disk.coming == 0


@pytest.mark.anyio
async def test_a_slow_disk_stops_nobody_but_who_uploads(monkeypatch):
    """Each write lasts until the event loop had another turn: on the loop itself it would wait for ever."""
    turn, writes = threading.Event(), []

    class Slow(io.FileIO):
        def write(self, data):
            writes.append(turn.wait(60))
            return super().write(data)

    def temporary(**options):
        with tempfile.NamedTemporaryFile() as file:
            return Slow(file.name, "r+")

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    sent = bytes(3 * UNWRITTEN_BYTES)
    upload = asyncio.create_task(read(messages_of(sent, 65_536), None, len(sent), Pace(), Disk(len(sent))))
    while not upload.done():
        turn.set()
        await asyncio.sleep(0.001)
        turn.clear()
    body = await upload
    assert writes and all(writes) and bytes(body.content()) == sent
    body.close()


def messages_of(content: bytes, piece: int):
    """ASGI's receive of a body that comes in pieces."""
    pieces = [content[start : start + piece] for start in range(0, len(content), piece)] or [b""]
    messages = iter(
        {"type": "http.request", "body": part, "more_body": number < len(pieces) - 1}
        for number, part in enumerate(pieces)
    )

    async def receive():
        return next(messages)

    return receive


@pytest.mark.anyio
async def test_a_large_motion_is_written_in_another_process_and_as_a_small_one_is(application, monkeypatch):
    def body(count: int) -> bytes:
        return orjson.dumps({"refined": clip(count).tolist(), "confidence": np.ones((count, 17)).tolist()})

    large = body(600)
    assert len(body(5)) < SMALL_BYTES < len(large)
    async with http(application) as client:
        small = await client.post("/v1/export?to=json", content=body(5), headers=JSON_HEADERS)
        monkeypatch.setattr(exports, "asked", None)  # what this process would read it by
        answer = await client.post("/v1/export?to=json", content=large, headers=JSON_HEADERS)
        assert answer.status_code == 200, answer.text
        written, first = answer.json()["frames"], small.json()["frames"]
        assert len(written) == 600
        np.testing.assert_allclose([f["pose"] for f in written[:5]], [f["pose"] for f in first], atol=0.05)
        for hostile in (
            b"[" * 4_000_000,
            b'{"refined":[' + b"[]," * 1_500_000 + b"[]]}",
            b'{"refined":"' + b"a" * 4_000_000 + b'"}',
        ):
            refused = await client.post("/v1/export?to=json", content=hostile, headers=JSON_HEADERS)
            assert refused.status_code == 422 and len(refused.content) < 2_000
