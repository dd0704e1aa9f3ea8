"""Grafana's dashboards as code: extraction, training, endpoint, cluster. Written to cluster/observability/dashboards.

    python -m cluster.dashboards

Grafana of compose.yaml reads them there; elsewhere they are imported. Their numbers are what every Ray node exports
(serve/metrics.py, rayjobs/metrics.py, Ray's own) and what cluster/observability/rules.yaml works out of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from cluster.running import CHECKOUT
from refiner.command import launch
from refiner.extras import require

FOLDER = CHECKOUT / "cluster" / "observability" / "dashboards"
SOURCE = "prometheus"  # uid of the data source


class Panel(NamedTuple):
    title: str
    unit: str
    """As Grafana has them: s, ms, reqps, percent, percentunit, short, bytes."""
    queries: Sequence[tuple[str, str]]
    """Expression and legend."""


_BATCHES = ("sum(rate(ray_pose_poses_per_batch_sum[5m]))", "sum(rate(ray_pose_poses_per_batch_count[5m]))")
_JOINTS = ("sum(rate(ray_pose_joints_total{confidence='low'}[5m]))", "sum(rate(ray_pose_joints_total[5m]))")
_UNDER_WAY = "sum by (deployment) (ray_serve_replica_processing_queries)"
_OTHER_WORK = "sum by (unit, state) (ray_pose_job_items{unit!='videos'})"
_DEPTH = ("max(ray_pose_train_figure{figure='train/depth'})", "max(ray_pose_train_figure{figure='val/depth_cm'})")
_FRAMES = "sum(rate(ray_pose_job_counts{unit='videos', what='frames'}[1m]))"

DASHBOARDS: dict[str, Sequence[Panel]] = {
    "extraction": (
        Panel("Videos", "short", [("sum by (state) (ray_pose_job_items{unit='videos'})", "{{state}}")]),
        Panel("Frames a second", "short", [(_FRAMES, "frames/s")]),
        Panel("Time left", "s", [("max(ray_pose_job_left_seconds{unit='videos'})", "left")]),
        Panel("Failures by reason", "short", [("sum by (reason) (ray_pose_job_failures{unit='videos'})", "{{reason}}")]),
        Panel("Cores in use", "percent", [("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}")]),
        Panel("Other work: sequences, parts", "short", [(_OTHER_WORK, "{{unit}} {{state}}")]),
    ),
    "training": (
        Panel("Depth error, cm", "short", [(_DEPTH[0], "train"), (_DEPTH[1], "validation")]),
        Panel("Pairs a second", "short", [("max(ray_pose_train_figure{figure='samples_per_s'})", "pairs/s")]),
        Panel("Epoch", "short", [("max(ray_pose_train_epoch)", "epoch")]),
        Panel("Seconds an epoch", "s", [("max(ray_pose_train_figure{figure='seconds'})", "seconds")]),
        Panel("Cores in use", "percent", [("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}")]),
        Panel("Memory", "bytes", [("sum by (instance) (ray_node_mem_used)", "{{instance}}")]),
    ),
    "endpoint": (
        Panel("Requests a second by route", "reqps", [("sum by (route) (pose:requests:rate5m)", "{{route}}")]),
        Panel("Errors", "percentunit", [("pose:errors:ratio5m", "{{application}}")]),
        Panel("p99 by route", "ms", [("pose:latency_ms:p99_5m", "{{route}}")]),
        Panel("p99 by stage", "s", [("pose:stage_seconds:p99_5m", "{{stage}}")]),
        Panel("Poses a second", "short", [("sum by (route) (rate(ray_pose_poses_total[5m]))", "{{route}}")]),
        Panel("Poses computed together", "short", [(" / ".join(_BATCHES), "mean")]),
        Panel("Under way in replicas", "short", [(_UNDER_WAY, "{{deployment}}")]),
        Panel("Replicas", "short", [("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}")]),
        Panel("Version that serves", "short", [("sum by (version) (ray_pose_model_version)", "{{version}}")]),
        Panel("Changes of the model", "short", [("sum by (result) (ray_pose_model_swaps_total)", "{{result}}")]),
        Panel("Joints whose depth is not trusted", "percentunit", [(" / ".join(_JOINTS), "low")]),
        Panel("Drift of what callers send (PSI)", "short", [("max by (inputs) (ray_pose_input_drift)", "{{inputs}}")]),
    ),
    "cluster": (
        Panel("Nodes that answer", "short", [("sum(up{job='ray'})", "nodes")]),
        Panel("Cores in use", "percent", [("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}")]),
        Panel("Memory in use", "percentunit", [("ray_node_mem_used / ray_node_mem_total", "{{instance}}")]),
        Panel("Disk in use", "percent", [("max by (instance) (ray_node_disk_utilization_percentage)", "{{instance}}")]),
        Panel("Object store", "bytes", [("sum by (Location) (ray_object_store_memory)", "{{Location}}")]),
        Panel("Actors by state", "short", [("sum by (State) (ray_actors)", "{{State}}")]),
        Panel("Tasks by state", "short", [("sum by (State) (ray_tasks)", "{{State}}")]),
        Panel("GPU", "percent", [("avg by (instance) (ray_node_gpus_utilization)", "{{instance}}")]),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    out: Annotated[Path, tyro.conf.Positional] = FOLDER
    """Folder of the JSON files."""


def queries() -> Iterator[str]:
    """Every expression of every panel."""
    return (expression for panels in DASHBOARDS.values() for panel in panels for expression, _ in panel.queries)


def rendered(name: str) -> str:
    """A dashboard as the JSON that Grafana reads."""
    require("dashboards", "grafana_foundation_sdk")
    from grafana_foundation_sdk.builders.dashboard import Dashboard
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    source = DataSourceRef(type_val="prometheus", uid=SOURCE)
    board = (
        Dashboard(f"Poses: {name}")
        .uid(f"pose-{name}")
        .tags(["pose-depth-refiner"])
        .refresh("30s")
        .time("now-3h", "now")
    )
    for panel in DASHBOARDS[name]:
        drawn = Timeseries().title(panel.title).unit(panel.unit).datasource(source).span(8).height(8)
        for expression, legend in panel.queries:
            drawn = drawn.with_target(Dataquery().expr(expression).legend_format(legend).datasource(source))
        board = board.with_panel(drawn)
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def run(options: Options) -> dict[str, int]:
    """Writes every dashboard as JSON into --out; hands back each one's number of panels."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (options.out / f"{name}.json").write_text(rendered(name))
    return {name: len(panels) for name, panels in DASHBOARDS.items()}


if __name__ == "__main__":
    launch(run, Options)
