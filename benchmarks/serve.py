"""The endpoint beside other servers: requests a second, latency at equal load, and clips.

    python -m benchmarks.serve

Every contender serves the same weights on the same machine in the same run; rounds alternate between them and medians
count, so that a busy moment hits all alike. LitServe and BentoML are wanted in `--python`'s environment (they are no
dependency of this project); who is missing is null. The last line is one JSON object.
"""

import asyncio
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import torch
import yaml

from benchmarks.load import Result, closed_loop, constant_rate
from cluster import supervisor
from cluster.local import local_cluster
from cluster.running import CHECKOUT, Cluster, free_ports
from refiner import DepthRefiner, registry
from refiner.command import launch, log
from refiner.inference import onnx
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve import codec
from serve.live import standing_poses

NAMES = ("ours", "uvicorn", "litserve", "bentoml", "mlflow")
CLIP, LONG_CLIP = 256, 4096
CONTENT_TYPES = {"json": codec.JSON, "arrow": codec.ARROW}
BATCHES = (1, 16, 64, CLIP)  # of the model alone: what batching single poses could gain at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    rounds: int = 3
    seconds: float = 3.0
    """Of one measurement."""
    connections: int = 8
    """Of the closed loop."""
    python: str = sys.executable
    """Interpreter that has litserve and bentoml."""


@dataclass
class Contender:
    url: str
    single: bytes
    clips: dict[tuple[str, int], bytes]  # (form, frames) -> body
    rps: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    near_p50: list[float] = field(default_factory=list)
    near_p99: list[float] = field(default_factory=list)
    near_rate: list[float] = field(default_factory=list)
    clip_rates: dict[tuple[str, int, int], list[float]] = field(default_factory=dict)  # form, frames, connections


def payload(count: int, form: str) -> bytes:
    poses, sequence = standing_poses(count), count > 1
    if form == "arrow":
        return codec.ArrowCodec().encode_request(codec.RefineRequest(poses=poses, sequence=sequence))
    if form == "mlflow":
        visibility = np.ones((count, 17), np.float32).tolist()
        return orjson.dumps(
            {"inputs": {"poses": poses.tolist(), "visibility": visibility}, "params": {"sequence": sequence}}
        )
    return orjson.dumps({"poses": poses.tolist(), "sequence": sequence})


@contextlib.contextmanager
def server(command: list[str], env: dict[str, str], url: str, body: bytes) -> Iterator[bool]:
    """Starts a contender and waits for its first answer; False if it cannot be had. Ends it with all its children."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=out, stderr=out, preexec_fn=supervisor.die_with_parent
        )
        try:
            deadline = time.monotonic() + 300  # LitServe and BentoML start processes of their own
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if (
                        httpx.post(url, content=body, headers={"content-type": codec.JSON}, timeout=30).status_code
                        == 200
                    ):
                        break
                time.sleep(0.5)
            else:
                out.seek(0)
                log(f"not measured: {' '.join(command)}\n{out.read().decode(errors='replace')[-800:]}")
                yield False
                return
            yield True
        finally:
            below = list(supervisor.processes_below(process.pid))
            supervisor.send(supervisor.signal.SIGKILL, [process.pid, *below])
            process.wait()


def measure(contender: Contender, body: bytes, kind: str, seconds: float, connections: int) -> Result:
    return asyncio.run(closed_loop(contender.url, body, kind, connections=connections, seconds=seconds, timeout_s=60))


def clips(form: str, binary: bool = False) -> dict[tuple[str, int], bytes]:
    """What a contender is sent: short clips as JSON, and all as Arrow where it takes that."""
    bodies = {("json", CLIP): payload(CLIP, form)}
    if binary:
        bodies |= {("arrow", frames): payload(frames, "arrow") for frames in (CLIP, LONG_CLIP)}
    return bodies


def at_rate(contender: Contender, rate: float, options: Options) -> Result:
    return asyncio.run(
        constant_rate(contender.url, contender.single, codec.JSON, rate=rate, seconds=options.seconds, timeout_s=60)
    )


def run(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = save_checkpoint(PoseAwareDepthRefiner(), scratch / "checkpoint")
        log("exporting to ONNX …")
        onnx.export(checkpoint)
        cluster = stack.enter_context(local_cluster(scratch / "cluster", usual_ports=False))
        os.environ.update(cluster.env)
        contenders = start_all(stack, options, cluster, checkpoint, scratch)
        alone = ModelAlone(checkpoint)
        for round_number in range(options.rounds):
            log(f"round {round_number + 1} of {options.rounds}")
            alone.measure()
            for contender in contenders.values():
                measure_throughput(contender, options)
        # equal load: half of what the slowest can do, and most of what this endpoint can
        load = 0.5 * min(statistics.median(contender.rps) for contender in contenders.values())
        near = 0.8 * statistics.median(contenders["ours"].rps)
        for _ in range(options.rounds):
            for contender in contenders.values():
                measure_latency(contender, load, near, options)
        echo = Contender(deploy(cluster, checkpoint, scratch, "benchmarks.echo:app"), b"", {})
        large = payload(LONG_CLIP, "arrow")
        transport = statistics.median(
            LONG_CLIP * measure(echo, large, codec.ARROW, options.seconds, 2).rate for _ in range(options.rounds)
        )
    return {
        **of_contenders(contenders, load, near),
        "clip_in_process_poses_per_s": round(statistics.median(alone.clips[CLIP])),
        "long_clip_in_process_poses_per_s": round(statistics.median(alone.clips[LONG_CLIP])),
        "transport_poses_per_s": round(transport),
        "model_poses_per_s": {f"{name}_{n}": round(statistics.median(v)) for (name, n), v in alone.batches.items()},
        "cores": len(os.sched_getaffinity(0)),
    }


def start_all(
    stack: contextlib.ExitStack, options: Options, cluster: Cluster, checkpoint: Path, scratch: Path
) -> dict[str, Contender]:
    """This endpoint and every other server that can be had; `stack` ends them."""
    contenders = {
        "ours": Contender(deploy(cluster, checkpoint, scratch), payload(1, "json"), clips("json", binary=True))
    }
    ports = dict(zip(NAMES[1:], free_ports([0] * 4), strict=True))
    for name in ("uvicorn", "litserve", "bentoml"):
        url = f"http://127.0.0.1:{ports[name]}/v1/refine"
        python = sys.executable if name == "uvicorn" else options.python
        command = [python, "-m", "benchmarks.contenders", name, str(ports[name]), str(checkpoint)]
        env = {"PYTHONPATH": str(CHECKOUT), "BENTOML_DO_NOT_TRACK": "true"}
        if stack.enter_context(server(command, env, url, payload(1, "json"))):
            contenders[name] = Contender(url, payload(1, "json"), clips("json", binary=name == "uvicorn"))
    example = standing_poses(1), np.ones((1, 17), np.float32)
    version = registry.register(checkpoint, registry.start_run("benchmark", {}), example=example, metrics={}, tags={})
    url = f"http://127.0.0.1:{ports['mlflow']}/invocations"
    command = [*(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1")]
    command += ["-h", "127.0.0.1", "-p", str(ports["mlflow"]), "-m", f"models:/{registry.NAME}/{version}"]
    if stack.enter_context(server(command, {"OMP_NUM_THREADS": "1"}, url, payload(1, "mlflow"))):
        contenders["mlflow"] = Contender(url, payload(1, "mlflow"), clips("mlflow"))
    return contenders


class ModelAlone:
    """Poses a second of the model in this process, every round's."""

    def __init__(self, checkpoint: Path) -> None:
        self._refiner = DepthRefiner(checkpoint, device="cpu")
        self._eager = DepthRefiner(checkpoint, device="cpu")
        self._refiner.network = onnx.OnnxNetwork(onnx.export(checkpoint))
        self.clips: dict[int, list[float]] = {CLIP: [], LONG_CLIP: []}
        self.batches: dict[tuple[str, int], list[float]] = {
            (name, n): [] for name in ("pytorch", "onnxruntime") for n in BATCHES
        }

    def measure(self) -> None:
        for n, rates in self.clips.items():
            poses = standing_poses(n)
            rates.append(n / seconds_of(lambda poses=poses: self._refiner.predict(poses, sequence=True)))
        for n in BATCHES:
            poses = standing_poses(n)
            for name, refiner in (("pytorch", self._eager), ("onnxruntime", self._refiner)):
                call = functools.partial(refiner.predict, poses)
                self.batches[name, n].append(n / seconds_of(call))


def measure_throughput(contender: Contender, options: Options) -> None:
    """Single poses and clips, as many as it answers."""
    single = measure(contender, contender.single, codec.JSON, options.seconds, options.connections)
    contender.rps.append(single.rate)
    for (form, frames), body in contender.clips.items():
        for connections in (1, 2):  # the second clip is on its way while the first is computed
            answered = measure(contender, body, CONTENT_TYPES[form], options.seconds, connections)
            contender.clip_rates.setdefault((form, frames, connections), []).append(frames * answered.rate)


def measure_latency(contender: Contender, load: float, near: float, options: Options) -> None:
    """Single poses at two rates, in requests a second."""
    answered = at_rate(contender, load, options)
    contender.p50.append(answered.percentile_ms(50))
    contender.p99.append(answered.percentile_ms(99))
    answered = at_rate(contender, near, options)
    contender.near_p50.append(answered.percentile_ms(50))
    contender.near_p99.append(answered.percentile_ms(99))
    contender.near_rate.append(answered.rate)


def of_contenders(contenders: Mapping[str, Contender], load: float, near: float) -> dict[str, Any]:
    """The medians over the rounds; None of a contender that could not be had."""

    def medians(attribute: str, digits: int) -> dict[str, float | None]:
        values = {name: getattr(contenders[name], attribute) if name in contenders else [] for name in NAMES}
        return {name: round(statistics.median(v), digits) if v else None for name, v in values.items()}

    clip_rates = {
        name: {key: round(statistics.median(values)) for key, values in contender.clip_rates.items()}
        for name, contender in contenders.items()
    }
    return {
        "single_rps": medians("rps", 0),
        "single_p50_ms": medians("p50", 2),
        "single_p99_ms": medians("p99", 2),
        "load_rps": round(load, 1),
        "near_capacity": {
            "load_rps": round(near, 1),
            "answered_rps": medians("near_rate", 0),
            "p50_ms": medians("near_p50", 2),
            "p99_ms": medians("near_p99", 2),
        },
        "clip_poses_per_s": {
            name: max(rate for (_, frames, _), rate in clip_rates[name].items() if frames == CLIP)
            if name in contenders
            else None
            for name in NAMES
        },
        "clips": {
            name: {f"{form}_{frames}_by_{connections}": rate for (form, frames, connections), rate in rates.items()}
            for name, rates in clip_rates.items()
        },
    }


def deploy(
    cluster: Cluster,
    checkpoint: Path,
    scratch: Path,
    import_path: str = "serve.app:app",
    *,
    replicas: int = 1,
    env: Mapping[str, str] | None = None,
) -> str:
    """This project's endpoint with so many replicas, otherwise as serve/config.yaml has it.

    Args:
        cluster: where.
        checkpoint: that is served.
        scratch: folder for the config.
        import_path: another application, whose first deployment is called as its module and "Endpoint".
        replicas: that share the cores.
        env: of the replicas.

    Returns:
        The URL of /v1/refine.
    """
    config = yaml.safe_load((CHECKOUT / "serve/config.yaml").read_text())
    (application,) = config["applications"]
    application["import_path"] = import_path
    application["args"] = {"model": str(checkpoint)}
    application["deployments"] = [d for d in application["deployments"] if d["name"] == "RefineEndpoint"]
    (deployment,) = application["deployments"]
    del deployment["autoscaling_config"]
    deployment["num_replicas"] = replicas
    deployment["ray_actor_options"]["num_cpus"] = 1 / replicas
    if import_path != "serve.app:app":
        deployment["name"] = f"{import_path.partition(':')[0].rpartition('.')[2].capitalize()}Endpoint"
        application["runtime_env"] = {"env_vars": {"PYTHONPATH": str(CHECKOUT), **(env or {})}}
    path = scratch / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    url = cluster.deploy(path, port=0)
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/info").json()["runtime"] != "onnxruntime" and time.monotonic() < deadline:
        time.sleep(0.5)
    return f"{url}/v1/refine"


def seconds_of(call, least_s: float = 0.5) -> float:
    """Median seconds of one call."""
    call()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < least_s or len(times) < 3:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


if __name__ == "__main__":
    launch(run, Options)
