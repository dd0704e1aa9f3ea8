"""Clothes, shoes and hair of a drawn dancer as implicit surfaces around the flesh."""

import numpy as np

from studio import rig
from studio.bodies.flesh import Bind, head_scale
from studio.bodies.implicit import Cut, Shape
from studio.bodies.looks import BOTTOM, HAIR, SHOES, TOP, Build, Look

_TRUNK = (rig.SPINE1, rig.SPINE2, rig.SPINE3, rig.L_COLLAR, rig.R_COLLAR)


def clothes(b: Build, look: Look, o: np.ndarray, bind: Bind, naked: Shape) -> Shape:
    """Clothes, shoes and hair around the flesh.

    Args:
        b: proportions of the body.
        look: what it wears.
        o: (24, 3) its skeleton, see `Body.offsets`.
        bind: the pose.
        naked: the flesh.
    """
    shape = Shape(*bind)
    s = b.height / 1.75
    hem = -0.075 * s  # of the top: below the hips' crest
    _torso(shape, b, look, o, naked, hem)
    for side, sign in ((0, 1), (1, -1)):
        _sleeve(shape, b, look, o, side, sign)
        _shirt_tail(shape, b, look, side, sign, hem)
        _trouser_leg(shape, b, look, o, side)
        _shoe(shape, b, o, side, sign)
    _hair(shape, b, look)
    return shape


def _torso(shape: Shape, b: Build, look: Look, o: np.ndarray, naked: Shape, hem: float) -> None:
    """The top and the trousers' seat: the flesh, standing off."""
    s, off = b.height / 1.75, look.loose
    gz = s * b.girth * b.girth**0.5
    for row, bone in zip(naked.rows, naked.bones, strict=True):
        if bone in _TRUNK:
            by = 0.010 + off * (1.0 if bone in (rig.SPINE1, rig.SPINE2) else 0.6)
            shape.grown(row, bone, by, material=TOP)
        elif bone == rig.PELVIS:
            shape.grown(row, bone, 0.010 + off, material=TOP, cut=((0, hem, 0), (0, -1, 0)))
            shape.grown(row, bone, 0.003 + 0.30 * off, material=BOTTOM)
    shape.cone(
        rig.SPINE1, (0, 0.02 * s, 0.004), (0, -0.25 * s, 0.0), 0.108 * gz + off, 0.112 * gz + off,
        material=TOP, blend=0.08, cut=((0, hem - o[rig.SPINE1][1], 0), (0, -1, 0)),
    )  # fmt: skip
    if look.hood:
        shape.ellipsoid(
            rig.SPINE3, (0, 0.155 * s, -0.085 * gz), (0.085, 0.060, 0.050), turn=(-0.5, 0, 0), material=TOP, blend=0.04
        )
        shape.cone(
            rig.SPINE3, (-0.06, 0.165 * s, -0.03), (0.06, 0.165 * s, -0.03), 0.042, 0.042, material=TOP, blend=0.04
        )


def _sleeve(shape: Shape, b: Build, look: Look, o: np.ndarray, side: int, sign: int) -> None:
    m, off = b.height / 1.75 * b.limbs, look.loose
    elbow, wrist = o[rig.L_ELBOW + side], o[rig.L_WRIST + side]
    cap = np.full(3, 0.066 * m + 0.4 * off)
    shape.ellipsoid(rig.L_SHOULDER + side, (sign * 0.004, 0, 0), cap, material=TOP, blend=0.05)
    up = min(look.sleeves, 1.0)
    loose = off if look.sleeves < 1 else 0.7 * off
    shape.cone(
        rig.L_SHOULDER + side, (0, 0, 0), elbow * up, 0.059 * m + 0.7 * loose, 0.050 * m + 1.3 * loose,
        material=TOP, blend=0.05, cut=(elbow * up, elbow) if look.sleeves < 1 else None,
    )  # fmt: skip
    if look.sleeves > 1:
        end = wrist * (look.sleeves - 1)
        wide = 0.047 * m + loose
        shape.cone(rig.L_ELBOW + side, (0, 0, 0), wrist * 0.35, wide, wide, material=TOP, blend=0.03)
        shape.cone(
            rig.L_ELBOW + side, wrist * 0.35, wrist, wide, 0.032 * m + 0.8 * loose,
            material=TOP, blend=0.03, cut=(end, wrist),
        )  # fmt: skip


def _shirt_tail(shape: Shape, b: Build, look: Look, side: int, sign: int, hem: float) -> None:
    """The shirt falls over the hips, outside of the trousers."""
    s = b.height / 1.75
    g, m = s * b.girth, s * b.limbs
    over = 0.004 + 0.9 * look.loose + 0.007
    shape.cone(
        rig.L_HIP + side, (0, 0.01, -0.004), (sign * 0.004, -0.08 * s, -0.002), 0.094 * m * g / s + over,
        0.092 * m * g / s + over + 0.004, material=TOP, blend=0.06, cut=((0, hem + 0.055 * s - 0.012, 0), (0, -1, 0)),
    )  # fmt: skip


def _trouser_leg(shape: Shape, b: Build, look: Look, o: np.ndarray, side: int) -> None:
    s = b.height / 1.75
    g, m = s * b.girth, s * b.limbs
    knee, ankle = o[rig.L_KNEE + side], o[rig.L_ANKLE + side]
    wide = 0.004 + 0.9 * look.loose
    short: Cut | None = (knee * min(look.trousers, 1.0), knee) if look.trousers < 1 else None
    shape.cone(
        rig.L_HIP + side, (0, -0.01, -0.004), knee * 0.5, 0.094 * m * g / s + wide, 0.080 * m + wide,
        material=BOTTOM, blend=0.05, cut=short,
    )  # fmt: skip
    shape.cone(
        rig.L_HIP + side, knee * 0.5, knee, 0.080 * m + wide, 0.064 * m + 1.2 * wide,
        material=BOTTOM, blend=0.03, cut=short,
    )  # fmt: skip
    if look.trousers > 1:
        end = ankle * (look.trousers - 1)
        shape.cone(
            rig.L_KNEE + side, (0, 0, 0.004), ankle * 0.4, 0.062 * m + 1.2 * wide, 0.060 * m + 1.1 * wide,
            material=BOTTOM, blend=0.04, cut=(end, ankle) if look.trousers < 1.4 else None,
        )  # fmt: skip
        if look.trousers > 1.4:
            shape.cone(
                rig.L_KNEE + side, ankle * 0.4, ankle * 1.05, 0.060 * m + 1.1 * wide, 0.050 * m + 1.2 * wide,
                material=BOTTOM, blend=0.04, cut=(end, ankle),
            )  # fmt: skip


def _shoe(shape: Shape, b: Build, o: np.ndarray, side: int, sign: int) -> None:
    """A flat sole under a rounded upper."""
    s, m = b.height / 1.75, b.height / 1.75 * b.limbs
    sole: Cut = ((0, -b.sole, 0), (0, -1, 0))
    low = -b.sole + 0.030 * s
    z = o[rig.L_FOOT + side][2]
    x = sign * 0.010
    ankle, foot = rig.L_ANKLE + side, rig.L_FOOT + side
    shape.cone(
        ankle, (0, low + 0.008, -0.030 * s), (x * 0.5, low + 0.012, 0.05 * s), 0.040 * s, 0.042 * s,
        material=SHOES, blend=0.03, cut=sole,
    )  # fmt: skip
    shape.cone(
        ankle, (x * 0.5, low + 0.010, 0.04 * s), (x, low, z), 0.043 * s, 0.045 * s,
        material=SHOES, blend=0.03, cut=sole,
    )  # fmt: skip
    # at the ball the foot's own bone takes over, with the same plane in its frame
    drop = o[foot][1]
    shape.cone(
        foot, (0, low - drop, -0.01), (sign * -0.006, low - drop - 0.006, 0.052 * s), 0.044 * s, 0.034 * s,
        material=SHOES, blend=0.03, cut=((0, -b.sole - drop, 0), (0, -1, 0)),
    )  # fmt: skip
    shape.cone(
        ankle, (0, 0.012, 0.002), (0, -0.03 * s, 0.01), 0.043 * m, 0.046 * m,
        material=SHOES, blend=0.03, cut=((0, 0.018, 0), (0, 1, 0)),
    )  # fmt: skip


def _hair(shape: Shape, build: Build, look: Look) -> None:
    h = head_scale(build)
    style = look.hair
    if style == "afro":
        edge: Cut = (np.array((0, 0.165, 0.085)) * h, (0, -0.5, 0.86))
        centre, radii = np.array((0, 0.165, -0.025)) * h, np.array((0.125, 0.120, 0.125)) * h
        shape.ellipsoid(rig.HEAD, centre, radii, cut=edge, blend=0.02, material=HAIR)
        return
    # the hairline: what lies before and below this plane is face
    line: Cut = (np.array((0, 0.165, 0.075)) * h, (0, -0.62, 0.80))
    grown = {"shaved": 0.0012, "cap": 0.004, "beanie": 0.003}.get(style, 0.010)
    radii = np.array((0.077 + grown, 0.094 + grown, 0.098 + grown)) * h
    shape.ellipsoid(rig.HEAD, np.array((0, 0.146, -0.010)) * h, radii, cut=line, blend=0.02, material=HAIR)
    if style in ("cap", "beanie"):
        _hat(shape, h, style)
    elif style != "shaved":
        _locks(shape, h, style)


def _hat(shape: Shape, h: float, style: str) -> None:
    def v(*point: float) -> np.ndarray:
        return np.array(point) * h

    if style == "cap":
        edge: Cut = (v(0, 0.160, 0), (0, -1, 0.10))
        shape.ellipsoid(rig.HEAD, v(0, 0.160, -0.006), v(0.084, 0.088, 0.106), cut=edge, blend=0.01, material=HAIR)
        peak = v(0.062, 0.008, 0.068)
        shape.ellipsoid(rig.HEAD, v(0, 0.166, 0.105), peak, turn=(0.12, 0, 0), blend=0.012, material=HAIR)
    else:
        edge = (v(0, 0.150, 0.02), (0, -1, 0.22))
        shape.ellipsoid(rig.HEAD, v(0, 0.150, -0.010), v(0.087, 0.108, 0.109), cut=edge, blend=0.01, material=HAIR)


def _locks(shape: Shape, h: float, style: str) -> None:
    def v(*point: float) -> np.ndarray:
        return np.array(point) * h

    fringe = v(0.062, 0.034, 0.055)
    shape.ellipsoid(rig.HEAD, v(0.010, 0.205, 0.045), fringe, turn=(0.35, 0, 0.15), blend=0.03, material=HAIR)
    if style in ("bob", "long"):
        length = 0.02 if style == "bob" else -0.10
        for sign in (1, -1):
            top, end = v(sign * 0.066, 0.14, -0.012), v(sign * 0.078, length, -0.018)
            shape.cone(rig.HEAD, top, end, 0.026 * h, 0.022 * h, blend=0.05, material=HAIR)
        behind = v(0.078, 0.105 - length * 0.45, 0.040)
        shape.ellipsoid(rig.HEAD, v(0, 0.07 + length * 0.4, -0.072), behind, blend=0.05, material=HAIR)
    elif style == "tail":
        shape.ellipsoid(rig.HEAD, v(0, 0.165, -0.112), v(0.024, 0.022, 0.024), blend=0.02, material=HAIR)
        top, end = v(0, 0.165, -0.125), v(0, 0.02, -0.155)
        shape.cone(rig.HEAD, top, end, 0.026 * h, 0.012 * h, blend=0.02, material=HAIR)
    elif style == "bun":
        shape.ellipsoid(rig.HEAD, v(0, 0.215, -0.075), v(0.042, 0.040, 0.042), blend=0.015, material=HAIR)
