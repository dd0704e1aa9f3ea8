"""kill -9 in the middle of an extraction: of child, actor, node, driver; and two runs at once. Every row exactly once."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayjobs import extract
from refiner.data import records, video
from tests.connection import connection
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster
VIDEOS, FRAMES = 10, 20
HERE = str(Path(__file__).parent)


@pytest.fixture
def options(tmp_path) -> extract.Options:
    for i in range(VIDEOS):
        with video.VideoWriter(tmp_path / "videos" / f"v{i}.mp4", (128, 96), 60) as writer:
            for j in range(FRAMES + i):
                writer.write(np.full((96, 128, 3), 100 + j, dtype=np.uint8))
    return extract.Options(videos=str(tmp_path / "videos"), out=str(tmp_path / "out"), actors=2, observe="slow:observe")


@pytest.fixture
def connected(cluster):
    with connection(cluster, {"PYTHONPATH": HERE}):
        yield


def check_every_row_once(out: Path) -> None:
    rows = []
    for path in out.glob("*.parquet"):
        data = records.read_table(path, records.OBSERVATIONS)
        rows += zip(data.column("video").to_pylist(), data.column("frame").to_pylist(), strict=True)
    assert sorted(rows) == sorted((f"v{i}", f) for i in range(VIDEOS) for f in range(FRAMES + i))
    assert not list(out.rglob("*.part")) and not list(out.glob("failures/*"))


def busy(videos: str) -> list[tuple[int, int]]:
    """(child, actor) of the videos that are being worked on or were."""
    pairs = []
    for path in Path(videos).glob("*.pids"):
        numbers = path.read_text().split()
        if len(numbers) == 2 and Path("/proc", numbers[0]).exists():
            pairs.append((int(numbers[0]), int(numbers[1])))
    return pairs


def test_a_killed_child_and_a_killed_actor_cost_no_row(connected, options):
    def kill() -> None:
        child, _ = wait_for(lambda: busy(options.videos))[0]
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: len(list(Path(options.out).glob("*.parquet"))) >= 2)
        _, actor = wait_for(lambda: busy(options.videos))[0]
        os.kill(actor, signal.SIGKILL)
        killed.append(actor)

    killed: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    summary = extract.run(options)
    killer.join()
    assert killed and summary.extracted == VIDEOS and summary.failed == 0
    check_every_row_once(Path(options.out))


TWO_NODES = """
import os, signal, sys, threading
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from rayjobs import extract

options = extract.{options!r}
nodes = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, include_dashboard=False))
doomed = nodes.add_node(num_cpus=2)
raylet = doomed.all_processes["raylet"][0].process.pid
ray.init(address=nodes.address, runtime_env=dict(env_vars=dict(PYTHONPATH={here!r})))

def parent(pid):
    try:
        return int(Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0

def kill():
    while not ended.wait(0.05):  # until some is done, and one of the node's actors is at work
        actors = [int(p.read_text().split()[1]) for p in Path(options.videos).glob("*.pids") if " " in p.read_text()]
        if len(list(Path(options.out).glob("*.parquet"))) >= 2 and raylet in map(parent, actors):
            os.kill(raylet, signal.SIGKILL)
            killed.append(raylet)
            return

killed, ended = [], threading.Event()
killer = threading.Thread(target=kill)
killer.start()
summary = extract.run(options)
ended.set()
killer.join()
print(summary.extracted, summary.failed, len(killed))
ray.shutdown()
nodes.shutdown()
"""


def test_a_killed_node_costs_no_row(options):
    """Two raylets of their own, for the session's cluster keeps to loopback, where Ray allows no second node."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    command = [sys.executable, "-c", TWO_NODES.format(options=options, here=HERE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-3:] == [str(VIDEOS), "0", "1"], done.stdout + done.stderr[-3000:]
    check_every_row_once(Path(options.out))


def driver(options: extract.Options) -> list[str]:
    """A command that extracts in a process of its own, and prints its summary."""
    program = (
        "import json, ray; from rayjobs import extract; from refiner.command import to_json\n"
        f"ray.init(runtime_env={{'env_vars': {{'PYTHONPATH': {HERE!r}}}}})\n"
        f"print(json.dumps(to_json(extract.run(extract.{options!r}))))"
    )
    return [sys.executable, "-c", program]


def test_two_runs_at_once_do_not_hurt_each_other(cluster, options):
    out, empty = Path(options.out), Path(options.videos, "empty.mp4")
    empty.touch()
    options = replace(options, actors=1, observe="slow:observe_beside_another")
    environment = {**os.environ, **cluster.env}
    runs = [
        subprocess.Popen(driver(options), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    while any(run.poll() is None for run in runs) and not any(run.poll() for run in runs):
        for path in out.glob("*.parquet"):  # raises where a file is there, but not whole
            records.read_table(path, records.OBSERVATIONS)
        time.sleep(0.1)
    summaries = []
    for run in runs:
        stdout, stderr = run.communicate()
        assert run.returncode == 0, stderr
        summaries.append(json.loads(stdout.splitlines()[-1]))
    assert [s["extracted"] + s["done_before"] for s in summaries] == [VIDEOS, VIDEOS]
    assert sum(s["extracted"] for s in summaries) > VIDEOS  # they were at work at the same time
    assert [s["failed"] + s["failed_before"] for s in summaries] == [1, 1]
    failure = out / "failures" / "empty.json"
    assert "is empty" in json.loads(failure.read_text())["reason"]
    failure.unlink()
    check_every_row_once(out)


def test_after_a_killed_driver_the_same_command_does_exactly_the_rest(cluster, options):
    command, environment = driver(options), {**os.environ, **cluster.env}
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(Path(options.out).glob("*.parquet"))) >= 2 or killed.poll() is not None)
    assert killed.poll() is None, "it ended before it could be killed"
    killed.kill()
    killed.wait()
    wait_for(lambda: not busy(options.videos))  # its actors and their children end with it
    done = len(list(Path(options.out).glob("*.parquet")))
    assert 2 <= done < VIDEOS
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["extracted"] == VIDEOS - done
    check_every_row_once(Path(options.out))
