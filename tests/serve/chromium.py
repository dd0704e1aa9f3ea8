"""The page in a real Chromium: what all its tests share.

What needs Chromium, playwright or npm's packages (`make page`) is left out where they are missing.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import pytest
from PIL import Image

from benchmarks.browser import chromium
from cluster.running import CHECKOUT
from refiner.data import video
from serve import pages
from tests.waiting import PATIENCE_S

CLIP = CHECKOUT / "serve/page/clip/clip.mp4"
AXE = CHECKOUT / "serve/page/node_modules/axe-core/axe.min.js"
PATIENCE_MS = PATIENCE_S * 1000
BUDGET_BYTES = 1_000_000  # of all that comes before MediaPipe


def person(path: Path) -> Path:
    """What Chromium's fake camera shows: the example, as one JPEG after the other."""
    with path.open("wb") as file:
        for frame in video.frames(CLIP):
            Image.fromarray(frame.rgb).save(file, "JPEG", quality=90)
    return path


def at_rate(path: Path, rate: int) -> tuple[Path, int]:
    """The example at so many pictures a second, and how many there are: others than the 30 that the page looks at."""
    pictures = [frame.rgb for frame in video.frames(CLIP)][: 2 * rate]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path, len(pictures)


@contextlib.contextmanager
def running(camera: Path) -> Iterator[Any]:
    """A Chromium with a camera."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium() is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    if not pages.VENDOR.is_dir():
        pytest.skip("the page's libraries are not here (make page)")
    flags = "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}"
    with playwright.sync_playwright() as library, launched(library.chromium, *flags) as browser:
        yield browser


@contextlib.contextmanager
def launched(kind: Any, *flags: str) -> Iterator[Any]:
    """One with flags of its own, also beside another one, whose `browser_type` is its kind."""
    browser = kind.launch(executable_path=chromium(), args=["--no-sandbox", *flags])
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, script: str = "", **options: Any) -> Iterator[Any]:
    """The page in a context of its own. Whatever it asks for must be of its own origin, and nothing may break."""
    context = browser.new_context(**options)
    context.add_init_script(script)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    broken: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda stream: asked.append(stream.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(address)
    page.locator("#bone-cv td:last-child", has_text="%").wait_for()
    try:
        yield page
    finally:
        context.close()
    origin = urlsplit(address).netloc
    elsewhere = {url for url in asked if not url.startswith(("blob:", "data:")) and urlsplit(url).netloc != origin}
    assert len(asked) > 10 and not elsewhere and not broken


def figure(page: Any, row: str, column: int) -> float:
    return float(page.locator(f"#{row} td").nth(column).inner_text().rstrip(" %"))


NO_WEBGL = """
const given = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return /webgl/.test(kind) ? null : given.call(this, kind, ...rest);
};
"""
LOOKS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


def fits_everybody(page: Any) -> None:
    """axe finds nothing, and nothing is wider than the screen."""
    if not AXE.is_file():
        pytest.skip("axe-core is not here (make page)")
    page.evaluate(AXE.read_text())
    said = page.evaluate("axe.run()")
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in said["violations"]] == []
    assert len(said["passes"]) > 10
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def first_screen_bytes(browser: Any, address: str) -> int:
    """All that comes until the first refined pose is there."""
    context = browser.new_context()
    page = context.new_page()
    sizes: list[int] = []

    def count(request: Any) -> None:
        size = request.sizes()
        sizes.append(size["responseBodySize"] + size["responseHeadersSize"])

    page.on("requestfinished", count)
    page.goto(address)
    page.locator("#bone-cv td:last-child", has_text="%").wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")
    context.close()
    print(f"{sum(sizes):,} bytes in {len(sizes)} answers")  # seen with -rP
    return sum(sizes)
