"""The page without a server: the folder of `refiner page` behind a plain web host, and the switch "refined in the browser"."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.browser import compared, served
from refiner import DepthRefiner
from refiner.data import video
from refiner.estimators.mediapipe_assets import model_path
from refiner.export import page as static
from refiner.export import task
from serve import pages
from serve.live import standing_poses
from tests.serve.chromium import (
    AXE,
    BUDGET_BYTES,
    CHECKOUT,
    CLIP,
    LOOKS,
    PATIENCE_MS,
    figure,
    first_screen_bytes,
    fits_everybody,
    launched,
    opened,
    person,
    running,
)  # fmt: skip
from tests.serve.streams import serving
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
PARITY_MM = 1.0


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder as the command writes it."""
    if not pages.VENDOR.is_dir():
        pytest.skip("the page's libraries are not here (make page)")
    folder = tmp_path_factory.mktemp("page") / "site"
    done = command("--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess:
    whole = [sys.executable, "-m", "refiner.cli", "page", *map(str, arguments)]
    return subprocess.run(whole, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})


@pytest.fixture(scope="module")
def host(site) -> Iterator[str]:
    with served(site, [], threading.Event()) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    with running(person(tmp_path_factory.mktemp("webcam") / "person.mjpeg")) as chromium:
        yield chromium


def test_the_folder_is_the_endpoints_page_with_both_models(site):
    source = CHECKOUT / "serve/page"
    assert (site / "index.html").read_bytes() == (source / "index.html").read_bytes()
    for path in source.glob("js/*.js"):
        assert (site / "page/js" / path.name).read_bytes() == path.read_bytes()
    assert (site / static.STOCK).read_bytes() == model_path().read_bytes()
    assert task.read_card(site / static.REFINED)["refiner"]["name"] == "pose-depth-refiner"
    for kind in ("", "nosimd_"):
        wasm = site / f"page/vendor/tasks-vision/wasm/vision_wasm_{kind}internal.wasm"
        assert wasm.read_bytes()[:4] == b"\0asm"
    assert not list(site.rglob("*.gz")) and not list(site.rglob("package*.json"))


def test_the_example_of_the_folder_carries_its_answer(site):
    clip = json.loads((site / "page/clip/clip.json").read_text())
    errors = {}
    for name in ("poses", "refined"):
        pose, truth = np.array(clip[name]), np.array(clip["truth"])
        assert pose.shape == truth.shape == (90, 17, 3)
        errors[name] = np.abs((pose - pose[:, 11:13].mean(1, keepdims=True) - truth)[..., 2]).mean()
    assert errors["refined"] < 0.8 * errors["poses"]
    assert clip["model"] == {"name": "pose-depth-refiner", "version": "0"}


def test_a_folder_that_holds_something_is_left_alone(site):
    again = command("--out", site)
    assert again.returncode == 2 and "is not empty: --force" in again.stderr
    file = command("--out", site / "index.html")
    assert file.returncode == 2 and "is a file" in file.stderr


def test_without_its_libraries_the_sentence_says_how_to_get_them(tmp_path, monkeypatch):
    class Entry:
        @staticmethod
        def load() -> Any:
            return type("page", (), {"__path__": [str(tmp_path)]})

    monkeypatch.setattr(static, "entry_points", lambda group: [Entry])
    with pytest.raises(static.UserError, match="run 'make page' in the checkout"):
        static.page_folder()
    monkeypatch.setattr(static, "entry_points", lambda group: [])
    with pytest.raises(static.UserError, match="install pose-depth-refiner again"):
        static.page_folder()


def test_alone_the_example_is_there_at_once_and_says_so(browser, host):
    with opened(browser, host) as page:
        assert "no server" in page.locator("#hint").inner_text()
        assert page.locator("#in-browser").is_checked() and page.locator("#in-browser").is_disabled()
        assert page.locator("#documents").is_hidden()
        assert figure(page, "depth-error", 1) < figure(page, "depth-error", 0)
        assert page.locator("#model").inner_text() == "model pose-depth-refiner, version 0"
        assert page.locator("#downloads button").all_inner_texts() == ["JSON"]  # a host alone writes no other format
        page.click("#play")
        page.locator("#scrub").fill("1.5")  # also where the host hands out no parts of a file
        seen = "document.getElementById('video').currentTime"
        wait_for(lambda: abs(page.evaluate(seen) - 1.5) < 0.1)
    assert 300_000 < first_screen_bytes(browser, host) < BUDGET_BYTES


def test_alone_a_video_is_refined_downloaded_and_opened_again(browser, host, tmp_path):
    with opened(browser, host) as page:
        page.locator("#play[aria-label=Pause]").wait_for()  # a clip that plays must not seek in the next one's video
        page.set_input_files("#file", CLIP)
        page.locator("#frames", has_text="clip.mp4: ").wait_for()
        assert int(page.locator("#frames").inner_text().split()[1]) > 80
        assert figure(page, "bone-cv", 1) < 0.9 * figure(page, "bone-cv", 0)
        assert figure(page, "jitter", 0) < 80  # its frames came in their order
        assert page.locator("#scale").is_hidden()  # the file says no confidence
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download as JSON").click()
        waiting.value.save_as(tmp_path / "mine.json")
        content = json.loads((tmp_path / "mine.json").read_text())
        assert np.array(content["refined"]).shape[1:] == (17, 3) and content["model"]["name"] == "pose-depth-refiner"
        page.set_input_files("#file", tmp_path / "mine.json")
        page.locator("#frames", has_text="mine.json: ").wait_for()


def test_alone_the_webcam_is_refined_without_a_stream(browser, host):
    with opened(browser, host, permissions=["camera"]) as page:
        page.uncheck("#stock")
        page.click("#webcam")
        page.locator("#latency", has_text="MediaPipe on the CPU").wait_for()
        wait_for(lambda: page.wait_for_timeout(200) or int(page.locator("#frames").inner_text().split()[1]) > 5)
        assert page.locator("#bone-cv td").nth(0).inner_text() == "–"  # MediaPipe's own pose was not asked for
        assert figure(page, "bone-cv", 1) > 0
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.locator("#status", has_text="in the background").wait_for()
        page.click("#webcam")
        page.locator("#webcam[aria-pressed=false]").wait_for()
        assert page.evaluate("document.getElementById('video').srcObject") is None


def test_alone_what_needs_a_server_is_one_sentence(browser, host, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"poses": standing_poses(5).tolist()}))
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    with opened(browser, host) as page:
        for name, says in (("mine.json", "which a server refines"), ("broken.mp4", "convert it to MP4")):
            page.set_input_files("#file", tmp_path / name)
            page.locator("#problem", has_text=says).wait_for()
            assert page.locator("#by-server").is_hidden()
        page.route("**/refined.task", lambda route: route.abort())
        page.click("#example")
        page.locator("#problem", has_text="cannot be reached").wait_for()


def test_alone_a_browser_without_simd_refines_all_the_same_and_says_so(browser, host):
    flags = "--js-flags=--no-enable-sse4-1 --no-enable-ssse3"
    with launched(browser.browser_type, flags) as chromium, opened(chromium, host) as page:
        page.uncheck("#stock")
        page.locator("#status", has_text="no SIMD").wait_for()
        page.click("#webcam")
        page.locator("#problem", has_text="There is no camera").wait_for()


def test_alone_a_browser_without_webgl_says_what_it_lacks(browser, host):
    flags = ("--disable-gpu", "--disable-software-rasterizer", "--disable-webgl", "--disable-webgl2")
    with launched(browser.browser_type, *flags) as chromium, opened(chromium, host) as page:
        assert "no WebGL" in page.locator("#no-space").inner_text()
        page.click("#example")
        page.locator("#problem", has_text="hardware acceleration").wait_for()
        assert figure(page, "depth-error", 1) > 0  # what was there stays


@pytest.mark.parametrize("look", LOOKS)
def test_alone_axe_finds_nothing_and_nothing_is_wider_than_the_screen(browser, host, look):
    assert AXE.is_file()
    with opened(browser, host, **LOOKS[look]) as page:
        fits_everybody(page)


def test_chromium_answers_as_python_does(site):
    frames = list(video.frames(CLIP, stride=15))
    differences = compared(site, frames, DepthRefiner(device="cpu"))
    assert differences["pictures"] >= len(frames) / 2
    for name in ("stock, browser – Python", "refined, browser – Python", "in the browser, refined – DepthRefiner"):
        assert differences[name]["mean_mm"] <= PARITY_MM, name


def test_the_snippet_to_copy_works_in_that_folder(browser, site, host):
    shutil.copy(CHECKOUT / "examples/web/index.html", site / "snippet.html")
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{host}/snippet.html")
    page.wait_for_function("document.getElementById('file').onchange !== null")
    page.set_input_files("#file", CLIP)
    page.locator("#wrists", has_text=re.compile(r"left -?\d\.\d\d m, right -?\d\.\d\d m")).wait_for()
    page.close()


def test_with_a_server_the_switch_takes_the_served_model_into_the_browser(browser, make_replica, tmp_path):
    (tmp_path / "tokens").write_text("secret\n")
    with serving(make_replica)(token_file=str(tmp_path / "tokens")) as (address, _):
        unlocked = "sessionStorage.setItem('pose-token', 'secret')"
        with opened(browser, f"http://{address}", unlocked) as page:
            assert not page.locator("#in-browser").is_checked() and page.locator("#beside").is_hidden()
            page.locator("#in-browser").focus()
            page.keyboard.press("Space")
            page.locator("#status", has_text="looks at Example").wait_for()
            page.locator("#status", has_text="looks at").wait_for(state="hidden")
            assert figure(page, "depth-error", 1) < 0.9 * figure(page, "depth-error", 0)
            assert page.locator("#confidence td").nth(1).inner_text() == "–"
            fits_everybody(page)
            page.uncheck("#in-browser")
            page.locator("#confidence td", has_text="%").wait_for()  # the server's again
