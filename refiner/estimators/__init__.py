"""From pictures to landmarks: one module for each estimator, and the table in which it is chosen by name."""

from collections.abc import Callable
from typing import Any, Literal

from refiner.errors import UserError
from refiner.estimators.base import Estimator, Smoothing
from refiner.estimators.mediapipe import MediaPipe
from refiner.extras import is_there


def _blazepose(model: str, **options: Any) -> Estimator:
    from refiner.estimators.blazepose.estimator import BlazePose  # with OpenCV, for which the others need not wait

    return BlazePose(model, **options)


def _blazepose_bf16(model: str, **options: Any) -> Estimator:
    from refiner.estimators.blazepose.openvino import OpenVino

    return _blazepose(model, name="blazepose-bf16", engine=OpenVino, **options)


EstimatorName = Literal["mediapipe", "blazepose", "blazepose-bf16"]
# By name: what makes an estimator from its model's name or file, and from the options of `named` that are not as usual.
ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    "mediapipe": MediaPipe,
    "blazepose": _blazepose,
    "blazepose-bf16": _blazepose_bf16,
}
DEFAULT = "mediapipe"


def default_estimator(people: int = 1) -> EstimatorName:
    """The one that `refiner video` takes: the faster one where it is installed, or where several people are followed."""
    return "blazepose" if people > 1 or is_there("ai_edge_litert") else "mediapipe"


def named(
    name: str, model: str = "full", *, smoothing: Smoothing = "mediapipe", looks: int = 1, people: int = 1
) -> Estimator:
    """An estimator by its name.

    Args:
        name: of `ESTIMATORS`.
        model: the name of one of its models, or the path of a file.
        smoothing: over time: MediaPipe's filters, or none.
        looks: at each person; 2: at the picture and its mirror image.
        people: that it follows through a video, at most.

    Raises:
        UserError: there is no such estimator, no such model, or the estimator has no such option.
    """
    if name not in ESTIMATORS:
        raise UserError(f"there is no estimator '{name}': choose {' or '.join(ESTIMATORS)}")
    options = {"smoothing": smoothing} if smoothing != "mediapipe" else {}
    options |= {"looks": looks} if looks != 1 else {}
    options |= {"people": people} if people != 1 else {}
    return ESTIMATORS[name](model, **options)
