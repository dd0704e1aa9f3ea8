"""The site: every page is built, no link in it is broken, and the reference says what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.running import CHECKOUT
from docs.hooks import JOBS
from refiner.cli.main import COMMANDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr  # strict: a broken link or a missing name ends it
    return folder


def test_every_page_is_in_the_site(site):
    for page in (CHECKOUT / "docs").rglob("*.md"):
        path = page.relative_to(CHECKOUT / "docs").with_suffix("")
        name = path.parent if path.name in ("README", "index") else path
        assert (site / name / "index.html").exists(), page


def test_the_reference_comes_from_the_code(site):
    commands = (site / "reference/commands/index.html").read_text()
    for name in (*(f"refiner {command}" for command in COMMANDS), *(f"rayjobs.{job}" for job in JOBS)):
        assert f">{name}<" in commands, name
    assert "--people" in commands and "--resume" in commands
    http = (site / "reference/http/index.html").read_text()
    assert "POST /v1/refine/video" in http and "estimator_people" in http
    python = (site / "reference/python/index.html").read_text()
    assert all(
        f'id="{name}"' in python
        for name in ("refiner.inference.depth_refiner.DepthRefiner.predict", "refiner.formats.write")
    )


def test_every_job_is_in_the_reference():
    modules = {path.stem for path in (CHECKOUT / "rayjobs").glob("*.py") if "launch(run, Options)" in path.read_text()}
    assert modules == set(JOBS)
