"""Extraction's speed: the Ray job beside a bare process pool and the plain loop that everybody writes.

    python -m benchmarks.extract --videos data/real_people

For MediaPipe, and for blazepose with one and two looks, in float32 and in bfloat16 where the CPU has it. All look at the
same videos with as many processes, one after the other, several rounds; medians. Short videos are looped to a length that
leaves start-up out. Rates are of the steady state: from the moment every process has finished its
first video to the moment the first one has no more work; a video at either end counts by its share. Then one process
alone says where a frame's time goes. The last line is JSON.
"""

import functools
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
from typing import Any

import av

from benchmarks.extract_parts import where_the_time_goes
from benchmarks.plain_loop import plain_loop
from rayjobs import extract
from rayjobs.session import ray_session
from rayjobs.storage import list_videos
from refiner.command import cores, log, parse
from refiner.data import video
from refiner.errors import UserError
from refiner.estimators import named
from refiner.estimators.base import VideoEstimator
from refiner.estimators.mediapipe_assets import assembled, model_path

PLAIN = "plain loop, stock MediaPipe"
# What is measured: options of the job by name. The keys of the JSON line begin with it.
WAYS: dict[str, dict[str, Any]] = {
    "mediapipe": {},
    "blazepose": {"estimator": "blazepose"},
    "blazepose_two_looks": {"estimator": "blazepose", "looks": 2},
    "blazepose_bf16": {"estimator": "blazepose-bf16"},
    "blazepose_bf16_two_looks": {"estimator": "blazepose-bf16", "looks": 2},
}
AISTPP_FRAMES = 10.1e6  # of its 12,670 videos


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


def opened(model: str, way: str) -> VideoEstimator:
    options = {"name": "mediapipe", **WAYS[way]}
    options["name"] = options.pop("estimator", options["name"])
    return named(model=model, **options).open()


def runs_here(way: str) -> bool:
    """What cannot run on this machine is a sentence."""
    try:
        with opened(str(model_path()), way):
            return True
    except UserError as error:
        log(f"{way}: {error}")
        return False


def _bare(path: str, model: str, way: str) -> int:
    """The job's own decoding and estimating, and nothing else."""
    with opened(model, way) as watching:
        return sum(1 for _ in map(watching.estimate, video.frames(path)))


BARE = {way: functools.partial(_bare, way=way) for way in WAYS}


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
        pending = [pool.apply_async(timed, (work, path, model)) for path in paths]
        return steady_rate([Done(time.perf_counter(), *done) for done in _as_done(pending)], processes)


def _quiet() -> None:
    """MediaPipe logs at every start; the table should be readable."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _as_done(pending: list) -> Iterator[tuple[int, float]]:
    while pending:
        for done in [r for r in pending if r.ready()]:
            pending.remove(done)
            yield done.get()
        time.sleep(0.01)


def ray_rate(paths: list[str], processes: int, options: dict[str, Any]) -> float:
    with tempfile.TemporaryDirectory() as out:
        rows = [
            {"video": path, "size": 1, "out": f"{out}/{i}.parquet", "failure": f"{out}/{i}.json"}
            for i, path in enumerate(paths)
        ]
        given = extract.Options(videos="", out=out, actors=processes, **options)
        answers = extract.extracted(rows, named(given.estimator), given)
        return steady_rate(
            [Done(time.perf_counter(), a.values["frames"], a.values["seconds"]) for a in answers], processes
        )


def main(options: Options) -> None:
    processes, here = options.processes or cores(), {way: given for way, given in WAYS.items() if runs_here(way)}
    with tempfile.TemporaryDirectory() as name, ray_session() if options.rounds else nullcontext():
        folder = Path(name)
        loops = [looped(v.where, folder, options.frames) for v in list_videos(options.videos)]
        paths = list(itertools.islice(itertools.cycle(loops), processes * options.videos_per_process))
        stock = folder / "stock.task"
        stock.write_bytes(assembled(segmentation=True))
        rates: dict[str, list[float]] = {name: [] for name in (*here, *(f"{way} bare" for way in here), PLAIN)}
        for _ in range(options.rounds):
            rates[PLAIN].append(pool_rate(plain_loop, paths, str(stock), processes))
            for way, given in here.items():
                rates[way].append(ray_rate(paths, processes, given))
                rates[f"{way} bare"].append(pool_rate(BARE[way], paths, str(model_path()), processes))
        if options.rounds:
            report_rates(rates, processes, len(paths), video.probe(paths[0]).frames)
        ways = where_the_time_goes(loops[0], stock, here)
    for way, parts in ways.items():
        print(f"\n{f'{way}: ms a frame, one process alone':42} {Path(loops[0]).name}")
        for part, value in parts.items():
            print(f"{part:42} {value:8.2f}")
    figures = {
        "ms_per_frame": {
            way: {part.strip(): round(value, 2) for part, value in parts.items()} for way, parts in ways.items()
        }
    }
    if options.rounds:
        figures = ratios(rates, processes) | figures
    print(json.dumps(figures))


def ratios(rates: dict[str, list[float]], processes: int) -> dict[str, Any]:
    """Of each round, since what else the machine did changes from round to round; their medians."""
    figures: dict[str, Any] = {}
    for way in [way for way in WAYS if way in rates]:
        prefix = "" if way == "mediapipe" else f"{way}_"
        per_core = statistics.median(rates[way]) / processes
        figures |= {
            f"{prefix}ratio_to_pool": round(_median_ratio(rates[way], rates[f"{way} bare"]), 3),
            f"{prefix}ratio_to_plain_loop": round(_median_ratio(rates[way], rates[PLAIN]), 3),
            f"{prefix}frames_per_s": round(per_core * processes, 1),
            f"{prefix}core_hours_of_aistpp": round(AISTPP_FRAMES / per_core / 3600, 1),
        }
    return figures


def report_rates(rates: dict[str, list[float]], processes: int, videos: int, frames: int | None) -> None:
    rounds = len(rates[PLAIN])
    print(
        f"{processes} processes, {videos} videos of {frames} frames a round, {rounds} rounds; {os.cpu_count()} CPUs\n"
    )
    print(f"{'frames/s, median':42} {'all':>8} {'per core':>9} {'AIST++, core-hours':>20}")
    for name, each in rates.items():
        rate = statistics.median(each)
        hours = AISTPP_FRAMES * processes / rate / 3600
        title = name if name == PLAIN or name.endswith("bare") else f"rayjobs.extract, {name}"
        print(f"{title:42} {rate:8.1f} {rate / processes:9.1f} {hours:20.0f}   {' '.join(f'{r:.1f}' for r in each)}")


def _median_ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main(parse(Options))
