"""refiner page: the endpoint's page as a folder for any web host: MediaPipe and the refiner run in the visitor's browser."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from refiner.cli.help import Flag, Model, PoseModel, takes
from refiner.errors import UserError
from refiner.estimators.mediapipe_assets import model_path
from refiner.export.page import build, page_folder
from refiner.inference.depth_refiner import DepthRefiner


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Write the endpoint's page for any web host: it refines in the browser.
    $ refiner page --out site/
    $ python -m http.server --bind 127.0.0.1 --directory site/
    """

    out: Annotated[Path, takes("FOLDER")]
    """Folder to write into; put it on any web host. Webcams need https, or this machine."""
    model: Model = ""
    """A checkpoint's folder, or models:/NAME@ALIAS; the model in the box by default."""
    pose_model: PoseModel = "full"
    """What the refiner is put into: lite, full, heavy, or a .task file of MediaPipe's."""
    force: Flag = False
    """Write into a folder that is not empty."""


def run(options: Options) -> int:
    """Writes the folder and says how large it is; returns the exit status."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not options.force:
        raise UserError(f"{out} is not empty: --force writes into it, --out elsewhere")
    page = page_folder()
    refiner = DepthRefiner(options.model or None, device="cpu")
    try:
        written = list(build(out, refiner, model_path(options.pose_model), page))
    except OSError as error:
        raise UserError(f"{out} cannot be written to ({error.strerror}): choose another --out") from None
    print(f"{out}  {len(written)} files, {sum(path.stat().st_size for path in written) / 1e6:.0f} MB")
    return 0
