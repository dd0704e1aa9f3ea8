"""What a rendered dataset is made from, checked."""

from dataclasses import dataclass

import numpy as np

from refiner.data.aistpp import CAMERAS, FPS
from refiner.errors import UserError
from studio.bodies.body import Body
from studio.bodies.drawn import Dancer
from studio.bodies.person import Person
from studio.cameras import draw_cameras, draw_free_cameras

FOOTAGE = ("clean", "camera")
VIEWPOINTS = {"aistpp": draw_cameras, "free": draw_free_cameras}
BODIES: dict[str, type[Body]] = {"drawn": Dancer, "makehuman": Person}
# What is drawn from a seed of its own. The order counts: a place in it is part of the seed.
_DRAWN = (
    "dancer", "choreography", "performance", "room", "cameras", "source", "filming", "upper", "footage", "varied",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a rendered dataset is made from: the same spec gives the same pictures and annotations."""

    sequences: int
    seconds: float
    fps: float
    seed: int
    size: tuple[int, int]  # width, height
    settings: str | None = None  # folder of real camera settings
    motions: str | None = None  # folder in AIST++'s layout whose keypoints3d drive dancers
    real_share: float = 0.0  # share of the sequences that they drive
    recombine: float = 0.0  # share of these, for training, whose legs dance one motion and whose arms another
    varied: float = 0.0  # share of these, for training, that are danced otherwise than they were captured
    bodies: str = "drawn"  # or "makehuman": who dances
    footage: str = "clean"  # or "camera": with a real camera's faults
    viewpoints: str = "aistpp"  # or "free": where cameras stand that no settings are given for
    cameras: int = len(CAMERAS)  # that film each sequence, drawn from the nine
    first_dancer: int = 1  # number of the first dancer: sequences of datasets that are numbered apart have other names

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise UserError(f"cannot render {self.sequences} sequences: give at least one")
        if not 0.1 <= self.seconds <= 600:
            raise UserError(f"cannot render sequences of {self.seconds} s: give 0.1 to 600 seconds")
        if not 1 <= self.fps <= 240:
            raise UserError(f"cannot film at {self.fps} frames per second: give 1 to 240 (AIST++ has 60)")
        if self.size[0] % 2 or self.size[1] % 2 or min(self.size) < 64 or max(self.size) > 4096:
            raise UserError(f"cannot render {self.size[0]} × {self.size[1]} pixels: give even numbers from 64 to 4096")
        if not 0 <= self.real_share <= 1:
            raise UserError(f"a share of {self.real_share} real motion is not possible: give 0 to 1")
        if not 0 <= self.recombine <= 1:
            raise UserError(f"a share of {self.recombine} recombined motion is not possible: give 0 to 1")
        if not 0 <= self.varied <= 1:
            raise UserError(f"a share of {self.varied} varied motion is not possible: give 0 to 1")
        if self.real_share > 0 and self.motions is None:
            raise UserError("real motion needs a source: name an AIST++ folder with --motions")
        if self.bodies not in BODIES:
            raise UserError(f"there are no bodies '{self.bodies}': give {' or '.join(BODIES)}")
        if self.footage not in FOOTAGE:
            raise UserError(f"there is no footage '{self.footage}': give {' or '.join(FOOTAGE)}")
        if self.viewpoints not in VIEWPOINTS:
            raise UserError(f"there are no viewpoints '{self.viewpoints}': give {' or '.join(VIEWPOINTS)}")
        if not 1 <= self.cameras <= len(CAMERAS):
            raise UserError(f"cannot film with {self.cameras} cameras: AIST++ has nine, give 1 to 9")
        if self.first_dancer < 1:
            raise UserError(f"the first dancer cannot be number {self.first_dancer}: give 1 or more")
        if self.seed < 0:
            raise UserError(f"the seed cannot be {self.seed}: give 0 or more")

    @property
    def frames(self) -> int:
        """Of each video."""
        return max(1, round(self.seconds * self.fps))

    @property
    def annotations(self) -> int:
        """Of each sequence, at exactly 60 Hz whatever the videos' rate is."""
        return max(1, round(self.seconds * FPS))


def seed_of(spec: Spec, what: str, number: int) -> int:
    """A seed of its own for each thing that is drawn."""
    return int(np.random.SeedSequence([spec.seed, _DRAWN.index(what), number]).generate_state(1)[0])
