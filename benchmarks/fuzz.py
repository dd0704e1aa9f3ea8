"""Videos and motion files with mutated bytes, time stamps and words: no crash, no hang, no wrong number of frames.

    python -m benchmarks.fuzz --seconds 600

Videos are read in a process of their own, so that one that dies is noticed. What is wrong ends the run with the smallest input
that shows it, in `--keep`. A short run is one of the tests.
"""

import itertools
import math
import multiprocessing
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from refiner import UserError
from refiner.command import launch, log
from refiner.data import video
from refiner.data.clock import rising
from refiner.data.containers import opened

W, H, FRAMES = 64, 48, 12
HANG_S = 120  # decoding twelve small pictures takes milliseconds
ROUND = 50  # examples of each kind before the clock is looked at
# Container -> codec; with B pictures where the codec has them.
CONTAINERS = {
    "mp4": "libx264", "mov": "mpeg4", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4", "mpg": "mpeg2video",
    "ts": "libx264", "flv": "libx264", "gif": "gif", "mxf": "mpeg2video",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seconds: float = 600
    """How long to go on."""
    seed: int = 0
    keep: Path = Path(tempfile.gettempdir(), "fuzz")
    """Folder for the inputs that show something wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    examples: dict[str, int]
    """Of each kind: how many were tried."""
    outcomes: dict[str, int]
    """How many were read whole, read with something missing, or refused with a sentence."""
    seconds: float


def run(options: Options) -> Summary:
    """Raises:
    Exception: whatever an input led to, after the smallest such input was written to `options.keep`.
    """
    options.keep.mkdir(parents=True, exist_ok=True)
    samples = {kind: _sample(options.keep / f"sample.{kind}", codec) for kind, codec in CONTAINERS.items()}
    examples, outcomes = Counter[str](), Counter[str]()
    started, number = time.monotonic(), options.seed
    with _Reader(options.keep) as reader:
        kinds: dict[str, Callable[[st.DataObject], str]] = {
            "header": lambda data: reader.read(*_mutated(data, samples)),
            "display": lambda data: reader.read("mp4", _turned(data, samples["mp4"])),
            "stamps": lambda data: reader.read(*_stamped(data, options.keep)),
            "clock": _clock,
            "bvh": lambda data: _motion(data, options.keep),
        }
        while time.monotonic() - started < options.seconds:
            for kind, look in kinds.items():
                _explore(look, number, examples, outcomes, kind)
            number += 1
            log(f"{time.monotonic() - started:.0f} s: {dict(examples)} {dict(outcomes)}")
    return Summary(examples=dict(examples), outcomes=dict(outcomes), seconds=time.monotonic() - started)


def _explore(
    look: Callable[[st.DataObject], str], number: int, examples: Counter[str], outcomes: Counter[str], kind: str
) -> None:
    @seed(number)
    @settings(max_examples=ROUND, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def once(data: st.DataObject) -> None:
        outcomes[look(data)] += 1
        examples[kind] += 1

    once()


class _Reader:
    """Reads videos in a process of its own, and compares with FFmpeg's plain decoding."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._pool._processes or {}).values():  # one that hangs would be waited for
            process.kill()
        self._pool.shutdown(cancel_futures=True)

    def read(self, suffix: str, content: bytes) -> str:
        path = self._folder / f"input.{suffix}"
        path.write_bytes(content)
        outcome, wrong = self._pool.submit(_read, path).result(HANG_S)
        assert not wrong, f"{path}: {wrong}"
        return outcome


def _read(path: Path) -> tuple[str, str]:
    """How a video was read, and what is wrong with that: '' if nothing."""
    said: list[str] = []
    times: list[int] = []
    refused = ""
    try:
        info = video.probe(path)
        assert info.width > 0 and info.height > 0 and math.isfinite(info.fps) and math.isfinite(info.duration_s)
        for frame in video.frames(path, say=said.append):
            times.append(frame.timestamp_us)
            if frame.rgb.shape != (frame.size[1], frame.size[0], 3):
                return "", f"picture {frame.index} is {frame.rgb.shape}, said to be {frame.size}"
    except UserError as error:
        refused = str(error)
    if "\n" in refused:
        return "", f"more than one sentence: {refused}"
    if any(b <= a for a, b in itertools.pairwise(times)):
        return "", f"time stands still or goes back: {times}"
    plain = _decodable(path)
    # a picture that can be decoded must come through, unless the whole file is refused before the first one
    if plain is not None and len(times) != plain and (times or not refused):
        return "", f"{len(times)} frames, FFmpeg decodes {plain} ({refused or said})"
    return ("refused" if refused else "in part" if said else "whole"), ""


def _decodable(path: Path) -> int | None:
    """How many pictures FFmpeg decodes of the same stream; None where it cannot open the file."""
    try:
        with opened(path) as source:
            index = source.stream.index
    except UserError:
        return None
    count = 0
    with path.open("rb") as file:
        try:
            with av.open(file, "r", metadata_errors="replace") as container:
                # several threads lose other pictures at a damaged place, by chance
                container.streams[index].codec_context.thread_count = 1
                for _ in range(1000):
                    with suppress(BlockingIOError):  # it is to be asked again
                        for packet in container.demux(container.streams[index]):
                            with suppress(FFmpegError):
                                count += len(packet.decode())
                        break
        except FFmpegError:
            pass
    return count


def _sample(path: Path, codec: str) -> bytes:
    """A small video, with B pictures where the codec has them, and sound beside it where the container is MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = W, H
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        if codec in ("libx264", "mpeg4", "mpeg2video"):
            stream.codec_context.max_b_frames = 2
        for i in range(FRAMES):
            picture = np.full((H, W, 3), 20 * i, dtype=np.uint8)
            picture[:, : 4 * i + 4] = 200
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def _mutated(data: st.DataObject, samples: dict[str, bytes]) -> tuple[str, bytes]:
    """A container of which bytes of the header, or anywhere, are changed, moved, doubled or cut off."""
    kind = data.draw(st.sampled_from(sorted(samples)))
    content = bytearray(samples[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        if len(content) < 8:
            break
        near = st.integers(0, min(len(content) - 1, 1500))  # where most headers are; MP4's is at the end
        at = data.draw(st.one_of(near, near.map(lambda n: len(content) - 1 - n), st.integers(0, len(content) - 1)))
        match data.draw(st.sampled_from(("byte", "number", "cut", "double", "end"))):
            case "byte":
                content[at] = data.draw(st.integers(0, 255))
            case "number":
                odd = st.sampled_from((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
                content[at : at + 4] = struct.pack(">I", data.draw(st.one_of(odd, st.integers(0, 2**32 - 1))))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 64))]
            case "double":
                content[at:at] = content[at : at + data.draw(st.integers(1, 512))]
            case _:
                del content[at:]
    return kind, bytes(content)


def _turned(data: st.DataObject, sample: bytes) -> bytes:
    """An MP4 with any display matrix."""
    at = sample.index(b"tkhd") + 4 + 40  # behind version, flags, times, id, duration, layer, volume
    assert struct.unpack(">I", sample[at : at + 4])[0] == 1 << 16
    numbers = st.one_of(
        st.sampled_from((0, 1 << 16, -(1 << 16), 1 << 30, -(1 << 31))), st.integers(-(1 << 31), 2**31 - 1)
    )
    matrix = data.draw(st.lists(numbers, min_size=9, max_size=9))
    return sample[:at] + struct.pack(">9i", *matrix) + sample[at + 36 :]


def _stamped(data: st.DataObject, folder: Path) -> tuple[str, bytes]:
    """The sample's packets with other stamps: late, early, negative, far apart, repeated, as the muxer takes them."""
    kind = data.draw(st.sampled_from(("mkv", "ts", "mp4", "avi", "flv")))
    start = data.draw(st.integers(-5_000, 1_000_000))
    steps = data.draw(
        st.lists(st.one_of(st.integers(0, 200), st.integers(0, 10_000_000)), min_size=FRAMES, max_size=FRAMES)
    )
    path = folder / f"stamped.{kind}"
    with av.open(str(folder / "sample.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        now = start
        for packet, step in zip((p for p in source.demux(video=0) if p.size), steps, strict=True):
            late = int((packet.pts - packet.dts) * packet.time_base * 1000)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.dts, packet.pts, packet.duration = now, now + late, 40
            now += step
            try:
                target.mux(packet)
            except (FFmpegError, OverflowError, ValueError):  # that one the muxer refuses
                continue
    return kind, path.read_bytes()


def _clock(data: st.DataObject) -> str:
    """Stamps of any kind: time rises, and no picture is lost."""
    stamp = st.one_of(st.none(), st.fractions(-10, 10), st.fractions(-(10**9), 10**9), st.sampled_from([Fraction(0)]))
    stamps = data.draw(st.lists(stamp, max_size=40))
    told = list(rising(enumerate(stamps), Fraction(1, 25)))
    assert [item for item, *_ in told] == list(range(len(stamps)))
    times = [us for _, us, _ in told]
    assert times[:1] in ([], [0]) and all(b > a for a, b in itertools.pairwise(times)), (stamps, times)
    return "whole"


def _motion(data: st.DataObject, folder: Path) -> str:
    """A BVH file of which words, numbers and lines are changed."""
    from studio.bvh import decoded, read_bvh
    from studio.mocap import keypoints

    text = _bvh(data.draw(st.sampled_from(("\n", "\r\n", "\r"))), data.draw(st.sampled_from(("  ", "\t", ""))))
    words = ("{", "}", "JOINT x\n{", "End Site", "ROOT", "1e999", "nan", "-", "MOTION", "Frames: 9", "Frame Time: -0.0", ",",
             "CHANNELS 3 Xrotation", "OFFSET 0 0", "\ufeff", "\x00", "1e-320")  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        put = data.draw(st.one_of(st.text(max_size=8), st.sampled_from(words)))
        text = text[:at] + put + text[at + data.draw(st.integers(0, 30)) :]
    content = text.encode(data.draw(st.sampled_from(("utf-8", "utf-16", "utf-8-sig"))), errors="replace")
    (folder / "input.bvh").write_bytes(content)
    try:
        capture = read_bvh(decoded(content), "input.bvh")
        assert len(capture.times) and np.isfinite(capture.world()[1]).all() and np.all(np.diff(capture.times) > 0)
        assert np.isfinite(keypoints(capture, "input.bvh")).all()
    except UserError as error:
        assert "input.bvh" in str(error) and "\n" not in str(error)
        return "refused"
    return "in part" if capture.notes else "whole"


def _bvh(line: str, indent: str) -> str:
    """A small person who lifts the arms, four frames."""
    lines, open_joints = ["HIERARCHY"], 0

    def joint(kind: str, name: str, offset: str, *children: tuple) -> None:
        nonlocal open_joints
        lines.append(indent * open_joints + f"{kind} {name}")
        lines.append(indent * open_joints + "{")
        open_joints += 1
        lines.append(indent * open_joints + f"OFFSET {offset}")
        if kind != "End":
            where = "Xposition Yposition Zposition " if kind == "ROOT" else ""
            lines.append(indent * open_joints + f"CHANNELS {6 if where else 3} {where}Zrotation Xrotation Yrotation")
        for child in children:
            joint(*child)
        open_joints -= 1
        lines.append(indent * open_joints + "}")

    def arm(side: str, x: int) -> tuple:
        hand = ("JOINT", f"{side}Hand", f"{25 * x}.0 0 0", ("End", "Site", f"{8 * x}.0 0 0"))
        return ("JOINT", f"{side}Arm", f"{18 * x}.0 0 0", ("JOINT", f"{side}ForeArm", f"{28 * x}.0 0 0", hand))

    def leg(side: str, x: int) -> tuple:
        foot = ("JOINT", f"{side}Foot", "0 -41.0 0", ("End", "Site", "0 -6.0 14.0"))
        return ("JOINT", f"{side}UpLeg", f"{9 * x}.0 -3.0 0", ("JOINT", f"{side}Leg", "0 -43.0 0", foot))

    head = ("JOINT", "Neck", "0 22.0 0", ("JOINT", "Head", "0 10.0 1.0", ("End", "Site", "0 18.0 0")))
    chest = ("JOINT", "Spine", "0 28.0 0", head, arm("Left", 1), arm("Right", -1))
    joint("ROOT", "Hips", "0 90.0 0", chest, leg("Left", 1), leg("Right", -1))
    width = 3 + 3 * sum(" JOINT" in f" {text.strip()}" or text.strip().startswith("ROOT") for text in lines)
    rows = [
        " ".join(["0.0", "90.0", "0.0"] + [f"{(7 * i + column) % 30}.5" for column in range(width - 3)])
        for i in range(4)
    ]
    return line.join([*lines, "MOTION", "Frames: 4", "Frame Time: 0.033333", *rows, ""])


if __name__ == "__main__":
    launch(run, Options)
