"""How soon the page shows a refined pose: from the address to the example's refined skeleton, in Chromium.

    python -m benchmarks.first_pose --rounds 5
    python -m benchmarks.first_pose --address http://127.0.0.1:8000

The first looks at the folder that `refiner page` writes, the second at an endpoint (`make endpoint` in another terminal).
Every round opens a browser profile of its own, so that nothing is cached; Chromium itself runs already. The last line is JSON.
"""

import contextlib
import statistics
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.browser import needed_chromium, served
from refiner import DepthRefiner
from refiner.command import launch
from refiner.estimators.mediapipe_assets import model_path
from refiner.export import page as site

# The figures come with the pose, before the same frame is painted.
SHOWN = "() => document.querySelector('#bone-cv td:last-child').textContent.includes('%') && performance.now()"
PATIENCE_MS = 300_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    address: str = ""
    """Of an endpoint; by default the page that needs none."""
    rounds: int = 5


@contextlib.contextmanager
def alone() -> Iterator[str]:
    """The folder for plain web hosts, on loopback."""
    with tempfile.TemporaryDirectory() as folder:
        list(site.build(Path(folder), DepthRefiner(device="cpu"), model_path(), site.page_folder()))
        with served(Path(folder), [], threading.Event()) as address:
            yield address


def run(options: Options) -> dict[str, object]:
    browser, seconds = needed_chromium(), list[float]()
    with (
        contextlib.nullcontext(options.address) if options.address else alone() as address,
        sync_playwright() as playwright,
    ):
        chrome = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for _ in range(options.rounds):
            context = chrome.new_context()
            page = context.new_page()
            page.goto(address, wait_until="commit")
            seconds.append(page.wait_for_function(SHOWN, timeout=PATIENCE_MS).json_value() / 1000)
            context.close()
        chrome.close()
    print(
        f"first refined pose after {statistics.median(seconds):.2f} s, median of "
        + ", ".join(f"{s:.2f}" for s in seconds)
    )
    return {"first_pose_s": round(statistics.median(seconds), 3), "rounds": [round(s, 3) for s in seconds]}


if __name__ == "__main__":
    launch(run, Options)
