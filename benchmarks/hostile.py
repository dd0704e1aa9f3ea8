"""What strangers do to an endpoint: each attack of benchmarks/attacks.py, as a function that plays it for a time.

Bounded in count, size and time, and against loopback only: `loopback` refuses every other address.
"""

import asyncio
import gzip
import itertools
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import orjson

from benchmarks.connections import abandon, dawdle, dawdle_reading, flood_frames
from benchmarks.load import closed_loop
from benchmarks.target import INFER, MP4, REFINE, VIDEO, Attack, Got, Target, loopback
from refiner.data.video import VideoWriter
from serve.codec import ARROW, BINARY, JSON, ArrowCodec, RefineRequest
from serve.codec.inference import HEADER_LENGTH
from serve.live import standing_poses

MOST_BYTES = 30_000_000  # of a body; the endpoint takes 32 MB


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that no client of ours would send."""

    path: str
    body: bytes
    headers: dict[str, str]


async def post(target: Target, requests: Iterable[Sent], seconds: float, *, callers: int, timeout_s: float = 60) -> Got:
    """Sends them over and over, so many at a time, for so many seconds, and each at least once."""
    got: Got = Counter()
    ready = list(requests)
    until = time.monotonic() + seconds
    todo = itertools.cycle(ready)
    async with httpx.AsyncClient(
        base_url=loopback(target.url), timeout=timeout_s, limits=httpx.Limits(max_connections=callers)
    ) as client:

        async def call() -> None:
            while True:
                request = next(todo)
                path = request.path.format(name=target.name)
                try:
                    answer = await client.post(path, content=request.body, headers=request.headers)
                    got[str(answer.status_code)] += 1
                except httpx.TimeoutException:
                    got["unanswered"] += 1
                except httpx.TransportError:
                    got["closed"] += 1
                if time.monotonic() > until and got.total() >= len(ready):
                    return
                await asyncio.sleep(0.01)

        await asyncio.gather(*(call() for _ in range(callers)))
    return got


def hostile_json() -> Iterator[Sent]:
    """Bodies that take long, or much memory, to be read as JSON."""
    size = MOST_BYTES
    poses = b'{"poses":%s}'
    row = orjson.dumps(standing_poses(1)[0].round(3).tolist())
    for body in (
        b"[" * size,
        poses % (b"[" * (size // 2) + b"]" * (size // 2)),
        poses % (b"[" + b"1," * (size // 2) + b"1]"),
        poses % (b"[" + b"[[]]," * (size // 5) + b"1]"),
        poses % (b"[" + b'"a",' * (size // 4) + b"1]"),
        poses % (b"[" + (row + b",") * (size // (len(row) + 1)) + row + b"]"),
        b"{" + b",".join(b'"%d":0' % number for number in range(size // 12)) + b"}",
        poses % (b"9" * (size // 2)),
        poses % (b'"' + b"a" * size + b'"'),
    ):
        yield Sent(REFINE, body[:MOST_BYTES], {"content-type": JSON})
        yield Sent(INFER, body[:MOST_BYTES], {"content-type": JSON})


def amplifying() -> Iterator[Sent]:
    """A few megabytes that ask for hundreds."""
    poses = standing_poses(16_000).astype("<f4")
    for outputs, binary in itertools.product(([{"name": "refined"}] * 80, [{"name": "refined"}] * 300), (False, True)):
        header = orjson.dumps(
            {
                "inputs": [
                    {
                        "name": "poses",
                        "datatype": "FP32",
                        "shape": list(poses.shape),
                        "parameters": {"binary_data_size": poses.nbytes},
                    }
                ],
                "outputs": outputs,
                "parameters": {"binary_data_output": binary, "output_datatype": "FP64"},
            }
        )
        yield Sent(INFER, header + poses.tobytes(), {"content-type": BINARY, HEADER_LENGTH: str(len(header))})


def bombs() -> Iterator[Sent]:
    """Small bodies that say they are compressed, and are large when they no longer are."""
    compressor = zlib.compressobj(9, wbits=31)
    zeros = bytes(10_000_000)
    once = b"".join([*(compressor.compress(zeros) for _ in range(50)), compressor.flush()])  # 500 MB
    spaces = gzip.compress(b'{"poses":' + b" " * 200_000_000 + b"1}", 6)
    for path, kind in ((REFINE, JSON), (REFINE, ARROW), (INFER, JSON), (VIDEO, MP4)):
        for encoding, body in (
            ("gzip", once),
            ("gzip", spaces),
            ("gzip, gzip", gzip.compress(once)),
            ("deflate", zlib.compress(zeros)),
            ("br", once),
            ("zstd", once),
            ("gzip", once[: len(once) // 2]),
            ("gzip", b"no gzip"),
        ):
            yield Sent(path, body, {"content-type": kind, "content-encoding": encoding})


def malformed(seed: int, count: int) -> Iterator[Sent]:
    """Mutations of good bodies in every form."""
    chance = random.Random(seed)
    poses = standing_poses(2)
    tensor = {"name": "poses", "datatype": "FP32", "shape": list(poses.shape)}
    header = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": poses.nbytes}}]})
    listed = {"inputs": [{**tensor, "data": poses.ravel().tolist()}], "outputs": [{"name": "refined"}], "id": "1"}
    seeds = [
        Sent(REFINE, orjson.dumps({"poses": poses.round(3).tolist(), "sequence": True, "fps": 30}), {"content-type": JSON}),
        Sent(REFINE, ArrowCodec().encode_request(RefineRequest(poses=poses, sequence=True, fps=30)), {"content-type": ARROW}),
        Sent(INFER, orjson.dumps(listed), {"content-type": JSON}),
        Sent(INFER, header + poses.tobytes(), {"content-type": BINARY, HEADER_LENGTH: str(len(header))}),
    ]  # fmt: skip
    strange = [b"null", b"true", b"-1", b"1e999", b"9" * 5000, b'"\xff"', b"[]", b"{}", b"[" * 72, b"NaN", b'"poses"']
    for number in range(count):
        request = seeds[number % len(seeds)]
        body = bytearray(request.body)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body) or 1)
            match chance.randrange(5):
                case 0:
                    body[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del body[at : at + chance.randint(1, 64)]
                case 2:
                    body[at:at] = chance.choice(strange)
                case 3:
                    body[at:at] = body[at : at + chance.randint(1, 64)]
                case _:
                    del body[at:]
        yield Sent(request.path, bytes(body), request.headers)


def playlists() -> Iterator[Sent]:
    """Bodies that name other files, or themselves."""
    names = [
        "upload.mp4",
        "/proc/self/fd/0",
        "/etc/passwd",
        "http://127.0.0.1:1/x.mp4",
        "subfile,,start,0,end,0,,:upload.mp4",
    ]
    for name in names:
        yield _upload(f"ffconcat version 1.0\nfile '{name}'\n".encode() * 2000)
        yield _upload(b"ffconcat version 1.0\n" + f"file {name}\nduration 1\n".encode() * 20_000)
        yield _upload(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n".encode() * 500)
        yield _upload(f'<?xml version="1.0"?><MPD><Period><BaseURL>{name}</BaseURL></Period></MPD>'.encode())
        yield _upload(f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 1 RTP/AVP 96\na=control:{name}\n".encode())


def huge_pictures(folder: Path) -> Iterator[Sent]:
    """Small files of large pictures, and many of them."""
    for number, (size, frames, fps) in enumerate((((8192, 8192), 2, 25), ((16, 16), 9000, 25), ((64, 64), 100, 1))):
        path = folder / f"{number}.mp4"
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        with VideoWriter(path, size, fps, preset="ultrafast") as writer:
            for _ in range(frames):
                writer.write(picture)
        yield _upload(path.read_bytes())
    side = 20_000
    compressor = zlib.compressobj(9)
    pixels = b"".join([*(compressor.compress(bytes(side + 1)) for _ in range(side)), compressor.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    yield _upload(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    picture = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02D\x01\x00;"
    yield _upload(b"GIF89a" + screen + picture)


def damaged(video: bytes, seed: int) -> Iterator[Sent]:
    """An honest video whose bits were exchanged, or whose end is missing."""
    chance = random.Random(seed)
    for _ in range(40):
        body = bytearray(video)
        for _ in range(chance.randint(1, 200)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        yield _upload(bytes(body))
    yield _upload(video[: len(video) // 2])
    yield _upload(b"")


def _upload(body: bytes) -> Sent:
    return Sent(VIDEO, body, {"content-type": MP4})


STRANGER = "127.0.0.2"  # loopback has millions of addresses


async def storm(target: Target, seconds: float, *, connections: int = 600) -> Got:
    """One stranger's callers, from an address of their own: more than there is room for, none of whom minds a refusal."""
    body = orjson.dumps({"poses": standing_poses(8).tolist()})
    outcome = await closed_loop(
        loopback(target.url) + REFINE,
        body,
        JSON,
        connections=connections,
        seconds=seconds,
        timeout_s=60,
        source=STRANGER,
    )
    return Counter({"closed" if status == 0 else str(status): count for status, count in outcome.statuses.items()})


async def large_pictures(target: Target, seconds: float) -> Got:
    with tempfile.TemporaryDirectory() as folder:
        return await post(target, list(huge_pictures(Path(folder))), seconds, callers=2, timeout_s=400)


# Name -> what it does. Each plays for so many seconds; what is under way then may still take its time.
ATTACKS: dict[str, Attack] = {
    "abandoned_uploads": abandon,
    "playlists": lambda target, seconds: post(target, playlists(), seconds, callers=2, timeout_s=120),
    "huge_pictures": large_pictures,
    "damaged_videos": lambda target, seconds: post(
        target, damaged(target.video, target.seed), seconds, callers=2, timeout_s=120
    ),
    "slow_bodies": dawdle,
    "slow_readers": dawdle_reading,
    "hostile_json": lambda target, seconds: post(target, hostile_json(), seconds, callers=4),
    "amplification": lambda target, seconds: post(target, amplifying(), seconds, callers=4),
    "malformed_bodies": lambda target, seconds: post(target, malformed(target.seed, 2000), seconds, callers=8),
    "gzip_bombs": lambda target, seconds: post(target, bombs(), seconds, callers=4),
    "frame_floods": flood_frames,
    "storm": storm,
}
