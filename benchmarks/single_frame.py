"""What the refined `.task` is worth as a single-frame model, on the studio's test split.

    python -m benchmarks.single_frame --pairs data/pairs

MediaPipe's stored landmarks go through the network that `refiner export` appends (`refiner.export.landmarks`), in LiteRT as a
`.tflite` of its own; in the bundle it gives the same within 0.007 mm (`benchmarks.task`). Beside it are MediaPipe, and
`DepthRefiner` frame by frame and over whole clips. The last line is one JSON object.
"""

from dataclasses import dataclass

import numpy as np

from refiner import DepthRefiner
from refiner.command import launch, log
from refiner.data import records
from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.export import standalone
from refiner.skeleton import FROM_MEDIAPIPE, NUM_LANDMARKS, root_centred, to_coco

NAMES = ("depth_cm", "mpjpe_cm", "pa_mpjpe_cm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of pairs."""
    split: str = "test"
    model: str = ""
    """A checkpoint's folder, or models:/…; the model in the box by default."""


def appended(refiner: DepthRefiner, pairs: Pairs) -> np.ndarray:
    """(N, 17, 3) m, as the appended network answers, frame by frame."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=standalone.tflite(refiner)).get_signature_runner()
    visibility = np.ones(pairs.corrupted.shape[:2]) if pairs.visibility is None else pairs.visibility
    points = pairs.corrupted[..., :2] if pairs.image_points is None else pairs.image_points
    given = {"world": pairs.corrupted, "visibility": visibility, "points": points}
    whole = {
        name: np.zeros((len(pairs), NUM_LANDMARKS, *values.shape[2:]), np.float32) for name, values in given.items()
    }
    for name, values in given.items():
        whole[name][:, FROM_MEDIAPIPE] = values  # the network looks at no others
    answers = [run(**{name: values[i : i + 1] for name, values in whole.items()})["refined"] for i in range(len(pairs))]
    return root_centred(to_coco(np.concatenate(answers)))


def run(options: Options) -> dict[str, object]:
    pairs, refiner = records.read_pairs(options.pairs, options.split), DepthRefiner(options.model or None, device="cpu")
    alone = refiner.predict(pairs.corrupted, pairs.visibility, image_points=pairs.image_points, recognise=False).poses
    methods = {
        "MediaPipe": pairs.corrupted, "the refined file's network": appended(refiner, pairs), "DepthRefiner, single": alone,
        "DepthRefiner, clip": refiner.predict_pairs(pairs).poses,
    }  # fmt: skip
    table = {}
    for name, poses in methods.items():
        every = metrics.summarise(poses, pairs)
        table[name] = {key: round(every[key], 3) for key in NAMES if key in every}
        log(f"{name:<28} {table[name]}")
    apart = np.linalg.norm(methods["the refined file's network"] - alone, axis=-1) * 1000
    return {"pairs": len(pairs), "network_apart_mm": float(apart.mean()), **table}


if __name__ == "__main__":
    launch(run, Options)
