"""The moving picture of the README: a rendered dancer, MediaPipe's pose and the refined one, on the picture and from the side.

    python -m benchmarks.moving_picture --out docs/images/refined.webp --still docs/images/refined.png

Renders the dancer, has `refiner video --overlay` do the rest, and makes an animated WebP of what that writes. `--still` draws
one frame beside the truth: of the third in which MediaPipe is most wrong, the one with the median gain.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from refiner import UserError
from refiner.cli.report import OBSERVED, POINTS
from refiner.command import log, parse
from refiner.data import records, video
from refiner.evaluation.skeletons import skeletons
from refiner.geometry import depth_error, to_virtual_camera
from studio.dataset import Spec, plan
from studio.dataset.take import Take

MOST_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    out: str
    """The .webp file."""
    still: str = ""
    """A .png file for the one frame; none by default."""
    seed: int = 11
    """Of the dancer and the dance."""
    bodies: str = "drawn"
    """Or makehuman."""
    seconds: float = 4.0
    fps: int = 24
    """Of the dance; every second frame is shown."""
    width: int = 800
    """Of the moving picture, pixels."""
    quality: int = 60
    """0 … 100."""


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (take, *_) = plan(
            Spec(
                sequences=1,
                seconds=options.seconds,
                fps=options.fps,
                seed=options.seed,
                size=(960, 720),
                bodies=options.bodies,
            )
        )
        take.film(folder, ["c01"])
        clip = take.video(folder, "c01").rename(folder / "dancer.mp4")
        command = [sys.executable, "-m", "refiner.cli", "video", str(clip), "--overlay", "--out", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if options.still:
            still(clip, take, Path(options.still))
        pictures = [smaller(frame, options.width) for frame in video.frames(folder / "dancer.overlay.mp4", stride=2)]
    first, *others = pictures
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    first.save(
        out,
        save_all=True,
        append_images=others,
        duration=round(2000 / options.fps),
        loop=0,
        quality=options.quality,
        method=6,
    )
    size = out.stat().st_size
    log(f"{out}: {len(pictures)} pictures, {size:,} bytes")
    if size > MOST_BYTES:
        raise UserError(f"{out} is larger than {MOST_BYTES:,} bytes: give a lower --quality, --width or --seconds")


def still(clip: Path, take: Take, out: Path) -> None:
    """Draws one frame of a clip, which `refiner video` has refined beside it, and the truth."""
    result = clip.with_name("dancer.refined.parquet")
    table = records.read_table(result, records.REFINED)
    frames, moments, pose = (records.column(table, name) for name in ("frame", "timestamp_us", "pose"))
    beside = records.beside(result, (OBSERVED, POINTS))
    observed, points = (records.column(beside, f.name).reshape(len(frames), 17, -1) for f in (OBSERVED, POINTS))
    truth = to_virtual_camera(take.cameras["c01"].to_camera(take.joints(moments * 1e-6)))
    before, after = (depth_error(p, truth).mean(-1) for p in (observed, pose))
    wrong = np.flatnonzero(before >= np.quantile(before, 2 / 3))
    row = int(wrong[np.argsort((before - after)[wrong])[len(wrong) // 2]])
    skeletons(video.read_frame(clip, int(frames[row])), points[row], observed[row], pose[row], out, truth[row])
    log(f"{out}: frame {frames[row]}, {100 * before[row]:.1f} -> {100 * after[row]:.1f} cm")


def smaller(frame: video.Frame, width: int) -> Image.Image:
    height = round(frame.rgb.shape[0] * width / frame.rgb.shape[1])
    return Image.fromarray(cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main(parse(Options))
