"""`refiner video` beside the plain loop that everybody writes, and its memory on long 4K videos.

    python -m benchmarks.video --video data/real_people/cam01.mp4
    python -m benchmarks.video --video data/real_people/cam01.mp4 --rounds 0 --memory-frames 100 400 800

Frames a second of whole commands, in turns, start and end included: OpenCV with stock MediaPipe, which writes nothing; and
`refiner video`, which refines, places the person in the room and writes Parquet and BVH. A short video is looped. Then the most
memory that the command takes for the same video at 3840 × 2160, by its length. The last line is JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.extract import looped
from refiner.command import log, parse
from refiner.data import video
from refiner.estimators.mediapipe_assets import assembled

UHD = (3840, 2160)
WAYS = {"refiner video": (), "refiner video, mediapipe": ("--estimator", "mediapipe")}
PLAIN = "plain loop"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    video: str
    """A video with a person; 1080p for figures that compare."""
    frames: int = 1000
    """It is looped to as many, if it is shorter."""
    rounds: int = 3
    """0 leaves the rates out."""
    memory_frames: tuple[int, ...] = ()
    """Lengths of 4K videos, for the memory."""


def command(path: Path, out: Path, *more: str) -> list[str]:
    arguments = ("--out", str(out), "--to", "bvh", "--force", "--json", *more)
    return [sys.executable, "-m", "refiner.cli", "video", str(path), *arguments]


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.perf_counter() - started


def most_memory(arguments: list[str]) -> float:
    """MiB that a process and its children held at most, each by itself."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return usage.ru_maxrss / 1024


def enlarged(source: Path, path: Path, frames: int) -> Path:
    """The first frames, again and again, at 4K."""
    import cv2

    pictures = [frame.rgb for frame in islice(video.frames(source), 30)]
    size = UHD if pictures[0].shape[1] >= pictures[0].shape[0] else UHD[::-1]
    with video.VideoWriter(path, size, 30, preset="ultrafast") as writer:
        for rgb in islice(cycle(pictures), frames):
            writer.write(cv2.resize(rgb, size))
    return path


def main(options: Options) -> None:
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.rounds:
            path = Path(looped(options.video, folder, options.frames))
            stock = folder / "stock.task"
            stock.write_bytes(assembled(segmentation=True))
            count, rates = video.probe(path).frames or 0, dict[str, list[float]]()
            for _ in range(options.rounds):
                commands = {PLAIN: [sys.executable, "-m", "benchmarks.plain_loop", str(path), str(stock)]}
                commands |= {way: command(path, folder / "out", *more) for way, more in WAYS.items()}
                for way, arguments in commands.items():
                    rates.setdefault(way, []).append(count / seconds(arguments))
            print(f"{'frames/s':28}{'median':>8}{'to plain':>10}   of {count} frames, each round")
            for way, each in rates.items():
                ratio = statistics.median(a / b for a, b in zip(each, rates[PLAIN], strict=True))
                print(f"{way:28}{statistics.median(each):8.1f}{ratio:10.2f}   {' '.join(f'{r:.1f}' for r in each)}")
                figures[way] = {"frames_per_s": round(statistics.median(each), 1), "to_plain_loop": round(ratio, 3)}
        memory = []
        for frames in options.memory_frames:
            path = enlarged(Path(options.video), folder / "4k.mp4", frames)
            memory.append(most_memory(command(path, folder / "out")))
            log(f"4K, {frames:,} frames: {memory[-1]:,.0f} MiB at most")
        if len(memory) > 1:
            slope, base = np.polyfit(options.memory_frames, memory, 1)
            figures["memory_4k"] = {"mib": [round(m) for m in memory], "kib_per_frame": round(1024 * slope, 2)}
            log(
                f"4K: {base:,.0f} MiB and {1024 * slope:.1f} KiB a frame; an hour at 30 fps: {base + 108_000 * slope:,.0f} MiB"
            )
    print(json.dumps(figures))


if __name__ == "__main__":
    main(parse(Options))
