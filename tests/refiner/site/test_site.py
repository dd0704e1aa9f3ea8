"""`refiner page`: a folder that needs no server; what it holds runs in Chromium and answers as Python does."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks import browser
from refiner import DepthRefiner, UserError, npm
from refiner.data import video
from refiner.estimators.mediapipe_assets import model_path
from refiner.npm import TASKS_VISION, NpmPackage, read_package
from refiner.site import build
from tests.waiting import PATIENCE_S, wait_for

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[3]
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
def clip(tmp_path_factory) -> Path:
    """A rendered dancer for a second."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clip")
    (take, *_) = plan(Spec(sequences=1, seconds=1, fps=6, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    return take.video(root, "c01")


@pytest.fixture(scope="module")
def frames(clip) -> list[video.Frame]:
    return list(video.frames(clip))


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


@pytest.fixture(scope="module")
def running(frames, tmp_path_factory) -> Iterator[Any]:
    """A Chromium whose camera shows the dancer."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if browser.chromium() is None:
        pytest.skip("no Chromium on this machine")
    camera = tmp_path_factory.mktemp("camera") / "person.mjpeg"
    pictures = (cv2.imencode(".jpg", cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))[1].tobytes() for frame in frames)
    camera.write_bytes(b"".join(pictures))
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as library:
        chromium = library.chromium.launch(
            executable_path=browser.chromium(), args=[*arguments, f"--use-file-for-fake-video-capture={camera}"]
        )
        yield chromium
        chromium.close()


@contextlib.contextmanager
def opened(running: Any, site: Path, name: str = "index.html", **options: Any) -> Iterator[Any]:
    """The page; whatever it asks for must be of its own origin, and nothing may break."""
    asked: list[str] = []
    broken: list[str] = []
    with browser.served(site, [], threading.Event()) as address:
        context = running.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(f"{address}/{name}")
        try:
            yield page
        finally:
            context.close()
        assert asked and [url for url in asked if not url.startswith((address, "blob:", "data:"))] == [] == broken


def drawn(page: Any, canvas: str, name: str) -> int:
    """How many pixels of a canvas have the colour that the legend gives to a name."""
    return page.evaluate(
        """([id, name]) => {
          const c = document.getElementById(id);
          const wanted = getComputedStyle(document.querySelector(`span.${name}`)).color.match(/\\d+/g).map(Number);
          const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
          let count = 0;
          const like = (i) => data[i + 3] && wanted.every((v, k) => Math.abs(data[i + k] - v) < 3);
          for (let i = 0; i < data.length; i += 4) count += like(i);
          return count;
        }""",
        [canvas, name],
    )


def test_a_video_is_refined_in_the_browser_turned_and_compared(running, site, clip, tmp_path):
    with opened(running, site) as page:
        page.set_input_files("#file", clip)
        page.locator("#status", has_text="Running on this machine").wait_for()
        page.evaluate("document.getElementById('video').pause()")
        assert drawn(page, "overlay", "refined") > 100 and not drawn(page, "space", "mediapipe")
        side = drawn(page, "space", "refined")
        page.locator("#space").press("ArrowLeft")
        assert side > 300 and drawn(page, "space", "refined") != side
        page.check("#compare")
        page.evaluate("document.getElementById('video').play()")
        loaded = "performance.getEntriesByName(String(new URL('mediapipe.task', location))).length"
        wait_for(lambda: page.evaluate(loaded))  # only now
        wait_for(lambda: drawn(page, "space", "mediapipe") > 300)
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no video at all" * 100)
        page.set_input_files("#file", broken)
        page.locator("#status", has_text="cannot decode that video").wait_for()


def test_the_webcam_is_refined_and_switched_off_again(running, site):
    with opened(running, site, viewport={"width": 390, "height": 844}, color_scheme="dark") as page:
        page.click("#webcam")
        page.locator("#status", has_text="Running on this machine").wait_for()
        assert drawn(page, "overlay", "refined") > 100
        assert page.evaluate("document.documentElement.scrollWidth") <= 390  # a phone shows all of it
        page.click("#webcam")
        page.locator("#webcam[aria-pressed=false]").wait_for()
        assert page.evaluate("document.getElementById('video').srcObject") is None


def test_the_snippet_to_copy_works_in_that_folder(running, site, clip):
    shutil.copy(CHECKOUT / "examples/web/index.html", site / "snippet.html")
    with opened(running, site, "snippet.html") as page:
        page.wait_for_function("document.getElementById('file').onchange !== null")
        page.set_input_files("#file", clip)
        page.locator("#wrists", has_text=re.compile(r"left -?\d\.\d\d m, right -?\d\.\d\d m")).wait_for()
