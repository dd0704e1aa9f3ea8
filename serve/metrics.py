"""What the endpoint tells Prometheus, through Ray's metrics: every replica's numbers reach its node's agent, and `/metrics`
hands out what this node's agent has, Serve's own (queues, replicas, requests) among it."""

import httpx
import numpy as np
import ray
from ray.util.metrics import Counter, Gauge, Histogram

from refiner.inference import Refinement

# From a fifth of a millisecond (decoding one pose) to the request timeout.
SECONDS = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60]
POSES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384]
# Hips to farthest joint: an upright person's is 0.8-0.9 m. Another distribution than in training is drift.
METRES = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0]
LOW_CONFIDENCE = 0.5


class Metrics:
    def __init__(self) -> None:
        self._poses = Counter("pose_poses", "Poses refined.", ("route",))
        self._seconds = Histogram("pose_stage_seconds", "Time by stage.", SECONDS, ("stage",))
        self._batch = Histogram("pose_poses_per_request", "Poses of one request.", POSES)
        self._joints = Counter("pose_joints", "Joints refined, by whether their depth is trusted.", ("confidence",))
        self._reach = Histogram("pose_input_reach_metres", "Mean distance from the hips to the farthest joint.", METRES)
        self._angle = Histogram(
            "pose_input_view_angle_degrees", "Mean view angle.", [float(a) for a in range(10, 91, 10)]
        )
        self._swaps = Counter("pose_model_swaps", "Changes of the model, by what came of them.", ("result",))
        self._version = Gauge("pose_model_version", "1 for the version that serves.", ("version",))
        self._shown = ""

    def refined(self, route: str, found: Refinement, stages: dict[str, float]) -> None:
        count = len(found.poses)
        self._poses.inc(count, {"route": route})
        self._batch.observe(count)
        for stage, seconds in stages.items():
            self._seconds.observe(seconds, {"stage": stage})
        low = int((found.confidence < LOW_CONFIDENCE).sum())
        if low:
            self._joints.inc(low, {"confidence": "low"})
        if low < found.confidence.size:
            self._joints.inc(found.confidence.size - low, {"confidence": "high"})
        self._reach.observe(float(np.sqrt((found.poses**2).sum(-1)).max(-1).mean()))
        self._angle.observe(float(found.view_angle.mean()))

    def swapped(self, result: str) -> None:
        self._swaps.inc(1, {"result": result})

    def serving(self, version: str) -> None:
        if version != self._shown:
            if self._shown:
                self._version.set(0, {"version": self._shown})
            self._version.set(1, {"version": version})
            self._shown = version


async def of_this_node() -> bytes:
    """What this node's Ray agent exports, in Prometheus' text format."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    async with httpx.AsyncClient(timeout=5) as client:
        answer = await client.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
    return answer.raise_for_status().content
