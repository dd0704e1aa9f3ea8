"""How AIST++'s genres move."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Manner:
    """How a genre moves."""

    bpm: tuple[float, float]
    bounce: float  # metres that the pelvis drops on each beat
    crouch: float  # how deep and how often
    energy: float  # of the arms
    turns: float
    kicks: float


MANNERS = {
    "gBR": Manner((80, 120), 0.05, 0.9, 1.0, 0.20, 0.25),
    "gPO": Manner((85, 110), 0.02, 0.4, 1.0, 0.12, 0.05),
    "gLO": Manner((95, 125), 0.04, 0.6, 1.1, 0.15, 0.20),
    "gMH": Manner((80, 110), 0.06, 0.7, 0.9, 0.12, 0.10),
    "gLH": Manner((75, 105), 0.05, 0.7, 1.0, 0.15, 0.10),
    "gHO": Manner((110, 135), 0.05, 0.4, 0.7, 0.20, 0.15),
    "gWA": Manner((100, 125), 0.02, 0.2, 1.3, 0.25, 0.08),
    "gKR": Manner((75, 100), 0.06, 0.8, 1.3, 0.10, 0.15),
    "gJS": Manner((80, 115), 0.02, 0.5, 1.1, 0.25, 0.20),
    "gJB": Manner((70, 100), 0.01, 0.4, 1.0, 0.30, 0.25),
}


@dataclass(frozen=True)
class Beats:
    """A choreography's time. N beats, T moments."""

    times: np.ndarray  # (T,) seconds
    rate: float  # moments a second
    starts: np.ndarray  # (N,) seconds
    length: float  # seconds from one beat to the next
