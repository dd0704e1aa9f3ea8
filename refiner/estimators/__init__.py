"""From pictures to landmarks: one module for each estimator, and the table in which it is chosen by name."""

from collections.abc import Callable

from refiner.errors import UserError
from refiner.estimators.base import Estimator
from refiner.estimators.mediapipe import MediaPipe

# By name: what makes an estimator from its model's name or file.
ESTIMATORS: dict[str, Callable[[str], Estimator]] = {"mediapipe": MediaPipe}
DEFAULT = "mediapipe"


def named(name: str, model: str = "full") -> Estimator:
    """An estimator by its name.

    Args:
        name: of `ESTIMATORS`.
        model: the name of one of its models, or the path of a file.

    Raises:
        UserError: there is no such estimator, or no such model.
    """
    if name not in ESTIMATORS:
        raise UserError(f"there is no estimator '{name}': choose {' or '.join(ESTIMATORS)}")
    return ESTIMATORS[name](model)
