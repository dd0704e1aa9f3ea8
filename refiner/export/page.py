"""The endpoint's page without the endpoint: a folder for any web host, in which MediaPipe and the refiner run in the browser.

The page's files are those of the package that registers them: the library knows nothing of it.
"""

import json
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from refiner.errors import UserError
from refiner.export import task
from refiner.inference.depth_refiner import DepthRefiner
from refiner.skeleton import to_coco

GROUP = "pose_depth_refiner.page"
INDEX, FILES, CLIP = "index.html", "page", "clip/clip.json"
REFINED, STOCK = "v1/refined.task", "page/pose_landmarker.task"
LIBRARIES = "vendor"
# What anybody may have, with its endings: sources of the build, packed copies, npm's folder and notes stay where they are.
_PUBLIC = {
    "": (".css", ".svg"),
    "js": (".js",),
    "clip": (".mp4", ".json"),
    LIBRARIES: (".js", ".mjs", ".wasm", "LICENSE"),
}


def is_public(name: str) -> bool:
    """Whether a file of the page, named from its folder, is for visitors."""
    folder = name.partition("/")[0] if "/" in name else ""
    return name.endswith(_PUBLIC.get(folder, ()))


def page_folder() -> Path:
    """Where the page's files are.

    Raises:
        UserError: this installation has no page, or the page has not got what it takes from npm.
    """
    for entry in entry_points(group=GROUP):
        folder = Path(next(iter(entry.load().__path__)))
        if not (folder / LIBRARIES).is_dir():
            raise UserError(
                f"the page's libraries are not in {folder / LIBRARIES}: run 'make page' in the checkout, which needs npm"
            )
        return folder
    raise UserError("the page comes with the package 'serve', which is not installed: install pose-depth-refiner again")


def build(out: Path, refiner: DepthRefiner, pose_model: Path, page: Path) -> Iterator[Path]:
    """Writes the folder.

    Args:
        out: made where it is not there; files of the same names are replaced.
        refiner: what refines.
        pose_model: MediaPipe's `.task`, to put it into, and to compare with.
        page: the page's files.

    Yields:
        The files, as they are written.

    Raises:
        UserError: the model is not a pose landmarker.
    """
    contents = {REFINED: task.bundle(refiner, pose_model), STOCK: pose_model.read_bytes()}
    contents[INDEX] = (page / INDEX).read_bytes()
    for path in sorted(page.rglob("*")):
        name = path.relative_to(page).as_posix()
        if is_public(name) and path.is_file():
            contents[f"{FILES}/{name}"] = path.read_bytes()
    clip = refined_clip(json.loads((page / CLIP).read_text()), refiner)
    contents[f"{FILES}/{CLIP}"] = json.dumps(clip, separators=(",", ":")).encode()
    for name, content in contents.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        yield path


def refined_clip(clip: dict[str, Any], refiner: DepthRefiner) -> dict[str, Any]:
    """The example with its answer, which an endpoint would give; of 17 joints, for the page shows no others."""
    poses, visibility, points = (np.array(clip[key]) for key in ("poses", "visibility", "image_points"))
    answer = refiner.predict(poses, visibility, image_points=points, sequence=True, fps=clip["fps"])

    def rounded(values: np.ndarray, digits: int) -> list[Any]:
        return values.astype(np.float64).round(digits).tolist()

    return {
        **clip,
        "poses": rounded(to_coco(poses), 3),
        "visibility": rounded(to_coco(visibility[..., None])[..., 0], 2),
        "image_points": rounded(to_coco(points), 1),
        "refined": rounded(answer.poses, 3),
        "confidence": rounded(answer.confidence, 2),
        "model": {"name": refiner.name, "version": refiner.version},
    }
