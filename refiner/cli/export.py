"""refiner export: the refiner as a file for other programs."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from refiner.cli.help import Flag, Model, PoseModel, takes
from refiner.errors import UserError
from refiner.estimators.mediapipe_assets import MODELS, model_path
from refiner.export import standalone, task
from refiner.inference.depth_refiner import DepthRefiner

Kind = Literal["task", "onnx", "tflite"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Write the refiner as a file for other programs. Each frame is refined by itself.
    $ refiner export --to task
    $ refiner export --to onnx tflite --out models/
    """

    to: Annotated[tuple[Kind, ...], takes("KIND …")]
    """task: MediaPipe's own model file with the refiner inside, for any app that takes a PoseLandmarker's model.
    onnx, tflite: the refiner alone, MediaPipe's landmarks in and out."""
    out: Annotated[Path, takes("FOLDER")] = Path()
    """Folder to write into; this one by default."""
    model: Model = ""
    """A checkpoint's folder, or models:/NAME@ALIAS; the model in the box by default."""
    pose_model: PoseModel = "full"
    """What the refiner is put into: lite, full, heavy, or a .task file of MediaPipe's."""
    force: Flag = False
    """Write over what is there."""

    def __post_init__(self) -> None:
        if not self.to:
            raise UserError("--to names no format: choose task, onnx or tflite")


def run(options: Options) -> int:
    """Writes the files and says where they are; returns the exit status."""
    targets: dict[Kind, Path] = {kind: options.out / _name(kind, options) for kind in options.to}
    there = [path for path in targets.values() if path.exists()]
    if there and not options.force:
        raise UserError(f"{there[0]} is there already: --force writes over it, --out elsewhere")
    refiner = DepthRefiner(options.model or None, device="cpu")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for kind, path in targets.items():
            with tempfile.TemporaryDirectory(dir=options.out, prefix=".") as scratch:
                part = Path(scratch, path.name)
                _WRITERS[kind](refiner, part, options)
                part.replace(path)  # whole or not at all
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    except OSError as error:
        raise UserError(f"{options.out} cannot be written to ({error.strerror}): choose another --out") from None
    return 0


def _name(kind: Kind, options: Options) -> str:
    if kind != "task":
        return f"pose_depth_refiner.{kind}"
    stem = f"pose_landmarker_{options.pose_model}" if options.pose_model in MODELS else Path(options.pose_model).stem
    return f"{stem}_refined.task"


def _task(refiner: DepthRefiner, path: Path, options: Options) -> None:
    path.write_bytes(task.bundle(refiner, model_path(options.pose_model)))


def _onnx(refiner: DepthRefiner, path: Path, options: Options) -> None:
    standalone.write_onnx(refiner, path)


def _tflite(refiner: DepthRefiner, path: Path, options: Options) -> None:
    path.write_bytes(standalone.tflite(refiner))


_WRITERS: dict[Kind, Callable[[DepthRefiner, Path, Options], None]] = {"task": _task, "onnx": _onnx, "tflite": _tflite}
