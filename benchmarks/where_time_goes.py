"""Where the time of a single pose goes: by process, and inside the replica by what it does.

    python -m benchmarks.where_time_goes

A closed loop keeps one replica busy; meanwhile the kernel's account of every process of the cluster is read, and py-spy
(`pip install py-spy`) samples the replica. Times are CPU time a request, in microseconds. The last line is one JSON object.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.load import Result, closed_loop
from benchmarks.serve import deploy, payload
from cluster.local import local_cluster
from cluster.running import Cluster
from refiner.command import log, parse
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve import codec

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
# Processes by a pattern in their command line; the first that fits.
PROCESSES = {
    "replica": "ServeReplica.*RefineEndpoint",
    "proxy": r"haproxy\.cfg",
    "proxy's manager": "HAProxyManager",
    "controller": "ServeController",
    "MLflow": "mlflow",
    "dashboard and its agents": "dashboard|runtime_env_agent",
    "GCS and raylet": "gcs_server|raylet",
    "other": "",
}
# What the replica does, by its stack: of the patterns that fit the frame nearest to the CPU the first counts.
PARTS = {
    "network": r"onnxruntime|refiner/model|refiner/inference/onnx",
    "refiner around the network": r"refiner/",
    "decoding": r"serve/codec.*decode|serve/codec/messages|orjson|serve/bodies|serve/intake|serve/decoding",
    "encoding": r"serve/codec",
    "metrics": r"serve/metrics|util/metrics|ray/_private/.*metric|serve/_private/metrics|record_.*metrics",
    "log": r"logging/__init__|serve/_private/logging_utils|ray/_private/ray_logging|ray_constants",
    "batcher": r"serve/batching",
    "routes and middlewares": r"serve/routes|serve/guard|serve/problems|serve/deployments|starlette/|fastapi/",
    "Serve around a request": r"ray/serve/",
    "HTTP server": r"uvicorn/|httptools|h11/",
    "event loop": r"asyncio/|uvloop|selectors",
    "rest": "",
}
# Where threads of a replica wait. py-spy takes some of them for busy, for they wait in C code that it does not know.
WAITING = r"threading\.py:\d+\)$|concurrent/futures/thread\.py:\d+\)$|Worker\.main_loop|PythonGCThread"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seconds: float = 20.0
    connections: int = 8
    rate_hz: int = 500
    """Samples of the replica's stack a second; each costs it some of its time."""
    native: bool = False
    """Whether py-spy looks into C code, too."""


def cpu_us(cluster: Cluster) -> dict[int, tuple[str, float]]:
    """CPU time so far of every process of the cluster, by its id, with what it is."""
    mark, times = cluster.mlflow_uri.encode(), {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or mark not in (entry / "environ").read_bytes():
                continue
            command = (entry / "cmdline").read_text().replace("\0", " ")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            kind = next(kind for kind, pattern in PROCESSES.items() if re.search(pattern, command))
            times[int(entry.name)] = kind, (int(fields[11]) + int(fields[12])) * TICK_US
    return times


def parts_of(samples: str) -> dict[str, float]:
    """Shares of py-spy's raw samples ("frame;frame;… count"), by what the frame nearest to the CPU that says something does."""
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        if re.search(WAITING, stack):
            continue
        for frame in reversed(stack.split(";")):
            part = next(part for part, pattern in PARTS.items() if re.search(pattern, frame))
            if part != "rest":
                break
        counts[part] += int(count)
    return {part: counts[part] / counts.total() for part in PARTS if counts[part]}


def sampled(process: int, options: Options, out: Path) -> subprocess.Popen:
    command = ["py-spy", "record", "--pid", str(process), "--duration", str(int(options.seconds)), "--format", "raw"]
    command += ["--rate", str(options.rate_hz), "--full-filenames", "--output", str(out)]
    command += ["--native"] if options.native else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def loaded(url: str, options: Options, seconds: float) -> Result:
    return asyncio.run(
        closed_loop(url, payload(1, "json"), codec.JSON, connections=options.connections, seconds=seconds, timeout_s=60)
    )


def main() -> None:
    options = parse(Options)
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = save_checkpoint(PoseAwareDepthRefiner(), scratch / "checkpoint")
        cluster = stack.enter_context(local_cluster(scratch / "cluster", usual_ports=False))
        os.environ.update(cluster.env)
        url = deploy(cluster, checkpoint, scratch)
        loaded(url, options, 3)
        log("by process …")
        before = cpu_us(cluster)
        own = os.times()
        outcome = loaded(url, options, options.seconds)
        own_us = sum(os.times()[:2]) - sum(own[:2])
        after = cpu_us(cluster)
        requests = len(outcome.latencies)
        spent: Counter[str] = Counter({"load generator": own_us * 1e6 / requests})
        for process, (kind, now) in after.items():
            spent[kind] += (now - before.get(process, (kind, 0.0))[1]) / requests
        log(json.dumps({kind: round(us) for kind, us in spent.most_common()}))
        log("inside the replica …")
        (replica,) = [process for process, (kind, _) in after.items() if kind == "replica"]
        samples = scratch / "samples"
        spy = sampled(replica, options, samples)
        watched: list[Result] = []
        load = threading.Thread(target=lambda: watched.append(loaded(url, options, options.seconds + 2)))
        load.start()
        spy.wait()
        load.join()
        shares = parts_of(samples.read_text())
    summary = {
        "requests_per_s": round(outcome.rate),
        "p50_ms": round(outcome.percentile_ms(50), 2),
        "requests_per_s_while_sampled": round(watched[0].rate),
        "cpu_us_per_request": {kind: round(us) for kind, us in spent.most_common()},
        "replica_us_per_request": {part: round(share * spent["replica"]) for part, share in shares.items()},
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
