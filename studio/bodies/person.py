"""A person of realistic shape (`makehuman`) in realistic clothes (`dressing`), who dances like a drawn dancer."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from studio import rig
from studio.bodies.body import EYE, Body, Marks
from studio.bodies.dressing import dress
from studio.bodies.heads import Head
from studio.bodies.looks import Look, linear
from studio.bodies.makehuman import Figure, assets, shaped, skeleton
from studio.bodies.mesh import Mesh

# As `drawn.MARKED`, of MakeHuman's people. Its hips lie deeper in the body than a detector sees them, its shoulders further out
# than those of the drawn dancers.
MARKED: Marks = {
    "nose": (rig.HEAD, (0.0, 0.007, -0.014)),
    "left_eye": (rig.HEAD, (-0.002, 0.0, -0.014)),
    "left_ear": (rig.HEAD, (-0.026, 0.005, 0.011)),
    "left_shoulder": (rig.SPINE3, (-0.001, 0.026, -0.011)),
    "left_elbow": (rig.L_SHOULDER, (-0.012, -0.005, 0.005)),
    "left_wrist": (rig.L_ELBOW, (0.005, -0.008, 0.003)),
    "left_hip": (rig.PELVIS, (-0.004, -0.009, 0.031)),
    "left_knee": (rig.L_HIP, (-0.004, 0.003, -0.007)),
    "left_ankle": (rig.L_KNEE, (0.002, 0.017, -0.001)),
}


@dataclass(frozen=True, kw_only=True)
class PersonMeasures:
    """What motion and clothes want to know of a body, metres (see `body.Measures`)."""

    height: float
    sole: float  # height of the ankles above the shoes' soles
    bust: float  # 0 … 1


@dataclass(frozen=True)
class Person(Body):
    """One MakeHuman body with its clothes."""

    build: PersonMeasures
    figure: Figure
    seed: int

    marks = MARKED

    @classmethod
    def draw(cls, seed: int) -> "Person":
        rng = np.random.default_rng([seed, 0x3A4E])
        figure = Figure.draw(rng)
        vertices = shaped(figure)
        placed = skeleton(vertices)[1]
        ankle = float(placed[[rig.L_ANKLE, rig.R_ANKLE], 1].mean())
        sole = ankle - float(_skin(vertices)[:, 1].min()) + float(rng.uniform(0.016, 0.030))
        measures = PersonMeasures(
            height=figure.height, sole=sole, bust=float(0.9 - figure.male if figure.male < 0.5 else 0.0)
        )
        look = Look.draw(rng, measures.bust)
        return cls(measures, replace(look, colours=_complexion(rng, look.colours, figure)), figure, seed)

    @cached_property
    def _skeleton(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return skeleton(shaped(self.figure))

    @cached_property
    def offsets(self) -> np.ndarray:
        return self._skeleton[2]

    @cached_property
    def bind(self) -> tuple[np.ndarray, np.ndarray]:
        return self._skeleton[0], self._skeleton[1]

    @cached_property
    def mesh(self) -> Mesh:
        vertices = shaped(self.figure)
        rng = np.random.default_rng([self.seed, 0xC107])
        ground = self.bind[1][[rig.L_ANKLE, rig.R_ANKLE], 1].mean() - self.build.sole
        return dress(self.figure, self.look, vertices, self.bind[1], _head(vertices), ground, rng)

    @cached_property
    def face(self) -> dict[str, np.ndarray]:
        vertices = shaped(self.figure)
        head, origin = _head(vertices), self.bind[1][rig.HEAD]
        skin = _skin(vertices)
        eyes = head.eyes.mean(0)
        between = (np.abs(skin[:, 0]) < 0.005) & (skin[:, 1] < eyes[1] - 0.015) & (skin[:, 1] > eyes[1] - 0.065)
        points = {"nose": skin[between][skin[between, 2].argmax()]}
        for side, group, eye, canal in zip(
            ("left", "right"), ("helper-l-eye", "helper-r-eye"), head.eyes, head.canals, strict=True
        ):
            ball = vertices[np.unique(assets().faces[group])]
            points[f"{side}_eye"] = np.array([eye[0], eye[1], ball[:, 2].max()])
            points[f"{side}_ear"] = canal
        return {name: point - origin for name, point in points.items()}

    @property
    def head(self) -> tuple[np.ndarray, float]:
        head = _head(shaped(self.figure))
        return head.eyes.mean(0) - EYE * (0, 1, 1) * head.scale, head.scale


def _skin(vertices: np.ndarray) -> np.ndarray:
    return vertices[np.unique(assets().faces["body"])]


def _head(vertices: np.ndarray) -> Head:
    """Where eyes and ears are. An ear is marked at its canal, not at its rim, as on the drawn dancers."""
    base = assets()
    eyes = np.stack([vertices[base.joints[f"{side}-eye"]].mean(0) for side in "lr"]).astype(float)
    ear = base.masks["ears"] > 0.5
    canals = []
    for sign in (1, -1):
        points = vertices[ear & (vertices[:, 0] * sign > 0)] * (sign, 1, 1)
        x, z = np.percentile(points[:, 0], 35), np.percentile(points[:, 2], 85)
        canals.append((sign * x, points[:, 1].mean(), z))
    return Head(eyes, np.array(canals), float((eyes[0, 0] - eyes[1, 0]) / (2 * EYE[0])))


# sRGB of skin by descent (see `makehuman.ORIGINS`), from and to
_SKINS = np.array(
    [[(70, 44, 30), (140, 92, 62)], [(214, 168, 128), (238, 202, 168)], [(222, 172, 138), (246, 212, 190)]]
)
_DARK = np.array([(26, 21, 20), (40, 29, 24), (58, 40, 30)])


def _complexion(rng: np.random.Generator, colours: np.ndarray, figure: Figure) -> np.ndarray:
    """The look's colours with skin, lips and hair that go with descent and age."""
    out = colours.copy()
    mixed = figure.origin @ (_SKINS[:, 0] + (_SKINS[:, 1] - _SKINS[:, 0]) * rng.random((3, 1)))
    skin = mixed * rng.uniform(0.93, 1.03) * rng.normal(1, 0.015, 3)
    hair = _DARK[rng.integers(len(_DARK))]
    out[0], out[8] = linear(np.clip(skin, 0, 252)), linear(np.clip(skin * (0.84, 0.60, 0.60), 0, 252))
    if figure.origin[2] < 0.6:
        out[7] = linear(hair)
        out[9] = linear(np.array([44, 30, 24]))
    grey = np.clip((figure.age - 42) / 25 + rng.normal(0, 0.25), 0, 0.9)
    out[7] += (0.28 - out[7]) * grey
    out[10] = out[7] * 0.6
    return out
