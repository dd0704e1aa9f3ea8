"""serve/config.gpu.yaml on a cluster that believes it has one GPU: what Ray schedules, with every number of the file."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from benchmarks.load import Result, closed_loop
from cluster.local import local_cluster
from cluster.running import CHECKOUT, Cluster
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve import codec
from serve.client import Client, Retries
from serve.live import standing_poses
from tests.checkpoints import on_pytorch
from tests.waiting import PATIENCE_S, get, wait_for

pytestmark = pytest.mark.cluster

FRAMES = 256  # of a clip


def ask(cluster: Cluster, path: str) -> dict:
    """What the cluster's dashboard answers."""
    headers = {"Authorization": f"Bearer {cluster.token_path.read_text().strip()}"}
    return get(f"{cluster.dashboard_url}{path}", headers=headers).raise_for_status().json()


def replicas(cluster: Cluster) -> list[dict]:
    """What Ray's state API says of the endpoint's replicas that live."""
    actors = ask(cluster, "/api/v0/actors?detail=1")["data"]["result"]["result"]
    return [a for a in actors if "RefineEndpoint" in a["class_name"] and a["state"] == "ALIVE"]


def wanted(cluster: Cluster) -> int:
    """How many replicas Serve would have."""
    (application,) = ask(cluster, "/api/serve/applications/")["applications"].values()
    return application["deployments"]["RefineEndpoint"]["target_num_replicas"]


def test_four_replicas_share_a_gpu_and_none_is_kept_when_nobody_asks(tmp_path):
    config = yaml.safe_load((CHECKOUT / "serve/config.gpu.yaml").read_text())
    (application,) = config["applications"]
    # There is no GPU to compute on. Ray reserves one all the same, and that is what is tried here.
    checkpoint = on_pytorch(save_checkpoint(PoseAwareDepthRefiner(), tmp_path / "checkpoint"))
    application["args"] = {"model": str(checkpoint)}
    endpoint = next(d for d in application["deployments"] if d["name"] == "RefineEndpoint")
    scaling = endpoint["autoscaling_config"]
    scaling.update(upscale_delay_s=1, downscale_delay_s=2)  # less patience than the file has
    assert scaling["max_replicas"] > 4 == 1 / endpoint["ray_actor_options"]["num_gpus"]
    path = tmp_path / "gpu.yaml"
    path.write_text(yaml.safe_dump(config))
    with local_cluster(tmp_path / "state", usual_ports=False, gpus=1) as cluster:
        url = cluster.deploy(path, port=0)
        (replica,) = replicas(cluster)
        assert replica["required_resources"] == {"CPU": 1.0, "GPU": 0.25}

        # Clips long enough that the replicas, not the proxy, are what they wait for: only there are they counted.
        body = codec.ArrowCodec().encode_request(codec.RefineRequest(poses=standing_poses(FRAMES)))
        # enough for more replicas than fit
        connections = scaling["target_ongoing_requests"] * (scaling["max_replicas"] - 1)
        seen = threading.Event()

        def until(result: Result) -> bool:
            return seen.is_set() and result.statuses[200] > 2 * connections

        load = closed_loop(
            f"{url}/v1/refine", body, codec.ARROW, connections=connections, until=until, timeout_s=PATIENCE_S
        )
        with ThreadPoolExecutor(1) as pool:
            answers = pool.submit(asyncio.run, load)
            try:
                # five are wanted, and more than four there are not: the GPU is full
                wait_for(lambda: wanted(cluster) > 4 and len(replicas(cluster)) >= 4, pause_s=1)
                assert len(replicas(cluster)) == 4
            finally:
                seen.set()
        assert answers.result().statuses[200] > 2 * connections
        wait_for(lambda: len(replicas(cluster)) == scaling["min_replicas"], pause_s=1)

        scaling["min_replicas"] = 0  # the file's option
        path.write_text(yaml.safe_dump(config))
        cluster.deploy(path)
        wait_for(lambda: not replicas(cluster), pause_s=1)
        with Client(url, retries=Retries(attempts=120)) as client:
            assert len(client.refine(standing_poses(2)).poses) == 2
