"""Live streams through HAProxy: latency under 1, 10, 50 and 100 clients, how many keep their 50 ms, and pictures.

    python -m benchmarks.stream

Each client sends landmarks (33, with visibility and image points, binary) 30 times a second, at its own phase, and takes what
comes. Latency is from sending a frame to having its answer; frames that were overtaken by newer ones are counted, not waited
for. Load, HAProxy and the replica share the machine's cores. What the network alone does in batches is measured in the same
run, before and after. The last line is one JSON object.
"""

import asyncio
import io
import json
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from websockets.sync.client import connect

from benchmarks.serve import deploy, seconds_of
from cluster.local import local_cluster
from cluster.running import CHECKOUT
from refiner import DepthRefiner
from refiner.command import log, parse
from refiner.data import video
from refiner.inference import onnx
from refiner.inference.depth_refiner import SHIPPED, prepare
from refiner.inference.onnx import OnnxNetwork
from refiner.inference.validation import validate_poses
from refiner.model.checkpoint import load_checkpoint, save_checkpoint
from refiner.skeleton import FROM_MEDIAPIPE, NUM_LANDMARKS
from serve.live import standing_poses
from serve.stream.messages import ANSWER_TYPE, Landmarks, encode

BATCH = 32
BOUND_MS = 50.0  # p99
STEP, MOST = 5, 128  # of the search for how many


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seconds: float = 10.0
    """Of one measurement."""
    fps: float = 30.0
    clients: tuple[int, ...] = (1, 10, 50, 100)
    pictures: int = 200
    """That one client sends, each when the one before was answered; 0 leaves them out."""


@dataclass
class Result:
    sent: int = 0
    latencies: list[float] = field(default_factory=list)  # seconds
    dropped: int = 0
    closed: int = 0

    def as_row(self, seconds: float) -> dict[str, float]:
        p50, p99 = np.percentile(self.latencies, (50, 99)) * 1e3 if self.latencies else (np.inf, np.inf)
        return {
            "p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2),
            "answered_per_s": round(len(self.latencies) / seconds, 1),
            "dropped_share": round(self.dropped / max(self.sent, 1), 4), "closed": self.closed,
        }  # fmt: skip


class Client(asyncio.Protocol):
    """A WebSocket that knows no more than this benchmark needs: 10 µs a message, so that the server is measured."""

    def __init__(self, result: Result, host: str) -> None:
        self.result, self.host = result, host
        self.buffer, self.open = bytearray(), False
        self.dropped = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.open:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            assert self.buffer.startswith(b"HTTP/1.1 101"), bytes(self.buffer[:head])
            del self.buffer[: head + 4]
            self.open = True
        while len(self.buffer) >= 2:
            kind, length, start = self.buffer[0] & 15, self.buffer[1], 2
            if length == 126:
                length, start = int.from_bytes(self.buffer[2:4], "big"), 4
            if len(self.buffer) < start + length:
                return
            payload = bytes(self.buffer[start : start + length])
            del self.buffer[: start + length]
            if kind == 2:
                self._answered(payload)
            elif kind == 9:  # a ping
                self.transport.write(bytes([0x8A, 0x80 | len(payload)]) + bytes(4) + payload)

    def _answered(self, payload: bytes) -> None:
        now = time.perf_counter()
        self.result.latencies.append(now - int.from_bytes(payload[8:16], "little") * 1e-6)
        self.dropped = int.from_bytes(payload[16:20], "little")

    def connection_lost(self, error: Exception | None) -> None:
        if self.open:
            self.result.closed += 1

    def send(self, frame: bytearray) -> None:
        frame[16:24] = int(time.perf_counter() * 1e6).to_bytes(8, "little")
        self.result.sent += 1
        self.transport.write(bytes(frame))


def frame_bytes() -> bytearray:
    """A frame as it travels: a masked binary message, whose mask is zero; its timestamp is at 16 … 24."""
    rng = np.random.default_rng(0)
    pose = np.zeros((NUM_LANDMARKS, 3), np.float32)
    pose[FROM_MEDIAPIPE] = standing_poses(1)[0]
    points = rng.uniform(100, 400, (NUM_LANDMARKS, 2)).astype(np.float32)
    content = encode(Landmarks(pose, np.full(NUM_LANDMARKS, 0.9, np.float32), points, 1))
    return bytearray(b"\x82\xfe" + len(content).to_bytes(2, "big") + bytes(4) + content)


async def load(url: str, clients: int, fps: float, seconds: float) -> Result:
    target, result = urlsplit(url), Result()
    loop, chance = asyncio.get_running_loop(), random.Random(clients)

    async def one() -> None:
        _, client = await loop.create_connection(lambda: Client(result, target.netloc), target.hostname, target.port)
        frame = frame_bytes()
        while not client.open:
            await asyncio.sleep(0.01)
        due = loop.time() + chance.random() / fps
        end = loop.time() + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            client.send(frame)
            due += 1 / fps
        await asyncio.sleep(0.5)
        client.open = False
        result.dropped += client.dropped
        client.transport.abort()

    await asyncio.gather(*(one() for _ in range(clients)))
    return result


def most_streams(url: str, options: Options) -> tuple[int, dict[str, float]]:
    """How many keep their bound and lose less than a frame in a hundred: halving between what does and what does not."""
    good, bad, row = 0, MOST + STEP, {}
    while bad - good > STEP:
        tried = max(STEP, (good + bad) // 2 // STEP * STEP)
        measured = asyncio.run(load(url, tried, options.fps, options.seconds)).as_row(options.seconds)
        log(f"{tried} streams: {measured}")
        keeps = measured["p99_ms"] <= BOUND_MS and measured["dropped_share"] < 0.01 and not measured["closed"]
        good, bad, row = (tried, bad, measured) if keeps else (good, tried, row)
    return good, row


def network_rate(folder: Path) -> float:
    """Poses/s of the network alone in batches, on one core."""
    network = OnnxNetwork(onnx.export(folder), 1)
    poses, visibility = validate_poses(standing_poses(BATCH))
    inputs = prepare(load_checkpoint(folder).config, poses, visibility)
    return BATCH / seconds_of(lambda: network(inputs), 2.0)


def picture_rate(url: str, count: int) -> dict[str, float]:
    """One client that sends 640 × 480 pictures of a person, each when the one before was answered."""
    pictures = []
    for frame in video.frames(CHECKOUT / "serve/page/clip/clip.mp4"):
        content = io.BytesIO()
        Image.fromarray(frame.rgb).save(content, "JPEG", quality=80)
        pictures.append(content.getvalue())
    latencies, seen = [], 0
    with connect(f"{url.replace('http', 'ws')}/v1/stream", proxy=None) as stream:
        stream.recv()
        for i in range(-10, count):  # the first start MediaPipe
            start = time.perf_counter()
            stream.send(pictures[i % len(pictures)])
            seen += json.loads(stream.recv())["refined"] is not None
            if i >= 0:
                latencies.append(time.perf_counter() - start)
    return {
        "per_s": round(len(latencies) / sum(latencies), 1), "p50_ms": round(statistics.median(latencies) * 1e3, 1),
        "p99_ms": round(float(np.percentile(latencies, 99)) * 1e3, 1), "with_person": round(seen / (count + 10), 3),
    }  # fmt: skip


def main() -> None:
    options = parse(Options)
    assert ANSWER_TYPE.itemsize < 65_536
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_checkpoint(DepthRefiner(SHIPPED, device="cpu").model, Path(scratch, "checkpoint"))
        alone = [network_rate(folder)]
        with local_cluster(Path(scratch, "cluster"), usual_ports=False) as cluster:
            url = deploy(cluster, folder, Path(scratch)).removesuffix("/v1/refine")
            rows = {}
            for clients in options.clients:
                rows[clients] = asyncio.run(load(url, clients, options.fps, options.seconds)).as_row(options.seconds)
                log(f"{clients} clients: {rows[clients]}")
            streams, row = most_streams(url, options)
            pictures = picture_rate(url, options.pictures) if options.pictures else None
        alone.append(network_rate(folder))
    rate = statistics.mean(alone)
    summary = {
        "clients": rows, "streams_within_50_ms": streams, "at_that_many": row, "network_alone_poses_per_s": round(rate),
        "ratio": round(streams * options.fps / rate, 3), "pictures": pictures,
    }  # fmt: skip
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
