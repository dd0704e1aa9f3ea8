"""What the endpoint tells Prometheus, through Ray's metrics: every replica's numbers reach its node's agent, and `/metrics`
hands out what this node's agent has, Serve's own (queues, replicas, requests) among it.
"""

import asyncio
import logging
from collections.abc import Mapping
from itertools import groupby
from time import monotonic, perf_counter
from typing import Any

import httpx
import numpy as np
import ray
from ray.util.metrics import Counter, Gauge, Histogram
from starlette.exceptions import HTTPException

from refiner.inference import drift
from refiner.inference.depth_refiner import Refinement
from refiner.skeleton import NUM_JOINTS, root_centred, to_coco

logger = logging.getLogger("ray.serve")

# From a fifth of a millisecond (decoding one pose) to the request timeout.
SECONDS: list[float] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60]
POSES: list[float] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384]
LOW_CONFIDENCE = 0.5
# Counters are told once in this time: Ray's metrics take longer than decoding a pose.
TELL_S = 1.0
# Of one request at most so many poses, evenly spaced, enter the window that drift is judged by, or one clip would fill it.
WINDOW_POSES, WINDOW_SHARE = 2048, 64


class Window:
    """The last poses that came in, as they came. One thread writes and looks."""

    def __init__(self) -> None:
        # what is not in it yet: pose by pose it would take longer
        self._new: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._unseen = 0
        self._poses = np.zeros((WINDOW_POSES, NUM_JOINTS, 3), np.float32)
        self._visibility = np.ones((WINDOW_POSES, NUM_JOINTS), np.float32)
        self._count = 0
        self._judged: tuple[int, Mapping[str, Any], dict[str, float]] | None = None  # of so many, against what, and how

    def add(self, poses: np.ndarray, visibility: np.ndarray | None) -> None:
        """(N, 17 or 33, 3), (N, 17 or 33): poses that could be refined."""
        step = -(-len(poses) // WINDOW_SHARE)
        self._new.append((poses[::step], None if visibility is None else visibility[::step]))
        self._unseen += len(self._new[-1][0])
        if self._unseen >= WINDOW_SHARE:
            self._take()

    def _take(self) -> None:
        """Puts into the window what came since."""
        for _, alike in groupby(self._new, key=lambda new: (new[0].shape[1], new[1] is None)):
            some = list(alike)
            poses = to_coco(np.concatenate([poses for poses, _ in some]))
            rows = np.arange(self._count, self._count + len(poses)) % WINDOW_POSES
            self._poses[rows] = poses
            seen = [visibility for _, visibility in some if visibility is not None]
            # not given is fully visible, as the model takes it
            self._visibility[rows] = to_coco(np.concatenate(seen)[..., None])[..., 0] if seen else 1.0
            self._count += len(poses)
        self._new.clear()
        self._unseen = 0

    def drift(self, trained_on: Mapping[str, Any] | None) -> dict[str, float] | None:
        """PSI by group of features; None where the model carries no statistics, or too few poses came in."""
        self._take()
        count = min(self._count, WINDOW_POSES)
        if trained_on is None or count < drift.LEAST_POSES:
            return None
        # it takes milliseconds, and anybody may ask
        if self._judged is None or self._judged[0] != self._count or self._judged[1] is not trained_on:
            poses, visibility = root_centred(self._poses[:count].copy()), self._visibility[:count].copy()
            self._judged = self._count, trained_on, drift.drift(trained_on, poses, visibility)
        return self._judged[2]


class Metrics:
    def __init__(self) -> None:
        self.window = Window()
        self._poses = Counter("pose_poses", "Poses refined.", ("route",))
        self._seconds = Histogram("pose_stage_seconds", "Time by stage.", SECONDS, ("stage",))
        self._request = Histogram("pose_poses_per_request", "Poses of one request.", POSES)
        self._batch = Histogram("pose_poses_per_batch", "Poses of short requests that were computed together.", POSES)
        self._sent = Counter("pose_response_bytes", "Bytes of answers.", ("route",))
        self._joints = Counter("pose_joints", "Joints refined, by whether their depth is trusted.", ("confidence",))
        self._drift = Gauge(
            "pose_input_drift", "Population stability index of the inputs against the training set's.", ("inputs",)
        )
        self._swaps = Counter("pose_model_swaps", "Changes of the model, by what came of them.", ("result",))
        self._version = Gauge("pose_model_version", "1 for the version that serves.", ("version",))
        self._shown = ""
        self._untold: dict[tuple[Counter, str, str], int] = {}
        self._told = 0.0

    def refined(self, route: str, refinement: Refinement, stages: dict[str, float], sent: int) -> None:
        """A request's poses, the seconds of its stages, and the bytes of its answer."""
        count = len(refinement.poses)
        self._request.observe(count)
        for stage, seconds in stages.items():
            self._seconds.observe(seconds, {"stage": stage})
        low = int(np.count_nonzero(refinement.confidence < LOW_CONFIDENCE))
        for key, more in (
            ((self._poses, "route", route), count),
            ((self._sent, "route", route), sent),
            ((self._joints, "confidence", "low"), low),
            ((self._joints, "confidence", "high"), refinement.confidence.size - low),
        ):
            self._untold[key] = self._untold.get(key, 0) + more
        if perf_counter() - self._told > TELL_S:
            self.tell()

    def batched(self, poses: int) -> None:
        self._batch.observe(poses)

    def tell(self) -> None:
        """Hands on what was counted."""
        for (counter, tag, value), more in self._untold.items():
            if more:
                counter.inc(more, {tag: value})
        self._untold.clear()
        self._told = perf_counter()

    def drifted(self, indices: Mapping[str, float]) -> None:
        for name, index in indices.items():
            self._drift.set(index, {"inputs": name})

    def swapped(self, result: str) -> None:
        self._swaps.inc(1, {"result": result})

    def serving(self, version: str) -> None:
        """Told again and again: Ray forgets a gauge that was not set for 20 s."""
        if self._shown not in ("", version):
            self._version.set(0, {"version": self._shown})
        self._version.set(1, {"version": version})
        self._shown = version


class Statistics:
    """What this replica has answered, by version: for the Open Inference Protocol, whose clients ask the server itself.

    Fields and units are those of Triton's statistics extension: times in nanoseconds, summed.
    """

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, list[int]]] = {}  # version -> what -> [requests, ns]
        self._poses: dict[str, int] = {}
        self._last_ms: dict[str, int] = {}

    def succeeded(self, version: str, poses: int, stages: Mapping[str, float], now_s: float) -> None:
        """
        Args:
            version: that answered.
            poses: of the request.
            stages: seconds that it took to decode, refine and encode.
            now_s: Unix time.
        """
        for what, seconds in (
            ("success", sum(stages.values())),
            ("compute_input", stages["decode"]),
            ("compute_infer", stages["refine"]),
            ("compute_output", stages["encode"]),
        ):
            self._add(version, what, seconds)
        self._poses[version] = self._poses.get(version, 0) + poses
        self._last_ms[version] = int(now_s * 1e3)

    def failed(self, version: str, seconds: float) -> None:
        self._add(version, "fail", seconds)

    def of(self, model: Mapping[str, str]) -> dict[str, Any]:
        """In the form of the statistics extension."""
        version = model["version"]
        counted = self._versions.get(version, {})
        kinds = (
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        )
        return {
            **model,
            "last_inference": self._last_ms.get(version, 0),
            "inference_count": self._poses.get(version, 0),
            "execution_count": counted.get("success", (0, 0))[0],
            "inference_stats": {
                kind: dict(zip(("count", "ns"), counted.get(kind, (0, 0)), strict=True)) for kind in kinds
            },
            "batch_stats": [],
        }

    def _add(self, version: str, what: str, seconds: float) -> None:
        counted = self._versions.setdefault(version, {}).setdefault(what, [0, 0])
        counted[0] += 1
        counted[1] += int(seconds * 1e9)


class NodeMetrics:
    """What this node's Ray agent exports, in Prometheus' text format. Anybody may ask, as often as they like, so the agent is
    asked once a second at most. Belongs to one event loop.
    """

    def __init__(self) -> None:
        # (plain HTTP: reading certificates would take 50 ms of the event loop)
        self._agent = httpx.AsyncClient(timeout=5, verify=False, trust_env=False)
        self._text, self._told = b"", -TELL_S
        self._asking: asyncio.Task[None] | None = None

    async def text(self) -> bytes:
        """
        Raises:
            HTTPException: 503, the agent does not answer.
        """
        if monotonic() - self._told > TELL_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)
        return self._text

    async def _ask(self) -> None:
        try:
            answer = await self._agent.get(await asyncio.to_thread(_agent_url))
            self._text, self._told = answer.raise_for_status().content, monotonic()
        except httpx.HTTPError as error:
            logger.error("this node's metrics cannot be read: %r", error)
            raise HTTPException(503, "this node's metrics cannot be read now: try again in a second") from None


def _agent_url() -> str:
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
