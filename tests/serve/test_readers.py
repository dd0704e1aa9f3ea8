"""Clients that ask and then read slowly, or not at all: over a real server, whose buffers are part of the matter."""

import asyncio
import contextlib
import math
import socket

import numpy as np
import orjson
import pytest
from starlette.responses import Response

from serve import codec, documentation
from serve.limits import Budget, Clock, Pace, within
from serve.live import standing_poses
from serve.one_write import WithHead
from tests.serve.conftest import before_the_queue
from tests.serve.served import served
from tests.waiting import PATIENCE_S

LARGE = 30_000_000  # more than the kernel's buffers take
SINGLE = orjson.dumps({"poses": standing_poses(1).tolist()})
PATIENT, HASTY = Pace(patience_s=3600.0), Pace(patience_s=0.3, bytes_per_s=1e7)

pytestmark = pytest.mark.anyio


async def asked(port: int, path: str, body: bytes = b"") -> socket.socket:
    """A connection over which a request went, and whose client has next to no room for an answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {codec.JSON}\r\n"
    await loop.sock_sendall(client, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


async def taken(client: socket.socket, enough: float = math.inf) -> bytes:
    """What still comes, to the end, or until it is enough."""
    content, loop = b"", asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while len(content) <= enough and (chunk := await asyncio.wait_for(loop.sock_recv(client, 1 << 20), PATIENCE_S)):
            content += chunk
    return content


async def until(true) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def large(scope, receive, send) -> None:
    """In place of the queue and what is behind it."""
    await Response(b"x" * LARGE)(scope, receive, send)


async def status(port: int, body: bytes) -> int:
    client = await asked(port, "/v1/refine", body)
    line = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4096), PATIENCE_S)
    client.close()
    return int(line.split()[1])


async def test_an_answer_that_nobody_takes_is_given_up_with_what_it_held(make_replica):
    replica = make_replica()
    async with served(before_the_queue(replica, large, pace=HASTY)) as port:
        client = await asked(port, "/info")
        await until(lambda: replica.memory.held > 0)
        await until(lambda: replica.memory.held == 0)
        assert len(await taken(client)) < LARGE


async def test_an_answer_that_is_taken_is_whole(make_replica):
    replica = make_replica()
    async with served(before_the_queue(replica, large)) as port:
        answer = await taken_whole(port)
    assert answer.endswith(b"\r\n\r\n" + b"x" * LARGE) and replica.memory.held == 0


async def taken_whole(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return answer


async def test_slow_readers_leave_room_for_short_requests_and_make_way_for_long_ones(make_replica):
    replica = make_replica(memory_mb=2)

    async def queue(scope, receive, send) -> None:
        await (large if scope["path"] == "/info" else replica.app)(scope, receive, send)

    long = orjson.dumps({"poses": np.tile(standing_poses(100), (2, 1, 1)).tolist()})
    async with served(before_the_queue(replica, queue, pace=PATIENT)) as port:
        client = await asked(port, "/info")
        await until(lambda: replica.memory.held > replica.memory.most)
        assert await status(port, SINGLE) == 200
        assert await status(port, long) == 429  # the reader may yet read
        replica.memory._patience_s = 0.0
        assert await status(port, long) == 200
        await until(lambda: replica.memory.held == 0)
        assert len(await taken(client)) < LARGE


async def test_files_take_neither_places_nor_memory_and_are_not_sent_for_ever(make_replica):
    replica = make_replica()

    async def queue(scope, receive, send) -> None:
        raise AssertionError("a file took a place")

    file = "/docs/assets/swagger-ui-bundle.js"
    async with served(before_the_queue(replica, queue, pace=PATIENT)) as port:
        clients = [await asked(port, file) for _ in range(4)]
        for client in clients:
            await asyncio.get_running_loop().sock_recv(client, 100)
        assert replica.memory.held == 0
        whole = {len(await taken(client, 1_400_000)) for client in clients}
    assert min(whole) > 1_400_000
    async with served(before_the_queue(replica, queue, pace=HASTY), buffer=16_384) as port:
        client = await asked(port, file)
        await asyncio.sleep(3)
        assert len(await taken(client)) < min(whole)


async def test_a_file_comes_whole_and_no_piece_of_it_takes_a_thread(make_replica, monkeypatch):
    def refuse(*arguments, **options) -> None:
        raise AssertionError("a piece took a thread")

    monkeypatch.setattr("anyio.open_file", refuse)
    file = f"{documentation.ASSETS_PATH}/swagger-ui-bundle.js"
    async with served(before_the_queue(make_replica(), large)) as port:
        for method, content in (("GET", (documentation.ASSETS / "swagger-ui-bundle.js").read_bytes()), ("HEAD", b"")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"{method} {file} HTTP/1.1\r\nHost: x\r\nRange: bytes=5-\r\nConnection: close\r\n\r\n".encode()
            )
            head, _, body = (await asyncio.wait_for(reader.read(), PATIENCE_S)).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.1 200 ") and body == content


def test_nobody_saves_up_time():
    clock = Clock(Pace(patience_s=10, bytes_per_s=1000), now=0)
    clock.moved(90_000_000, now=5)
    assert clock.until == 15
    for second in range(6, 15):  # a byte a second is too slow, whatever came before
        clock.moved(1, now=second)
    assert clock.until < 15.1
    clock.moved(2_000, now=15)
    assert clock.until == pytest.approx(17.009, abs=0.01)


def test_only_what_waited_long_enough_makes_way_and_only_as_much_as_is_wanted():
    budget, gone = Budget(100, patience_s=0), []
    with budget.waiting(60, lambda: gone.append("first")), budget.waiting(60, lambda: gone.append("second")):
        with budget.holding(40):
            assert gone == ["first"] and budget.held == 100
        assert budget.held == 60
    assert budget.held == 0


async def test_within_a_time_waits_where_it_must_and_no_longer():
    loop, gone = asyncio.get_running_loop(), []

    async def after(seconds: float, outcome: object = None) -> object:
        try:
            for _ in range(3):  # several waits
                await asyncio.sleep(seconds)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        except asyncio.CancelledError:
            gone.append("cancelled")
            raise

    async def at_once() -> str:
        return "now"

    assert await within(loop.time() - 1, at_once()) == "now"  # nothing waits, so there is nothing to be late for
    assert await within(loop.time() + PATIENCE_S, after(0.01, "later")) == "later"
    with pytest.raises(ValueError, match="mine"):
        await within(loop.time() + PATIENCE_S, after(0.01, ValueError("mine")))
    with pytest.raises(TimeoutError):
        await within(loop.time() + 0.05, after(3600))
    waiting = asyncio.create_task(within(loop.time() + 3600, after(3600)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gone == ["cancelled"] * 2


async def test_head_and_body_are_one_write_and_no_head_is_kept():
    written: list[bytes] = []

    class Transport(asyncio.Transport):
        def write(self, data: bytes) -> None:
            written.append(data)

        def close(self) -> None:
            written.append(b"closed")

    def writes(*pieces: bytes) -> list[bytes]:
        written.clear()
        for piece in pieces:
            transport.write(piece)
        return list(written)

    transport, head = WithHead(Transport(), asyncio.get_running_loop()), b"HTTP/1.1 200 OK\r\n\r\n"
    assert writes(head, b"body", b"more") == [head + b"body", b"more"]
    assert writes(b"HTTP/1.1 100 Continue\r\n\r\n") == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    assert writes(head, b"x" * 1_000_000) == [head, b"x" * 1_000_000]  # not copied
    assert writes(head) == []
    await asyncio.sleep(0)
    assert written == [head]
    writes(head)
    transport.close()
    assert written == [head, b"closed"]
