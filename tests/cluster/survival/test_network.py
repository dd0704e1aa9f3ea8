"""Nodes, heads and cables that fail, on a cluster whose nodes are hosts of their own. `make cluster-test`."""

import json
import secrets
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from cluster.network import HERE, Network, available, network
from cluster.running import CHECKOUT, free_ports
from refiner import DepthRefiner, files
from refiner.inference.depth_refiner import SHIPPED
from serve.client import Client, Retries
from serve.live import standing_poses
from tests import jobs
from tests.survival import FRAMES, VIDEOS, extracted_rows, make_videos
from tests.waiting import answers, get, wait_for

SERVE = 8000

pytestmark = [
    pytest.mark.survival,
    pytest.mark.skipif(not available(), reason="needs root and iproute2 to make a network"),
]


@pytest.fixture(scope="module")
def redis(bridge, tmp_path_factory) -> Iterator[str]:
    """Address and password of a Redis as cluster/kuberay/base/redis.yaml starts it."""
    (port,), password = free_ports([0]), secrets.token_hex(16)
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", HERE, "--requirepass", password]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    try:
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
    except FileNotFoundError:
        pytest.skip("redis-server is not here: apt-get install redis-server")
    yield f"{HERE}:{port} {password}"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def hosts(bridge, redis, tmp_path_factory) -> Iterator[Network]:
    environment = {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/tests/rayjobs"}
    with network(bridge, tmp_path_factory.mktemp("hosts"), 2, environment=environment, redis=redis) as there:
        yield there


# --- under serving load


class Load:
    """Clients that refine one pose after the other, each at another node, and count what they get."""

    def __init__(self, urls: list[str]) -> None:
        self.expected = DepthRefiner(SHIPPED, device="cpu").predict(standing_poses(3)).poses
        self.urls, self.counts, self.failures = urls, Counter(), []
        self.stop = threading.Event()

    def run(self, url: str) -> None:
        with Client(url, retries=Retries(attempts=200)) as client:
            while not self.stop.wait(0.02):
                try:
                    np.testing.assert_allclose(client.refine(standing_poses(3)).poses, self.expected, atol=1e-4)
                    self.counts[url] += 1
                except BaseException as error:
                    self.failures.append(error)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def goes_on(self) -> None:
        """Until every client got some more answers."""
        before = Counter(self.counts)
        wait_for(lambda: self.failures or all(self.counts[url] > before[url] + 20 for url in self.urls))


@contextmanager
def loaded(urls: list[str]) -> Iterator[Load]:
    load = Load(urls)
    clients = [threading.Thread(target=load.run, args=(url,)) for url in urls]
    for client in clients:
        client.start()
    try:
        load.goes_on()
        yield load
        load.goes_on()
    finally:
        load.stop.set()
        for client in clients:
            client.join()


def all_ready(hosts: Network) -> bool:
    """Whether each worker's proxy knows where requests go, as a load balancer asks before it sends any."""
    urls = [f"http://{worker.address}:{SERVE}/healthz" for worker in hosts.workers]
    return all(answers(url) and get(url).status_code == 200 for url in urls)


@pytest.fixture(scope="module")
def served(hosts: Network) -> Network:
    """The endpoint with a replica on each worker, which its proxies reach all."""
    deployment = {
        "name": "RefineEndpoint",
        "num_replicas": len(hosts.workers),
        "max_replicas_per_node": 1,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        "ray_actor_options": {"num_cpus": 1},
    }
    application = {
        "name": "poses",
        "route_prefix": "/",
        "import_path": "serve.app:app",
        "args": {"model": str(SHIPPED), "device": "cpu"},
        "deployments": [deployment],
    }
    options = {"host": "0.0.0.0", "port": SERVE, "request_timeout_s": 120}
    jobs.deploy(hosts, {"proxy_location": "EveryNode", "http_options": options, "applications": [application]})
    wait_for(lambda: all_ready(hosts))
    return hosts


def test_a_node_that_is_gone_costs_no_answer(served: Network, book):
    stays, goes = served.workers
    with loaded([f"http://{stays.address}:{SERVE}"] * 1) as load:
        before = load.total
        goes.kill()
        load.goes_on()
        wait_for(lambda: goes.address not in served.alive(), pause_s=1)
        load.goes_on()
        goes.start()
        wait_for(served.all_alive, pause_s=1)
        wait_for(lambda: len(jobs.replicas(served)) == 2, pause_s=1)
    book(
        "a node under serving load (kill -9)", answered=load.total, since=load.total - before, failed=len(load.failures)
    )
    assert not load.failures


def test_a_head_that_is_replaced_costs_no_answer_and_finds_its_replicas(served: Network, book):
    wait_for(lambda: served.all_alive() and jobs.serves(served) and all_ready(served), pause_s=1)
    replicas = jobs.replicas(served)
    with loaded([f"http://{worker.address}:{SERVE}" for worker in served.workers]) as load:
        before = load.total
        served.head.kill()
        load.goes_on()
        without = load.total - before
        served.head.start()
        wait_for(lambda: served.all_alive() and jobs.serves(served), pause_s=1)
        load.goes_on()
    book(
        "the head under serving load (kill -9), its state in Redis", answered=load.total, without_a_head=without,
        failed=len(load.failures), replicas_kept=f"{len(replicas & jobs.replicas(served))} of {len(replicas)}",
    )  # fmt: skip
    assert not load.failures
    assert jobs.replicas(served) == replicas


# --- extraction


@pytest.fixture
def videos(store: dict[str, str], tmp_path) -> str:
    """A folder in the store, with videos and, later, what is observed in them."""
    where = f"s3://poses/{secrets.token_hex(4)}"
    make_videos(tmp_path / "videos")
    files.copy_folder(tmp_path / "videos", f"{where}/videos")
    return where


def extraction(where: str, **options: object) -> str:
    """A program that extracts, and prints its summary as the last line."""
    more = "".join(f", {name}={value!r}" for name, value in options.items()).replace("'", '"')
    return (
        "import json; from rayjobs import extract; from refiner.command import to_json; "
        f'print(json.dumps(to_json(extract.run(extract.Options(videos="{where}/videos", out="{where}/out", '
        f'observe="slow:observe"{more})))))'
    )


def done(where: str) -> int:
    return len(files.find(f"{where}/out", {".parquet"}))


def rows_are_there_once(where: str) -> tuple[int, int]:
    """How many rows there are, and how many there should be."""
    rows = extracted_rows(f"{where}/out")
    expected = sorted((f"v{i}", f) for i in range(VIDEOS) for f in range(FRAMES + i))
    assert rows == expected
    return len(rows), len(expected)


def summary_of(hosts: Network, job: str) -> dict:
    logs = jobs.logs(hosts, job)
    assert jobs.state(hosts, job) == "SUCCEEDED", logs[-4000:]
    return json.loads(next(line for line in reversed(logs.splitlines()) if line.startswith("{")))


def test_a_cable_that_is_pulled_and_plugged_in_again_costs_no_row(hosts: Network, videos, store, book):
    wait_for(hosts.all_alive, pause_s=1)
    cut = hosts.workers[1]
    job = jobs.submit(hosts, extraction(videos), store)
    wait_for(lambda: done(videos) >= 2 or jobs.ended(hosts, job))
    cut.unplug()
    try:
        wait_for(lambda: cut.address not in hosts.alive() or jobs.ended(hosts, job), pause_s=1)
    finally:
        cut.plug()
    wait_for(
        lambda: hosts.all_alive() and jobs.ended(hosts, job), pause_s=1
    )  # it was told that it is dead, and begins anew
    summary = summary_of(hosts, job)
    rows, expected = rows_are_there_once(videos)
    book(
        "the network between head and one worker, in extraction", videos=summary["extracted"], failed=summary["failed"],
        rows=rows, expected=expected, nodes_at_the_end=len(hosts.alive()),
    )  # fmt: skip
    assert (summary["extracted"], summary["failed"]) == (VIDEOS, 0)


def test_a_disk_that_is_full_costs_no_row_once_there_is_room(hosts: Network, videos, store, book):
    wait_for(hosts.all_alive, pause_s=1)
    full = hosts.workers[1]
    job = jobs.submit(hosts, extraction(videos), store)
    wait_for(lambda: done(videos) >= 2 or jobs.ended(hosts, job))
    ballast = full.disk / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=1M"], capture_output=True)  # until nothing is left
    wait_for(lambda: jobs.ended(hosts, job), pause_s=1)
    first = summary_of(hosts, job)
    ballast.unlink()
    wait_for(hosts.all_alive, pause_s=1)
    again = jobs.submit(hosts, extraction(videos, retry_failed=True), store)
    wait_for(lambda: jobs.ended(hosts, again), pause_s=1)
    second = summary_of(hosts, again)
    rows, expected = rows_are_there_once(videos)
    book(
        "the disk of a worker is full, in extraction", videos=VIDEOS, failed_meanwhile=first["failed"],
        failed_with_room_again=second["failed"], rows=rows, expected=expected,
    )  # fmt: skip
    assert all("No space left" in reason for reason in first["failures"].values())
    assert first["extracted"] + second["extracted"] == VIDEOS and second["failed"] == 0
