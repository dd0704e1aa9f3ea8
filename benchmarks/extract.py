"""Extraction's speed: the Ray job beside a bare process pool and the plain loop that everybody writes.

    python -m benchmarks.extract --videos data/real_people

All three look at the same videos with as many processes, one after the other, several rounds; medians. Short videos are
looped to a length that leaves start-up out. Rates are of the steady state: from the moment every process has finished its
first video to the moment the first one has no more work; a video at either end counts by its share. Then one process
alone says where a frame's time goes. The last line is JSON.
"""

import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from rayjobs import extract
from rayjobs.session import ray_session
from rayjobs.storage import list_videos
from refiner.command import cores, parse
from refiner.data import video
from refiner.estimators.isolation import Isolated
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import assembled, model_path
from refiner.estimators.observe import observe

TFLITE_ALONE = Path(__file__).with_name("tflite_alone.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder or glob of videos, 1080p for figures that compare."""
    frames: int = 500
    """Videos shorter than this are looped to at least as many frames."""
    videos_per_process: int = 3
    """Videos that each process gets in a round; the folder's are taken again and again."""
    rounds: int = 2
    processes: int = 0
    """0: one per core."""
    python: str | None = None
    """A Python that has ai-edge-litert: it times the two models without MediaPipe, the floor of a frame's time."""


@dataclass(frozen=True, slots=True)
class Done:
    """A video that one of the contenders has finished."""

    at: float  # on the benchmark's clock
    frames: int
    seconds: float  # of work


def looped(source: str, folder: Path, frames: int) -> str:
    """A video that shows `source` again and again, without encoding it anew; `source` itself if it is long enough."""
    count = video.probe(source).frames
    if count >= frames:
        return source
    path = folder / Path(source).name
    with av.open(source) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.dts is not None]
        length = sum(packet.duration for packet in packets)
        for turn in range(-(-frames // count)):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + turn * length, packet.dts + turn * length
                again.duration, again.time_base = packet.duration, packet.time_base
                again.is_keyframe, again.stream = packet.is_keyframe, target
                output.mux(again)
    return str(path)


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
    with PoseEstimator(model) as pose:
        return sum(1 for _ in map(pose.estimate, video.frames(path)))


def timed(work: Callable[[str, str], int], path: str, model: str) -> tuple[int, float]:
    """Frames and seconds of a video, in one of a pool's processes."""
    started = time.perf_counter()
    return work(path, model), time.perf_counter() - started


def steady_rate(finished: list[Done], processes: int) -> float:
    """Frames per second while every process was past its first video and none without work."""
    start, end = finished[processes - 1].at, finished[-processes].at

    def share(done: Done) -> float:
        return max(0.0, min(done.at, end) - max(done.at - done.seconds, start)) / done.seconds

    return sum(done.frames * share(done) for done in finished) / (end - start)


def pool_rate(work: Callable[[str, str], int], paths: list[str], model: str, processes: int) -> float:
    with multiprocessing.get_context("spawn").Pool(processes, _quiet) as pool:
        results = [pool.apply_async(timed, (work, path, model)) for path in paths]
        return steady_rate([Done(time.perf_counter(), *done) for done in _as_done(results)], processes)


def _quiet() -> None:
    """MediaPipe logs at every start; the table should be readable."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _as_done(results: list) -> Iterator[tuple[int, float]]:
    while results:
        for done in [r for r in results if r.ready()]:
            results.remove(done)
            yield done.get()
        time.sleep(0.01)


def ray_rate(paths: list[str], model: Path, processes: int) -> float:
    with tempfile.TemporaryDirectory() as out:
        rows = [
            {"video": path, "size": 1, "out": f"{out}/{i}.parquet", "failure": f"{out}/{i}.json"}
            for i, path in enumerate(paths)
        ]
        options = extract.Options(videos="", out=out, actors=processes)
        results = extract.extracted(rows, model, options)
        return steady_rate([Done(time.perf_counter(), r["frames"], r["seconds"]) for r in results], processes)


def where_the_time_goes(path: str, model: Path, stock: Path, python: str | None) -> dict[str, float]:
    """Milliseconds a frame, on this thread: each part is the difference between doing it and not doing it."""

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
        with PoseEstimator(bundle) as pose:
            for frame in frames:
                pose.estimate(frame)
        return len(frames)

    with tempfile.TemporaryDirectory() as out, Isolated("refiner.estimators.observe:observe", stall_s=120) as isolated:
        given = {"video": path, "out": f"{out}/a.parquet", "model": str(model), "stride": 1}
        isolated(lambda _: None, **given)  # its start is no part of a frame
        ms = least_of_three(
            {
                "decode": lambda: decode(False),
                "convert": lambda: decode(True),
                "pruned": lambda: estimate(model),
                "stock": lambda: estimate(stock),
                "whole": lambda: observe(**given)["frames"],
                "isolated": lambda: isolated(lambda _: None, **given)["frames"],
            }
        )
    parts = {"decode": ms["decode"], "convert to RGB": ms["convert"] - ms["decode"], "MediaPipe": ms["pruned"]}
    if python:
        done = subprocess.run([python, TFLITE_ALONE, model], stdout=subprocess.PIPE, check=True)
        alone = json.loads(done.stdout)
        landmarks = alone["pose_landmarks_detector.tflite"]
        detector = alone["pose_detector.tflite"] / len(frames)  # once, then the person is tracked
        parts["  of it the landmark model alone"] = landmarks
        parts["  of it the detector alone, once a video"] = detector
        parts["  of it the rest of MediaPipe"] = ms["pruned"] - landmarks - detector
    return parts | {
        "rest (start, arrays, Parquet)": ms["whole"] - ms["convert"] - ms["pruned"],
        "whole": ms["whole"],
        "the child process that isolates it": ms["isolated"] - ms["whole"],
        "(stock MediaPipe, with its segmentation)": ms["stock"],
    }


def least_of_three(works: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Milliseconds a frame of each, in turns: what the others on this machine did meanwhile is no part of it."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(3):
        for name, work in works.items():
            started = time.perf_counter()
            frames = work()
            times[name].append(1000 * (time.perf_counter() - started) / frames)
    return {name: min(each) for name, each in times.items()}


def main(options: Options) -> None:
    processes = options.processes or cores()
    model = model_path()
    with tempfile.TemporaryDirectory() as name, ray_session() if options.rounds else nullcontext():
        folder = Path(name)
        found = [looped(v.where, folder, options.frames) for v in list_videos(options.videos)]
        paths = list(itertools.islice(itertools.cycle(found), processes * options.videos_per_process))
        stock = folder / "stock.task"
        stock.write_bytes(assembled(segmentation=True))
        rates: dict[str, list[float]] = {"ray": [], "pool": [], "plain": []}
        for _ in range(options.rounds):
            rates["ray"].append(ray_rate(paths, model, processes))
            rates["pool"].append(pool_rate(bare, paths, str(model), processes))
            rates["plain"].append(pool_rate(plain_loop, paths, str(stock), processes))
        if options.rounds:
            report_rates(rates, processes, len(paths), video.probe(paths[0]).frames)
        parts = where_the_time_goes(found[0], model, stock, options.python)
    print(f"\n{'ms a frame, one process alone':42} {Path(found[0]).name}")
    for part, value in parts.items():
        print(f"{part:42} {value:8.2f}")
    figures = {"ms_per_frame": {part.strip(): round(value, 2) for part, value in parts.items()}}
    if options.rounds:  # ratios of each round, since what else the machine did changes from round to round
        figures = {
            "ratio_to_pool": round(_median_ratio(rates["ray"], rates["pool"]), 3),
            "ratio_to_plain_loop": round(_median_ratio(rates["ray"], rates["plain"]), 3),
            "frames_per_s": round(statistics.median(rates["ray"]), 1),
        } | figures
    print(json.dumps(figures))


def report_rates(rates: dict[str, list[float]], processes: int, videos: int, frames: int) -> None:
    rounds = len(rates["ray"])
    print(
        f"{processes} processes, {videos} videos of {frames} frames a round, {rounds} rounds; {os.cpu_count()} CPUs\n"
    )
    print(f"{'frames/s, median':42} {'all':>8} {'per core':>9}")
    for name, title in (("ray", "rayjobs.extract"), ("pool", "bare pool"), ("plain", "plain loop, stock MediaPipe")):
        rate = statistics.median(rates[name])
        print(f"{title:42} {rate:8.1f} {rate / processes:9.1f}   {' '.join(f'{r:.1f}' for r in rates[name])}")


def _median_ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main(parse(Options))
