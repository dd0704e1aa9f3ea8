"""Nothing calls home: what the project runs, in a network whose only way out counts (tests/trap.py)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import quiet
from cluster.network import available
from cluster.running import CHECKOUT
from refiner import telemetry
from refiner.estimators.mediapipe_assets import model_path
from refiner.wheels import cache_folder
from tests.trap import Trap, trapped

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="needs root and iproute2 to make a network"),
]

# Poses refined, a run in MLflow with a metric, a registered version, a task on Ray: each in a process of the cluster.
PATH = """
import tempfile, numpy as np, ray
from refiner import DepthRefiner, registry
from refiner.data import video
from rayjobs import extract
from pathlib import Path

poses = np.zeros((2, 17, 3), np.float32)
poses[:, 5:, 1] = np.linspace(0, 1, 12)
refiner = DepthRefiner()
assert np.isfinite(refiner.predict(poses, recognise=False).poses).all()
run = registry.start_run("trapped", {"a": 1})
registry.log_metrics(run, {"depth": 1.0})
registry.finish_run(run)
ray.init()
assert ray.get(ray.remote(lambda: registry.find_run("train_name", "x")).remote()) is None  # MLflow in a worker

with tempfile.TemporaryDirectory() as folder:
    with video.VideoWriter(Path(folder, "videos/v.mp4"), (128, 96), 30) as writer:
        for shade in (100, 110, 120):
            writer.write(np.full((96, 128, 3), shade, np.uint8))
    assert extract.run(extract.Options(videos=f"{folder}/videos", out=f"{folder}/out", actors=1)).extracted == 1
print("went all the way")
"""


@pytest.fixture
def trap(tmp_path) -> Iterator[Trap]:
    with trapped(tmp_path) as there:
        yield there


def environment() -> dict[str, str]:
    """As somebody has it who knows nothing of telemetry: not a test's or a CI's, in which MLflow keeps quiet by itself."""
    silent = {"CI", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "GITHUB_ACTIONS", "MLFLOW_TRACKING_URI", *telemetry.OFF}
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in silent and not k.startswith(("RAY_", "AWS_", "BUILD", "JENKINS"))
    }
    kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
    return kept | {"POSE_DEPTH_REFINER_CACHE": str(cache_folder()), "PYTHONPATH": str(CHECKOUT)}


def run(trap: Trap, *argv: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = trap.command([sys.executable, *argv])
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


def test_the_trap_counts_names_connections_and_datagrams(trap, tmp_path):
    script = (
        "import socket, contextlib\n"
        "with contextlib.suppress(OSError): socket.create_connection(('telemetry.example.org', 443), 5)\n"
        "with contextlib.suppress(OSError): socket.create_connection(('203.0.113.9', 8125), 5)\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.9', 8125))\n"
        "with contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 1), 5)\n"
    )
    assert run(trap, "-c", script, folder=tmp_path).returncode == 0
    noted = trap.attempts()
    assert "dns telemetry.example.org" in noted and "tcp 198.51.100.7:443" in noted  # the name's answer was believed
    assert "tcp 203.0.113.9:8125" in noted and "udp 203.0.113.9:8125" in noted
    assert not any("127.0.0.1" in line for line in noted)


def test_the_trap_catches_mlflow_where_nobody_turned_it_off(trap, tmp_path):
    script = (
        "import mlflow, time; mlflow.set_tracking_uri('sqlite:///x.db'); mlflow.create_experiment('a'); time.sleep(3)"
    )
    assert run(trap, "-c", script, folder=tmp_path).returncode == 0
    assert any("mlflow" in line for line in trap.attempts())


# A task of MediaPipe's, as its documentation makes one, for as long as it takes until it reports.
TASK = """
import time
import mediapipe
from refiner.estimators.mediapipe_assets import model_path

vision = mediapipe.tasks.vision
base = mediapipe.tasks.BaseOptions(model_asset_path=str(model_path("full")))
with vision.PoseLandmarker.create_from_options(vision.PoseLandmarkerOptions(base_options=base)):
    time.sleep(3)
"""


def test_mediapipe_reports_by_itself_and_not_with_us(trap, tmp_path):
    model_path("full")  # what is fetched once is no call home
    ours = "from refiner.estimators import mediapipe_reports\nassert mediapipe_reports.turn_off()\n" + TASK
    assert (done := run(trap, "-c", ours, folder=tmp_path)).returncode == 0, done.stderr
    assert trap.attempts() == []
    assert (done := run(trap, "-c", TASK, folder=tmp_path)).returncode == 0, done.stderr
    assert "dns play.googleapis.com" in trap.attempts()


def test_the_demos_path_calls_nobody(trap, tmp_path):
    model_path("full")
    command = ["-m", "cluster.local", "--state", str(tmp_path / "state"), "--", sys.executable, "-c", PATH]
    done = run(trap, *command, folder=tmp_path)
    assert done.returncode == 0 and "went all the way" in done.stdout, done.stderr[-3000:]
    assert trap.attempts() == []


# Each call in a process of its own, which has our library already and MLflow not yet.
FIRST_CALLS = """
import os, sys, traceback
from refiner import DepthRefiner, UserError, registry
import refiner.inference.depth_refiner

assert "mlflow" not in sys.modules
for call in (
    lambda: registry.find_run("a", "b"),
    lambda: registry.MetricLog("0" * 32, "sqlite:///x.db"),
    lambda: registry.get_alias("a", "b"),
    lambda: registry.download("models:/a/1"),
    lambda: DepthRefiner("models:/a/1"),
):
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        continue
    try:
        try:
            call()
        except UserError:
            pass
        import mlflow.telemetry.client as client, mlflow.telemetry.utils as utils
        assert client.get_telemetry_client() is None and utils.is_telemetry_disabled()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""


def test_whichever_call_imports_mlflow_first_does_not_turn_it_on(tmp_path):
    """In a notebook, that is: no command has set anything."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALLS], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.split() == ["0"] * 5, done.stdout + done.stderr[-2000:]


def test_who_wants_to_report_may(monkeypatch):
    environ = {"MLFLOW_DISABLE_TELEMETRY": "false"}
    telemetry.turn_off(environ)
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "false" and environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_ray_asks_no_metadata_server_where_its_dashboard_has_our_home(monkeypatch):
    """Ray's own code, with the trap's answer: whom it asks where the file is not, and where it is."""
    from ray._common.usage import usage_lib

    asked: list[str] = []

    def get(url: str, **_: object) -> None:
        asked.append(url)
        raise RuntimeError("nobody is there")

    monkeypatch.setattr("requests.get", get)
    for home, silent in (("/nowhere", False), (quiet.of_dashboard({})["HOME"], True)):
        monkeypatch.setenv("HOME", home)
        usage_lib.get_cluster_config_to_report(os.path.expanduser("~/ray_bootstrap_config.yaml"))
        assert (asked == []) == silent
        asked.clear()


def test_the_dashboard_still_finds_the_token():
    assert quiet.of_dashboard({"HOME": "/home/a"})["RAY_AUTH_TOKEN_PATH"] == "/home/a/.ray/auth_token"
    assert "RAY_AUTH_TOKEN_PATH" not in quiet.of_dashboard({"HOME": "/home/a", "RAY_AUTH_TOKEN": "x"})
