"""What a load needs, from unit costs that were measured; and how Ray Serve's own autoscaling fares with a day of it.

    python -m benchmarks.scaling

Two parts, both arithmetic, none of them a measurement. The first turns the unit costs below, each from docs/benchmarks, into
cores, nodes and bytes. The second plays a day second by second – night, afternoon, bursts, a dead node – and asks the policy
code of the installed Ray, with the autoscaling_config of serve/config.yaml and with other values, how many replicas it wants.
Printed are the tables of docs/scaling.md; the last line is JSON.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import yaml

from cluster.running import CHECKOUT
from refiner.command import parse

# --- unit costs, with where they were measured
FRAME_S = 1 / 54.9  # core-seconds a frame, decoded to written (docs/benchmarks/extraction.md, rayjobs.extract)
DRIVER_S = 6.6e-3  # of the driver's one core a video (the same, "Scheduling at 12,670 videos")
AISTPP_VIDEOS, AISTPP_FRAMES = 12_670, 10_100_000
VIDEO_BYTES, OBSERVATION_BYTES = 6e6, 360  # AIST++'s 10M files; a frame's row, compressed
PAIR_BYTES = 300  # on disk, compressed
SINGLE_S = (
    1 / 1_217
)  # core-seconds of two cores with proxy and clients on them (docs/benchmarks/endpoint.md, single poses)
POSE_S = 1 / 5_764  # a pose of a clip of 256, Arrow
REPLICA_START_S = 6.0  # until a replica answers (serve/config.yaml)
CORES_A_NODE = 16
PER_REPLICA = 32  # max_ongoing_requests of serve/config.yaml
# With n requests under way a replica answers n / (n + HALF_BUSY) of what it can: 8 give two thirds (docs/decisions/serving.md).
HALF_BUSY = 4.0
FULL = PER_REPLICA / (PER_REPLICA + HALF_BUSY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seed: int = 0
    """Of the day's bursts."""
    peak: float = 1_500.0
    """Requests a second in the busiest minute, without bursts."""


class Need(NamedTuple):
    """What a load takes."""

    load: str
    cores: float
    nodes: int
    storage_tb: float
    binds: str
    """What would be full first."""


def extraction(what: str, videos: int, frames: int, hours: float) -> Need:
    """Cores that extract so much in so many hours; the driver hands out videos one by one."""
    cores = frames * FRAME_S / (hours * 3600)
    driver = videos * DRIVER_S / (hours * 3600)
    size = videos * VIDEO_BYTES + frames * (OBSERVATION_BYTES + PAIR_BYTES)
    binds = (
        f"the driver, {driver:.1f} of its one core" if driver > 0.7 else f"cores (the driver takes {driver:.0%} of one)"
    )
    return Need(what, cores, math.ceil(cores / CORES_A_NODE), size / 1e12, binds)


def serving(what: str, core_s: float, peak_factor: float, binds: str) -> Need:
    """Cores for a steady load of so many core-seconds a second, with room for its peak at 70 % use."""
    cores = core_s * peak_factor / 0.7
    return Need(what, cores, max(2, math.ceil(cores / CORES_A_NODE)), 0.0, binds)


def needs() -> list[Need]:
    day = 86_400
    return [
        extraction("AIST++ in an hour", AISTPP_VIDEOS, AISTPP_FRAMES, 1),
        extraction("AIST++ in ten minutes", AISTPP_VIDEOS, AISTPP_FRAMES, 1 / 6),
        extraction("a million videos of 10 s at 30 fps in a day", 1_000_000, 300_000_000, 24),
        extraction("a million videos in two hours", 1_000_000, 300_000_000, 2),
        serving(
            "a thousand live streams, 30 poses/s, 8 in a request", 30_000 * POSE_S + 3_750 * SINGLE_S, 1.0, "cores"
        ),
        serving(
            "ten million requests of one pose a day",
            1e7 / day * SINGLE_S,
            3.0,
            "nothing: two nodes, so that one may die",
        ),
    ]


# --- a day


def requests(options: Options) -> np.ndarray:
    """(86400,) requests that come in each second: little at night, most in the afternoon, and bursts of a few minutes."""
    rng = np.random.default_rng(options.seed)
    hour = np.arange(86_400) / 3600
    base = options.peak * (0.04 + 0.96 * np.clip(np.sin((hour - 6) / 16 * np.pi), 0, None) ** 2)
    for start in rng.uniform(7, 21, 12):
        length, height = rng.uniform(60, 400) / 3600, rng.uniform(1.5, 3.0)
        base = np.where((hour >= start) & (hour < start + length), base * height, base)
    return rng.poisson(base).astype(float)


class Day(NamedTuple):
    refused: float
    """Share of the requests that were answered with 429."""
    replica_hours: float
    most: int
    waited_s: float
    """Mean over the requests that were answered."""


def play(coming: np.ndarray, config: dict[str, Any], queue: int, dead_node: bool = True) -> Day:
    """A day with one autoscaling_config; time steps of a second, a replica answers 1 / SINGLE_S requests a second.

    Args:
        coming: requests in each second.
        config: `autoscaling_config` of a deployment.
        queue: max_ongoing_requests and max_queued_requests together bound what may wait: replicas · the first + the second.
        dead_node: at 14 h half of the replicas die.
    """
    from ray.serve import autoscaling_policy as policy
    from ray.serve.config import AutoscalingConfig

    scaling = AutoscalingConfig(**config)
    rate = 1 / SINGLE_S
    target, starting, running = scaling.min_replicas, [], scaling.min_replicas
    waiting, refused, answered, waited, hours, most = 0.0, 0.0, 0.0, 0.0, 0.0, running
    window = max(1, round(scaling.look_back_period_s))
    ongoing: list[float] = []
    state: dict[str, Any] = {}
    for second, new in enumerate(coming):
        running += sum(at <= second for at in starting)
        starting = [at for at in starting if at > second]
        if dead_node and second == 14 * 3600 and running > 1:
            starting += [second + REPLICA_START_S] * (running // 2)
            running -= running // 2
        room = queue + PER_REPLICA * running
        served = min(waiting + new, rate * running)
        left = waiting + new - served
        refused += max(0.0, left - room)
        waiting = min(left, room)
        answered += served
        waited += waiting
        use = min(served / (rate * running), FULL) if running else 0.0
        ongoing.append(waiting + running * HALF_BUSY * use / (1 - use))
        mean = float(np.mean(ongoing[-window:]))
        if running:
            wanted = running * mean / (scaling.get_target_ongoing_requests() * running)
            wanted = policy._apply_scaling_factors(wanted, running, scaling)
            wanted, state = policy._apply_delay_logic(wanted, target, scaling, state, float(second))
            wanted = min(max(wanted, scaling.min_replicas), scaling.max_replicas)
            up = wanted - running - len(starting)
            starting += [second + REPLICA_START_S] * max(0, up)
            running, target = min(running, wanted), wanted
        hours += (running + len(starting)) / 3600
        most = max(most, running)
    return Day(refused / coming.sum(), hours, most, waited / answered)


def candidates() -> dict[str, dict[str, Any]]:
    """The config that ships, Ray's defaults, and one value changed at a time; all may have 16 replicas."""
    content = yaml.safe_load((CHECKOUT / "serve/config.yaml").read_text())
    (deployment,) = (d for d in content["applications"][0]["deployments"] if d["name"] == "RefineEndpoint")
    ours = deployment["autoscaling_config"] | {"max_replicas": 16}
    changed = {
        "upscale_delay_s 30": {"upscale_delay_s": 30},
        "upscale_delay_s 1": {"upscale_delay_s": 1},
        "downscale_delay_s 10": {"downscale_delay_s": 10},
        "downscale_delay_s 600": {"downscale_delay_s": 600},
        "target_ongoing_requests 2": {"target_ongoing_requests": 2},
        "target_ongoing_requests 24": {"target_ongoing_requests": 24},
        "target_ongoing_requests 4": {"target_ongoing_requests": 4},
        "look_back_period_s 30": {"look_back_period_s": 30},
        "without downscaling_factor": {"downscaling_factor": None},
        "downscaling_factor 0.2": {"downscaling_factor": 0.2},
        "downscaling_factor 0.2, target 4": {"downscaling_factor": 0.2, "target_ongoing_requests": 4},
        "downscaling_factor 0.2, min_replicas 2": {"downscaling_factor": 0.2, "min_replicas": 2},
        "min_replicas 2": {"min_replicas": 2},
    }
    return {
        "serve/config.yaml": ours,
        "Ray's defaults": {"min_replicas": 1, "max_replicas": 16},
        **{name: ours | values for name, values in changed.items()},
    }


def main(options: Options) -> None:
    print("| load | cores | nodes of 16 | storage, TB | what binds first |\n| --- | ---: | ---: | ---: | --- |")
    for need in needs():
        print(f"| {need.load} | {need.cores:,.1f} | {need.nodes:,} | {need.storage_tb:.2f} | {need.binds} |")
    coming = requests(options)
    print(
        f"\n{coming.sum():,.0f} requests, {coming.max():,.0f} in the busiest second, half of the replicas die at 14 h:\n"
    )
    print("| autoscaling_config | refused | replica-hours | most replicas | mean wait, ms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    days = {name: play(coming, config, 64) for name, config in candidates().items()}
    for name, day in days.items():
        print(f"| {name} | {day.refused:.3%} | {day.replica_hours:.0f} | {day.most} | {1000 * day.waited_s:.1f} |")
    print(json.dumps({name: day._asdict() for name, day in days.items()}))


if __name__ == "__main__":
    main(parse(Options))
