"""What the servers of a cluster on this machine are started with: Ray's head, further nodes, MLflow. For `cluster.local`."""

import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import haproxy, node, quiet, tracking_server
from cluster.running import CHECKOUT, HOST, Cluster, free_ports, ray_env
from cluster.supervisor import Server
from refiner import telemetry
from refiner.command import logical_cpus

# What the poses of a demo need is far below this; Ray's own default, 30 % of the memory, fills a laptop.
OBJECT_STORE_BYTES = 2_000_000_000
# Ray Serve behind HAProxy, which hands requests straight to replicas (docs/decisions/serving.md).
SERVE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # the app on the replica's own event loop: 60 % more single poses a second
    # With that switch the log is written every 1,000 requests, which stops the replica for 30 ms.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "16",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Replicas count their requests. Otherwise HAProxy writes a line for each, which a process in Python takes apart.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "360",  # request_timeout_s of serve/config.yaml
    # Replicas say every second, not every ten, how busy they are: the autoscaler knows nothing else.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # One that died is replaced when three questions got no answer; every 10 s is Ray's, and 30 s of silence.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # HAProxy learns within a second that a replica leaves; Ray's 30 s are for load balancers in front of it.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # Serve takes messages of 2 GB over gRPC, whole, before anybody looks at them; `max_body_mb` of serve/config.yaml.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": "33000000",
    # Refining changes nothing, so a request whose replica died in mid-answer may go to the next one.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response",
}


def local(
    cluster: Cluster, state: Path, scratch: Path, ports: tuple[int, ...], gpus: int, nodes: int
) -> dict[str, Server]:
    """What the supervisor is to hold together.

    Args:
        cluster: the addresses.
        state: folder of the registry's database, the artifacts and the logs.
        scratch: folder of Ray's sockets.
        ports: of Ray's head, its dashboard, MLflow, Ray's client server, its autoscaler's monitor, and those of `serve_env`.
        gpus: that Ray is told of.
        nodes: of Ray.
    """
    gcs, dashboard, mlflow, client_server, monitor, *serve = ports
    cpus = cpus_of(nodes)
    environment = {
        **without_ray(os.environ),
        **ray_env(cluster.token_path),
        **serve_env(scratch, serve),
        "AUTOSCALER_METRIC_PORT": str(monitor),  # else the same one for every cluster on this machine
        "MLFLOW_TRACKING_URI": cluster.mlflow_uri,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # ten lines in each job's log
    }
    servers: dict[str, Server] = {
        "ray": {
            "argv": ray_command(scratch, gcs, dashboard, client_server, gpus, cpus),
            "env": environment,
            "log": str(state / "ray.log"),
            "restart": False,  # it holds everything else that runs here
        },
        "mlflow": mlflow_server(state, HOST, mlflow),
    }
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    for name in (f"node-{number}" for number in range(2, nodes + 1)):
        servers[name] = {
            "argv": node.command(node.Options(address=cluster.ray_address, cpus=cpus, temp_dir=scratch / name)),
            # A head listens some time before it says that it is there: Ray asks 20 times, with 2 s in between.
            "env": {**environment, "PYTHONPATH": path, "RAY_NUM_REDIS_GET_RETRIES": "150"},
            "log": str(state / f"{name}.log"),
            "restart": True,  # as another machine would take its place
        }
    return servers


def serve_env(scratch: Path, ports: Sequence[int]) -> dict[str, str]:
    """Ray Serve behind HAProxy, kept to this cluster: no other one on this machine gets its requests.

    Args:
        scratch: its files come below it.
        ports: of HAProxy's metrics, of its statistics, and of Ray's own proxy, over HTTP and gRPC, which answers while HAProxy
            knows of no replica.
    """
    metrics, stats, http, grpc = map(str, ports)
    replicas = _free_range()
    middle = replicas.start + len(replicas) // 2
    folder = scratch / "haproxy"
    folder.mkdir()
    return {
        **SERVE,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy.install(folder)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        # Ray's defaults are the same for every cluster, and its proxies share a port with whoever asks for it, too.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": grpc,
        "SERVE_SOCKET_REUSE_PORT_ENABLED": "0",
        # Whose replica ends leaves a port that another cluster's next one would take, while requests still go there.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(middle - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(middle),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(replicas.stop - 1),
    }


def _free_range() -> range:
    """Neighbouring ports of which nobody has one, any such; below those that the kernel hands out."""
    ranges = [range(first, first + 100) for first in range(20_000, 30_000, 100)]
    random.shuffle(ranges)
    return next((ports for ports in ranges if free_ports(list(ports)) == list(ports)), ranges[0])


def cpus_of(nodes: int) -> int:
    """CPUs that each of so many nodes on this machine is said to have."""
    return logical_cpus() if nodes == 1 else max(2, logical_cpus() // nodes)


def without_ray(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what points to another cluster."""
    return {name: value for name, value in environ.items() if name not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}


def ray_command(scratch: Path, gcs: int, dashboard: int, client_server: int, gpus: int, cpus: int) -> list[str]:
    """What starts Ray's head on these ports, with sockets and logs below `scratch`."""
    # A file, not the `ray` script: with this interpreter, however the environment was set up.
    return [
        *(sys.executable, quiet.__file__, "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address", HOST, "--port", str(gcs), "--temp-dir", str(scratch)),
        *("--include-dashboard", "true", "--dashboard-host", HOST, "--dashboard-port", str(dashboard)),
        # 0 is any free port; the fixed defaults would admit one cluster a machine only
        *("--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0"),
        *("--ray-client-server-port", str(client_server)),
        *(("--num-gpus", str(gpus)) if gpus else ()),
        *("--num-cpus", str(cpus), "--object-store-memory", str(OBJECT_STORE_BYTES)),
    ]


def mlflow_server(state: Path, host: str, port: int) -> Server:
    """An MLflow server with its database, its artifacts and its log in a folder; answers to that address only."""
    return {
        "argv": [
            *(sys.executable, "-P", tracking_server.__file__, str(state / "mlflow.db")),
            *("server", "--host", host, "--port", str(port), "--workers", "1"),
            *("--artifacts-destination", str(state / "artifacts")),
            *("--allowed-hosts", f"{host}:{port},localhost:{port}"),
        ],
        # its job runners (7 processes) serve GenAI features that nobody here uses
        "env": {**telemetry.OFF, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        "log": str(state / "mlflow.log"),
        "restart": True,  # what was registered lies in `state`, and who serves it has a copy
    }
