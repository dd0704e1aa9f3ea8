"""Puts the folder together: the page's own files, MediaPipe for browsers out of its npm package, and the two model bundles."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from refiner.errors import UserError
from refiner.export import task
from refiner.inference.depth_refiner import DepthRefiner
from refiner.npm import TASKS_VISION, read_package

REFINED, STOCK = "refined.task", "mediapipe.task"  # names that main.js knows
# What FilesetResolver loads: with SIMD, or without where a browser lacks it.
_RUNTIME = (
    "vision_bundle.mjs",
    *(f"wasm/vision_wasm_{kind}internal.{end}" for kind in ("", "nosimd_") for end in ("js", "wasm")),
)


def build(out: Path, refiner: DepthRefiner, pose_model: Path, tasks_vision: str = "") -> Iterator[Path]:
    """Writes the folder.

    Args:
        out: made where it is not there; files of the same names are replaced.
        refiner: what refines.
        pose_model: MediaPipe's `.task`, to put it into, and to compare with.
        tasks_vision: the npm package's `.tgz`; by default npm is asked for it.

    Yields:
        The files, as they are written.

    Raises:
        UserError: the npm package cannot be had, or the model is not a pose landmarker.
    """
    package = read_package(TASKS_VISION, tasks_vision or None)
    missing = [name for name in _RUNTIME if name not in package]
    if missing:
        raise UserError(f"{TASKS_VISION.requirement} has no {missing[0]}: give the package as it was released")
    contents = {f"mediapipe/{name}": package[name] for name in _RUNTIME}
    contents |= {REFINED: task.bundle(refiner, pose_model), STOCK: pose_model.read_bytes()}
    contents |= {path.name: path.read_bytes() for path in files("refiner.site").joinpath("static").iterdir()}
    for name, content in contents.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        yield path
