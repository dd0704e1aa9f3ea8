"""A SIMULATION of extraction at AIST++'s scale: the real job and all 12,670 names, but nobody looks at a video.

    python -m benchmarks.extract_scale --names data/aistpp/video_list.txt

A cluster of several raylets on this machine runs `rayjobs.extract` as it is – plan, Ray Data, actors, their child
processes, one file per video, the second run – with a stand-in that sleeps a scaled time in place of decoding and
MediaPipe. So it measures scheduling and nothing else: what a video costs beside its work, how long workers are idle at
the end, what the driver holds in memory, and how long a run takes that finds all done. All workers, raylets and the
driver share this machine's few cores, which a real cluster's do not. The last line is JSON.
"""

import json
import os
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.extract_memory import resident_mib
from refiner.command import parse
from refiner.data.aistpp import Name
from refiner.estimators.mediapipe import MediaPipe

# Seconds of footage, as AIST++ has them: basic dances and the longer situations; drawn evenly in between.
SECONDS = {"BM": (7.0, 13.0), "other": (28.0, 48.0)}
FPS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    names: Path
    """The videos' names, one a line: AIST++'s video_list.txt."""
    limit: int | None = None
    """Only so many of them."""
    raylets: int = 4
    """Nodes of the simulated cluster."""
    actors_per_raylet: int = 3
    ms_per_frame: float = 20.0
    """What a frame is taken to cost on a real core."""
    faster: float = 150.0
    """The stand-in sleeps so many times shorter than the work would take."""


@contextmanager
def simulated_cluster(raylets: int, actors: int) -> Iterator[None]:
    """Raylets on this machine, each with CPUs for its actors and one to spare, and a connection to them."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": actors + 1, "include_dashboard": False})
    try:
        for _ in range(raylets - 1):
            nodes.add_node(num_cpus=actors + 1)
        checkout = str(Path(__file__).resolve().parents[1])
        ray.init(nodes.address, runtime_env={"env_vars": {"PYTHONPATH": checkout}}, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


def stand_ins(names: list[str], folder: Path, options: Options) -> float:
    """Makes a sparse file for each name, as many bytes as the stand-in takes microseconds; their sum in seconds."""
    rng = np.random.default_rng(0)
    total = 0
    folder.mkdir()
    for name in names:
        low, high = SECONDS["BM" if Name.parse(name).situation == "sBM" else "other"]
        work_s = rng.uniform(low, high) * FPS * options.ms_per_frame / 1000
        with open(folder / f"{name}.mp4", "wb") as file:
            total += file.truncate(round(1e6 * work_s / options.faster))
    return total / 1e6


def simulate(options: Options, names: list[str], root: Path) -> dict[str, float]:
    from rayjobs import extract
    from rayjobs.storage import list_videos

    work_s = stand_ins(names, root / "videos", options)
    workers = options.raylets * options.actors_per_raylet
    given = extract.Options(
        videos=str(root / "videos"), out=str(root / "out"), actors=workers, observe="benchmarks.stand_in:observe"
    )
    estimator = MediaPipe(given.model)
    with simulated_cluster(options.raylets, options.actors_per_raylet):
        started = time.perf_counter()
        rows = [
            {"video": v.where, "size": v.size, "out": f"{given.out}/{v.name}.parquet",
             "failure": f"{given.out}/failures/{v.name}.json", "failed": False}
            for v in list_videos(given.videos)
        ]  # fmt: skip
        todo = extract.plan(rows, estimator.info, 1, False)[2]
        planned_s = time.perf_counter() - started
        before, cpu_s = resident_mib(os.getpid()), time.process_time()
        done = [(time.perf_counter(), answer.values["seconds"]) for answer in extract.extracted(todo, estimator, given)]
        cpu_s = time.process_time() - cpu_s
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        resumed = time.perf_counter()
        again = extract.run(given)
        resumed_s = time.perf_counter() - resumed
    assert again.done_before == len(names), f"{again.done_before} of {len(names)} videos were done"
    # from the moment every worker is past its first video to the moment the first one has no more work
    start, end = done[workers - 1][0], done[-workers][0]
    steady = [at for at, _ in done if start < at <= end]
    slept = sum(seconds * max(0.0, min(at, end) - max(at - seconds, start)) / seconds for at, seconds in done)
    last = done[-1][0]
    tail_slept = sum(max(0.0, at - max(at - seconds, end)) for at, seconds in done if at > end)
    return {
        "videos": len(names),
        "workers": workers,
        "simulated_work_s": round(work_s, 1),
        "plan_s": round(planned_s, 2),
        "first_result_s": round(done[0][0] - started - planned_s, 1),
        "videos_per_s": round(len(steady) / (end - start), 1),
        "overhead_ms_per_video": round(1000 * (workers * (end - start) - slept) / len(steady), 1),
        "driver_cpu_ms_per_video": round(1000 * cpu_s / len(names), 1),
        "tail_s": round(last - end, 2),
        "idle_share_of_tail": round(1 - tail_slept / (workers * (last - end)), 3),
        "driver_mib_before": round(before),
        "driver_mib_peak": round(peak),
        "resume_s": round(resumed_s, 2),
    }


def main(options: Options) -> None:
    if "RAY_AUTH_TOKEN" not in os.environ:
        # Ray settles at its import whether it wants a token, and takes no second raylet where it keeps to loopback
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.extract_scale", *sys.argv[1:]], environment)
    names = options.names.read_text().split()[: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        figures = simulate(options, names, Path(folder))
    print("SIMULATION: scheduling only, the work is slept\n")
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):28} {value:>10,}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main(parse(Options))
