"""`cluster.local --namespaces`: one command brings hosts up, runs what it is told on them, and leaves nothing behind."""

import json
import shlex
import subprocess
import sys

import pytest

from cluster.network import HERE, SUBNET, available
from cluster.running import CHECKOUT

pytestmark = [
    pytest.mark.survival,
    pytest.mark.skipif(not available(), reason="needs root and iproute2 to make a network"),
]

# Where each node's tasks run, from a job, and whether MLflow answers there.
JOB = """
import json, os, urllib.request
import ray
ray.init(address="auto", logging_level="ERROR")

@ray.remote(scheduling_strategy="SPREAD")
def here():
    health = urllib.request.urlopen(os.environ["MLFLOW_TRACKING_URI"] + "/health").status
    return ray.util.get_node_ip_address(), os.path.exists("/tmp/ray"), health

print(json.dumps({"hosts": sorted(set(ray.get([here.remote() for _ in range(40)])))}))
"""


def test_one_command_brings_hosts_up_and_leaves_nothing_behind(tmp_path):
    job = f"python -c {shlex.quote(JOB)}"  # no file: /tmp is each host's own
    inside = (
        "import json; from cluster.running import Cluster; there = Cluster.from_environment();"
        f"print(json.dumps([sorted(there.nodes_alive()), there.submit({job!r})]))"
    )
    command = [
        sys.executable,
        "-m",
        "cluster.local",
        "--nodes",
        "3",
        "--namespaces",
        "--state",
        str(tmp_path / "state"),
    ]
    before = _names()
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", inside], cwd=CHECKOUT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alive, answer = json.loads(done.stdout.splitlines()[-1])
    assert alive == [f"{SUBNET}.{number}" for number in (1, 2, 3)]
    assert answer == {"hosts": [[address, True, 200] for address in alive[1:]]}
    assert "its cable: ip -n host-" in done.stderr
    assert _names() == before and HERE not in subprocess.run(["ip", "a"], capture_output=True, text=True).stdout


def _names() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
