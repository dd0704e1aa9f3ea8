"""refiner view: a result in Rerun, on one time line: the picture, both skeletons on it and in 3D, depth, confidence."""

import glob
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import tyro

from refiner.cli.help import takes
from refiner.cli.overlay import rgb_of
from refiner.cli.report import OBSERVED, POINTS, ROOM
from refiner.data import records, video
from refiner.data.containers import SUFFIXES
from refiner.data.video import Frame
from refiner.errors import UserError
from refiner.extras import require
from refiner.skeleton import DRAWN, JOINTS, NUM_JOINTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Open a result of `refiner video` in Rerun, a viewer of pictures and 3D."""

    file: Annotated[Path, tyro.conf.Positional, takes("RESULT")]
    """A .refined.parquet file."""
    video: Annotated[Path | None, takes("VIDEO")] = None
    """The video it was made from; beside the result by default, where it is there."""
    save: Annotated[Path | None, takes("FILE.rrd")] = None
    """Write a recording (.rrd) in place of opening the viewer."""


APART_M = 1.5  # of several people, whose poses all hang at the hips


def run(options: Options) -> int:
    """Logs the recording; returns the exit status."""
    require("the viewer", "rerun")
    table = read(options.file)
    if options.save is not None:
        _record(options, table, options.save)
        print(f"{options.save}: open it with `rerun {options.save}`")
        return 0
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError(
            "there is no display here: --save FILE.rrd writes a recording, to be opened elsewhere by `rerun FILE.rrd`"
        )
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, f"{options.file.name}.rrd")
        _record(options, table, recording)
        # the viewer listens for further recordings: on this machine only
        return subprocess.run([sys.executable, "-m", "rerun", "--bind", "127.0.0.1", str(recording)]).returncode


def _record(options: Options, table: pa.Table, path: Path) -> None:
    """Writes a recording of a result."""
    import rerun

    rerun.init(f"refiner {options.file.name}")
    rerun.save(path)
    rerun.log("room", rerun.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
    rerun.log("pose", rerun.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    pictures, shown = _pictures(options), -1
    people = len(np.unique(records.column(table, "person")))
    for row in rows(table):
        rerun.set_time("video", duration=row["timestamp_us"] * 1e-6)
        picture = next((p for p in pictures if p.index >= row["frame"]), None) if shown != row["frame"] else None
        shown = row["frame"]
        if picture is not None and picture.index == shown:
            rerun.log("picture", rerun.Image(picture.rgb).compress(jpeg_quality=80))
        log_person(row, f"person{row['person']}/" if people > 1 else "")
    recording = rerun.get_global_data_recording()
    if recording is not None:
        recording.flush()  # else the last of it stays here until the process ends


def read(path: Path) -> pa.Table:
    """A result, by frame, with those of `work.ROOM`, `OBSERVED` and `POINTS` that it has.

    Raises:
        UserError: it is missing, damaged, or something else.
    """
    table = records.read_table(path, records.REFINED)
    beside = records.beside(path, (ROOM, OBSERVED, POINTS))
    for name in beside.column_names:
        table = table.append_column(name, beside.column(name))
    return table.sort_by([("frame", "ascending"), ("person", "ascending")])


def rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Row by row, joints as arrays (17, …)."""
    columns = {name: records.column(table, name) for name in table.column_names}
    for name in ("room", "observed", "points"):
        if name in columns:
            columns[name] = columns[name].reshape(len(table), NUM_JOINTS, -1)
    for row in range(len(table)):
        yield {name: values[row] for name, values in columns.items()}


def log_person(row: dict[str, Any], prefix: str) -> None:
    """Logs one person of one frame at the present time."""
    import rerun

    pose, confidence = row["pose"], row["confidence"]
    shades = np.stack([255 * (1 - confidence), 255 * confidence, np.full(len(pose), 60)], -1)
    shades = np.nan_to_num(shades, nan=128).astype(np.uint8)
    beside = np.array([APART_M * row["person"], 0, 0])

    def bones(path: str, joints: np.ndarray, method: str) -> None:
        strips = rerun.LineStrips2D if joints.shape[1] == 2 else rerun.LineStrips3D
        rerun.log(path, strips([joints[[a, b]] for a, b in DRAWN], colors=[rgb_of(method)]))

    bones(f"pose/{prefix}refined/bones", pose + beside, "refined")
    rerun.log(f"pose/{prefix}refined/joints", rerun.Points3D(pose + beside, colors=shades, radii=0.015))
    if "observed" in row:
        bones(f"pose/{prefix}mediapipe", row["observed"] + beside, "mediapipe")
        bones(f"picture/{prefix}mediapipe", row["points"], "mediapipe")
        bones(f"room/{prefix}refined", row["room"], "refined")
    for joint, place, sure in zip(JOINTS, pose, confidence, strict=True):
        rerun.log(f"depth/{prefix}{joint}", rerun.Scalars(float(place[2])))
        rerun.log(f"confidence/{prefix}{joint}", rerun.Scalars(float(sure)))


def _pictures(options: Options) -> Iterator[Frame]:
    """The frames of the video that the result was made from; none where it is not to be found."""
    path = options.video
    if path is None:
        stem = options.file.name.removesuffix(".parquet").removesuffix(".refined")
        beside = (p for p in options.file.parent.glob(f"{glob.escape(stem)}.*") if p.suffix.lower() in SUFFIXES)
        path = next(beside, None)
    return iter(()) if path is None else video.frames(path)
