"""Extraction's speed: the Ray job beside a bare process pool and the plain loop that everybody writes.

    python -m benchmarks.extract --videos data/real_people

All three look at the same videos with as many processes, one after the other, several rounds; medians. Rates are of the
steady state: from the moment every process has finished its first video to the moment the first one has no more work.
Then one process alone says where a frame's time goes. The last line is JSON.
"""

import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import av
import tyro
from av.video.reformatter import VideoReformatter

from rayjobs import extract
from rayjobs.launch import cores, ray_session
from rayjobs.storage import list_videos
from refiner import estimator, video
from refiner.observe import observe


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder or glob of videos, 1080p for figures that compare."""
    videos_per_process: int = 6
    """Videos that each process gets in a round; the folder's are taken again and again."""
    rounds: int = 3
    processes: int = 0
    """0: one per core."""


def plain_loop(path: str, model: str) -> int:
    """What everybody writes: OpenCV, one thread, stock MediaPipe."""
    import cv2
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    base = BaseOptions(model_asset_path=model)
    options = vision.PoseLandmarkerOptions(base_options=base, running_mode=vision.RunningMode.VIDEO)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    rate, count = capture.get(cv2.CAP_PROP_FPS), 0
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        while True:
            found, bgr = capture.read()
            if not found:
                return count
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            landmarker.detect_for_video(mediapipe.Image(mediapipe.ImageFormat.SRGB, rgb), round(1000 * count / rate))
            count += 1


def bare(path: str, model: str) -> int:
    """The job's own decoding and estimating, and nothing else."""
    with estimator.PoseEstimator(model) as pose:
        return sum(1 for _ in map(pose.estimate, video.frames(path)))


def steady_rate(results: Iterator[int], processes: int) -> float:
    """Frames per second, from the frames of each video as it is finished."""
    finished = [(time.perf_counter(), frames) for frames in results]
    window = finished[processes - 1 : len(finished) - processes + 1]
    return sum(frames for _, frames in window[1:]) / (window[-1][0] - window[0][0])


def pool_rate(work: Callable[[str, str], int], paths: list[str], model: str, processes: int) -> float:
    with multiprocessing.get_context("spawn").Pool(processes, _quiet) as pool:
        results = [pool.apply_async(work, (path, model)) for path in paths]
        return steady_rate(_as_done(results), processes)


def _quiet() -> None:
    """MediaPipe logs at every start; the table should be readable."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _as_done(results: list) -> Iterator[int]:
    while results:
        for done in [r for r in results if r.ready()]:
            results.remove(done)
            yield done.get()
        time.sleep(0.002)


def ray_rate(paths: list[str], model: Path, processes: int) -> float:
    with tempfile.TemporaryDirectory() as out:
        rows = [
            {"video": path, "size": 1, "out": f"{out}/{i}.parquet", "failure": f"{out}/{i}.json"}
            for i, path in enumerate(paths)
        ]
        options = extract.Options(videos="", out=out, actors=processes)
        return steady_rate((r["frames"] for r in extract.extracted(rows, model, options)), processes)


def where_the_time_goes(path: str, model: Path, stock: Path) -> dict[str, float]:
    """Milliseconds a frame, on this thread: each part is the difference between doing it and not doing it."""

    def timed(work: Callable[[], int]) -> float:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            frames = work()
            times.append(1000 * (time.perf_counter() - started) / frames)
        return min(times)  # what the others on this machine did is no part of it

    def decode(convert: bool) -> int:
        with av.open(path) as container:
            container.streams.video[0].codec_context.thread_count = 1
            reformatter, count = VideoReformatter(), 0
            for picture in container.decode(video=0):
                if convert:
                    video._rgb(reformatter, picture)
                count += 1
        return count

    frames = list(itertools.islice(video.frames(path), 100))

    def estimate(bundle: Path) -> int:
        with estimator.PoseEstimator(bundle) as pose:
            for frame in frames:
                pose.estimate(frame)
        return len(frames)

    with tempfile.TemporaryDirectory() as out:
        whole = timed(lambda: observe(video=path, out=f"{out}/a.parquet", model=str(model))["frames"])
    decoding, converting = timed(lambda: decode(False)), timed(lambda: decode(True))
    pruned, full = timed(lambda: estimate(model)), timed(lambda: estimate(stock))
    return {
        "decode": decoding,
        "convert to RGB": converting - decoding,
        "MediaPipe": pruned,
        "rest (start, arrays, Parquet)": whole - converting - pruned,
        "whole": whole,
        "(stock MediaPipe, with its segmentation)": full,
    }


def main(options: Options) -> None:
    processes = options.processes or cores()
    found = [v.where for v in list_videos(options.videos)]
    paths = list(itertools.islice(itertools.cycle(found), processes * options.videos_per_process))
    model = estimator.model_path()
    with tempfile.TemporaryDirectory() as folder, ray_session() if options.rounds else nullcontext():
        stock = Path(folder, "stock.task")
        stock.write_bytes(estimator.assembled(segmentation=True))
        rates: dict[str, list[float]] = {"ray": [], "pool": [], "plain": []}
        for _ in range(options.rounds):
            rates["ray"].append(ray_rate(paths, model, processes))
            rates["pool"].append(pool_rate(bare, paths, str(model), processes))
            rates["plain"].append(pool_rate(plain_loop, paths, str(stock), processes))
        parts = where_the_time_goes(found[0], model, stock)
    print(f"{processes} processes, {len(paths)} videos a round, {options.rounds} rounds; {os.cpu_count()} CPUs\n")
    print(f"{'frames/s, median':42} {'all':>8} {'per core':>9}")
    for name, title in (("ray", "rayjobs.extract"), ("pool", "bare pool"), ("plain", "plain loop, stock MediaPipe")):
        rate = statistics.median(rates[name])
        print(f"{title:42} {rate:8.1f} {rate / processes:9.1f}   {' '.join(f'{r:.1f}' for r in rates[name])}")
    print(f"\n{'ms a frame, one process alone':42} {Path(found[0]).name}")
    for name, value in parts.items():
        print(f"{name:42} {value:8.2f}")
    # of each round, since what else the machine did changes from round to round
    to_pool = statistics.median(a / b for a, b in zip(rates["ray"], rates["pool"], strict=True))
    to_plain = statistics.median(a / b for a, b in zip(rates["ray"], rates["plain"], strict=True))
    print(
        json.dumps(
            {
                "ratio_to_pool": round(to_pool, 3),
                "ratio_to_plain_loop": round(to_plain, 3),
                "frames_per_s": round(statistics.median(rates["ray"]), 1),
                "ms_per_frame": {name: round(value, 2) for name, value in parts.items()},
            }
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
