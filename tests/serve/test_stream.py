"""Streams as clients meet them: the replica's application behind a real HTTP server, in this process."""

import asyncio
import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np
import pytest
import uvicorn
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from refiner import UserError
from refiner.causal import LiveSmoother
from refiner.skeleton import FROM_MEDIAPIPE, NUM_LANDMARKS
from serve.client import Retries
from serve.guard import SUBPROTOCOL, subprotocols
from serve.intake import MESSAGE_BYTES
from serve.live import standing_poses
from serve.stream import connection
from serve.stream.client import LiveClient
from serve.stream.messages import Answer, Landmarks, decode, encode
from tests.serve.conftest import before_the_queue
from tests.waiting import PATIENCE_S, wait_for

Serve = Callable[..., contextlib.AbstractContextManager[str]]


@pytest.fixture(scope="module")
def served(make_replica) -> Serve:
    """`with served(max_streams=…) as (url, replica)`: as Serve starts its server, on a port of its own."""

    @contextlib.contextmanager
    def serve(**args: object) -> Iterator[tuple[str, object]]:
        replica = make_replica(**args)
        config = uvicorn.Config(
            before_the_queue(replica), log_level="critical", ws_max_size=MESSAGE_BYTES, ws_per_message_deflate=False
        )
        server = uvicorn.Server(config)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # for the client that reads nothing
            listening.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
            thread.start()
            try:
                wait_for(lambda: server.started)
                yield f"127.0.0.1:{listening.getsockname()[1]}", replica
            finally:
                server.should_exit = True
                thread.join()
                replica.streams.pictures.close()

    return serve


@pytest.fixture(scope="module")
def endpoint(served) -> Iterator[tuple[str, object]]:
    with served() as (address, replica):
        yield address, replica


def opened(address: str, query: str = "", **options: object) -> ClientConnection:
    return connect(f"ws://{address}/v1/stream{query}", open_timeout=PATIENCE_S, proxy=None, **options)


def said(stream: ClientConnection) -> dict:
    """The next text message that is no word about the model."""
    while True:
        message = stream.recv(PATIENCE_S)
        if isinstance(message, str) and "model" not in (content := json.loads(message)):
            return content


def answered(stream: ClientConnection) -> Answer:
    """The next binary answer."""
    while True:
        message = stream.recv(PATIENCE_S)
        if isinstance(message, bytes):
            return Answer.of(message)
        assert "error" not in message, message


def dance(count: int, rng: np.random.Generator, noise: float = 0.02) -> np.ndarray:
    """(count, 17, 3) m: someone who turns and trembles."""
    return (standing_poses(count) + rng.normal(0, noise, (count, 17, 3))).astype(np.float32)


def test_both_forms_get_what_the_library_gives(endpoint, rng):
    address, replica = endpoint
    landmarks = np.zeros((5, NUM_LANDMARKS, 3), np.float32)
    landmarks[:, FROM_MEDIAPIPE] = dance(5, rng)
    visibility = rng.uniform(0.5, 1, (5, NUM_LANDMARKS)).astype(np.float32)
    points = rng.uniform(100, 500, (5, NUM_LANDMARKS, 2)).astype(np.float32)
    expected = replica.live.current.refiner.predict(landmarks, visibility, image_points=points)
    with opened(address, "?smooth=false") as stream:
        begins = json.loads(stream.recv(PATIENCE_S))
        assert begins["model"] == replica.live.current.model and begins["smooth"] is False
        for i in range(5):
            stream.send(encode(Landmarks(landmarks[i], visibility[i], points[i], timestamp_us=1000 * (2 * i + 1))))
            found = answered(stream)
            assert (found.frame, found.timestamp_us, found.dropped) == (2 * i, 1000 * (2 * i + 1), 0)
            np.testing.assert_allclose(found.refined, expected.poses[i], atol=1e-5)
            np.testing.assert_allclose(found.confidence, expected.confidence[i], atol=1e-5)
            text = {
                "pose": landmarks[i].tolist(),
                "visibility": visibility[i].tolist(),
                "image_points": points[i].tolist(),
            }
            stream.send(json.dumps({**text, "timestamp_us": 1000 * (2 * i + 2)}))
            told = said(stream)
            np.testing.assert_allclose(told["refined"], expected.poses[i], atol=1e-5)
            assert told["frame"] == 2 * i + 1 and told["view_angle"] == pytest.approx(expected.view_angle[i], abs=1e-3)


def test_the_newest_frame_wins_in_order_and_what_was_overtaken_is_counted(endpoint, rng):
    address, _ = endpoint
    poses = dance(200, rng)
    with opened(address) as stream:
        for i, pose in enumerate(poses):
            stream.send(encode(Landmarks(pose, timestamp_us=i + 1)))
        numbers, dropped = [], 0
        while not numbers or numbers[-1] != 199:
            found = answered(stream)
            numbers.append(found.frame)
            dropped = found.dropped
    assert numbers == sorted(set(numbers))
    assert dropped == 200 - len(numbers) and dropped > 0


def test_streams_keep_their_own_state_and_are_smoothed_as_if_alone(endpoint, rng):
    address, replica = endpoint
    tall, small = dance(60, rng), dance(60, rng) * 0.7
    refiner = replica.live.current.refiner
    expected = []
    for poses in (tall, small):
        smoother, single = LiveSmoother(1), refiner.predict(poses).poses
        rows = np.zeros(1, int)
        expected.append([smoother(rows, single[i : i + 1], np.array([i / 30]), True)[0] for i in range(60)])
    with opened(address) as first, opened(address) as second:
        for i in range(60):
            for stream, poses in ((first, tall), (second, small)):
                stream.send(encode(Landmarks(poses[i], timestamp_us=round(i / 30 * 1e6))))
            for stream, wanted in ((first, expected[0]), (second, expected[1])):
                np.testing.assert_allclose(answered(stream).refined, wanted[i], atol=1e-4)
    with opened(address) as third:  # a row that was used before begins anew
        third.send(encode(Landmarks(small[5], timestamp_us=1)))
        np.testing.assert_allclose(answered(third).refined, LiveSmoother(1)(
            np.zeros(1, int), refiner.predict(small[5:6]).poses, np.zeros(1), True)[0], atol=1e-4)  # fmt: skip


def image_landmarks() -> np.ndarray:
    pose = standing_poses(1)[0]
    return (pose * [0.3, 0.4, 0.1] + [0.5, 0.5, 0]).astype(np.float32)


def with_nan() -> np.ndarray:
    pose = standing_poses(1)[0].copy()
    pose[3, 1] = np.nan
    return pose


GOOD = json.dumps({"pose": standing_poses(1)[0].tolist()})
BAD = {
    "not JSON": "{pose",
    "NaN in JSON": GOOD.replace("0.0", "NaN", 1),
    "no pose": "{}",
    "a list": "[]",
    "another key": '{"pose": [[0, 0, 0]], "fps": 30}',
    "one joint": '{"pose": [[0, 0, 0]]}',
    "ragged": '{"pose": [[0, 0, 0], [1]]}',
    "visibility of another length": GOOD.replace("}", ', "visibility": [1]}'),
    "time": GOOD.replace("}", ', "timestamp_us": -5}'),
    "boolean time": GOOD.replace("}", ', "timestamp_us": true}'),
    "bytes": b"\x00\x01\x02",
    "nothing": b"",
    "GIF": b"GIF89a" + bytes(100),
    "cut off": encode(Landmarks(standing_poses(1)[0], timestamp_us=1))[:-4],
    "other joints": b"POSE" + (21).to_bytes(2, "little") + bytes(200),
    "NaN": encode(Landmarks(with_nan(), timestamp_us=1 << 50)),
    "centimetres": encode(Landmarks(standing_poses(1)[0] * 100, timestamp_us=1 << 50)),
    "visible twice": encode(Landmarks(standing_poses(1)[0], np.full(17, 2.0, np.float32), timestamp_us=1 << 50)),
}


def test_what_makes_no_sense_gets_one_sentence_and_the_stream_goes_on(endpoint):
    address, replica = endpoint
    with opened(address) as stream:
        for number, message in enumerate(BAD.values()):
            stream.send(message)
            refused = said(stream)
            assert refused["frame"] == 2 * number and "\n" not in refused["error"] and len(refused["error"]) > 20
            stream.send(GOOD)
            assert said(stream)["frame"] == 2 * number + 1
        assert len(replica.streams.hub.members) == 1


def test_image_landmarks_are_recognised_stream_by_stream(endpoint):
    address, _ = endpoint
    with opened(address) as wrong, opened(address) as right:
        for i in range(5):
            for stream, pose in ((wrong, image_landmarks()), (right, standing_poses(1)[0])):
                stream.send(encode(Landmarks(pose, timestamp_us=i + 1)))
            assert "pose_world_landmarks" in said(wrong)["error"]
            assert answered(right).frame == i


def test_time_must_rise(endpoint):
    address, _ = endpoint
    with opened(address) as stream:
        stream.send(encode(Landmarks(standing_poses(1)[0], timestamp_us=50)))
        answered(stream)
        for stamp in (50, 49):
            stream.send(encode(Landmarks(standing_poses(1)[0], timestamp_us=stamp)))
            assert "rise" in said(stream)["error"]


def closed(stream: ClientConnection) -> tuple[int, str]:
    """How the endpoint ends a stream."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            stream.recv(PATIENCE_S)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


@pytest.mark.parametrize("size", [20_000, MESSAGE_BYTES + 1])
def test_large_messages_end_the_stream(endpoint, size):
    address, replica = endpoint
    stream = opened(address)
    with contextlib.suppress(ConnectionClosed):  # it may end while this one still sends
        stream.send(b"POSE" + bytes(size))
    assert closed(stream)[0] == 1009
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


def refused(address: str, query: str = "", **options: object) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as error:
        opened(address, query, **options)
    response = error.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)


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


def test_the_client_goes_on_over_another_connection_where_one_breaks(endpoint):
    address, _ = endpoint
    with LiveClient(f"http://{address}") as live:
        assert live.refine(standing_poses(1)[0]).frame == 0
        assert live.model["name"]
        live._connection.socket.shutdown(socket.SHUT_RDWR)
        assert live.refine(standing_poses(1)[0]).frame == 0
        with pytest.raises(UserError, match="metres"):
            live.refine(standing_poses(1)[0] * 100)
        assert live.refine(standing_poses(1)[0]).frame == 2


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


def test_a_frame_is_what_it_was_before_it_travelled(rng):
    for joints in (17, 33):
        for visible in (None, rng.uniform(size=joints).astype(np.float32)):
            for points in (None, rng.uniform(size=(joints, 2)).astype(np.float32)):
                given = Landmarks(rng.normal(size=(joints, 3)).astype(np.float32), visible, points, 123_456_789_012)
                found = decode(encode(given))
                for name in ("pose", "visibility", "image_points"):
                    np.testing.assert_equal(getattr(found, name), getattr(given, name))
                assert found.timestamp_us == given.timestamp_us
    answer = Answer(
        frame=7, timestamp_us=1 << 40, dropped=3, refined=rng.normal(size=(17, 3)).astype(np.float32),
        confidence=rng.uniform(size=17).astype(np.float32), view_angle=12.5,
    )  # fmt: skip
    again = Answer.of(answer.as_bytes())
    for field in fields(Answer):
        np.testing.assert_equal(getattr(again, field.name), getattr(answer, field.name))
