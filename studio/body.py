"""A dancer: a skeleton, and around it a smooth mesh with clothes, face and hair. All of it is drawn from one seed.

The surface is the zero set of rounded cones and ellipsoids, blended smoothly within a material and cut sharply between
two (a hem is a real edge), meshed once with marching cubes in an A-pose.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from refiner.geometry import rotation_matrix
from refiner.skeleton import INDEX, MIRROR, NUM_JOINTS
from studio.implicit import Shape, distance_to, evaluate, openness, surface
from studio.looks import BOTTOM, HAIR, NUM_MATERIALS, SHOES, TOP, Build, Look
from studio.rig import (
    HEAD,
    L_ANKLE,
    L_COLLAR,
    L_ELBOW,
    L_FOOT,
    L_HAND,
    L_HIP,
    L_KNEE,
    L_SHOULDER,
    L_WRIST,
    NECK,
    NUM_BONES,
    PARENTS,
    PELVIS,
    R_ANKLE,
    R_COLLAR,
    R_ELBOW,
    R_HAND,
    R_HIP,
    R_KNEE,
    R_SHOULDER,
    R_WRIST,
    SPINE1,
    SPINE2,
    SPINE3,
    forward_kinematics,
)  # fmt: skip

# Joints of the body that are joints of the skeleton, too: COCO's joint -> ours.
_COCO_BONES = {
    "left_shoulder": L_SHOULDER,
    "right_shoulder": R_SHOULDER,
    "left_elbow": L_ELBOW,
    "right_elbow": R_ELBOW,
    "left_wrist": L_WRIST,
    "right_wrist": R_WRIST,
    "left_hip": L_HIP,
    "right_hip": R_HIP,
    "left_knee": L_KNEE,
    "right_knee": R_KNEE,
    "left_ankle": L_ANKLE,
    "right_ankle": R_ANKLE,
}
_MIDDLE = (PELVIS, SPINE1, SPINE2, SPINE3, NECK, HEAD)  # bones of both sides

# Where detectors see a joint, from where the body has it: the left side's (the right's are their mirror images), in the frame
# of a bone that carries it, metres at a height of 1.75 m. Medians over 40 dancers, MediaPipe's image points triangulated from
# nine views (the face's from those it looks at; docs/decisions/studio.md); a single frame is off by a centimetre an axis.
# AIST++'s own truth is triangulated from a detector's points, too.
MARKED = {
    "nose": (HEAD, (0.0, 0.013, -0.015)),
    "left_eye": (HEAD, (-0.004, 0.010, -0.012)),
    "left_ear": (HEAD, (-0.025, 0.005, 0.021)),
    "left_shoulder": (SPINE3, (0.027, 0.029, 0.007)),
    "left_elbow": (L_SHOULDER, (0.0, -0.002, 0.006)),
    "left_wrist": (L_ELBOW, (-0.001, -0.003, 0.006)),
    "left_hip": (PELVIS, (0.002, -0.022, -0.002)),
    "left_knee": (L_HIP, (0.002, 0.001, 0.005)),
    "left_ankle": (L_KNEE, (-0.003, 0.017, -0.001)),
}
Marks = dict[str, tuple[int, tuple[float, float, float]]]


def both_sides(marks: Marks) -> tuple[np.ndarray, np.ndarray]:
    """Marks of the left side -> (17,) bones and (17, 3) metres at 1.75 m, of all joints."""
    bones, offsets = np.empty(NUM_JOINTS, dtype=int), np.empty((NUM_JOINTS, 3))
    for name, (bone, offset) in marks.items():
        joint = INDEX[name]
        bones[joint], offsets[joint] = bone, offset
        if (twin := MIRROR[joint]) != joint:
            bones[twin] = bone if bone in _MIDDLE else bone + 1
            offsets[twin] = np.array(offset) * (-1, 1, 1)
    return bones, offsets


# Grid spacings, metres: a pixel at 1080p is about 3.5 mm on the dancer.
BODY_SPACING, FINE_SPACING = 0.015, 0.008


@dataclass(frozen=True)
class Mesh:
    """A dancer's surface in the bind pose. V vertices, T triangles."""

    vertices: np.ndarray  # (V, 3) f32 m
    normals: np.ndarray  # (V, 3) f32
    triangles: np.ndarray  # (T, 3) i32, clockwise from outside
    bones: np.ndarray  # (V, 4) i32
    weights: np.ndarray  # (V, 4) f32, sum 1
    materials: np.ndarray  # (V, 5) f32: distance to each material's surface; the least one is what is seen
    occlusion: np.ndarray  # (V,) f32: 1 open … 0 in a fold
    tints: np.ndarray | None = (
        None  # (V, 4) f32 linear rgb, and how much of it instead of the look's paint; None: painted
    )


@dataclass(frozen=True)
class Dancer:
    """One body with its clothes."""

    build: Build
    look: Look

    @classmethod
    def draw(cls, seed: int) -> "Dancer":
        """The dancer of a seed."""
        rng = np.random.default_rng([seed, 0xB0D7])
        build = Build.draw(rng)
        return cls(build, Look.draw(rng, build))

    @cached_property
    def offsets(self) -> np.ndarray:
        """(24, 3) the skeleton: each joint relative to its parent in the zero pose, metres."""
        return self.build.offsets()

    @cached_property
    def bind(self) -> tuple[np.ndarray, np.ndarray]:
        """((24, 3, 3), (24, 3)) the A-pose in which the surface is meshed: limbs apart, so that they do not grow together."""
        rotations = np.tile(np.eye(3), (NUM_BONES, 1, 1))
        for side, sign in ((0, 1), (1, -1)):
            rotations[L_COLLAR + side] = rotation_matrix(np.array([0, 0, -0.10 * sign]))
            rotations[L_SHOULDER + side] = rotation_matrix(np.array([0, 0, -0.70 * sign]))
            rotations[L_HIP + side] = rotation_matrix(np.array([0, 0, 0.13 * sign]))
            rotations[L_ANKLE + side] = rotation_matrix(np.array([0, 0, -0.13 * sign]))
        return forward_kinematics(rotations, np.zeros(3), self.offsets)

    @cached_property
    def mesh(self) -> Mesh:
        return _mesh(self)

    @property
    def head(self) -> tuple[np.ndarray, float]:
        """Where the paint's average head has its origin in the bind pose (metres), and how much larger than it this one is."""
        return self.bind[1][HEAD], head_scale(self.build)

    @cached_property
    def face(self) -> dict[str, np.ndarray]:
        """Nose, eyes (on the surface) and ears in the head's frame, metres."""
        return _face(self)

    @property
    def marks(self) -> Marks:
        """Where its joints are marked (see `MARKED`)."""
        return MARKED

    def joints(self, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
        """(..., 24, 3, 3), (..., 24, 3) -> (..., 17, 3) the COCO joints as the body has them, metres, world: joints of the
        skeleton, and points on the bare head."""
        poses = np.empty((*placed.shape[:-2], NUM_JOINTS, 3))
        for name, bone in _COCO_BONES.items():
            poses[..., INDEX[name], :] = placed[..., bone, :]
        for name, local in self.face.items():
            poses[..., INDEX[name], :] = placed[..., HEAD, :] + turned[..., HEAD, :, :] @ local
        return poses

    def marked(self, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
        """The same as detectors see them: the truth of what is rendered."""
        bones, offsets = both_sides(self.marks)
        scale = self.build.height / 1.75
        return self.joints(turned, placed) + (turned[..., bones, :, :] @ (offsets * scale)[..., None])[..., 0]


# --- the surface -----------------------------------------------------------------------------------------------------


def _flesh(dancer: Dancer) -> Shape:
    """The naked body. It is also what clothes are cut from, and what the skinning weights come from."""
    b = dancer.build
    s = b.height / 1.75
    o = dancer.offsets
    shape = Shape(*dancer.bind)
    g, m = s * b.girth, s * b.limbs
    gz = g * b.girth**0.5  # girth shows in front before it shows at the sides
    add, ball = shape.cone, shape.ellipsoid

    ball(PELVIS, (0, -0.03 * s, -0.002), (0.158 * g * b.hips, 0.115 * s, 0.108 * gz), blend=0.05)
    ball(SPINE1, (0, 0.01 * s, 0.012), (0.135 * g, 0.13 * s, 0.098 * gz), blend=0.08)
    ball(SPINE2, (0, 0.0, 0.008), (0.142 * g * b.shoulders**0.5, 0.13 * s, 0.103 * gz), blend=0.08)
    ball(SPINE3, (0, 0.035 * s, -0.002), (0.155 * g * b.shoulders, 0.145 * s, 0.110 * gz), blend=0.08)
    for sign in (1, -1):
        side = 0 if sign > 0 else 1
        ball(PELVIS, (sign * 0.068 * g, -0.065 * s, -0.058 * gz), (0.085 * g, 0.095 * s, 0.080 * g), blend=0.05)
        bust = 0.030 + 0.035 * b.bust
        ball(
            SPINE3,
            (sign * 0.072 * g, (0.045 - 0.02 * b.bust) * s, 0.066 * gz),
            (0.075 * g, 0.068 * s, bust * g + 0.01),
            blend=0.05,
        )
        # neck to shoulder, and the shoulder's cap
        add(
            L_COLLAR + side,
            (sign * -0.02, 0.055 * s, 0),
            (sign * 0.10 * s, 0.012 * s, 0),
            0.048 * g,
            0.050 * m,
            blend=0.07,
        )
        ball(L_SHOULDER + side, (sign * 0.006, -0.002, 0), (0.062 * m, 0.060 * m, 0.061 * m), blend=0.05)
        elbow, wrist = o[L_ELBOW + side], o[L_WRIST + side]
        add(L_SHOULDER + side, (0, 0, 0), elbow * 0.45, 0.054 * m, 0.049 * m, blend=0.04)
        add(L_SHOULDER + side, elbow * 0.45, elbow, 0.049 * m, 0.039 * m, blend=0.03)
        add(L_ELBOW + side, (0, 0, 0), wrist * 0.3, 0.038 * m, 0.042 * m, blend=0.03)
        add(L_ELBOW + side, wrist * 0.3, wrist, 0.042 * m, 0.026 * m, blend=0.03)
        _hand(shape, side, sign, s, m)
        knee, ankle = o[L_KNEE + side], o[L_ANKLE + side]
        add(L_HIP + side, (sign * 0.004, -0.01, 0), knee * 0.5, 0.088 * m * g / s, 0.074 * m, blend=0.06)
        add(L_HIP + side, knee * 0.5, knee, 0.074 * m, 0.054 * m, blend=0.04)
        ball(L_KNEE + side, (0, 0, 0.010), (0.050 * m, 0.058 * m, 0.052 * m), blend=0.03)
        add(L_KNEE + side, (0, 0, 0), ankle * 0.3 + (0, 0, -0.010), 0.051 * m, 0.056 * m, blend=0.03)
        add(L_KNEE + side, ankle * 0.3 + (0, 0, -0.010), ankle, 0.056 * m, 0.036 * m, blend=0.04)
        add(L_ANKLE + side, (0, 0.02, 0), (0, -0.04 * s, 0.02), 0.036 * m, 0.034 * m, blend=0.03)
    add(NECK, (0, -0.04 * s, -0.004), o[HEAD] + (0, 0.02, 0.0), 0.057 * (g + s) / 2, 0.050 * (g + s) / 2, blend=0.045)
    _head(shape, b)
    return shape


def _hand(shape: Shape, side: int, sign: int, s: float, m: float) -> None:
    bone, h = L_WRIST + side, s * 0.97
    shape.ellipsoid(bone, (sign * 0.050 * h, -0.002, 0.004), (0.052 * h, 0.017 * m, 0.040 * h), blend=0.02)
    shape.cone(bone, (0, 0, 0), (sign * 0.03 * h, 0, 0), 0.025 * m, 0.026 * m, blend=0.025)
    for finger, (z, length) in enumerate(((0.030, 0.068), (0.011, 0.078), (-0.009, 0.072), (-0.027, 0.056))):
        start = np.array([0.080 - 0.004 * abs(finger - 1), -0.002, z]) * h * (sign, 1, 1)
        middle = start + np.array([sign * length * 0.55, -0.010, 0]) * h
        tip = middle + np.array([sign * length * 0.42, -0.022, 0]) * h
        shape.cone(bone, start, middle, 0.0105 * h, 0.0098 * h, blend=0.012)
        shape.cone(bone, middle, tip, 0.0098 * h, 0.0078 * h, blend=0.008)
    thumb = np.array([sign * 0.022, -0.006, 0.030]) * h
    knuckle = thumb + np.array([sign * 0.034, -0.010, 0.026]) * h
    shape.cone(bone, thumb, knuckle, 0.016 * h, 0.012 * h, blend=0.02)
    shape.cone(bone, knuckle, knuckle + np.array([sign * 0.032, -0.006, 0.004]) * h, 0.0115 * h, 0.009 * h, blend=0.01)


def head_scale(build: Build) -> float:
    """Heads vary less than bodies."""
    return (build.height / 1.75) ** 0.6


# Points of the average head, metres from the head's joint. The face's paint (`render`) uses them, too.
EYE = np.array([0.0315, 0.108, 0.083])
MOUTH = np.array([0.0, 0.035, 0.09])
BROW_Y = 0.128


def _head(shape: Shape, build: Build) -> None:
    h = head_scale(build)

    def v(*point: float) -> np.ndarray:
        return np.array(point) * h

    ball, add = shape.ellipsoid, shape.cone
    ball(HEAD, v(0, 0.142, -0.006), v(0.076, 0.094, 0.098), blend=0.02)  # skull
    ball(HEAD, v(0, 0.082, 0.034), v(0.062, 0.085, 0.062), blend=0.04)  # face
    ball(HEAD, v(0, 0.042, 0.034), v(0.051, 0.044, 0.056), blend=0.030)  # jaw
    ball(HEAD, v(0, 0.010, 0.074), v(0.020, 0.016, 0.018), blend=0.030)  # chin
    for sign in (1, -1):
        ball(HEAD, v(sign * 0.040, 0.078, 0.066), v(0.020, 0.018, 0.020), blend=0.03)  # cheeks
        ball(HEAD, v(sign * 0.030, 0.126, 0.078), v(0.026, 0.008, 0.012), blend=0.02)  # brow
        ball(HEAD, v(sign * 0.032, 0.107, 0.101), v(0.018, 0.012, 0.013), blend=0.014, carve=True)  # eye socket
        ball(HEAD, v(sign * EYE[0], EYE[1], 0.0735), v(0.0145, 0.0125, 0.0135), blend=0.006)  # eyeball and lids
        ball(HEAD, v(sign * 0.077, 0.095, -0.002), v(0.009, 0.031, 0.019), turn=(-0.15, sign * 0.35, 0), blend=0.010)
    add(HEAD, v(0, 0.110, 0.088), v(0, 0.073, 0.108), 0.008 * h, 0.0115 * h, blend=0.016)  # nose
    for sign in (1, -1):
        ball(HEAD, v(sign * 0.011, 0.069, 0.096), v(0.009, 0.008, 0.010), blend=0.010)
    ball(HEAD, v(0, 0.041, 0.086), v(0.021, 0.006, 0.009), blend=0.010)  # lips
    ball(HEAD, v(0, 0.030, 0.085), v(0.018, 0.006, 0.009), blend=0.010)


def _wardrobe(dancer: Dancer, flesh: Shape) -> Shape:
    """Clothes, shoes and hair around the flesh."""
    b, look = dancer.build, dancer.look
    s = b.height / 1.75
    o, g, m = dancer.offsets, s * b.girth, s * b.limbs
    gz = g * b.girth**0.5
    shape = Shape(*dancer.bind)
    add, ball = shape.cone, shape.ellipsoid
    off = look.loose

    # the top: the flesh of the torso, standing off, down to a hem below the hips' crest
    hem = -0.075 * s
    for row, bone in zip(flesh.rows, flesh.bones, strict=True):
        if bone in (SPINE1, SPINE2, SPINE3, L_COLLAR, R_COLLAR):
            shape.grown(row, bone, 0.010 + off * (1.0 if bone in (SPINE1, SPINE2) else 0.6), material=TOP)
        elif bone == PELVIS:
            shape.grown(row, bone, 0.010 + off, material=TOP, cut=((0, hem, 0), (0, -1, 0)))
            shape.grown(row, bone, 0.003 + 0.30 * off, material=BOTTOM)
    add(
        SPINE1, (0, 0.02 * s, 0.004), (0, -0.25 * s, 0.0), 0.108 * gz + off, 0.112 * gz + off,
        material=TOP, blend=0.08, cut=((0, hem - o[SPINE1][1], 0), (0, -1, 0)),
    )  # fmt: skip
    if look.hood:
        ball(SPINE3, (0, 0.155 * s, -0.085 * gz), (0.085, 0.060, 0.050), turn=(-0.5, 0, 0), material=TOP, blend=0.04)
        add(SPINE3, (-0.06, 0.165 * s, -0.03), (0.06, 0.165 * s, -0.03), 0.042, 0.042, material=TOP, blend=0.04)
    for sign in (1, -1):
        side = 0 if sign > 0 else 1
        elbow, wrist, knee, ankle = o[L_ELBOW + side], o[L_WRIST + side], o[L_KNEE + side], o[L_ANKLE + side]
        ball(L_SHOULDER + side, (sign * 0.004, 0, 0), np.full(3, 0.066 * m + 0.4 * off), material=TOP, blend=0.05)
        up = min(look.sleeves, 1.0)
        loose = off if look.sleeves < 1 else 0.7 * off
        short = dict(cut=(elbow * up, elbow)) if look.sleeves < 1 else {}
        add(
            L_SHOULDER + side, (0, 0, 0), elbow * up, 0.059 * m + 0.7 * loose, 0.050 * m + 1.3 * loose,
            material=TOP, blend=0.05, **short,
        )  # fmt: skip
        if look.sleeves > 1:
            end = wrist * (look.sleeves - 1)
            add(L_ELBOW + side, (0, 0, 0), wrist * 0.35, 0.047 * m + loose, 0.047 * m + loose, material=TOP, blend=0.03)
            add(
                L_ELBOW + side, wrist * 0.35, wrist, 0.047 * m + loose, 0.032 * m + 0.8 * loose,
                material=TOP, blend=0.03, cut=(end, wrist),
            )  # fmt: skip
        # the shirt falls over the hips, outside of the trousers
        over = 0.004 + 0.9 * off + 0.007
        add(
            L_HIP + side, (0, 0.01, -0.004), (sign * 0.004, -0.08 * s, -0.002), 0.094 * m * g / s + over,
            0.092 * m * g / s + over + 0.004, material=TOP, blend=0.06, cut=((0, hem + 0.055 * s - 0.012, 0), (0, -1, 0)),
        )  # fmt: skip
        # trousers: hips and legs
        wide = 0.004 + 0.9 * off
        down = min(look.trousers, 1.0)
        short = dict(cut=(knee * down, knee)) if look.trousers < 1 else {}
        add(
            L_HIP + side, (0, -0.01, -0.004), knee * 0.5, 0.094 * m * g / s + wide, 0.080 * m + wide,
            material=BOTTOM, blend=0.05, **short,
        )  # fmt: skip
        add(
            L_HIP + side, knee * 0.5, knee, 0.080 * m + wide, 0.064 * m + 1.2 * wide,
            material=BOTTOM, blend=0.03, **short,
        )  # fmt: skip
        if look.trousers > 1:
            end = ankle * (look.trousers - 1)
            add(
                L_KNEE + side, (0, 0, 0.004), ankle * 0.4, 0.062 * m + 1.2 * wide, 0.060 * m + 1.1 * wide,
                material=BOTTOM, blend=0.04, cut=(end, ankle) if look.trousers < 1.4 else None,
            )  # fmt: skip
            if look.trousers > 1.4:
                add(
                    L_KNEE + side, ankle * 0.4, ankle * 1.05, 0.060 * m + 1.1 * wide, 0.050 * m + 1.2 * wide,
                    material=BOTTOM, blend=0.04, cut=(end, ankle),
                )  # fmt: skip
        # shoes: a flat sole under a rounded upper
        sole = ((0, -b.sole, 0), (0, -1, 0))
        low = -b.sole + 0.030 * s
        z = o[L_FOOT + side][2]
        x = sign * 0.010
        kw = dict(material=SHOES, cut=sole)
        add(
            L_ANKLE + side,
            (0, low + 0.008, -0.030 * s),
            (x * 0.5, low + 0.012, 0.05 * s),
            0.040 * s,
            0.042 * s,
            blend=0.03,
            **kw,
        )
        add(L_ANKLE + side, (x * 0.5, low + 0.010, 0.04 * s), (x, low, z), 0.043 * s, 0.045 * s, blend=0.03, **kw)
        # at the ball the foot's own bone takes over, with the same plane in its frame
        drop = o[L_FOOT + side][1]
        toe = ((0, -b.sole - drop, 0), (0, -1, 0))
        add(
            L_FOOT + side, (0, low - drop, -0.01), (sign * -0.006, low - drop - 0.006, 0.052 * s), 0.044 * s, 0.034 * s,
            material=SHOES, blend=0.03, cut=toe,
        )  # fmt: skip
        add(
            L_ANKLE + side,
            (0, 0.012, 0.002),
            (0, -0.03 * s, 0.01),
            0.043 * m,
            0.046 * m,
            blend=0.03,
            material=SHOES,
            cut=((0, 0.018, 0), (0, 1, 0)),
        )
    _hair(shape, dancer)
    return shape


def _hair(shape: Shape, dancer: Dancer) -> None:
    h = head_scale(dancer.build)

    def v(*point: float) -> np.ndarray:
        return np.array(point) * h

    style = dancer.look.hair
    kw = dict(material=HAIR)
    # the hairline: what lies before and below this plane is face
    line = (v(0, 0.165, 0.075), (0, -0.62, 0.80))

    def cap(grow: float) -> None:
        radii = v(0.077 + grow, 0.094 + grow, 0.098 + grow)
        shape.ellipsoid(HEAD, v(0, 0.146, -0.010), radii, cut=line, blend=0.02, **kw)

    if style == "shaved":
        cap(0.0012)
    elif style == "afro":
        shape.ellipsoid(
            HEAD,
            v(0, 0.165, -0.025),
            v(0.125, 0.120, 0.125),
            cut=(v(0, 0.165, 0.085), (0, -0.5, 0.86)),
            blend=0.02,
            **kw,
        )
    elif style == "cap":
        cap(0.004)
        shape.ellipsoid(
            HEAD, v(0, 0.160, -0.006), v(0.084, 0.088, 0.106), cut=(v(0, 0.160, 0), (0, -1, 0.10)), blend=0.01, **kw
        )
        shape.ellipsoid(HEAD, v(0, 0.166, 0.105), v(0.062, 0.008, 0.068), turn=(0.12, 0, 0), blend=0.012, **kw)
    elif style == "beanie":
        cap(0.003)
        shape.ellipsoid(
            HEAD, v(0, 0.150, -0.010), v(0.087, 0.108, 0.109), cut=(v(0, 0.150, 0.02), (0, -1, 0.22)), blend=0.01, **kw
        )
    else:
        cap(0.010)
        shape.ellipsoid(HEAD, v(0.010, 0.205, 0.045), v(0.062, 0.034, 0.055), turn=(0.35, 0, 0.15), blend=0.03, **kw)
        if style in ("bob", "long"):
            length = 0.02 if style == "bob" else -0.10
            for sign in (1, -1):
                shape.cone(
                    HEAD,
                    v(sign * 0.066, 0.14, -0.012),
                    v(sign * 0.078, length, -0.018),
                    0.026 * h,
                    0.022 * h,
                    blend=0.05,
                    **kw,
                )
            shape.ellipsoid(
                HEAD, v(0, 0.07 + length * 0.4, -0.072), v(0.078, 0.105 - length * 0.45, 0.040), blend=0.05, **kw
            )
        elif style == "tail":
            shape.ellipsoid(HEAD, v(0, 0.165, -0.112), v(0.024, 0.022, 0.024), blend=0.02, **kw)
            shape.cone(HEAD, v(0, 0.165, -0.125), v(0, 0.02, -0.155), 0.026 * h, 0.012 * h, blend=0.02, **kw)
        elif style == "bun":
            shape.ellipsoid(HEAD, v(0, 0.215, -0.075), v(0.042, 0.040, 0.042), blend=0.015, **kw)


# Blending widths of the bones' weights, metres: a spine bends over its whole length, a wrist does not.
_SOFTNESS = np.full(NUM_BONES, 0.018)
_SOFTNESS[[PELVIS, SPINE1, SPINE2, SPINE3]] = 0.030
_SOFTNESS[[L_WRIST, R_WRIST, L_HAND, R_HAND, HEAD, NECK]] = 0.012


def _tree_distance() -> np.ndarray:
    """(24, 24) how many joints lie between two bones."""
    steps = np.full((NUM_BONES, NUM_BONES), 99)
    np.fill_diagonal(steps, 0)
    for bone, parent in enumerate(PARENTS):
        if parent >= 0:
            steps[bone, parent] = steps[parent, bone] = 1
    for k in range(NUM_BONES):
        steps = np.minimum(steps, steps[:, k : k + 1] + steps[k : k + 1])
    return steps


def _mesh(dancer: Dancer) -> Mesh:
    """Meshes a dancer: the body coarsely, head and hands finely."""
    flesh = _flesh(dancer)
    clothes = _wardrobe(dancer, flesh)
    rows = np.array(flesh.rows + clothes.rows)
    bones = np.array(flesh.bones + clothes.bones)
    materials = np.array(flesh.materials + clothes.materials)

    placed = dancer.bind[1]
    h = head_scale(dancer.build)
    neck = placed[HEAD][1] - 0.012 * h  # where the fine mesh of the head takes over
    parts = []
    fine = np.array([L_WRIST, R_WRIST])
    lo, hi = rows[:, 14:17].min(0) - 0.03, rows[:, 17:20].max(0) + 0.03
    parts.append(surface(rows, materials, NUM_MATERIALS, lo, np.array([hi[0], neck + 0.02, hi[2]]), BODY_SPACING))
    own = bones == HEAD
    lo, hi = rows[own, 14:17].min(0) - 0.03, rows[own, 17:20].max(0) + 0.03
    lo[1] = neck - 0.02  # the meshes overlap by two centimetres, in which they are the same surface
    parts.append(surface(rows, materials, NUM_MATERIALS, lo, hi, FINE_SPACING))
    for bone in fine:
        own = bones == bone
        lo, hi = rows[own, 14:17].min(0) - 0.02, rows[own, 17:20].max(0) + 0.02
        forearm = own | (bones == PARENTS[bone])
        parts.append(surface(rows[forearm], materials[forearm], NUM_MATERIALS, lo, hi, FINE_SPACING))
    # the coarse mesh leaves hands and head to the fine ones
    vertices, normals, fields, triangles = parts[0]
    nearest = np.argmin(_bone_distances(np.array(flesh.rows), np.array(flesh.bones), vertices), axis=1)
    drop = (nearest == HEAD) & (vertices[:, 1] > neck)
    for side, bone in enumerate(fine):
        axis = dancer.bind[0][bone][:, 0] * (1 if side == 0 else -1)
        drop |= (nearest == bone) & ((vertices - placed[bone]) @ axis > 0.012)
    triangles = triangles[~drop[triangles].all(1)]
    parts[0] = (vertices, normals, fields, triangles)

    vertices = np.concatenate([p[0] for p in parts])
    normals = np.concatenate([p[1] for p in parts])
    fields = np.concatenate([p[2] for p in parts])
    starts = np.cumsum([0] + [len(p[0]) for p in parts])
    triangles = np.concatenate([p[3] + start for p, start in zip(parts, starts[:-1], strict=True)])
    used, triangles = np.unique(triangles, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    vertices, normals, fields = vertices[used], normals[used], fields[used]

    occlusion = openness(rows, vertices, normals)
    weights, indices = _weights(flesh, vertices, triangles)
    worn = np.isin(fields.argmin(1), (TOP, BOTTOM))
    normals[worn] += FOLDS * creases(vertices[worn])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(
        vertices.astype(np.float32),
        normals.astype(np.float32),
        triangles.astype(np.int32),
        indices.astype(np.int32),
        weights.astype(np.float32),
        fields.astype(np.float32),
        occlusion.astype(np.float32),
    )


FOLDS = 0.16  # how far cloth's normals lean


def creases(p: np.ndarray) -> np.ndarray:
    """(V, 3) m -> (V, 3) the gradient of a wavy field without a visible period, about unit length: folds in cloth."""
    x, y, z = p.T
    a = 31 * x + 13 * y + 2.3 * np.sin(17 * z + 5 * y)
    b = 37 * y - 19 * z + 1.9 * np.sin(23 * x)
    c = 24 * z + 29 * x + 2.1 * np.sin(19 * y)
    return np.stack([np.cos(a) + np.cos(c), 0.4 * np.cos(a) + 1.2 * np.cos(b), np.cos(c) - 0.6 * np.cos(b)], axis=1)


def _weights(flesh: Shape, vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((V, 4) weights, (V, 4) bones): falling off with the distance to each bone's flesh, smoothed over the surface."""
    from scipy.sparse import coo_matrix

    distance = _bone_distances(np.array(flesh.rows), np.array(flesh.bones), vertices)
    nearest = distance.argmin(1)
    weights = np.exp(-np.maximum(distance - distance.min(1, keepdims=True), 0) / _SOFTNESS)
    # a hand beside a thigh is no part of it
    weights[_tree_distance()[nearest] > 2] = 0
    weights /= weights.sum(1, keepdims=True)
    a, b = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
    n = len(vertices)
    ones = np.ones(len(a))
    graph = coo_matrix((ones, (a, b)), (n, n)).tocsr() + coo_matrix((ones, (b, a)), (n, n)).tocsr()
    degree = np.maximum(np.asarray(graph.sum(1)), 1)
    for _ in range(6):
        weights = 0.5 * weights + 0.5 * (graph @ weights) / degree
    order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(weights, order, 1)
    return weights / weights.sum(1, keepdims=True), order


@njit(cache=True, nogil=True)
def _bone_distances(rows, bones, points):
    """(V, 24) distance of each point to the flesh of each bone."""
    out = np.full((points.shape[0], NUM_BONES), 1.0)
    for v in range(points.shape[0]):
        for p in range(rows.shape[0]):
            d = distance_to(rows[p], points[v, 0], points[v, 1], points[v, 2])
            out[v, bones[p]] = min(out[v, bones[p]], d)
    return out


def _face(dancer: Dancer) -> dict[str, np.ndarray]:
    """Nose and eyes in the head's frame, where a ray from in front meets the bare head; and the ears."""
    h = head_scale(dancer.build)
    shape = Shape(*dancer.bind)
    _head(shape, dancer.build)
    rows, origin = np.array(shape.rows), dancer.bind[1][HEAD]
    points = {}
    for name, start, direction in (
        ("nose", (0, 0.073, 0.20), (0, 0, -1)),
        ("left_eye", (EYE[0], EYE[1], 0.20), (0, 0, -1)),
        ("right_eye", (-EYE[0], EYE[1], 0.20), (0, 0, -1)),
    ):
        at = origin + np.array(start) * h
        for _ in range(60):  # sphere tracing
            distance = evaluate(rows, at, 1.0, (1, 1, 1))[0, 0, 0]
            if distance < 2e-4:
                break
            at = at + np.array(direction) * min(distance, 0.02)
        points[name] = at - origin
    # an ear is marked at its canal, not at its rim
    for name, sign in (("left_ear", 1), ("right_ear", -1)):
        points[name] = np.array([sign * 0.078, 0.095, 0.004]) * h
    return points
