"""The moving picture of the README: a rendered dancer, MediaPipe's pose and the refined one, on the picture and from the side.

    python -m benchmarks.moving_picture --out docs/images/refined.webp

Renders the dancer, has `refiner video --overlay` do the rest, and makes an animated WebP of what that writes.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image

from refiner import UserError
from refiner.command import log, parse
from refiner.data import video
from studio.dataset import Spec, plan

MOST_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    out: str
    """The .webp file."""
    seed: int = 11
    """Of the dancer and the dance."""
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
            Spec(sequences=1, seconds=options.seconds, fps=options.fps, seed=options.seed, size=(960, 720))
        )
        take.film(folder, ["c01"])
        clip = take.video(folder, "c01").rename(folder / "dancer.mp4")
        command = [sys.executable, "-m", "refiner.cli", "video", str(clip), "--overlay", "--out", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
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


def smaller(frame: video.Frame, width: int) -> Image.Image:
    height = round(frame.rgb.shape[0] * width / frame.rgb.shape[1])
    return Image.fromarray(cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main(parse(Options))
