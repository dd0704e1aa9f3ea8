"""The paint: what colour a point of a body is, by its place in the bind pose."""

import numpy as np

from studio import rig
from studio.bodies.body import BROW_Y, EYE, MOUTH, Body
from studio.bodies.looks import BOTTOM, CHECKS, LOGO, RAGLAN, SHOES, SKIN, STRIPES, TOP
from studio.kernels import fast

# `paint` holds a look's numbers: 12 colours (linear), then what is below.
_SKIN, _TOP, _SECOND, _BOTTOM, _SEAM, _SHOE, _SOLE, _HAIR, _LIPS, _IRIS, _BROWS, _HAT = range(12)
_PATTERN, _HEAD, _SCALE, _CHEST, _SOLE_Y, _BEARD, _STYLE, _PAINTED = 36, 37, 40, 41, 44, 45, 46, 47
_SHAVED, _CAPPED = 1, 2


def as_paint(body: Body) -> np.ndarray:
    """A look as numbers for the shader."""
    look, placed = body.look, body.bind[1]
    paint = np.zeros(48)
    paint[:36] = look.colours.ravel()
    paint[_PATTERN] = look.pattern
    paint[_HEAD : _HEAD + 3], paint[_SCALE] = body.head
    paint[_CHEST : _CHEST + 3] = placed[rig.SPINE3]
    paint[_SOLE_Y] = placed[rig.L_ANKLE][1] - body.build.sole
    paint[_BEARD] = look.beard
    paint[_PAINTED] = body.mesh.tints is None
    paint[_STYLE] = _SHAVED if look.hair == "shaved" else _CAPPED if look.head_covered else 0
    return paint


@fast
def step(edge, x, soft):
    """0 below an edge, 1 above it, smooth over `soft` to either side."""
    t = min(max((x - edge) / (2 * soft) + 0.5, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@fast
def _grain(x, y, z, cell):
    """−1 … 1, one value to a cube of some millimetres: weave and pores."""
    n = (
        int(np.floor(x / cell)) * 374761393 + int(np.floor(y / cell)) * 668265263 + int(np.floor(z / cell)) * 69069
    ) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 32767.5 - 1


@fast
def _mix(rgb, paint, colour, amount, gain):
    for c in range(3):
        rgb[c] += (paint[3 * colour + c] * gain - rgb[c]) * amount


@fast
def albedo(material, x, y, z, paint, soft, rgb):
    """Colour at a point of the bind pose; `soft` is half a pixel in metres. Hands back how shiny it is."""
    if material == SKIN:
        return _skin(x, y, z, paint, soft, rgb)
    if material == TOP:
        return _top(x, y, z, paint, soft, rgb)
    if material == BOTTOM:
        return _trousers(x, y, z, paint, soft, rgb)
    if material == SHOES:
        return _shoes(x, y, z, paint, soft, rgb)
    return _hair(x, y, z, paint, rgb)


@fast
def _fill_with(rgb, paint, colour):
    for c in range(3):
        rgb[c] = paint[3 * colour + c]


@fast
def _skin(x, y, z, paint, soft, rgb):
    _fill_with(rgb, paint, _SKIN)
    s = paint[_SCALE]
    hx, hy, hz = (x - paint[_HEAD]) / s, (y - paint[_HEAD + 1]) / s, (z - paint[_HEAD + 2]) / s
    if paint[_PAINTED] > 0 and hz > 0.02 and -0.02 < hy < 0.2 and abs(hx) < 0.1:
        _complexion(abs(hx), hy, hz, paint, rgb)
        _mouth_and_brow(abs(hx), hy, paint, soft, rgb)
        _eye(abs(hx), hy, paint, soft, rgb)
    return 0.22


@fast
def _complexion(ax, hy, hz, paint, rgb):
    """Cheeks, shades and beard at a point of the average head."""
    # cheeks and nose are redder, the eyes' surroundings darker
    blush = np.exp(-((ax - 0.042) ** 2 + (hy - 0.070) ** 2) / 0.0004) * 0.28
    blush += np.exp(-(ax**2 + (hy - 0.072) ** 2) / 0.00015) * 0.18
    rgb[1] *= 1 - 0.35 * blush
    rgb[2] *= 1 - 0.40 * blush
    shade = np.exp(-((ax - EYE[0]) ** 2 / 0.0005 + (hy - EYE[1] - 0.004) ** 2 / 0.0003)) * 0.30
    shade += np.exp(-(ax**2 / 0.00016 + (hy - 0.060) ** 2 / 0.00002)) * 0.35
    shade += np.exp(-((ax - 0.009) ** 2 / 0.000012 + (hy - 0.0655) ** 2 / 0.000006)) * 0.6
    for c in range(3):
        rgb[c] *= 1 - shade
    if paint[_BEARD] > 0:
        low = 1 - step(0.058, hy + 0.35 * max(0.045 - ax, 0.0), 0.010)
        jaw = low * step(0.028, hz - 0.2 * ax, 0.012)
        _mix(rgb, paint, _HAIR, 0.75 * jaw, 1.0)


@fast
def _mouth_and_brow(ax, hy, paint, soft, rgb):

    mouth = (ax / 0.0245) ** 2 + ((hy - MOUTH[1] - 0.10 * ax) / (0.0105 - 0.12 * ax * ax / 0.0245)) ** 2
    _mix(rgb, paint, _LIPS, 1 - step(1.0, mouth, 0.3 + soft * 60), 1.0)
    line = 1 - step(0.0011 + 0.3 * soft, abs(hy - MOUTH[1] - 0.08 * ax), 0.0008 + soft * 0.6)
    _mix(rgb, paint, _LIPS, 0.8 * line * (1 - step(0.022, ax, 0.003)), 0.25)
    brow = 1 - step(
        0.0036,
        abs(hy - BROW_Y - 0.004 + 0.9 * (ax - 0.034) ** 2 * 14 - 0.06 * (ax - 0.034)),
        0.0016 + 0.5 * soft,
    )
    brow *= step(0.014, ax, 0.003) * (1 - step(0.052, ax, 0.004))
    _mix(rgb, paint, _BROWS, 0.9 * brow, 0.9)


@fast
def _eye(ax, hy, paint, soft, rgb):

    ex, ey = (ax - EYE[0]) / 0.0142, (hy - EYE[1]) / 0.0068
    opening = ex * ex + ey * ey * (1 + 0.5 * ex * ex)
    white = 1 - step(1.0, opening, 0.15 + soft * 60)
    lid = (1 - step(1.55, opening, 0.35)) * (1 - white)
    lash = lid * step(-0.2, ey, 0.3)
    for c in range(3):
        rgb[c] *= 1 - 0.45 * lid - 0.40 * lash
        rgb[c] += (0.58 - rgb[c]) * white
    ring = np.sqrt((ax - EYE[0] + 0.001) ** 2 + (hy - EYE[1]) ** 2)
    iris = (1 - step(0.0062, ring, 0.0008 + 0.5 * soft)) * white
    _mix(rgb, paint, _IRIS, iris, 1.0)
    pupil = (1 - step(0.0030, ring, 0.0006 + 0.5 * soft)) * white
    for c in range(3):
        rgb[c] *= 1 - 0.92 * pupil


@fast
def _top(x, y, z, paint, soft, rgb):
    _fill_with(rgb, paint, _TOP)

    cx, cy = x - paint[_CHEST], y - paint[_CHEST + 1]
    cz = z - paint[_CHEST + 2]
    pattern = int(paint[_PATTERN])
    if pattern == STRIPES:
        wave = abs(((y / 0.075) % 1.0) - 0.5)
        _mix(rgb, paint, _SECOND, 1 - step(0.16, wave, 0.02 + soft * 10), 1.0)
    elif pattern == LOGO:
        if cz > 0:
            r = np.sqrt(cx * cx + (cy - 0.045) ** 2)
            disc = 1 - step(0.075, r, 0.001 + soft)
            disc *= 1 - (1 - step(0.012, abs(cy - 0.045 - 0.5 * cx), 0.001 + soft))
            _mix(rgb, paint, _SECOND, disc, 1.0)
        else:
            bar = (1 - step(0.13, abs(cx), 0.001 + soft)) * (1 - step(0.022, abs(cy - 0.07), 0.001 + soft))
            _mix(rgb, paint, _SECOND, bar, 1.0)
    elif pattern == RAGLAN:
        _mix(rgb, paint, _SECOND, step(0.135, abs(cx) + 0.25 * (cy - 0.05), 0.001 + soft), 1.0)
    elif pattern == CHECKS:
        a, b = abs(((y / 0.11) % 1.0) - 0.5), abs((((x + z) / 0.11) % 1.0) - 0.5)
        _mix(rgb, paint, _SECOND, 0.5 * (1 - step(0.22, a, 0.02 + soft * 8)), 0.9)
        _mix(rgb, paint, _SECOND, 0.5 * (1 - step(0.22, b, 0.02 + soft * 8)), 0.9)
    weave = 1 + 0.05 * _grain(x, y, z, 0.006)
    for c in range(3):
        rgb[c] *= weave
    return 0.02


@fast
def _trousers(x, y, z, paint, soft, rgb):
    _fill_with(rgb, paint, _BOTTOM)

    leg = abs(x) - 0.10 - 0.13 * max(-(y + 0.06), 0.0)
    seam = (1 - step(0.004, abs(z - 0.002), 0.002 + soft)) * step(0.02, leg, 0.01)
    _mix(rgb, paint, _SEAM, 0.7 * seam, 1.0)
    # worn, lighter thighs
    worn = np.exp(-((y + 0.35) ** 2) / 0.03) * step(0.0, z, 0.05) * 0.16
    for c in range(3):
        rgb[c] += (1 - rgb[c]) * worn * rgb[c]
    weave = 1 + 0.09 * _grain(x, 0.4 * y, z, 0.005)
    for c in range(3):
        rgb[c] *= weave
    return 0.02


@fast
def _shoes(x, y, z, paint, soft, rgb):
    _fill_with(rgb, paint, _SHOE)

    height = y - paint[_SOLE_Y]
    _mix(rgb, paint, _SOLE, 1 - step(0.026, height, 0.001 + soft), 1.0)
    if height > 0.03 and z > 0.03:
        lace = (1 - step(0.3, abs(((z / 0.018) % 1.0) - 0.5) * 2, 0.1 + soft * 20)) * step(0.050, height, 0.004)
        _mix(rgb, paint, _SOLE, 0.8 * lace * (1 - step(0.135, z, 0.004)), 1.0)
    return 0.10


@fast
def _hair(x, y, z, paint, rgb):
    """Hair, or what is worn on it."""
    s = paint[_SCALE]
    hx, hy, hz = (x - paint[_HEAD]) / s, (y - paint[_HEAD + 1]) / s, (z - paint[_HEAD + 2]) / s
    style = int(paint[_STYLE])

    if style == _CAPPED and hy > 0.138 - 0.12 * max(-hz, 0.0):
        _fill_with(rgb, paint, _HAT)
        return 0.05
    _fill_with(rgb, paint, _HAIR)

    # strands run down from the crown
    around = np.arctan2(hx, hz + 0.012)
    strand = 0.5 * np.sin(46 * around + 3 * np.sin(40 * hy + 5 * around)) + 0.5 * np.sin(
        21 * around + 2 * np.sin(25 * hy)
    )
    strand += 0.6 * _grain(around * 0.09, 0.15 * hy, 0.0, 0.003)
    for c in range(3):
        rgb[c] *= 1.0 + 0.16 * strand
    if style == _SHAVED:
        _mix(rgb, paint, _SKIN, 0.45, 0.9)
    return 0.16
