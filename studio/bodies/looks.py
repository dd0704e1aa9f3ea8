"""What sets one dancer apart from another: proportions, clothes, hair and colours, all drawn from a seed."""

from dataclasses import dataclass

import numpy as np

from studio import rig

SKIN, TOP, BOTTOM, SHOES, HAIR = range(5)
NUM_MATERIALS = 5


@dataclass(frozen=True, kw_only=True)
class Build:
    """A body's proportions and girths. Lengths in metres, the rest relative to the average (1)."""

    height: float
    legs: float  # length of the legs
    thighs: float  # what of a leg's length the thigh has more, and the shank less
    torso: float  # length of the torso
    arms: float  # length of the arms
    shoulders: float  # width
    hips: float  # width
    girth: float  # of the torso
    limbs: float  # girth of arms and legs
    bust: float  # 0 … 1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        feminine = rng.random()
        return cls(
            height=float(np.clip(rng.normal(1.80 - 0.13 * feminine, 0.06), 1.50, 1.95)),
            legs=rng.uniform(0.93, 1.07),
            thighs=float(np.clip(rng.normal(0, 0.035), -0.08, 0.08)),
            torso=rng.uniform(0.89, 1.02),
            arms=rng.uniform(0.94, 1.06),
            shoulders=rng.uniform(0.97, 1.08) - 0.10 * feminine,
            hips=rng.uniform(0.93, 1.03) + 0.08 * feminine,
            girth=float(np.clip(rng.normal(1.0, 0.09), 0.86, 1.25)),
            limbs=float(np.clip(rng.normal(1.02 - 0.08 * feminine, 0.07), 0.85, 1.2)),
            bust=float(np.clip((feminine - 0.45) * 1.8, 0, 1)),
        )

    def offsets(self) -> np.ndarray:
        """(24, 3) each joint relative to its parent in the zero pose, metres.

        Proportions are those of AIST++'s dancers where detectors see joints, which is 3 cm above a shoulder's and 1.5 cm above
        an ankle's: MediaPipe takes a body with shorter legs for one whose feet are further away (docs/decisions/studio.md).
        """
        s = self.height / 1.75
        leg, arm, wide, hip, torso = (
            s * share for share in (self.legs, self.arms, self.shoulders, self.hips, self.torso)
        )
        o = np.zeros((rig.NUM_BONES, 3))
        o[rig.SPINE1] = 0, 0.101 * torso, -0.005
        o[rig.SPINE2] = 0, 0.111 * torso, -0.004
        o[rig.SPINE3] = 0, 0.067 * torso, 0.004
        o[rig.NECK] = 0, 0.135 * torso + 0.055 * s, -0.012
        o[rig.HEAD] = 0, 0.075 * s, 0.018
        for side, sign in ((0, 1), (1, -1)):
            o[rig.L_HIP + side] = sign * 0.102 * hip, -0.055 * torso, 0.0
            o[rig.L_KNEE + side] = sign * -0.006, -0.416 * leg * (1 + self.thighs), 0.004
            o[rig.L_ANKLE + side] = sign * -0.004, -0.400 * leg * (1 - self.thighs), -0.012
            o[rig.L_FOOT + side] = sign * 0.012, -0.060 * s, 0.125 * s
            o[rig.L_COLLAR + side] = sign * 0.048 * wide, 0.135 * torso, -0.010
            o[rig.L_SHOULDER + side] = sign * 0.106 * wide, 0.005 * s, -0.008
            o[rig.L_ELBOW + side] = sign * 0.268 * arm, 0, -0.004
            o[rig.L_WRIST + side] = sign * 0.248 * arm, 0, 0.004
            o[rig.L_HAND + side] = sign * 0.085 * s, 0, 0
        return o

    @property
    def sole(self) -> float:
        """Height of the ankle joint above the sole, metres."""
        return 0.088 * self.height / 1.75


# --- clothes, hair, colours --------------------------------------------------------------------------------------------

_SKINS = np.array(  # sRGB, from light to dark
    [(244, 208, 177), (231, 184, 143), (224, 172, 128), (198, 134, 93), (161, 102, 66), (116, 72, 46), (80, 50, 34)]
)
_HAIRS = np.array(
    [(28, 22, 20), (45, 31, 24), (84, 56, 36), (122, 84, 50), (196, 158, 98), (150, 60, 34), (120, 118, 116)]
)
_CLOTHS = np.array(
    [
        (236, 234, 228), (32, 33, 38), (120, 124, 130), (40, 62, 110), (176, 42, 46), (226, 178, 60), (52, 118, 96),
        (214, 108, 56), (132, 72, 140), (92, 150, 196), (200, 186, 160), (224, 132, 158), (74, 92, 60), (60, 42, 44),
    ]
)  # fmt: skip
_IRISES = np.array([(70, 46, 30), (66, 88, 108), (40, 30, 26)])
_WORN = np.array([16, 16, 12, 10, 7, 5, 6, 5, 3, 6, 8, 2, 6, 4]) / 106  # how often each is worn
_DENIM = np.array([(58, 82, 124), (34, 46, 74), (108, 134, 168), (38, 38, 44), (150, 136, 110), (92, 96, 84)])

PLAIN, STRIPES, LOGO, RAGLAN, CHECKS = range(5)  # patterns of the top


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 -> linear light 0 … 1."""
    c = np.asarray(srgb, float) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Clothes, hair and colours (linear light)."""

    sleeves: float  # share of the arm that the top covers: 0.3 T-shirt … 1.9 long sleeves
    trousers: float  # share of the leg that the trousers cover: 0.8 shorts … 1.9 long
    loose: float  # how far the cloth stands off, metres
    hood: bool
    hair: str  # "short", "bob", "long", "tail", "bun", "afro", "cap", "beanie", "shaved"
    beard: bool
    pattern: int
    colours: (
        np.ndarray
    )  # (12, 3) skin, top, second colour of the top, bottom, seam, shoes, sole, hair, lips, iris, brows, hat
    head_covered: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, bust: float) -> "Look":
        skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.95, 1.04)
        hair_colour = _HAIRS[rng.choice(len(_HAIRS), p=[0.3, 0.25, 0.15, 0.1, 0.08, 0.05, 0.07])]
        top, second = _CLOTHS[rng.choice(len(_CLOTHS), 2, replace=False, p=_WORN)]
        bottom = _DENIM[rng.integers(len(_DENIM))] if rng.random() < 0.6 else _CLOTHS[rng.choice(len(_CLOTHS), p=_WORN)]
        if np.abs(np.subtract(top, bottom)).sum() < 90:  # a dancer all in one colour hides the waist, which few wear
            bottom = _DENIM[2] if np.mean(top) < 110 else _DENIM[1]
        styles = ["short", "short", "bob", "long", "tail", "bun", "afro", "cap", "beanie", "shaved"]
        weights = np.array([1.6, 1.6, 1, 1, 1, 1, 0.7, 1, 0.8, 0.6])
        weights[2:6] *= 0.3 + 1.7 * bust
        weights[9] *= 1 - 0.9 * bust
        hair = styles[rng.choice(len(styles), p=weights / weights.sum())]
        sleeves = [0.5, 0.6, 0.75, 1.92][rng.choice(4, p=[0.35, 0.25, 0.1, 0.3])]
        trousers = [0.85, 1.05, 1.86, 1.9][rng.choice(4, p=[0.15, 0.1, 0.4, 0.35])]
        sneakers = rng.choice([0, 1, 4, 3, 5])
        hat = _CLOTHS[rng.choice(len(_CLOTHS), p=_WORN)]
        colours = [
            skin, top, second, bottom, bottom * 0.55, _CLOTHS[sneakers], _CLOTHS[0 if rng.random() < 0.75 else 1],
            hair_colour, skin * (0.85, 0.69, 0.68), _IRISES[rng.choice(3, p=[0.45, 0.15, 0.4])],
            hair_colour * 0.7, hat,
        ]  # fmt: skip
        return cls(
            sleeves=float(sleeves),
            trousers=float(trousers),
            loose=float(rng.uniform(0.008, 0.022)),
            hood=bool(sleeves > 1.5 and rng.random() < 0.6),
            hair=hair,
            beard=bool(bust == 0 and rng.random() < 0.3),
            pattern=int(rng.choice(5, p=[0.25, 0.2, 0.25, 0.15, 0.15])),
            colours=linear(np.clip(np.array(colours, float), 0, 255)),
            head_covered=hair in ("cap", "beanie"),
        )
