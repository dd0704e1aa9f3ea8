"""Where MediaPipe sees the joints of the studio's dancers: what `body.MARKED` and `person.MARKED` hold.

    python -m studio.dataset.marks --dataset data/studio --observations data/observations

The dataset is one of `rayjobs.studio`, filmed by all nine cameras and extracted. Image points of the nine views are
triangulated, of the face only from the views it looks at, and compared with the body's own joints in the frame of the bone that
carries each. Centimetres at a height of 1.75 m; the right side counts as the left side's mirror image. The last line is one
JSON object.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner import UserError
from refiner.command import launch
from refiner.data import multiview
from refiner.data.aistpp import CAMERAS
from refiner.data.pairing import read_observations
from refiner.evaluation.metrics import CM
from refiner.skeleton import INDEX, MIRROR, to_coco
from studio.bodies.body import both_sides
from studio.dataset import MANIFEST, Spec, Take, plan

# Which way a point of the face looks, in the head's frame, and the cosine from which on a camera sees it.
LOOKS = {"nose": (0.0, 0.0, 1.0), "left_eye": (0.33, 0.0, 0.94), "left_ear": (1.0, 0.0, 0.1)}
SEEN = 0.3
MAX_ERROR_PX, MIN_VIEWS = 30.0, 3  # of the triangulation, at 720 lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    dataset: str
    """Root of the rendered dataset."""
    observations: str
    """Folder of its observations."""
    sequences: int = 40
    """How many of its sequences are looked at."""


def offsets(take: Take, observations: Path) -> np.ndarray | None:
    """(F, 17, 3) m at 1.75 m, from each joint to where the views see it, in its bone's frame, the right side mirrored; NaN
    where too few views agree. None where a view is missing.
    """
    paths = [observations / f"{take.name.with_camera(camera)}.parquet" for camera in CAMERAS]
    if not all(path.exists() for path in paths):
        return None
    views = [read_observations(path) for path in paths]
    image = np.stack([to_coco(view["image"]) for view in views])  # (9, F, 17, 2)
    weights = np.stack([to_coco(v["visibility"][..., None])[..., 0] * v["detected"][:, None] for v in views])
    turned, placed = take.bones(np.arange(image.shape[1]) / take.spec.fps)
    joints, cameras = take.dancer.joints(turned, placed), [take.cameras[camera] for camera in CAMERAS]
    bones = both_sides(take.dancer.marks)[0]
    for name, looks in LOOKS.items():
        for joint, side in {INDEX[name]: 1.0, int(MIRROR[INDEX[name]]): -1.0}.items():
            out = turned[:, bones[joint]] @ (np.array(looks) * (side, 1, 1))  # (F, 3)
            towards = np.stack([camera.position for camera in cameras])[:, None] - joints[None, :, joint]
            towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
            weights[:, :, joint] *= (towards * out).sum(-1) > SEEN
    person = multiview.triangulate(cameras, image, weights, MAX_ERROR_PX)
    off = np.einsum("fjba,fjb->fja", turned[:, bones], person.points - joints) * 1.75 / take.dancer.build.height
    off[person.kept.sum(0) < MIN_VIEWS] = np.nan
    right = [joint for name, joint in INDEX.items() if name.startswith("right")]
    off[:, right, 0] *= -1
    return off


def run(options: Options) -> dict:
    """Where each joint is seen, how much that varies, and where it is marked.

    Raises:
        UserError: that is no dataset of the studio's, or none of its sequences was extracted.
    """
    try:
        content = json.loads(Path(options.dataset, MANIFEST).read_text())
    except FileNotFoundError:
        raise UserError(f"{options.dataset} holds no dataset of 'rayjobs.studio': {MANIFEST} is missing") from None
    content.pop("version")
    takes = plan(Spec(**content | {"size": tuple(content["size"])}))
    parts: list[np.ndarray] = []
    for take in takes:
        if len(parts) < options.sequences and (off := offsets(take, Path(options.observations))) is not None:
            parts.append(off)
    if not parts:
        raise UserError(
            f"{options.observations} has no sequence of {options.dataset} from all nine cameras: extract it"
        )
    off = np.concatenate(parts)
    marks = {}
    print(f"{len(parts)} dancers, {len(off)} moments; cm at 1.75 m\n{'':<15}{'seen':>20}{'spread':>20}{'marked':>20}")
    for name, (_, marked) in takes[0].dancer.marks.items():
        both = off[:, sorted({INDEX[name], int(MIRROR[INDEX[name]])})].reshape(-1, 3) * CM
        seen = np.nanmedian(both, axis=0)
        if name == "nose":  # in the middle of a symmetric face
            seen[0] = 0
        spread = np.nanmedian(np.abs(both - seen), axis=0)
        marks[name] = {"seen_cm": seen.tolist(), "spread_cm": spread.tolist(), "marked_cm": [CM * v for v in marked]}
        cells = ("".join(f"{v:6.1f}" for v in row) for row in marks[name].values())
        print(f"{name:<15}" + "".join(f"{cell:>20}" for cell in cells))
    return marks


if __name__ == "__main__":
    launch(run, Options)
