"""What a WebSocket brings is looked at in turns, and frames that are no messages end it: over a real server."""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from serve.intake import MESSAGE_BYTES
from serve.stream import frames
from serve.stream.frames import BoundedFrames
from tests.serve.served import served
from tests.waiting import PATIENCE_S

TEXT, MORE, PING, PONG = 1, 0, 9, 10
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Watched(BoundedFrames):
    """Notes how many frames it looks at in one turn."""

    most = 0

    def _look(self) -> None:
        super()._look()
        Watched.most = max(Watched.most, self._seen)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_bytes((await websocket.receive_text()).encode())


@pytest.fixture
async def port() -> AsyncIterator[int]:
    Watched.most = 0
    application = Starlette(routes=[WebSocketRoute("/", echo)])
    async with served(application, ws=Watched, ws_max_size=MESSAGE_BYTES) as number:
        yield number


def frame(opcode: int, data: bytes = b"", *, last: bool = True) -> bytes:
    return bytes([(0x80 if last else 0) | opcode, 0x80 | len(data)]) + bytes(4) + data


FLOODS = {
    "pings": frame(PING) * 40_000,
    "pongs": frame(PONG) * 40_000,
    "pieces": frame(TEXT, b"a", last=False) + frame(MORE, b"a", last=False) * 40_000,
    "pieces of nothing": frame(TEXT, last=False) + frame(MORE, last=False) * 40_000,
}


HEAD = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY, VERSION = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n"
UNOPENED = {
    "long request line": HEAD.replace("GET /", f"GET /?{'a' * 9000}") + KEY + VERSION,
    "long header": HEAD + KEY + VERSION + f"X-A: {'a' * 9000}\r\n",
    "many headers": HEAD + KEY + VERSION + "".join(f"X-{i}: a\r\n" for i in range(200)),
    "no key": HEAD + VERSION,
    "another key": HEAD + VERSION + "Sec-WebSocket-Key: a\r\n",
    "another version": HEAD + KEY + "Sec-WebSocket-Version: 99\r\n",
    "subprotocols": HEAD + KEY + VERSION + "Sec-WebSocket-Protocol: ,,;\r\n",
}


@pytest.mark.parametrize("opening", UNOPENED)
async def test_what_cannot_become_a_stream_is_refused_at_once(port, opening):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UNOPENED[opening].encode() + b"\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 426 ")) and b"content-type: application/problem+json" in head
    assert json.loads(body)["detail"].startswith("the WebSocket cannot be opened: ")
    writer.close()


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_frames_is_ended_and_others_have_their_turns(port, flood):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    said = b""
    with contextlib.suppress(ConnectionError):
        writer.write(FLOODS[flood])
        said = await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert frames.SENTENCE.encode() in said or not said  # who still writes gets a reset in place of the sentence
    assert 0 < Watched.most <= frames.LEAST_HELPING  # not tens of thousands
    writer.close()
    async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
        await client.send("still here")
        assert await asyncio.wait_for(client.recv(), PATIENCE_S) == b"still here"


async def test_messages_arrive_as_they_were_sent_whole_or_in_pieces(port):
    async with connect(f"ws://127.0.0.1:{port}/", proxy=None, max_size=None, compression=None) as client:
        for size in (0, 1, 125, 126, 70_000, 1_000_003, MESSAGE_BYTES):
            text = "abcdefghi" * (size // 9) + "x" * (size % 9)
            await client.send(text)
            assert await asyncio.wait_for(client.recv(), PATIENCE_S) == text.encode()
            await client.send([text[start : start + 4_096] for start in range(0, max(size, 1), 4_096)])
            assert await asyncio.wait_for(client.recv(), PATIENCE_S) == text.encode()
            await asyncio.wait_for(await client.ping(), PATIENCE_S)
        burst = [f"message {number}" for number in range(3_000)]
        await asyncio.gather(*map(client.send, burst))
        assert [await asyncio.wait_for(client.recv(), PATIENCE_S) for _ in burst] == [text.encode() for text in burst]
