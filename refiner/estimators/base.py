"""What every estimator gives: an observation of a frame, and what says which estimator made it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Observation:
    """One person in one frame, as MediaPipe sees them."""

    world: np.ndarray  # (33, 3) float32 metres, virtual camera frame, the hips' midpoint at the origin
    image: np.ndarray  # (33, 2) float32 pixels
    visibility: np.ndarray  # (33,) float32, 0 … 1
    presence: np.ndarray  # (33,) float32, 0 … 1


@dataclass(frozen=True, slots=True)
class EstimatorInfo:
    """Which estimator made an observation: written into every file of them."""

    name: str
    version: str
    model_sha256: str
