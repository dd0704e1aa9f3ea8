"""Every command of the README, run as it stands there, in a fresh copy of the checkout, on the session's cluster.

What is replaced: the endpoint's port (the session has its own), and the addresses that downloads come from (a loopback
server with a rendered dataset in AIST++'s place).
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
# Lines that other tests, or CI itself, run: they start what this test already runs in.
ELSEWHERE = {
    "make demo": "CI's demo and cluster.local's tests",
    "make endpoint": "tests/cluster/test_endpoint.py",
    "make test": "this very run",
    "make setup && . .venv/bin/activate": "CI's first step, and make test runs in it",
    ". .venv/bin/activate": "make test runs in it",
    "python -m cluster.local --keep": "tests/cluster/test_local.py",
    "refiner video joey.mp4 --to bvh glb --overlay": "tests/refiner/cli/test_video.py",
    "refiner export --to task": "tests/refiner/export/test_export.py",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (CHECKOUT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, copy_checkout, endpoint) -> Path:
    """The checkout, and in its endpoint's config the session's port."""
    copy = copy_checkout(tmp_path_factory.mktemp("readme") / "checkout")
    config = copy / "serve/config.yaml"
    config.write_text(config.read_text().replace("port: 8000", f"port: {endpoint.rsplit(':', 1)[1]}"))
    return copy


def run(command: list[str], checkout: Path) -> str:
    # the copy's own modules, not those of the checkout that is installed
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def shell(checkout, endpoint):
    """Runs one of the README's commands and returns what it printed."""

    def execute(command: str, suffix: str = "") -> str:
        script = f"set -euo pipefail\nDATA=$PWD/data/studio\n{command} {suffix}"
        return run(["bash", "-c", script.replace("http://127.0.0.1:8000", endpoint)], checkout)

    return execute


def last_json(output: str) -> dict:
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


@pytest.fixture(scope="module")
def commands() -> list[str]:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line not in ELSEWHERE and not line.startswith("DATA=")]


def of(commands: list[str], *starts: str) -> list[str]:
    chosen = [c for c in commands if c.startswith(starts)]
    assert chosen
    return chosen


def test_every_command_of_the_readme_is_run_by_some_test(commands):
    known = ("ray job submit", "python -m rayjobs.", "serve deploy", "curl -s")
    assert [c for c in commands if not c.startswith(known)] == []
    text = (CHECKOUT / "README.md").read_text()
    assert [line for line in ELSEWHERE if line not in text] == []


@pytest.mark.cluster
def test_the_path_from_rendered_dancers_to_a_judged_model(shell, commands):
    summaries = [last_json(shell(command)) for command in of(commands, "ray job submit")]
    studio, extracted, paired, trained, evaluated = summaries
    assert studio["videos"] == 60 and extracted["extracted"] == 60 and not extracted["failures"]
    assert sum(paired["pairs"].values()) > 0.95 * extracted["frames"]
    assert trained["val_depth_cm"] < trained["val_mediapipe_depth_cm"]
    assert evaluated["candidate"]["version"] == trained["version"]
    assert evaluated["promoted"] == (evaluated["model"]["version"] == trained["version"])
    assert evaluated["mediapipe"]["depth_cm"] < evaluated["baselines"]["zero"]
    # submitted again, what is done is not done again
    again = last_json(shell(next(c for c in commands if "rayjobs.extract --videos $DATA" in c)))
    assert again["done_before"] == 60 and again["extracted"] == 0


@pytest.mark.cluster
def test_help_is_there_for_every_job(shell, commands):
    assert "--pairs" in shell(next(c for c in commands if c.endswith("--help")))


@pytest.mark.cluster
def test_the_endpoint_answers_as_the_readme_says(shell, commands, checkout, endpoint):
    shell(*of(commands, "serve deploy"))
    answer = json.loads(shell(*of(commands, "curl")))
    assert len(answer["refined"]) == len(answer["confidence"]) == 1 and len(answer["refined"][0]) == 17
    code = "\n".join(blocks("python")).replace("http://127.0.0.1:8000", endpoint)
    assert "pose-depth-refiner" in run([sys.executable, "-c", code + "\nassert pose.shape == (17, 3)"], checkout)


@pytest.mark.cluster
def test_folders_of_observations_are_refined(shell, commands, checkout):
    shell(*of(commands, "python -m rayjobs.refine"))
    assert len(list((checkout / "data/studio/refined").glob("*.parquet"))) == 60


@pytest.mark.cluster
def test_captured_motion_drives_dancers(shell, commands):
    motions, studio = (
        last_json(shell(command)) for command in of(commands, "python -m rayjobs.motions", "python -m rayjobs.studio")
    )
    assert sum(motions["sequences"].values()) == 20 and not motions["refused"]
    assert studio["videos"] == studio["rendered"] == 12


@pytest.mark.cluster
def test_aistpp_is_fetched_and_planned(shell, commands, checkout, tmp_path):
    studio = checkout / "data/studio/dataset"
    names = sorted(path.stem for path in (studio / "videos").glob("*.mp4"))
    (tmp_path / "video_list.txt").write_text("\n".join(names))
    (tmp_path / "videos").symlink_to(studio / "videos")
    for folder in (studio / "annotations").iterdir():
        if folder.is_dir():
            shutil.make_archive(str(tmp_path / folder.name), "zip", folder)
    shutil.copy(studio / "annotations/ignore_list.txt", tmp_path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        here = f"--annotations-url {base} --video-list-url {base}/video_list.txt --video-url {base}/videos"
        for command in of(commands, "python -m rayjobs.download"):
            assert last_json(shell(command, here))["missing"] == {}
        server.shutdown()
    assert len(list((checkout / "data/aistpp/videos").glob("*.mp4"))) == 4
    shell(next(c for c in commands if c.endswith("--dry-run")))
