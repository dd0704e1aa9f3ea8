"""A refined motion in the files that other tools open. One module for each format, loaded when it is asked for.

from refiner import formats
formats.write(motion, "joey.bvh")
"""

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from refiner.errors import UserError
from refiner.extras import require
from refiner.formats.motion import Motion

__all__ = ["FORMATS", "NEEDED", "ONE_PERSON", "Format", "Motion", "check", "write", "write_people"]

Format = Literal["json", "csv", "npz", "bvh", "glb", "trc", "c3d"]
# Ending -> what it is for. The module of the same name under `refiner.formats` has `write`, which takes one motion or a list of
# them (see `ONE_PERSON`), and the path.
FORMATS: dict[Format, str] = {
    "json": "for programs: every frame with its pose and confidence",
    "csv": "for spreadsheets: a row per frame, a column per coordinate",
    "npz": "for NumPy: plain arrays",
    "bvh": "for animation: Blender, Maya, MotionBuilder; a skeleton of fixed bones with rotations, centimetres",
    "glb": "for the web and game engines: glTF 2.0, the same skeleton with a simple body, metres",
    "trc": "for OpenSim and OpenCap: markers, millimetres",
    "c3d": "for biomechanics: Visual3D, Mokka, MATLAB; markers, millimetres",
}


# What needs a package of an extra, and which.
NEEDED: dict[str, str] = {"glb": "pygltflib", "c3d": "ezc3d"}
# Of these a file holds one person; of the others, all.
ONE_PERSON = ("bvh", "trc", "c3d")


def check(ending: str) -> None:
    """
    Raises:
        UserError: the format is unknown, or its extra is not installed.
    """
    if ending not in FORMATS:
        raise UserError(f"there is no format '{ending}': choose one of {', '.join(FORMATS)}")
    if ending in NEEDED:
        require(f"the {ending.upper()} format", NEEDED[ending])


def write(motion: Motion | Sequence[Motion], path: str | Path) -> Path:
    """Writes a motion in the format that the path's ending names, whole or not at all.

    Args:
        motion: at least one frame; or the motions of several people, in a format that holds them (see `write_people`).
        path: ends with one of `FORMATS`.

    Returns:
        The path.

    Raises:
        UserError: the ending is unknown, the format's extra is not installed, or the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending not in FORMATS:
        raise UserError(f"'{path.name}' does not end with a known format: choose one of {', '.join(FORMATS)}")
    motions = [motion] if isinstance(motion, Motion) else list(motion)
    if ending in ONE_PERSON and len(motions) != 1:
        raise UserError(f"'{path.name}' can hold one person, not {len(motions)}: write a file for each")
    check(ending)
    writer = importlib.import_module(f"refiner.formats.{ending}")
    try:
        # under its own name, by which some libraries go and which TRC has in its first line
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as scratch:
            part = Path(scratch, path.name)
            writer.write(motions[0] if ending in ONE_PERSON else motions, part)
            part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): choose another folder") from None
    return path


def write_people(motions: Sequence[Motion], folder: Path, stem: str, ending: str) -> list[Path]:
    """Writes the people of a video: `joey.glb` with all of them, or `joey.person0.bvh` and so on, where a file holds one.

    Args:
        motions: by person. One without a number (see `Motion.person`) is written as `joey.bvh`.
        folder: of the files.
        stem: their names without what tells people and formats apart.
        ending: the format.

    Raises:
        UserError: as `write`.
    """
    if ending not in ONE_PERSON:
        return [write(motions, folder / f"{stem}.{ending}")]
    return [
        write(motion, folder / f"{stem}{'' if motion.person is None else f'.person{motion.person}'}.{ending}")
        for motion in motions
    ]
