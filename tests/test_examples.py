"""What stands in examples/ runs as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refiner import DepthRefiner
from refiner.estimators.mediapipe_assets import model_path
from refiner.export import task

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLES = CHECKOUT / "examples"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """joey.mp4: a rendered dancer, one second."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clip")
    (take, *_) = plan(Spec(sequences=1, seconds=1, fps=15, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    return take.video(root, "c01").rename(root / "joey.mp4")


def run(*command: object, cwd: Path = CHECKOUT, **env: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "Agg", **env}
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_table_names_every_example():
    named = set(re.findall(r"\]\((\w[\w./]*)\)", (EXAMPLES / "README.md").read_text()))
    there = {
        str(p.relative_to(EXAMPLES)) for p in EXAMPLES.rglob("*.*") if p.name != "README.md" and "__" not in str(p)
    }
    assert there and there == named


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_and_draws(clip, tmp_path):
    cells = json.loads((EXAMPLES / "video.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)  # nobody's pictures are kept
    shutil.copy(clip, tmp_path / "joey.mp4")
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    printed = run(sys.executable, script, cwd=tmp_path, PYTHONPATH=str(CHECKOUT))
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"depth.png", "views.png"}
    variation = dict(re.findall(r"^(\w+) +bone-length variation ([\d.]+)%", printed, re.MULTILINE))
    assert float(variation["refined"]) < 0.3 * float(variation["MediaPipe"])


@pytest.mark.slow
def test_the_webcam_loop_is_mediapipes_own_code_with_the_refined_file(clip, tmp_path):
    source = (EXAMPLES / "webcam.py").read_text()
    assert "import refiner" not in source and "from refiner" not in source
    refined = tmp_path / "refined.task"
    refined.write_bytes(task.bundle(DepthRefiner(device="cpu"), model_path()))
    printed = [
        run(sys.executable, EXAMPLES / "webcam.py", model, "--source", clip, "--no-window", cwd=tmp_path)
        for model in (refined, model_path())
    ]
    assert [len(re.findall(r"left wrist [+-]\d\.\d\d m", text)) >= 10 for text in printed] == [True, True]
    assert printed[0] != printed[1]


@pytest.mark.cluster
def test_the_endpoint_is_asked_from_a_shell_and_by_a_standard_client(endpoint, clip):
    answer = run("sh", EXAMPLES / "curl.sh", "docs/pose.json", clip, ENDPOINT=endpoint)
    assert '"refined"' in answer
    printed = run(
        sys.executable, EXAMPLES / "open_inference.py", "docs/pose.json", "--endpoint", endpoint.removeprefix("http://")
    )
    assert len(re.findall(r"^joint +\d+  z [+-]\d\.\d{3} m", printed, re.MULTILINE)) == 17
