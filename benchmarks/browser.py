"""The refined `.task` in Chromium (tasks-vision) against Python's PoseLandmarker, on the same pictures.

    python -m benchmarks.browser --video data/real_people/cam01.mp4 --frames 20

Both look at the same PNG files in IMAGE mode, on the CPU. Chromium comes from the
distribution ('apt-get install chromium'), MediaPipe for browsers from npm, as for `refiner page`. The last line is one
JSON object.
"""

import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from refiner import DepthRefiner, UserError
from refiner.command import launch
from refiner.data import video
from refiner.data.video import Frame
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.export import page
from refiner.skeleton import root_centred, to_coco

MM = 1000.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 900.0
_TYPES = {
    "": "application/octet-stream",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".html": "text/html",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}
# Every picture through each model; what a landmarker cannot do becomes the answer's "error".
_PAGE = """<!doctype html><meta charset="utf-8"><canvas></canvas><script type="module">
import { FilesetResolver, PoseLandmarker } from "./page/vendor/tasks-vision/vision_bundle.mjs";
const answer = { seen: {}, ms: {}, agent: navigator.userAgent };
try {
  const { pictures, models, delegate } = await (await fetch("asked.json")).json();
  const runtime = await FilesetResolver.forVisionTasks("./page/vendor/tasks-vision/wasm");
  for (const model of models) {
    const landmarker = await PoseLandmarker.createFromOptions(runtime, {
      baseOptions: { modelAssetPath: model, delegate }, runningMode: "IMAGE" });
    answer.seen[model] = [];
    const started = performance.now();
    for (const picture of pictures) {
      const image = new Image();
      image.src = picture;
      await image.decode();
      const { landmarks, worldLandmarks } = landmarker.detect(image);
      const numbers = (points) => points.map(({ x, y, z, visibility }) => [x, y, z, visibility]);
      const [world, points] = [worldLandmarks[0], landmarks[0]];
      answer.seen[model].push(world ? { world: numbers(world), image: numbers(points) } : null);
    }
    answer.ms[model] = (performance.now() - started) / pictures.length;
    landmarker.close();
  }
} catch (error) {
  answer.error = String(error);
}
await fetch("answer", { method: "POST", body: JSON.stringify(answer) });
</script>"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    video: str
    """Where the pictures are from."""
    frames: int = 20
    """How many, evenly over the video."""
    delegate: Literal["CPU", "GPU"] = "CPU"
    """GPU: WebGL, which is software where Chromium finds no graphics card."""
    model: str = ""
    """A checkpoint's folder, or models:/…; the model in the box by default."""


def chromium() -> str | None:
    """Path of a Chromium on this machine."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def needed_chromium() -> str:
    """
    Raises:
        UserError: there is none.
    """
    browser = chromium()
    if browser is None:
        raise UserError("Chromium is not installed: run 'apt-get install chromium', or have it on the PATH")
    return browser


@contextmanager
def served(folder: Path, answers: list[Any], answered: threading.Event) -> Iterator[str]:
    """A folder on loopback; what a page posts to it becomes one of `answers`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map = _TYPES

        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            answered.set()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def in_browser(site: Path, frames: Sequence[Frame], delegate: str = "CPU") -> dict[str, Any]:
    """What tasks-vision in Chromium says of pictures, with each of a site's two models.

    Args:
        site: as `refiner.export.page.build` writes it; pictures and a page are added to it.
        frames: the pictures.
        delegate: CPU or GPU.

    Returns:
        "seen": by model, for each picture None or "world" and "image" (33 × x, y, z, visibility); "ms" by
        model, decoding included.

    Raises:
        UserError: there is no Chromium, or it did not answer.
    """
    browser, pictures = needed_chromium(), list[str]()
    for number, frame in enumerate(frames):
        pictures.append(f"picture{number}.png")
        cv2.imwrite(str(site / pictures[-1]), cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
    asked = {"pictures": pictures, "models": [page.STOCK, page.REFINED], "delegate": delegate}
    (site / "asked.json").write_text(json.dumps(asked))
    (site / "asked.html").write_text(_PAGE)
    answers: list[Any] = []
    answered = threading.Event()
    with served(site, answers, answered) as address, tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={profile}", *(["--disable-gpu"] if delegate == "CPU" else ["--enable-unsafe-swiftshader"]),
            f"{address}/asked.html",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answered.wait(PATIENCE_S)
        finally:
            process.terminate()
            process.wait()
    if not answers or "error" in answers[0]:
        reason = answers[0]["error"] if answers else f"no answer within {PATIENCE_S:g} s"
        raise UserError(f"tasks-vision did not run in {browser}: {reason}")
    return answers[0]


def compared(site: Path, frames: Sequence[Frame], refiner: DepthRefiner, delegate: str = "CPU") -> dict[str, Any]:
    """Browser against Python with either file; in the browser, the refined file against DepthRefiner on the stock one."""
    seen = in_browser(site, frames, delegate)
    worlds: dict[str, dict[str, np.ndarray]] = {}
    both = np.ones(len(frames), dtype=bool)
    for model in (page.STOCK, page.REFINED):
        with PoseEstimator(site / model, stills=True) as pose:
            python = [pose.estimate(frame) for frame in frames]
        both &= [a is not None and b is not None for a, b in zip(python, seen["seen"][model], strict=True)]
        there = {
            "python": [None if a is None else a.world for a in python],
            "browser": [None if b is None else np.array(b["world"])[:, :3] for b in seen["seen"][model]],
        }
        nobody = np.full((33, 3), np.nan)
        worlds[model] = {
            where: np.stack([nobody if w is None else w for w in answers]) for where, answers in there.items()
        }
    rows = np.flatnonzero(both)
    if not len(rows):
        raise UserError("nobody is seen in these pictures: choose a video with a person")
    height, width = frames[0].rgb.shape[:2]
    image = np.array([seen["seen"][page.STOCK][row]["image"] for row in rows])
    expected = refiner.predict(
        worlds[page.STOCK]["browser"][rows],
        image[..., 3],
        image_points=image[..., :2] * (width, height),
        recognise=False,
    ).poses
    got = root_centred(to_coco(worlds[page.REFINED]["browser"][rows]))

    def distance(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
        mm = np.linalg.norm(a - b, axis=-1) * MM
        return {"mean_mm": float(mm.mean()), "max_mm": float(mm.max())}

    return {
        "pictures": len(rows), "agent": seen["agent"], "delegate": delegate, "ms": seen["ms"],
        "stock, browser – Python": distance(*(worlds[page.STOCK][where][rows] for where in ("browser", "python"))),
        "refined, browser – Python": distance(*(worlds[page.REFINED][where][rows] for where in ("browser", "python"))),
        "in the browser, refined – DepthRefiner": distance(got, expected),
    }  # fmt: skip


def run(options: Options) -> dict[str, Any]:
    refiner = DepthRefiner(options.model or None, device="cpu")
    total = video.probe(options.video).frames or options.frames  # a stream without a container says no number
    frames = list(video.frames(options.video, stride=max(1, total // options.frames)))[: options.frames]
    with tempfile.TemporaryDirectory() as site:
        list(page.build(Path(site), refiner, model_path(), page.page_folder()))
        report = compared(Path(site), frames, refiner, options.delegate)
    for name, row in report.items():
        if isinstance(row, dict) and "mean_mm" in row:
            print(f"{name:<42} mean {row['mean_mm']:.3f} mm, max {row['max_mm']:.2f} mm")
    return report


if __name__ == "__main__":
    launch(run, Options)
