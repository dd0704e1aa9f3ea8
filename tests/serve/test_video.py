"""Videos over HTTP: real MediaPipe in its own deployment, the refiner in its own."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from refiner import DepthRefiner, UserError, registry
from refiner.data import records
from refiner.data.video import VideoWriter, frames
from refiner.estimators import observe
from refiner.estimators.isolation import Abandoned
from refiner.estimators.mediapipe_assets import model_path
from refiner.inference.depth_refiner import SHIPPED
from refiner.skeleton import to_coco
from serve import codec
from serve.codec import RefineResponse
from serve.video import Limits, Lost, VideoObserver
from tests.killing import killed_at_work
from tests.waiting import post, wait_for

HEADERS = {"Content-Type": "video/mp4"}


@pytest.fixture(scope="module")
def clip(real_people, tmp_path_factory):
    """Two dozen frames of a real person."""
    source = sorted(real_people.glob("*.mp4"))[0]
    pictures = [frame.rgb for frame, _ in zip(frames(source), range(24), strict=False)]
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, (pictures[0].shape[1] // 2 * 2, pictures[0].shape[0] // 2 * 2), 25) as writer:
        for picture in pictures:
            height, width = picture.shape[:2]
            writer.write(np.ascontiguousarray(picture[: height // 2 * 2, : width // 2 * 2]))
    return path


LIMITS = Limits(seconds=60, frames=100, pixels=3_000_000, timeout_s=120, memory_bytes=3_000_000_000)


@pytest.fixture(scope="module")
def observer():
    observer = VideoObserver("mediapipe", None, LIMITS)
    yield observer
    observer.close()


def drawn(path: Path, size: tuple[int, int], count: int, fps: float = 25) -> Path:
    with VideoWriter(path, size, fps, preset="ultrafast") as writer:
        for i in range(count):
            writer.write(np.full((size[1], size[0], 3), i, np.uint8))
    return path


@pytest.mark.parametrize(
    ("size", "count", "fps", "says"),
    [
        ((2048, 2048), 2, 25, "2048×2048, larger than the 3,000,000 pixels"),
        ((64, 64), 101, 25, "more than the 100 frames"),
        ((64, 64), 62, 1, "longer than 60 s"),
        ((64, 64), 3, 25, "nobody in the 3 frames"),
    ],
)
def test_an_upload_is_held_to_its_limits(observer, tmp_path, size, count, fps, says):
    with pytest.raises(UserError, match=says):
        observer.clip(drawn(tmp_path / "clip.mp4", size, count, fps))


@pytest.mark.slow
def test_what_takes_more_memory_than_it_may_dies_alone(tmp_path):
    small = VideoObserver(
        "mediapipe", None, Limits(seconds=60, frames=100, pixels=100_000_000, timeout_s=120, memory_bytes=700_000_000)
    )
    huge = drawn(tmp_path / "huge.mp4", (8192, 4320), 2)
    try:
        with pytest.raises(UserError, match="takes more memory") as refused:
            small.clip(huge)
        assert str(tmp_path) not in str(refused.value)
        small.check(tmp_path)  # the next one is served
    finally:
        small.close()


@pytest.mark.slow
@pytest.mark.parametrize("codec_of", [codec.JsonCodec, codec.ArrowCodec])
def test_an_answer_says_what_was_not_looked_at(observer, clip, tmp_path, codec_of):
    joined = tmp_path / "upload.mp4"
    joined.write_bytes(clip.read_bytes() * 2)
    for path, says in ((joined, "another one begins"), (clip, "")):
        seen = observer.clip(path)
        refined = RefineResponse(
            poses=seen.poses, confidence=seen.visibility, view_angle=seen.visibility[:, 0],
            model={"name": "a", "version": "1"}, notes=seen.notes,
        )  # fmt: skip
        answer, _ = codec_of().encode(refined)
        notes = codec_of().decode_response(answer).notes
        assert notes is not None and says in " ".join(notes) and len(notes) == bool(says)
        assert str(tmp_path) not in " ".join(notes)


@pytest.mark.slow
def test_whoever_leaves_in_mid_clip_takes_no_answer_along(observer, clip, tmp_path):
    """The check asks for clips of other lengths: a predecessor's answer would show."""
    for seconds in (0.05, 0.3, 0.6):
        left = threading.Event()
        threading.Timer(seconds, left.set).start()
        with pytest.raises(Abandoned):
            while True:  # until the moment comes
                observer.clip(clip, left)
        observer.check(tmp_path)


@pytest.mark.slow
def test_a_process_that_is_killed_is_no_fault_of_the_video(observer, clip, tmp_path):
    observer.check(tmp_path)
    with killed_at_work(observer._child), pytest.raises(Lost):
        observer.clip(clip)
    observer.check(tmp_path)


def abandon(url: str, body: bytes, seconds: float) -> None:
    """Sends a whole video, and leaves."""
    target = urlsplit(url)
    head = f"POST /v1/refine/video HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((target.hostname, target.port)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(seconds)


@pytest.mark.cluster
def test_abandoned_uploads_cost_nobody_else_an_answer(endpoint, clip, tmp_path):
    pictures = [frame.rgb for frame in frames(clip)]
    bodies = {}  # frames -> a video of so many
    for count in (6, 11, 24):
        path = tmp_path / f"{count}.mp4"
        with VideoWriter(path, (pictures[0].shape[1], pictures[0].shape[0]), 25) as writer:
            for picture in pictures[:count]:
                writer.write(picture)
        bodies[count] = path.read_bytes()

    async def honest() -> list[tuple[int, int, int]]:
        """(frames asked, status, frames answered)"""
        async with httpx.AsyncClient(timeout=300, headers=HEADERS) as client:
            answers = []
            for i in range(9):
                count = (6, 11)[i % 2]
                while True:
                    answer = await client.post(f"{endpoint}/v1/refine/video", content=bodies[count])
                    if answer.status_code not in (429, 503):  # "later", as the client takes it
                        break
                    await asyncio.sleep(0.5)
                answers.append((count, answer.status_code, len(answer.json().get("frame", []))))
            return answers

    async def storm() -> list[tuple[int, int, int]]:
        leaving = [
            asyncio.to_thread(abandon, endpoint, bodies[24], seconds)
            for seconds in (0.2, 0.7, 1.2, 1.7, 2.2, 3.0, 4.0, 5.0)
        ]
        return (await asyncio.gather(honest(), *leaving))[0]

    answers = asyncio.run(storm())
    assert [(asked, 200, asked) for asked, _, _ in answers] == answers


@pytest.fixture
def trained(endpoint) -> Iterator[str]:
    """Version of the model in the box, champion for the time: random weights would not miss the points in the picture."""
    before = registry.get_alias(registry.NAME, registry.CHAMPION)
    example = np.zeros((1, 17, 3), np.float32), np.ones((1, 17), np.float32)
    run = registry.start_run("the box", {})
    version = registry.register(SHIPPED, run, example=example, metrics={}, tags={})
    registry.set_alias(registry.NAME, registry.CHAMPION, version)
    yield version
    registry.set_alias(registry.NAME, registry.CHAMPION, before)


@pytest.mark.cluster
def test_a_video_comes_back_as_the_poses_that_the_library_finds_in_it(endpoint, trained, clip, tmp_path):
    def by_the_trained() -> httpx.Response | None:
        answer = post(f"{endpoint}/v1/refine/video", content=clip.read_bytes(), headers=HEADERS)
        assert answer.status_code == 200, answer.text
        return answer if answer.headers["x-model-version"] == trained else None  # replicas follow one by one

    answer = wait_for(by_the_trained)
    content = answer.json()

    out = tmp_path / "observations.parquet"
    observe.observe(video=str(clip), out=str(out), model=str(model_path()))
    data = records.read_table(out, records.OBSERVATIONS)
    seen = records.column(data, "detected").astype(bool)
    assert seen.sum() >= 20

    def expected(version: str | None) -> np.ndarray:
        """Of the version that answered: tests before this one change champions, and replicas follow one by one."""
        assert version is not None and version == str(int(version))
        return (
            DepthRefiner(f"models:/pose-depth-refiner/{version}", device="cpu")
            .predict(
                to_coco(records.column(data, "world")[seen]),
                to_coco(records.column(data, "visibility")[seen][..., None])[..., 0],
                image_points=to_coco(records.column(data, "image")[seen]),  # which a trained model looks at
                sequence=True,
                fps=25,
            )
            .poses
        )

    assert content["frame"] == records.column(data, "frame")[seen].tolist()
    assert content["timestamp_us"] == records.column(data, "timestamp_us")[seen].tolist()
    assert content["model"]["version"] == answer.headers["x-model-version"]
    assert content["notes"] == []
    np.testing.assert_allclose(content["refined"], expected(content["model"]["version"]), atol=1e-4)

    arrow = post(
        f"{endpoint}/v1/refine/video",
        content=clip.read_bytes(),
        headers={**HEADERS, "Accept": codec.ARROW},
    )
    refined = codec.ArrowCodec().decode_response(arrow.content).poses
    np.testing.assert_allclose(refined, expected(arrow.headers["x-model-version"]), atol=1e-4)

    for body, says in (
        (b"no video at all" * 100, "the upload"),
        (clip.read_bytes()[:3000], "the upload"),
        (b"", "the upload is empty"),
    ):
        refused = post(f"{endpoint}/v1/refine/video", content=body, headers=HEADERS)
        assert refused.status_code == 422, refused.text
        assert refused.json()["detail"].startswith(says) and "/tmp" not in refused.json()["detail"]
    huge = post(f"{endpoint}/v1/refine/video", content=iter([bytes(1_000_000)] * 101), headers=HEADERS)
    assert huge.status_code == 413
