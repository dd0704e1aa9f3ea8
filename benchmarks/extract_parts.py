"""Where a frame's time goes, for each estimator, in one process alone: for benchmarks/extract.py."""

import tempfile
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from refiner.data import video
from refiner.estimators import named
from refiner.estimators.base import Estimator
from refiner.estimators.blazepose.estimator import BlazePose, answered
from refiner.estimators.isolation import Isolated
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import observe

FRAMES = 100  # held in memory, for what is timed without decoding


def where_the_time_goes(path: str, stock: Path, ways: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds a frame by way and part; the least of three.

    Args:
        path: a video.
        stock: MediaPipe's bundle with its segmentation.
        ways: options of `observe` by the name of the way.
    """
    model = str(model_path())
    frames, estimators = list(islice(video.frames(path), FRAMES)), dict[str, Estimator]()
    for frame in frames:
        _ = frame.rgb  # kept by the frame: MediaPipe's part holds no conversion, and blazepose never asks for it
    with tempfile.TemporaryDirectory() as out, Isolated("refiner.estimators.observe:observe", stall_s=120) as isolated:
        given = {"video": path, "out": f"{out}/a.parquet", "model": model, "stride": 1}
        isolated(lambda _: None, **given)  # its start is no part of a frame
        works: dict[str, Callable[[], int]] = {
            "decode": lambda: sum(1 for _ in video.frames(path)),
            "convert": lambda: sum(1 for frame in video.frames(path) if frame.rgb is not None),
            "stock": lambda: _watched(PoseEstimator(stock), frames),
            "isolated": lambda: isolated(lambda _: None, **given)["frames"],
        }
        for way, options in ways.items():
            chosen = {name: value for name, value in options.items() if name != "estimator"}
            estimator = estimators[way] = named(options.get("estimator", "mediapipe"), model, **chosen)
            works[f"{way} seeing"] = lambda estimator=estimator: _watched(estimator.open(), frames)
            works[f"{way} whole"] = lambda options=options: int(observe(**given, **options)["frames"])
        ms = least_of_three(works)
    table = {}
    for way, estimator in estimators.items():
        seeing, whole = ms[f"{way} seeing"], ms[f"{way} whole"]
        parts = {"decode": ms["decode"]}
        if isinstance(estimator, BlazePose):
            parts |= blazepose_parts(frames, estimator)
        else:
            parts |= {"convert to RGB": ms["convert"] - ms["decode"], "MediaPipe": seeing}
        table[way] = parts | {"rest (start, arrays, Parquet)": whole - sum(parts.values()), "whole": whole}
    table["mediapipe"] |= {
        "the child process that isolates it": ms["isolated"] - ms["mediapipe whole"],
        "(stock MediaPipe, with its segmentation)": ms["stock"],
    }
    return table


def blazepose_parts(frames: list[video.Frame], estimator: BlazePose) -> dict[str, float]:
    """Crop, network, and what becomes of its answer; the detector's share is in the crop's."""
    best: dict[str, float] = {}
    for _ in range(3):
        detect, look = estimator.networks
        tracker, clock = estimator.tracker(detect), [0.0, 0.0, 0.0]
        for frame in frames:
            times = [time.perf_counter()]
            pictures = tracker.pictures(frame)
            times.append(time.perf_counter())
            answers = answered(look, pictures)
            times.append(time.perf_counter())
            tracker.observed(answers)
            times.append(time.perf_counter())
            clock = [sum(pair) for pair in zip(clock, (b - a for a, b in pairwise(times)), strict=True)]
        names = ("crop from the planes, once the detector", "landmark network", "decoding it, filters")
        for name, seconds in zip(names, clock, strict=True):
            best[name] = min(best.get(name, float("inf")), 1000 * seconds / len(frames))
    return best


def least_of_three(works: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Milliseconds a frame of each, in turns: what the others on this machine did meanwhile is no part of it."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(3):
        for name, work in works.items():
            started = time.perf_counter()
            frames = work()
            times[name].append(1000 * (time.perf_counter() - started) / frames)
    return {name: min(each) for name, each in times.items()}


def _watched(watching: Any, frames: list[video.Frame]) -> int:
    with watching:
        for frame in frames:
            watching.estimate(frame)
    return len(frames)
