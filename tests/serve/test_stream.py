"""Streams as clients meet them: the replica's application behind a real HTTP server, in this process."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest

from refiner import UserError
from refiner.causal import LiveSmoother
from refiner.skeleton import FROM_MEDIAPIPE, NUM_LANDMARKS
from serve.live import standing_poses
from serve.stream.client import LiveClient
from serve.stream.messages import Answer, Landmarks, decode, encode
from tests.serve.streams import GOOD, Serve, answered, opened, said, serving
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def served(make_replica) -> Serve:
    return serving(make_replica)


@pytest.fixture(scope="module")
def endpoint(served) -> Iterator[tuple[str, object]]:
    with served() as (address, replica):
        yield address, replica


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
            answer = answered(stream)
            assert (answer.frame, answer.timestamp_us, answer.dropped) == (2 * i, 1000 * (2 * i + 1), 0)
            np.testing.assert_allclose(answer.refined, expected.poses[i], atol=1e-5)
            np.testing.assert_allclose(answer.confidence, expected.confidence[i], atol=1e-5)
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
            answer = answered(stream)
            numbers.append(answer.frame)
            dropped = answer.dropped
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


WRONG_POINTS = {"shares of the picture": 0.3, "a defect of the refiner": 1e30}


@pytest.mark.parametrize("wrong", WRONG_POINTS)
def test_what_one_client_sends_harms_no_frame_beside_it(endpoint, rng, monkeypatch, wrong):
    """Frames are refined together: those that arrive at once here, as long as one computes."""
    address, replica = endpoint
    refiner = replica.live.current.refiner
    predict = refiner.predict

    def fails(poses, visibility=None, *, image_points=None, **options):
        if image_points is not None and np.abs(image_points).max() > 1e20:
            raise ZeroDivisionError("a defect")
        time.sleep(0.03)  # in which others' frames come
        return predict(poses, visibility, image_points=image_points, **options)

    monkeypatch.setattr(refiner, "predict", fails)
    poses, points = dance(40, rng), np.full((17, 2), 200, np.float32)
    together = []
    monkeypatch.setattr(replica.streams.hub._batcher, "_on_batch", together.append)
    with contextlib.ExitStack() as stack:
        good = [stack.enter_context(opened(address)) for _ in range(6)]
        bad = stack.enter_context(opened(address))
        for i, pose in enumerate(poses):
            bad.send(encode(Landmarks(pose, None, np.full_like(points, WRONG_POINTS[wrong]), timestamp_us=i + 1)))
            for stream in good:
                stream.send(encode(Landmarks(pose, None, points, timestamp_us=i + 1)))
            for stream in good:
                assert answered(stream).frame == i
            refusal = said(bad)
            assert refusal["frame"] == i and ("between 0 and 1" in refusal["error"] or wrong != "shares of the picture")
    assert max(together) > 1


def test_time_must_rise(endpoint):
    address, _ = endpoint
    with opened(address) as stream:
        stream.send(encode(Landmarks(standing_poses(1)[0], timestamp_us=50)))
        answered(stream)
        for stamp in (50, 49):
            stream.send(encode(Landmarks(standing_poses(1)[0], timestamp_us=stamp)))
            assert "rise" in said(stream)["error"]


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


def test_a_frame_is_what_it_was_before_it_travelled(rng):
    for joints in (17, 33):
        for visible in (None, rng.uniform(size=joints).astype(np.float32)):
            for points in (None, rng.uniform(size=(joints, 2)).astype(np.float32)):
                given = Landmarks(rng.normal(size=(joints, 3)).astype(np.float32), visible, points, 123_456_789_012)
                decoded = decode(encode(given))
                for name in ("pose", "visibility", "image_points"):
                    np.testing.assert_equal(getattr(decoded, name), getattr(given, name))
                assert decoded.timestamp_us == given.timestamp_us
    answer = Answer(
        frame=7, timestamp_us=1 << 40, dropped=3, refined=rng.normal(size=(17, 3)).astype(np.float32),
        confidence=rng.uniform(size=17).astype(np.float32), view_angle=12.5,
    )  # fmt: skip
    again = Answer.of(answer.as_bytes())
    for field in fields(Answer):
        np.testing.assert_equal(getattr(again, field.name), getattr(answer, field.name))
