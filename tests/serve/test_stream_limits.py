"""What a stream may not: who may open one, how much and how slowly may come, and what pictures may be."""

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Iterator

import pytest
from PIL import Image
from starlette.types import Message
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from refiner import UserError
from serve.client import Retries
from serve.guard import SUBPROTOCOL, subprotocols
from serve.intake import MESSAGE_BYTES
from serve.live import standing_poses
from serve.stream import connection
from serve.stream.client import LiveClient
from serve.stream.messages import Landmarks, encode
from tests.serve.streams import GOOD, Serve, answered, closed, opened, refused, said, serving
from tests.waiting import PATIENCE_S, wait_for


@pytest.fixture(scope="module")
def served(make_replica) -> Serve:
    return serving(make_replica)


@pytest.fixture(scope="module")
def endpoint(served) -> Iterator[tuple[str, object]]:
    with served() as (address, replica):
        yield address, replica


@pytest.mark.parametrize("size", [20_000, MESSAGE_BYTES + 1])
def test_large_messages_end_the_stream(endpoint, size):
    address, replica = endpoint
    stream = opened(address)
    with contextlib.suppress(ConnectionClosed):  # it may end while this one still sends
        stream.send(b"POSE" + bytes(size))
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            stream.recv(PATIENCE_S)
    frame = ended.value.rcvd
    # a reset may overtake the reason, where the server ends what it has not read to its end
    assert frame.code == 1009 if frame is not None else size > MESSAGE_BYTES
    wait_for(lambda: not replica.streams.hub.members)


def test_where_streams_crowd_those_faster_than_a_camera_wait_and_others_do_not(endpoint, monkeypatch):
    monkeypatch.setattr(connection, "CROWDED_PER_S", 0.0)
    monkeypatch.setattr(connection, "CAMERA_FPS", 0.2)  # whoever sends two frames is faster
    address, replica = endpoint
    frame = encode(Landmarks(standing_poses(1)[0], None, None, None))
    with opened(address) as flood:
        for _ in range(100):
            flood.send(frame)
        answered(flood)
        (member,) = replica.streams.hub.members
        with opened(address) as other:
            other.send(frame)
            answered(other)
        assert member._number < 50  # the rest waits where it came from
        monkeypatch.setattr(connection, "CROWDED_PER_S", 1e9)
    wait_for(lambda: not replica.streams.hub.members)


def test_so_do_too_many(endpoint, monkeypatch):
    monkeypatch.setattr(connection, "FRAMES_AT_ONCE", 100.0)
    monkeypatch.setattr(connection, "FRAMES_PER_S", 0.001)
    address, _ = endpoint
    with opened(address) as stream:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200):
                stream.send(GOOD)
        code, reason = closed(stream)
    assert code == 1008 and "a second" in reason


@pytest.mark.slow
def test_a_client_that_sends_nothing_or_never_a_whole_message_is_sent_away(served):
    with served(stream_idle_s=0.5) as (address, replica):
        with opened(address) as quiet:
            assert closed(quiet) == (1008, "no complete frame came for 0.5 s: open another stream")
        with opened(address) as drip:
            raw = drip.socket
            with contextlib.suppress(OSError):
                raw.sendall(b"\x82\xfe\x40\x00" + bytes(4))  # a binary message of 16 kB begins
                for _ in range(1000):
                    raw.sendall(b"x")
                    if not replica.streams.hub.members:
                        break
                    threading.Event().wait(0.1)
            raw.close()
        wait_for(lambda: not replica.streams.hub.members)


def test_a_client_that_reads_nothing_is_given_up_and_harms_nobody(endpoint, monkeypatch):
    monkeypatch.setattr(connection, "SENDING_S", 1.0)
    address, replica = endpoint
    host, port = address.split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.connect((host, int(port)))
    raw.sendall(
        b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    wait_for(lambda: len(replica.streams.hub.members) == 1)
    frame = GOOD.encode()
    head = b"\x81\xfe" + len(frame).to_bytes(2, "big") + bytes(4)  # masked with zeros

    def send() -> None:
        with contextlib.suppress(OSError):
            while replica.streams.hub.members:
                raw.sendall(head + frame)
                threading.Event().wait(0.004)

    sender = threading.Thread(target=send)
    sender.start()
    with opened(address) as honest:
        for i in range(20):
            honest.send(encode(Landmarks(standing_poses(1)[0], timestamp_us=i + 1)))
            assert answered(honest).frame == i
    wait_for(lambda: not replica.streams.hub.members)
    sender.join()
    raw.close()


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(endpoint, rng):
    address, replica = endpoint
    free = len(replica.streams.hub._free)
    for _ in range(20):
        stream = opened(address)
        for i in range(5):
            stream.send(encode(Landmarks(standing_poses(1)[0], timestamp_us=i + 1)))
        stream.socket.close()
    wait_for(lambda: len(replica.streams.hub._free) == free and not replica.streams.hub.members)


def test_there_are_so_many_streams(served):
    with served(max_streams=2) as (address, _), opened(address), opened(address) as second:
        status, problem = refused(address)
        assert status == problem["status"] == 429
        second.close()
        wait_for(lambda: _opens(address))


def _opens(address: str) -> bool:
    try:
        with opened(address) as stream:
            return bool(stream.recv(PATIENCE_S))
    except InvalidStatus:
        return False


def test_who_may_open_one(served, tmp_path):
    (tmp_path / "tokens").write_text("secret-/+~\n")
    page = "https://studio.example"
    with served(token_file=str(tmp_path / "tokens"), cors_origins=[page]) as (address, _):
        assert refused(address)[0] == 401
        assert refused(address, additional_headers={"Authorization": "Bearer wrong"})[0] == 401
        for wrong in ("bearer.", "bearer.%%%", "bearer.d3Jvbmc", "secret"):
            assert refused(address, subprotocols=[SUBPROTOCOL, wrong])[0] == 401
        with opened(address, subprotocols=subprotocols("secret-/+~"), origin=page) as stream:
            assert stream.subprotocol == SUBPROTOCOL  # not the token
        assert refused(address, subprotocols=subprotocols("secret-/+~"), origin="https://evil.example")[0] == 403
        with opened(address, subprotocols=subprotocols("secret-/+~"), origin=f"http://{address}"):
            pass  # the endpoint's own page
        with LiveClient(f"http://{address}", token="secret-/+~") as live:
            assert live.refine(standing_poses(1)[0]).frame == 0
        with pytest.raises(UserError, match="token"):
            LiveClient(f"http://{address}", retries=Retries(attempts=1)).refine(standing_poses(1)[0])
    with served() as (address, _):
        assert refused(address, origin=page)[0] == 403
        assert refused(address, origin="null")[0] == 403


def test_an_option_that_there_is_not_is_refused(endpoint):
    status, problem = refused(endpoint[0], "?smooth=maybe")
    assert status == 422 and "smooth" in problem["detail"]


def picture(size: tuple[int, int], form: str = "JPEG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (90, 120, 90)).save(content, form)
    return content.getvalue()


def huge() -> bytes:
    """A JPEG whose head says 10,000 × 10,000 pixels."""
    content = bytearray(picture((64, 64)))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = (10_000).to_bytes(2, "big") * 2
    return bytes(content)


@pytest.mark.slow
def test_pictures_are_seen_refused_and_released(served):
    with served(max_picture_streams=1) as (address, replica):
        with opened(address) as stream:
            for number, (content, says) in enumerate(
                {
                    picture((320, 240)): None,
                    picture((320, 240), "WEBP"): None,
                    huge(): "larger",
                    b"\xff\xd8\xff" + bytes(500): "complete JPEG",
                    picture((320, 240))[:-200]: "complete JPEG",
                    picture((640, 480)): None,
                }.items()
            ):
                stream.send(content)
                told = said(stream)
                assert told["frame"] == number
                assert says in told["error"] if says else told["refined"] is None  # nobody is there
            with opened(address) as second:
                second.send(picture((320, 240)))
                code, reason = closed(second)
                assert code == 1013 and "landmarks" in reason
            stream.send(GOOD)  # landmarks go beside pictures
            assert said(stream)["refined"] is not None
        wait_for(lambda: not replica.streams.pictures._busy)
        with opened(address) as third:
            third.send(picture((320, 240)))
            assert said(third)["refined"] is None


@pytest.mark.slow
@pytest.mark.anyio
async def test_who_leaves_while_the_next_picture_waits_leaves_its_process_too(make_replica):
    """The client goes while one answer is sent and another picture has come, whose turn begins and ends at once."""
    replica = make_replica(max_picture_streams=1)
    messages, sending = asyncio.Queue[Message](), asyncio.Event()
    messages.put_nowait({"type": "websocket.connect"})
    for content in (picture((320, 240)), picture((64, 64))):
        messages.put_nowait({"type": "websocket.receive", "bytes": content})

    async def receive() -> Message:
        if messages.empty():
            await sending.wait()
            return {"type": "websocket.disconnect", "code": 1001}
        return await messages.get()

    async def send(message: Message) -> None:
        if '"frame"' in (message.get("text") or ""):
            sending.set()
            await asyncio.sleep(0.05)  # the word that the client is gone comes meanwhile

    scope = {"type": "websocket", "path": "/v1/stream", "query_string": b"", "headers": [], "subprotocols": []}
    try:
        await replica.streams.serve(WebSocket(scope, receive, send))
        async with asyncio.timeout(PATIENCE_S):
            while replica.streams.pictures._busy:
                await asyncio.sleep(0.01)
    finally:
        replica.streams.pictures.close()
