"""serve/config.gpu.yaml on a cluster that believes it has one GPU: what Ray schedules, with every number of the file."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from benchmarks.load import closed_loop
from cluster.local import CHECKOUT, Cluster, local_cluster
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve import codec
from serve.client import Client
from serve.live import standing_poses

pytestmark = pytest.mark.cluster

FRAMES = 256  # of a clip


def replicas(cluster: Cluster) -> list[dict]:
    """What Ray's state API says of the endpoint's replicas that live."""
    answer = httpx.get(
        f"{cluster.dashboard_url}/api/v0/actors?detail=1",
        headers={"Authorization": f"Bearer {cluster.token_path.read_text().strip()}"},
        timeout=30,
    ).raise_for_status()
    actors = answer.json()["data"]["result"]["result"]
    return [a for a in actors if "RefineEndpoint" in a["class_name"] and a["state"] == "ALIVE"]


def wait_for(condition, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.5)


def test_four_replicas_share_a_gpu_and_none_is_kept_when_nobody_asks(tmp_path):
    config = yaml.safe_load((CHECKOUT / "serve/config.gpu.yaml").read_text())
    (application,) = config["applications"]
    # There is no GPU to compute on. Ray reserves one all the same, and that is what is tried here.
    application["args"] = {"model": str(save_checkpoint(PoseAwareDepthRefiner(), tmp_path / "checkpoint"))}
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
        most = answered = 0
        with ThreadPoolExecutor(1) as pool:
            for _ in range(9):  # rounds of load, until the GPU is full and one longer
                full = most >= 4
                load = closed_loop(f"{url}/v1/refine", body, codec.ARROW, connections=connections, seconds=10)
                result = pool.submit(asyncio.run, load)
                while not result.done():
                    most = max(most, len(replicas(cluster)))
                    time.sleep(1)
                answered += result.result().statuses[200]
                if full:
                    break
        assert most == 4  # and not five: the GPU is full
        assert answered > 2 * connections
        wait_for(lambda: len(replicas(cluster)) == scaling["min_replicas"])

        scaling["min_replicas"] = 0  # the file's option
        path.write_text(yaml.safe_dump(config))
        cluster.deploy(path)
        wait_for(lambda: not replicas(cluster))
        start = time.monotonic()
        with Client(url) as client:
            assert len(client.refine(standing_poses(2)).poses) == 2
        print(f"the first request after none waited {time.monotonic() - start:.1f} s")
