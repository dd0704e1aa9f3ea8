"""The naked body of a drawn dancer as an implicit surface, and the points of its face."""

import numpy as np

from studio import rig
from studio.bodies.body import EYE
from studio.bodies.implicit import Shape, evaluate
from studio.bodies.looks import Build

Bind = tuple[np.ndarray, np.ndarray]  # (24, 3, 3) and (24, 3): the pose in which a body is meshed


def flesh(b: Build, o: np.ndarray, bind: Bind) -> Shape:
    """The naked body. It is also what clothes are cut from, and what the skinning weights come from.

    Args:
        b: its proportions.
        o: (24, 3) its skeleton, see `Body.offsets`.
        bind: the pose.
    """
    s = b.height / 1.75
    shape = Shape(*bind)
    g, m = s * b.girth, s * b.limbs
    gz = g * b.girth**0.5  # girth shows in front before it shows at the sides
    add, ball = shape.cone, shape.ellipsoid

    ball(rig.PELVIS, (0, -0.03 * s, -0.002), (0.158 * g * b.hips, 0.115 * s, 0.108 * gz), blend=0.05)
    ball(rig.SPINE1, (0, 0.01 * s, 0.012), (0.135 * g, 0.13 * s, 0.098 * gz), blend=0.08)
    ball(rig.SPINE2, (0, 0.0, 0.008), (0.142 * g * b.shoulders**0.5, 0.13 * s, 0.103 * gz), blend=0.08)
    ball(rig.SPINE3, (0, 0.035 * s, -0.002), (0.155 * g * b.shoulders, 0.145 * s, 0.110 * gz), blend=0.08)
    for sign in (1, -1):
        side = 0 if sign > 0 else 1
        ball(rig.PELVIS, (sign * 0.068 * g, -0.065 * s, -0.058 * gz), (0.085 * g, 0.095 * s, 0.080 * g), blend=0.05)
        bust = 0.030 + 0.035 * b.bust
        ball(
            rig.SPINE3,
            (sign * 0.072 * g, (0.045 - 0.02 * b.bust) * s, 0.066 * gz),
            (0.075 * g, 0.068 * s, bust * g + 0.01),
            blend=0.05,
        )
        # neck to shoulder, and the shoulder's cap
        add(
            rig.L_COLLAR + side,
            (sign * -0.02, 0.055 * s, 0),
            (sign * 0.10 * s, 0.012 * s, 0),
            0.048 * g,
            0.050 * m,
            blend=0.07,
        )
        ball(rig.L_SHOULDER + side, (sign * 0.006, -0.002, 0), (0.062 * m, 0.060 * m, 0.061 * m), blend=0.05)
        _arm(shape, o, side, sign, s, m)
        _leg(shape, o, side, sign, g, s, m)
    add(
        rig.NECK,
        (0, -0.04 * s, -0.004),
        o[rig.HEAD] + (0, 0.02, 0.0),
        0.057 * (g + s) / 2,
        0.050 * (g + s) / 2,
        blend=0.045,
    )
    _head(shape, b)
    return shape


def _arm(shape: Shape, o: np.ndarray, side: int, sign: int, s: float, m: float) -> None:
    add = shape.cone
    elbow, wrist = o[rig.L_ELBOW + side], o[rig.L_WRIST + side]
    add(rig.L_SHOULDER + side, (0, 0, 0), elbow * 0.45, 0.054 * m, 0.049 * m, blend=0.04)
    add(rig.L_SHOULDER + side, elbow * 0.45, elbow, 0.049 * m, 0.039 * m, blend=0.03)
    add(rig.L_ELBOW + side, (0, 0, 0), wrist * 0.3, 0.038 * m, 0.042 * m, blend=0.03)
    add(rig.L_ELBOW + side, wrist * 0.3, wrist, 0.042 * m, 0.026 * m, blend=0.03)
    _hand(shape, side, sign, s, m)


def _leg(shape: Shape, o: np.ndarray, side: int, sign: int, g: float, s: float, m: float) -> None:
    add = shape.cone
    knee, ankle = o[rig.L_KNEE + side], o[rig.L_ANKLE + side]
    add(rig.L_HIP + side, (sign * 0.004, -0.01, 0), knee * 0.5, 0.088 * m * g / s, 0.074 * m, blend=0.06)
    add(rig.L_HIP + side, knee * 0.5, knee, 0.074 * m, 0.054 * m, blend=0.04)
    shape.ellipsoid(rig.L_KNEE + side, (0, 0, 0.010), (0.050 * m, 0.058 * m, 0.052 * m), blend=0.03)
    add(rig.L_KNEE + side, (0, 0, 0), ankle * 0.3 + (0, 0, -0.010), 0.051 * m, 0.056 * m, blend=0.03)
    add(rig.L_KNEE + side, ankle * 0.3 + (0, 0, -0.010), ankle, 0.056 * m, 0.036 * m, blend=0.04)
    add(rig.L_ANKLE + side, (0, 0.02, 0), (0, -0.04 * s, 0.02), 0.036 * m, 0.034 * m, blend=0.03)


def _hand(shape: Shape, side: int, sign: int, s: float, m: float) -> None:
    bone, h = rig.L_WRIST + side, s * 0.97
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


def _head(shape: Shape, build: Build) -> None:
    h = head_scale(build)

    def v(*point: float) -> np.ndarray:
        return np.array(point) * h

    ball, add = shape.ellipsoid, shape.cone
    ball(rig.HEAD, v(0, 0.142, -0.006), v(0.076, 0.094, 0.098), blend=0.02)  # skull
    ball(rig.HEAD, v(0, 0.082, 0.034), v(0.062, 0.085, 0.062), blend=0.04)  # face
    ball(rig.HEAD, v(0, 0.042, 0.034), v(0.051, 0.044, 0.056), blend=0.030)  # jaw
    ball(rig.HEAD, v(0, 0.010, 0.074), v(0.020, 0.016, 0.018), blend=0.030)  # chin
    for sign in (1, -1):
        ball(rig.HEAD, v(sign * 0.040, 0.078, 0.066), v(0.020, 0.018, 0.020), blend=0.03)  # cheeks
        ball(rig.HEAD, v(sign * 0.030, 0.126, 0.078), v(0.026, 0.008, 0.012), blend=0.02)  # brow
        ball(rig.HEAD, v(sign * 0.032, 0.107, 0.101), v(0.018, 0.012, 0.013), blend=0.014, carve=True)  # eye socket
        ball(rig.HEAD, v(sign * EYE[0], EYE[1], 0.0735), v(0.0145, 0.0125, 0.0135), blend=0.006)  # eyeball and lids
        ball(
            rig.HEAD, v(sign * 0.077, 0.095, -0.002), v(0.009, 0.031, 0.019), turn=(-0.15, sign * 0.35, 0), blend=0.010
        )
    add(rig.HEAD, v(0, 0.110, 0.088), v(0, 0.073, 0.108), 0.008 * h, 0.0115 * h, blend=0.016)  # nose
    for sign in (1, -1):
        ball(rig.HEAD, v(sign * 0.011, 0.069, 0.096), v(0.009, 0.008, 0.010), blend=0.010)
    ball(rig.HEAD, v(0, 0.041, 0.086), v(0.021, 0.006, 0.009), blend=0.010)  # lips
    ball(rig.HEAD, v(0, 0.030, 0.085), v(0.018, 0.006, 0.009), blend=0.010)


def face_points(build: Build, bind: Bind) -> dict[str, np.ndarray]:
    """Nose and eyes in the head's frame, where a ray from in front meets the bare head; and the ears."""
    h = head_scale(build)
    shape = Shape(*bind)
    _head(shape, build)
    rows, origin = np.array(shape.rows), bind[1][rig.HEAD]
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
