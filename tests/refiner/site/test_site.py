"""`refiner page`: a folder that needs no server; what it holds runs in Chromium and answers as Python does."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import browser
from refiner import DepthRefiner, UserError, npm
from refiner.data import video
from refiner.estimators.mediapipe_assets import model_path
from refiner.npm import TASKS_VISION, NpmPackage, read_package
from refiner.site import build

pytestmark = pytest.mark.slow
PARITY_MM = 1.0
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
needs_chromium = pytest.mark.skipif(browser.chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder as the command writes it."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    folder = tmp_path_factory.mktemp("page") / "site"
    done = page("--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def page(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "refiner.cli", "page", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> list[video.Frame]:
    """Some pictures of a rendered dancer."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clip")
    (take, *_) = plan(Spec(sequences=1, seconds=1, fps=6, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    return list(video.frames(take.video(root, "c01")))


def test_all_that_the_page_names_lies_beside_it_and_nothing_elsewhere(site):
    own = [path for path in site.iterdir() if path.suffix in (".html", ".js", ".css")]
    text = "\n".join(path.read_text() for path in own)
    named = set(re.findall(r'(?:src|href|from)[= ]"(?!data:)([^"]+)"', text)) | {build.REFINED, build.STOCK}
    assert len(named) >= 5 and [name for name in named if not (site / name).exists()] == []
    assert "http://" not in text and "https://" not in text
    assert "connect-src 'self'" in (site / "index.html").read_text()
    assert (site / build.STOCK).read_bytes() == model_path().read_bytes()
    for name in ("mediapipe/wasm/vision_wasm_internal.wasm", "mediapipe/wasm/vision_wasm_nosimd_internal.wasm"):
        assert (site / name).read_bytes()[:4] == b"\0asm"


def test_a_folder_that_holds_something_is_left_alone(site):
    again = page("--out", site)
    assert again.returncode == 2 and "is not empty: --force" in again.stderr
    file = page("--out", site / "index.html")
    assert file.returncode == 2 and "is a file" in file.stderr


@needs_npm
def test_a_package_is_fetched_once_and_checked(tmp_path):
    first = read_package(TASKS_VISION, cache=tmp_path)
    assert set(build._RUNTIME) <= first.keys()
    archive = tmp_path / TASKS_VISION.file
    assert read_package(TASKS_VISION, archive) == first
    archive.write_bytes(archive.read_bytes()[:-1])
    for given in (archive, None):
        with pytest.raises(UserError, match="is not the official file"):
            read_package(TASKS_VISION, given, cache=tmp_path)


def test_without_npm_or_registry_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"npm, which fetches @mediapipe/tasks-vision@1\.1\.0, is not installed"):
        read_package(TASKS_VISION, cache=tmp_path)
    with pytest.raises(UserError, match=r"nowhere\.tgz cannot be read .* give the \.tgz"):
        read_package(TASKS_VISION, tmp_path / "nowhere.tgz")


@needs_npm
def test_a_registry_out_of_reach_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(UserError, match=r"'npm pack no-such@0\.0\.1' failed .*fetch it elsewhere"):
        read_package(NpmPackage("no-such", "0.0.1", ""), cache=tmp_path)


@needs_chromium
def test_chromium_answers_as_python_does(site, frames):
    found = browser.compared(site, frames, DepthRefiner(device="cpu"))
    assert found["pictures"] >= len(frames) / 2
    for name in (
        "stock, browser – Python", "refined, browser – Python", "in the browser, refined – DepthRefiner",
    ):  # fmt: skip
        assert found[name]["mean_mm"] <= PARITY_MM, name
