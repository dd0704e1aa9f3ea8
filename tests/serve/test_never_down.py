"""What must not cost a request: a new champion, a bad one, a replica that dies, a registry that is away, a new config."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from benchmarks.load import Result, closed_loop
from cluster import servers
from cluster.running import CHECKOUT, HOST, Cluster, free_ports
from refiner import DepthRefiner, registry
from serve import codec
from serve.client import Client, Retries
from serve.live import LiveModel, standing_poses
from tests.waiting import PATIENCE_S, get, wait_for

pytestmark = pytest.mark.cluster
NAME = "models:/pose-depth-refiner"


class Load:
    """Clients that refine one pose after the other, and count what they get."""

    def __init__(self, url: str, answers: dict[str, np.ndarray]) -> None:
        self.url, self.answers = url, answers
        self.versions, self.failures = Counter(), []
        self.plain = Counter()  # statuses that a client without retries gets; 0 is a connection that broke
        self.stop = threading.Event()

    def run(self) -> None:
        with Client(self.url, retries=Retries(attempts=120)) as client:
            while not self.stop.is_set():
                try:
                    refined = client.refine(standing_poses(3))
                    version = refined.model["version"]
                    # the answer is that of the version which it names, to the last pose: no mixture
                    np.testing.assert_allclose(refined.poses, self.answers[version], atol=1e-5)
                    self.versions[version] += 1
                except BaseException as error:
                    self.failures.append(error)
                time.sleep(0.01)

    def run_plain(self) -> None:
        body = codec.JsonCodec().encode_request(codec.RefineRequest(poses=standing_poses(3)))
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post(f"{self.url}/v1/refine", content=body, headers={"content-type": codec.JSON})
                    self.plain[answer.status_code] += 1
                except httpx.TransportError:
                    self.plain[0] += 1
                time.sleep(0.01)


@contextmanager
def steady_load(url: str, versions: list[str]):
    answers = {v: DepthRefiner(f"{NAME}/{v}", device="cpu").predict(standing_poses(3)).poses for v in versions}
    load = Load(url, answers)
    clients = [threading.Thread(target=run) for run in (load.run, load.run, load.run, load.run_plain)]
    for thread in clients:
        thread.start()
    try:
        yield load
        wait_for(lambda: load.failures or sum(load.versions.values()) > 20)
    finally:
        load.stop.set()
        for thread in clients:
            thread.join()
    print(f"with retries: {sum(load.versions.values())}, all answered; without: {dict(load.plain)}")  # seen with -rP
    assert not load.failures, load.failures[:3]
    # nobody is told that it was their fault, and never with a defect's status
    assert set(load.plain) <= {200, 0, 429, 502, 503, 504}, load.plain


def info(url: str) -> dict:
    """What the endpoint says of itself; nothing while no replica is there to ask."""
    answer = get(f"{url}/info")
    return answer.json() if answer.status_code == 200 else {"model": {}}


def answered(load: Load, version: str) -> None:
    """Waits until that version has answered once more, to one of those who ask all the time."""
    before = load.versions[version]
    wait_for(lambda: load.failures or load.versions[version] > before)


def test_the_champion_is_changed_ten_times_under_load_and_no_request_fails(endpoint, register_model):
    versions = [registry.get_alias(registry.NAME, "champion"), register_model(1, onnx=True), register_model(2)]
    with steady_load(endpoint, versions) as load:
        for change in range(10):
            version = versions[(change + 1) % 3]
            registry.set_alias(registry.NAME, "champion", version)
            answered(load, version)
        registry.set_alias(registry.NAME, "champion", versions[0])
        answered(load, versions[0])


def test_a_bad_champion_is_refused_and_the_old_one_serves_on(endpoint, register_model):
    good, bad = (
        registry.get_alias(registry.NAME, "champion"),
        register_model(3, scale=1e38),
    )  # loads, and answers with infinity
    with steady_load(endpoint, [good]) as load:
        registry.set_alias(registry.NAME, "champion", bad)
        wait_for(lambda: info(endpoint).get("refused"))
        (refused,) = info(endpoint)["refused"]
        assert refused["version"] == bad and "finite" in refused["reason"]
        assert info(endpoint)["model"]["version"] == good
        wait_for(lambda: "pose_model_swaps" in (text := get(f"{endpoint}/metrics").text) and 'result="refused"' in text)
        registry.set_alias(registry.NAME, "champion", good)  # rolled back
        wait_for(lambda: info(endpoint).get("refused") == [])
    assert set(load.versions) == {good}


def replicas(token_path: Path) -> list[int]:
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and b"ServeReplica:pose-depth-refiner:RefineEndpoint" in (entry / "cmdline").read_bytes()
                and str(token_path.parent)
                in (entry / "maps").read_text() + " ".join(os.readlink(f) for f in (entry / "fd").iterdir())
            ):
                processes.append(int(entry.name))
        except OSError:
            continue
    return processes


@pytest.fixture
def deploy(cluster, endpoint, tmp_path) -> Iterator[Callable[[dict], None]]:
    """Deploys another config. Wherever a test ends, those after it meet the endpoint with its usual one."""

    def changed(config: dict) -> None:
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(config))
        cluster.deploy(path)

    yield changed
    cluster.deploy(CHECKOUT / "serve/config.yaml")


def usual() -> dict:
    """The usual config, to be changed."""
    return yaml.safe_load((CHECKOUT / "serve/config.yaml").read_text())


def test_a_replica_makes_no_way_for_other_processes_as_rays_workers_do(cluster, endpoint):
    niceness = {os.getpriority(os.PRIO_PROCESS, pid) for pid in replicas(cluster.token_path)}
    assert niceness == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_killed_replicas_and_new_configs_fail_no_request_of_a_client_that_retries(cluster, endpoint, deploy):
    champion = registry.get_alias(registry.NAME, "champion")
    two = usual()
    two["applications"][0]["deployments"][0]["autoscaling_config"]["min_replicas"] = 2
    with steady_load(endpoint, [champion]):
        deploy(two)  # scales up
        wait_for(lambda: len(replicas(cluster.token_path)) == 2)
        victim = replicas(cluster.token_path)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(alive := replicas(cluster.token_path)) == 2 and victim not in alive)
        deploy(usual())  # and down to one
        (last, *_) = replicas(cluster.token_path)
        os.kill(last, signal.SIGKILL)
        wait_for(lambda: set(replicas(cluster.token_path)) - {last})


def test_replicas_rise_with_the_load_and_fall_again(cluster, endpoint, deploy):
    quick = usual()  # the same, but with less patience than the file has
    quick["applications"][0]["deployments"][0]["autoscaling_config"].update(
        max_replicas=2, target_ongoing_requests=2, upscale_delay_s=1, downscale_delay_s=2
    )
    deploy(quick)
    wait_for(lambda: len(replicas(cluster.token_path)) == 1)  # those of the test before may still be leaving
    connections = 16
    body = codec.JsonCodec().encode_request(codec.RefineRequest(poses=standing_poses(8)))
    risen = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        enough = 100 * connections  # each of them is answered again and again, also by what came later

        def until(answered: Result) -> bool:
            return risen.is_set() and answered.statuses[200] > enough

        url = f"{endpoint}/v1/refine"
        load = closed_loop(url, body, codec.JSON, connections=connections, until=until, timeout_s=PATIENCE_S)
        answered = pool.submit(asyncio.run, load)
        try:
            wait_for(lambda: len(replicas(cluster.token_path)) == 2)
        finally:
            risen.set()
    statuses = answered.result().statuses
    # HAProxy is replaced when it learns of the replica. The old one answers each kept-alive connection's next request with
    # "Connection: close" (idle-close-on-response), so a client that reads it loses nothing but what was under way when the
    # replica left; one that retries does not notice that either
    assert set(statuses) <= {200, 0} and statuses[0] <= 3 < enough < statuses[200]
    wait_for(lambda: len(replicas(cluster.token_path)) == 1)


@contextmanager
def mlflow_server(state: Path, port: int):
    """An MLflow of its own, which stays away until it is wanted again: the cluster's would be back at once."""
    start = servers.mlflow_server(state, HOST, port)
    with open(start["log"], "ab") as log:
        server = subprocess.Popen(start["argv"], env=start["env"], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # as an out-of-memory killer does
        server.wait()


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_mlflow_is_killed_and_started_again_and_no_request_fails(
    cluster, endpoint, deploy, register_model, tmp_path, monkeypatch
):
    (port,) = free_ports([0])
    uri = f"http://127.0.0.1:{port}"
    here = usual()
    (application,) = here["applications"]
    application["runtime_env"] = {"env_vars": {"MLFLOW_TRACKING_URI": uri}}
    application["args"]["cache"] = str(tmp_path / "served")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        with mlflow_server(tmp_path, port):
            versions = [register_model(6), register_model(7)]
            registry.set_alias(registry.NAME, "champion", versions[0])
            run = registry.download(f"{NAME}@champion").run_id
            before = set(replicas(cluster.token_path))
            deploy(here)
            # a busy machine may have had several, which are replaced one after the other, and share version numbers with ours
            wait_for(lambda: not before & set(replicas(cluster.token_path)))
            wait_for(lambda: info(endpoint).get("run_id") == run)
            clients = ExitStack()
            load = clients.enter_context(steady_load(endpoint, versions))
        with clients:  # MLflow is gone now
            wait_for(lambda: info(endpoint).get("registry") == "unreachable")
            victims = set(replicas(cluster.token_path))  # a busy machine may have more than one
            assert victims
            for victim in victims:
                os.kill(victim, signal.SIGKILL)  # and the replica that comes has this disk only
            wait_for(lambda: (alive := set(replicas(cluster.token_path))) and not alive & victims)
            wait_for(lambda: info(endpoint).get("registry") == "unreachable")
            assert info(endpoint)["run_id"] == run
            with mlflow_server(tmp_path, port):
                wait_for(lambda: info(endpoint).get("registry") == "reachable")
                registry.set_alias(registry.NAME, "champion", versions[1])
                answered(load, versions[1])
    deploy(usual())
    wait_for(lambda: (now := info(endpoint)).get("run_id") not in (None, run) and now["registry"] == "reachable")


def mlflow_processes(cluster: Cluster) -> list[int]:
    """Those of the cluster's MLflow: the server and its worker, the parent first."""
    port = cluster.mlflow_uri.rpartition(":")[2]
    return sorted(
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and is_mlflow(entry, port)
    )


def is_mlflow(entry: Path, port: str) -> bool:
    try:
        command = (entry / "cmdline").read_text().split("\0")
    except OSError:
        return False
    return port in command and any("mlflow" in part for part in command)


@pytest.mark.parametrize("which", ["the server", "its worker", "all of it"])
def test_the_clusters_mlflow_is_killed_and_comes_back_and_no_request_fails(cluster, endpoint, register_model, which):
    before = mlflow_processes(cluster)
    victims = {"the server": before[:1], "its worker": before[-1:], "all of it": before}[which]
    assert len(before) > 1
    champion = registry.get_alias(registry.NAME, "champion")
    with steady_load(endpoint, [champion]) as load:
        for process in victims:
            os.kill(process, signal.SIGKILL)
        wait_for(lambda: not set(victims) & set(mlflow_processes(cluster)))
        counted = sum(load.versions.values())
        wait_for(lambda: (now := mlflow_processes(cluster)) and not set(now) & set(before))
        wait_for(lambda: answers(f"{cluster.mlflow_uri}/health"))
        wait_for(lambda: load.failures or sum(load.versions.values()) > counted + 20)
        wait_for(lambda: info(endpoint).get("registry") == "reachable")
    assert set(load.plain) == {200}, load.plain  # not even a client without retries noticed
    assert registry.get_alias(registry.NAME, "champion") == champion
    assert register_model(8) != champion  # and it takes new ones


def test_overload_is_answered_with_429_and_is_over_when_it_is_over(cluster, endpoint, deploy):
    alone = usual()
    deployment = alone["applications"][0]["deployments"][0]
    deployment["autoscaling_config"]["max_replicas"] = 1
    deploy(alone)
    wait_for(lambda: len(replicas(cluster.token_path)) == 1)  # those of the tests before go first
    body = codec.JsonCodec().encode_request(codec.RefineRequest(poses=standing_poses(8)))
    # eight times as many callers as are let in, none of whom minds a refusal
    callers = 8 * (deployment["max_ongoing_requests"] + deployment["max_queued_requests"])

    def until(result: Result) -> bool:
        return sum(result.statuses.values()) >= 8 * callers and result.statuses[200] >= callers

    url = f"{endpoint}/v1/refine"
    load = closed_loop(url, body, codec.JSON, connections=callers, until=until, timeout_s=PATIENCE_S)
    storm = asyncio.run(load)
    assert set(storm.statuses) <= {200, 429}
    assert storm.statuses[429] > storm.statuses[200]
    # Had all been let in, each would have waited for the answers to all of them.
    begins = np.subtract(storm.ends, storm.latencies)
    answers_meanwhile = np.arange(len(begins)) - np.searchsorted(storm.ends, begins)
    assert np.median(answers_meanwhile) < callers / 2
    with Client(endpoint) as client:
        client.refine(standing_poses(1))


def test_a_replica_starts_with_what_served_last_where_the_registry_offers_nothing_better(
    cluster, register_model, tmp_path, monkeypatch
):
    good, bad = register_model(4), register_model(5, scale=1e38)
    options = {
        "device": "cpu",
        "threads": 1,
        "poll_s": 0.2,
        "cache": tmp_path,
        "now": lambda: datetime(2026, 1, 1),
        "on_swap": lambda result: None,
    }
    registry.set_alias(registry.NAME, "candidate", good)
    first = LiveModel(f"{NAME}@candidate", **options)
    first.close()
    assert first.current.model["version"] == good

    registry.set_alias(registry.NAME, "candidate", bad)  # and a replica starts: what served last serves on
    second = LiveModel(f"{NAME}@candidate", **options)
    second.close()
    assert second.current.model["version"] == good and bad in second.refused
