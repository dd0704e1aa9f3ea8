"""Many replicas behind HAProxy beside one bare uvicorn with as many workers: requests a second, at 2, 4 and 8.

    python -m benchmarks.replicas

The model sleeps (benchmarks/sleeping.py), so that more replicas than cores can be tried; what is measured is how evenly and
at what cost requests reach them. Rounds alternate between the two and medians count. The last line is one JSON object.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.load import Result
from benchmarks.serve import Contender, deploy, measure, payload, server
from benchmarks.sleeping import SLEEP_MS
from cluster.local import local_cluster
from cluster.running import CHECKOUT, free_ports
from refiner.command import log, parse
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve import codec


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    replicas: tuple[int, ...] = (2, 4, 8)
    rounds: int = 3
    seconds: float = 5.0
    """Of one measurement."""
    sleep_ms: float = 20.0
    """What a request takes. Eight replicas then give 400 requests/s at most, a third of what two cores can pass on."""
    connections: int = 4
    """Of the closed loop, for each replica: enough that none waits for work."""


def main() -> None:
    options = parse(Options)
    torch.set_num_threads(1)
    rows = []
    os.environ[SLEEP_MS] = str(options.sleep_ms)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = save_checkpoint(PoseAwareDepthRefiner(), scratch / "checkpoint")
        cluster = stack.enter_context(local_cluster(scratch / "cluster", usual_ports=False))
        os.environ.update(cluster.env)
        for count in options.replicas:
            log(f"{count} replicas")
            rows.append(_beside(cluster, checkpoint, scratch, count, options))
    summary = {
        "sleep_ms": options.sleep_ms,
        "replicas": rows,
        "worst_ratio": min(row["ratio"] for row in rows),
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(summary))


def _beside(cluster, checkpoint: Path, scratch: Path, count: int, options: Options) -> dict[str, float]:
    """Both at one count of replicas."""
    env = {SLEEP_MS: str(options.sleep_ms), "PYTHONPATH": str(CHECKOUT)}
    url = deploy(cluster, checkpoint, scratch, "benchmarks.sleeping:app", replicas=count, env=env)
    (port,) = free_ports([0])
    command = [sys.executable, "-m", "benchmarks.sleeping", str(port), str(count)]
    bare_url, body = f"http://127.0.0.1:{port}/v1/refine", payload(1, "json")
    with server(command, env, bare_url, body) as started:
        if not started:
            raise SystemExit("error: bare uvicorn does not start; its output is above")
        contenders = {"ours": Contender(url, body, {}), "uvicorn": Contender(bare_url, body, {})}
        rates: dict[str, list[Result]] = {name: [] for name in contenders}
        for contender in contenders.values():  # every replica meets its first request outside the measurement
            measure(contender, body, codec.JSON, options.seconds, connections=count * options.connections)
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                connections = count * options.connections
                rates[name].append(measure(contender, body, codec.JSON, options.seconds, connections=connections))
    row: dict[str, float] = {"replicas": count, "most_rps": count * 1e3 / options.sleep_ms}
    for name, results in rates.items():
        row[f"{name}_rps"] = round(statistics.median(result.rate for result in results), 1)
        row[f"{name}_p99_ms"] = round(statistics.median(result.percentile_ms(99) for result in results), 1)
        row[f"{name}_failed"] = sum(n for result in results for status, n in result.statuses.items() if status != 200)
    row["ratio"] = round(row["ours_rps"] / row["uvicorn_rps"], 3)
    return row


if __name__ == "__main__":
    main()
