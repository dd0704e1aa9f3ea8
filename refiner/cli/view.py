"""refiner view: a result in Rerun, on one time line: both skeletons in 3D, their joints' depth, the confidence."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from refiner.data import records, video
from refiner.data.containers import SUFFIXES
from refiner.data.video import Frame
from refiner.evaluation.style import COLOURS
from refiner.extras import require
from refiner.skeleton import DRAWN, JOINTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Open a result of `refiner video` in Rerun, a viewer of pictures and 3D over time."""

    file: Annotated[Path, tyro.conf.Positional]
    """A .refined.parquet file."""
    video: Path | None = None
    """The video it was made from; beside the result by default, where it is there."""
    save: Path | None = None
    """Write a recording (.rrd) in place of opening the viewer."""


def run(options: Options) -> int:
    """Logs the recording; returns the exit status."""
    require("the viewer", "rerun")
    import rerun

    table = records.read_table(options.file, records.REFINED)
    rerun.init(f"refiner {options.file.name}", spawn=options.save is None)
    if options.save is not None:
        rerun.save(options.save)
    rerun.log("room", rerun.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    colour = tuple(int(COLOURS["refined"][i : i + 2], 16) for i in (1, 3, 5))
    names = ("frame", "timestamp_us", "pose", "confidence")
    rows = zip(*(records.column(table, name) for name in names), strict=True)
    pictures = _pictures(options)
    for frame, time_us, pose, confidence in rows:
        rerun.set_time("video", duration=time_us * 1e-6)
        picture = next((p for p in pictures if p.index >= frame), None)
        if picture is not None and picture.index == frame:
            rerun.log("picture", rerun.Image(picture.rgb).compress(jpeg_quality=80))
        rerun.log("room/refined/bones", rerun.LineStrips3D([pose[[a, b]] for a, b in DRAWN], colors=[colour]))
        shades = np.stack([255 * (1 - confidence), 255 * confidence, np.full(len(pose), 60)], -1).astype(np.uint8)
        rerun.log("room/refined/joints", rerun.Points3D(pose, colors=shades, radii=0.015))
        for joint, place, sure in zip(JOINTS, pose, confidence, strict=True):
            rerun.log(f"depth/{joint}", rerun.Scalars(float(place[2])))
            rerun.log(f"confidence/{joint}", rerun.Scalars(float(sure)))
    return 0


def _pictures(options: Options) -> Iterator[Frame]:
    """The frames of the video that the result was made from; none where it is not to be found."""
    path = options.video
    if path is None:
        stem = options.file.name.removesuffix(".parquet").removesuffix(".refined")
        beside = (p for p in options.file.parent.glob(f"{glob.escape(stem)}.*") if p.suffix.lower() in SUFFIXES)
        path = next(beside, None)
    return iter(()) if path is None else video.frames(path)
