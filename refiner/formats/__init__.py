"""A refined motion in the files that other tools open. One module for each format, loaded when it is asked for.

from refiner import formats
formats.write(motion, "joey.bvh")
"""

import importlib
from pathlib import Path

from refiner.errors import UserError
from refiner.formats.motion import Motion

__all__ = ["FORMATS", "Motion", "write"]

# Ending -> what it is for. The module of the same name under `refiner.formats` has `write(motion, path)`.
FORMATS = {
    "json": "for programs: every frame with its pose and confidence",
    "csv": "for spreadsheets: a row per frame, a column per coordinate",
    "npz": "for NumPy: plain arrays",
    "bvh": "for animation: Blender, Maya, MotionBuilder; a skeleton of fixed bones with rotations, centimetres",
    "glb": "for the web and game engines: glTF 2.0, the same skeleton with a simple body, metres",
    "trc": "for OpenSim and OpenCap: markers, millimetres",
    "c3d": "for biomechanics: Visual3D, Mokka, MATLAB; markers, millimetres",
}


def write(motion: Motion, path: str | Path) -> Path:
    """Writes a motion in the format that the path's ending names, whole or not at all.

    Args:
        motion: at least one frame.
        path: ends with one of `FORMATS`.

    Returns:
        The path.

    Raises:
        UserError: the ending is unknown, the format's extra is not installed, or the file cannot be written.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending not in FORMATS:
        raise UserError(f"'{path.name}' ends with no known format: choose one of {', '.join(FORMATS)}")
    writer = importlib.import_module(f"refiner.formats.{ending}")
    part = path.with_name(f".{path.stem[:100]}.part{path.suffix}")
    try:
        writer.write(motion, part)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): choose another folder") from None
    finally:
        part.unlink(missing_ok=True)
    return path
