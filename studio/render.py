"""The rasteriser: a skinned dancer into a picture of the room, on one core, in a few milliseconds.

A frame goes through four steps: `skin` the mesh (once a frame), `cast` its shadow (once a frame), then for each camera
project the vertices, fill a z-buffer with triangle numbers at twice the picture's resolution, and shade each
pixel once (or twice, where two depths meet). Vertices go through the camera's lens exactly as `Camera.project` has it,
so a truth that is projected by the reader of the dataset lands on the pixel that was drawn.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from refiner.geometry import Camera
from studio.body import BROW_Y, EYE, MOUTH, Dancer
from studio.looks import BOTTOM, CHECKS, HAIR, LOGO, RAGLAN, SHOES, SKIN, STRIPES, TOP
from studio.rig import SPINE3

SAMPLES = 2  # per pixel and axis: coverage is told in quarters
EDGE = 0.03  # metres between two depths in a pixel from which both are shaded
SHADOW_SIZE, SHADOW_SPAN = 256, 2.8  # texels and metres of the light's view of the dancer
FLOOR_SIZE, FLOOR_SPAN = 160, 4.0  # texels and metres of the shadow on the floor


@dataclass(frozen=True, kw_only=True)
class Light:
    """What lights a room. Directions point to the light; intensities are linear."""

    key_direction: np.ndarray  # (3,) unit
    key: np.ndarray  # (3,) colour times intensity
    sky: np.ndarray  # (3,) from above
    ground: np.ndarray  # (3,) from the floor
    fill_direction: np.ndarray  # (3,) unit
    fill: np.ndarray  # (3,)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Light":
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(48, 68))
        warm = rng.uniform(-1, 1)
        tint = np.array([1 + 0.06 * warm, 1.0, 1 - 0.08 * warm])
        key, ambient = rng.uniform(0.55, 0.85), rng.uniform(0.36, 0.52)

        def towards(azimuth: float, elevation: float) -> np.ndarray:
            return np.array(
                [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
            )

        return cls(
            key_direction=towards(azimuth, elevation),
            key=key * tint,
            sky=ambient * np.array([1.0, 1.01, 1.03]),
            ground=ambient * 0.55 * tint,
            fill_direction=towards(azimuth + np.pi * rng.uniform(0.7, 1.3), np.radians(25)),
            fill=rng.uniform(0.12, 0.25) * np.array([0.97, 1.0, 1.05]),
        )


# --- skinning ---------------------------------------------------------------------------------------------------------


def _dual_quaternions(turned: np.ndarray, placed: np.ndarray, bind: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(24, 8) from the bind pose to a pose, for `_skin`."""
    from scipy.spatial.transform import Rotation

    rotation = turned @ np.swapaxes(bind[0], -1, -2)
    translation = placed - np.einsum("bij,bj->bi", rotation, bind[1])
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().T
    tx, ty, tz = translation.T
    dual = 0.5 * np.stack(
        [-tx * x - ty * y - tz * z, tx * w + ty * z - tz * y, -tx * z + ty * w + tz * x, tx * y - ty * x + tz * w], 1
    )
    return np.concatenate([np.stack([w, x, y, z], 1), dual], axis=1)


@njit(cache=True, nogil=True, fastmath=True)
def _skin(vertices, normals, bones, weights, dq, out_v, out_n):
    """Dual quaternion skinning (Kavan et al. 2008): unlike blended matrices it keeps a twisted or bent limb's volume."""
    for v in range(vertices.shape[0]):
        first = bones[v, 0]
        q = np.zeros(8, np.float64)
        for i in range(4):
            w = weights[v, i]
            if w < 1e-3:
                continue
            b = bones[v, i]
            dot = dq[b, 0] * dq[first, 0] + dq[b, 1] * dq[first, 1] + dq[b, 2] * dq[first, 2] + dq[b, 3] * dq[first, 3]
            if dot < 0:
                w = -w
            for c in range(8):
                q[c] += w * dq[b, c]
        s = 1.0 / np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        w, x, y, z = q[0] * s, q[1] * s, q[2] * s, q[3] * s
        ew, ex, ey, ez = q[4] * s, q[5] * s, q[6] * s, q[7] * s
        tx = 2 * (-ew * x + ex * w - ey * z + ez * y)
        ty = 2 * (-ew * y + ex * z + ey * w - ez * x)
        tz = 2 * (-ew * z - ex * y + ey * x + ez * w)
        r00, r01, r02 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
        r10, r11, r12 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
        r20, r21, r22 = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
        a, b2, c2 = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        out_v[v, 0] = r00 * a + r01 * b2 + r02 * c2 + tx
        out_v[v, 1] = r10 * a + r11 * b2 + r12 * c2 + ty
        out_v[v, 2] = r20 * a + r21 * b2 + r22 * c2 + tz
        a, b2, c2 = normals[v, 0], normals[v, 1], normals[v, 2]
        out_n[v, 0] = r00 * a + r01 * b2 + r02 * c2
        out_n[v, 1] = r10 * a + r11 * b2 + r12 * c2
        out_n[v, 2] = r20 * a + r21 * b2 + r22 * c2


# --- z-buffers --------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, fastmath=True)
def _fill(points, triangles, facing, x0, y0, depth, number):
    """Draws triangles (pixel centres at whole numbers) into a z-buffer whose corner is (x0, y0); nearest wins.

    facing: +1 draws triangles that run clockwise on the screen (y down) only, 0 draws all.
    """
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = points[a, 0] - x0, points[a, 1] - y0, points[a, 2]
        bx, by, bz = points[b, 0] - x0, points[b, 1] - y0, points[b, 2]
        cx, cy, cz = points[c, 0] - x0, points[c, 1] - y0, points[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if facing != 0 and area * facing <= 0:
            continue
        if abs(area) < 1e-12:
            continue
        left = max(int(np.ceil(min(ax, bx, cx))), 0)
        right = min(int(np.floor(max(ax, bx, cx))), width - 1)
        top = max(int(np.ceil(min(ay, by, cy))), 0)
        bottom = min(int(np.floor(max(ay, by, cy))), height - 1)
        if left > right or top > bottom:
            continue
        inv = 1.0 / area
        # barycentric weights of b and c, and how they change with x and y
        ux, uy = (cy - ay) * inv, -(cx - ax) * inv
        vx, vy = -(by - ay) * inv, (bx - ax) * inv
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                u = (x - ax) * ux + (y - ay) * uy
                v = (x - ax) * vx + (y - ay) * vy
                if u < -1e-5 or v < -1e-5 or u + v > 1.00001:
                    continue
                z = az + u * (bz - az) + v * (cz - az)
                if z < depth[y, x]:
                    depth[y, x] = z
                    number[y, x] = t


@njit(cache=True, nogil=True, fastmath=True)
def _splat(vertices, floor, reach_x, reach_z, corner, texel, size):
    """(size, size) height above the floor of the lowest vertex over each texel, looking along a direction; 10 where none is.

    The mesh is finer than the texels, so that vertices do for triangles.
    """
    lowest = np.full((size, size), np.float32(10.0))
    for v in range(vertices.shape[0]):
        height = vertices[v, 1] - floor
        i = int((vertices[v, 0] - height * reach_x - corner[0]) / texel)
        j = int((vertices[v, 2] - height * reach_z - corner[1]) / texel)
        if 0 <= i < size and 0 <= j < size and height < lowest[j, i]:
            lowest[j, i] = max(height, 0.0)
    return lowest


@njit(cache=True, nogil=True, fastmath=True)
def _blur(image, rounds):
    """Box blur of three texels in both directions, several times: a soft edge."""
    h, w = image.shape
    other = np.empty_like(image)
    for _ in range(rounds):
        for y in range(h):
            for x in range(w):
                a = image[y, max(x - 1, 0)] + image[y, x] + image[y, min(x + 1, w - 1)]
                other[y, x] = a / 3
        for y in range(h):
            for x in range(w):
                image[y, x] = (other[max(y - 1, 0), x] + other[y, x] + other[min(y + 1, h - 1), x]) / 3


# --- materials --------------------------------------------------------------------------------------------------------
# `paint` holds a look's numbers: 12 colours (linear), then what is below.
_SKIN, _TOP, _SECOND, _BOTTOM, _SEAM, _SHOE, _SOLE, _HAIR, _LIPS, _IRIS, _BROWS, _HAT = range(12)
_PATTERN, _HEAD, _SCALE, _CHEST, _SOLE_Y, _BEARD, _STYLE, _PAINTED = 36, 37, 40, 41, 44, 45, 46, 47
_SHAVED, _CAPPED = 1, 2


def _paint(dancer: Dancer) -> np.ndarray:
    """A look as numbers for the shader."""
    look, placed = dancer.look, dancer.bind[1]
    paint = np.zeros(48)
    paint[:36] = look.colours.ravel()
    paint[_PATTERN] = look.pattern
    paint[_HEAD : _HEAD + 3], paint[_SCALE] = dancer.head
    paint[_CHEST : _CHEST + 3] = placed[SPINE3]
    paint[_SOLE_Y] = placed[7][1] - dancer.build.sole
    paint[_BEARD] = look.beard
    paint[_PAINTED] = dancer.mesh.tints is None
    paint[_STYLE] = _SHAVED if look.hair == "shaved" else _CAPPED if look.head_covered else 0
    return paint


@njit(cache=True, nogil=True, fastmath=True)
def _step(edge, x, soft):
    """0 below an edge, 1 above it, smooth over `soft` to either side."""
    t = min(max((x - edge) / (2 * soft) + 0.5, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(cache=True, nogil=True, fastmath=True)
def _grain(x, y, z, cell):
    """−1 … 1, one value to a cube of some millimetres: weave and pores."""
    n = (
        int(np.floor(x / cell)) * 374761393 + int(np.floor(y / cell)) * 668265263 + int(np.floor(z / cell)) * 69069
    ) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 32767.5 - 1


@njit(cache=True, nogil=True, fastmath=True)
def _mix(rgb, paint, colour, amount, gain):
    for c in range(3):
        rgb[c] += (paint[3 * colour + c] * gain - rgb[c]) * amount


@njit(cache=True, nogil=True, fastmath=True)
def _albedo(material, x, y, z, paint, soft, rgb):
    """Colour at a point of the bind pose; `soft` is half a pixel in metres. Hands back how shiny it is."""
    if material == SKIN:
        for c in range(3):
            rgb[c] = paint[3 * _SKIN + c]
        s = paint[_SCALE]
        hx, hy, hz = (x - paint[_HEAD]) / s, (y - paint[_HEAD + 1]) / s, (z - paint[_HEAD + 2]) / s
        if paint[_PAINTED] > 0 and hz > 0.02 and -0.02 < hy < 0.2 and abs(hx) < 0.1:
            ax = abs(hx)
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
                low = 1 - _step(0.058, hy + 0.35 * max(0.045 - ax, 0.0), 0.010)
                jaw = low * _step(0.028, hz - 0.2 * ax, 0.012)
                _mix(rgb, paint, _HAIR, 0.75 * jaw, 1.0)
            mouth = (ax / 0.0245) ** 2 + ((hy - MOUTH[1] - 0.10 * ax) / (0.0105 - 0.12 * ax * ax / 0.0245)) ** 2
            _mix(rgb, paint, _LIPS, 1 - _step(1.0, mouth, 0.3 + soft * 60), 1.0)
            line = 1 - _step(0.0011 + 0.3 * soft, abs(hy - MOUTH[1] - 0.08 * ax), 0.0008 + soft * 0.6)
            _mix(rgb, paint, _LIPS, 0.8 * line * (1 - _step(0.022, ax, 0.003)), 0.25)
            brow = 1 - _step(
                0.0036,
                abs(hy - BROW_Y - 0.004 + 0.9 * (ax - 0.034) ** 2 * 14 - 0.06 * (ax - 0.034)),
                0.0016 + 0.5 * soft,
            )
            brow *= _step(0.014, ax, 0.003) * (1 - _step(0.052, ax, 0.004))
            _mix(rgb, paint, _BROWS, 0.9 * brow, 0.9)
            ex, ey = (ax - EYE[0]) / 0.0142, (hy - EYE[1]) / 0.0068
            opening = ex * ex + ey * ey * (1 + 0.5 * ex * ex)
            white = 1 - _step(1.0, opening, 0.15 + soft * 60)
            lid = (1 - _step(1.55, opening, 0.35)) * (1 - white)
            lash = lid * _step(-0.2, ey, 0.3)
            for c in range(3):
                rgb[c] *= 1 - 0.45 * lid - 0.40 * lash
                rgb[c] += (0.58 - rgb[c]) * white
            ring = np.sqrt((ax - EYE[0] + 0.001) ** 2 + (hy - EYE[1]) ** 2)
            iris = (1 - _step(0.0062, ring, 0.0008 + 0.5 * soft)) * white
            _mix(rgb, paint, _IRIS, iris, 1.0)
            pupil = (1 - _step(0.0030, ring, 0.0006 + 0.5 * soft)) * white
            for c in range(3):
                rgb[c] *= 1 - 0.92 * pupil
        return 0.22
    if material == TOP:
        for c in range(3):
            rgb[c] = paint[3 * _TOP + c]
        cx, cy = x - paint[_CHEST], y - paint[_CHEST + 1]
        cz = z - paint[_CHEST + 2]
        pattern = int(paint[_PATTERN])
        if pattern == STRIPES:
            wave = abs(((y / 0.075) % 1.0) - 0.5)
            _mix(rgb, paint, _SECOND, 1 - _step(0.16, wave, 0.02 + soft * 10), 1.0)
        elif pattern == LOGO:
            if cz > 0:
                r = np.sqrt(cx * cx + (cy - 0.045) ** 2)
                disc = 1 - _step(0.075, r, 0.001 + soft)
                disc *= 1 - (1 - _step(0.012, abs(cy - 0.045 - 0.5 * cx), 0.001 + soft))
                _mix(rgb, paint, _SECOND, disc, 1.0)
            else:
                bar = (1 - _step(0.13, abs(cx), 0.001 + soft)) * (1 - _step(0.022, abs(cy - 0.07), 0.001 + soft))
                _mix(rgb, paint, _SECOND, bar, 1.0)
        elif pattern == RAGLAN:
            _mix(rgb, paint, _SECOND, _step(0.135, abs(cx) + 0.25 * (cy - 0.05), 0.001 + soft), 1.0)
        elif pattern == CHECKS:
            a, b = abs(((y / 0.11) % 1.0) - 0.5), abs((((x + z) / 0.11) % 1.0) - 0.5)
            _mix(rgb, paint, _SECOND, 0.5 * (1 - _step(0.22, a, 0.02 + soft * 8)), 0.9)
            _mix(rgb, paint, _SECOND, 0.5 * (1 - _step(0.22, b, 0.02 + soft * 8)), 0.9)
        weave = 1 + 0.05 * _grain(x, y, z, 0.006)
        for c in range(3):
            rgb[c] *= weave
        return 0.02
    if material == BOTTOM:
        for c in range(3):
            rgb[c] = paint[3 * _BOTTOM + c]
        leg = abs(x) - 0.10 - 0.13 * max(-(y + 0.06), 0.0)
        seam = (1 - _step(0.004, abs(z - 0.002), 0.002 + soft)) * _step(0.02, leg, 0.01)
        _mix(rgb, paint, _SEAM, 0.7 * seam, 1.0)
        # worn, lighter thighs
        worn = np.exp(-((y + 0.35) ** 2) / 0.03) * _step(0.0, z, 0.05) * 0.16
        for c in range(3):
            rgb[c] += (1 - rgb[c]) * worn * rgb[c]
        weave = 1 + 0.09 * _grain(x, 0.4 * y, z, 0.005)
        for c in range(3):
            rgb[c] *= weave
        return 0.02
    if material == SHOES:
        for c in range(3):
            rgb[c] = paint[3 * _SHOE + c]
        height = y - paint[_SOLE_Y]
        _mix(rgb, paint, _SOLE, 1 - _step(0.026, height, 0.001 + soft), 1.0)
        if height > 0.03 and z > 0.03:
            lace = (1 - _step(0.3, abs(((z / 0.018) % 1.0) - 0.5) * 2, 0.1 + soft * 20)) * _step(0.050, height, 0.004)
            _mix(rgb, paint, _SOLE, 0.8 * lace * (1 - _step(0.135, z, 0.004)), 1.0)
        return 0.10
    # hair, or what is worn on it
    s = paint[_SCALE]
    hx, hy, hz = (x - paint[_HEAD]) / s, (y - paint[_HEAD + 1]) / s, (z - paint[_HEAD + 2]) / s
    style = int(paint[_STYLE])
    if style == _CAPPED and hy > 0.138 - 0.12 * max(-hz, 0.0):
        for c in range(3):
            rgb[c] = paint[3 * _HAT + c]
        return 0.05
    for c in range(3):
        rgb[c] = paint[3 * _HAIR + c]
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


@njit(cache=True, nogil=True, fastmath=True)
def _lit(shadow, px, py, pz, light):
    """Share of the key light that reaches a point: the light's depth map, filtered over three by three texels."""
    size = shadow.shape[0]
    u = light[0, 0] * px + light[0, 1] * py + light[0, 2] * pz + light[0, 3]
    v = light[1, 0] * px + light[1, 1] * py + light[1, 2] * pz + light[1, 3]
    d = light[2, 0] * px + light[2, 1] * py + light[2, 2] * pz + light[2, 3]
    x, y = int(np.floor(u)), int(np.floor(v))
    if x < 1 or y < 1 or x > size - 3 or y > size - 3:
        return 1.0
    fx, fy = u - x, v - y
    total = 0.0
    for j in range(-1, 3):
        wy = 1 - fy if j == -1 else fy if j == 2 else 1.0
        for i in range(-1, 3):
            wx = 1 - fx if i == -1 else fx if i == 2 else 1.0
            if shadow[y + j, x + i] > d - 0.012:
                total += wx * wy
    return total / 9


@njit(cache=True, nogil=True, fastmath=True)
def _shade(
    t,
    x,
    y,
    points,
    triangles,
    world,
    normals,
    rest,
    materials,
    tints,
    occlusion,
    paint,
    shadow,
    light,
    lights,
    eye,
    soft,
    out,
):
    """Colour (linear) of triangle t at the sample (x, y)."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    ax, ay = points[a, 0], points[a, 1]
    bx, by, cx, cy = points[b, 0] - ax, points[b, 1] - ay, points[c, 0] - ax, points[c, 1] - ay
    inv = 1.0 / (bx * cy - by * cx)
    u = ((x - ax) * cy - (y - ay) * cx) * inv
    v = ((y - ay) * bx - (x - ax) * by) * inv
    u, v = min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0)
    w = 1 - u - v
    nx = w * normals[a, 0] + u * normals[b, 0] + v * normals[c, 0]
    ny = w * normals[a, 1] + u * normals[b, 1] + v * normals[c, 1]
    nz = w * normals[a, 2] + u * normals[b, 2] + v * normals[c, 2]
    px = w * world[a, 0] + u * world[b, 0] + v * world[c, 0]
    py = w * world[a, 1] + u * world[b, 1] + v * world[c, 1]
    pz = w * world[a, 2] + u * world[b, 2] + v * world[c, 2]
    rx = w * rest[a, 0] + u * rest[b, 0] + v * rest[c, 0]
    ry = w * rest[a, 1] + u * rest[b, 1] + v * rest[c, 1]
    rz = w * rest[a, 2] + u * rest[b, 2] + v * rest[c, 2]
    material, least, skin = 0, 1e9, 0.0
    for m in range(materials.shape[1]):
        d = w * materials[a, m] + u * materials[b, m] + v * materials[c, m]
        if m == SKIN:
            skin = d
        if d < least:
            material, least = m, d
    open_ = w * occlusion[a] + u * occlusion[b] + v * occlusion[c]
    shine = _albedo(material, rx, ry, rz, paint, soft, out)
    if tints.shape[0] > 0:
        amount = w * tints[a, 3] + u * tints[b, 3] + v * tints[c, 3]
        if amount > 0:
            for i in range(3):
                tint = w * tints[a, i] + u * tints[b, i] + v * tints[c, i]
                out[i] += (tint - out[i]) * amount
    if material in (TOP, BOTTOM):  # hems: a seam runs along wherever cloth ends on skin
        seam = 1 - 0.22 * (1 - _step(0.006, skin - least, 0.0015))
        for i in range(3):
            out[i] *= seam
    s = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx, ny, nz = nx * s, ny * s, nz * s
    ex, ey, ez = eye[0] - px, eye[1] - py, eye[2] - pz
    s = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
    ex, ey, ez = ex * s, ey * s, ez * s
    kx, ky, kz = lights[0, 0], lights[0, 1], lights[0, 2]
    key = nx * kx + ny * ky + nz * kz
    fill = max(nx * lights[1, 0] + ny * lights[1, 1] + nz * lights[1, 2], 0.0)
    wrap = 0.18 if material == SKIN else 0.05
    diffuse = max((key + wrap) / (1 + wrap), 0.0)
    visible = 0.0
    if diffuse > 0:  # offset along the normal instead of a depth bias: no acne, no peter-panning
        visible = _lit(shadow, px + 0.025 * nx, py + 0.025 * ny, pz + 0.025 * nz, light)
    up = 0.5 + 0.5 * ny
    # highlight (Blinn–Phong) and the light that grazes an edge
    hx, hy, hz = kx + ex, ky + ey, kz + ez
    s = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
    half = max((nx * hx + ny * hy + nz * hz) * s, 0.0)
    h2 = half * half
    h4 = h2 * h2
    h8 = h4 * h4
    h16 = h8 * h8
    spec = shine * h16 * h8 * visible * max(key, 0.0)
    facing = max(nx * ex + ny * ey + nz * ez, 0.0)
    rim = (1 - facing) ** 3 * (0.10 if material in (SKIN, HAIR) else 0.05)
    for c in range(3):
        red = 1.0 + (0.12 * (1 - visible * diffuse) if material == SKIN and c == 0 else 0.0)
        ambient = (lights[3, c] + (lights[2, c] - lights[3, c]) * up) * open_
        light_in = lights[4, c] * diffuse * visible + lights[5, c] * fill * (0.4 + 0.6 * open_) + ambient
        out[c] = out[c] * light_in * red + (spec + rim * open_) * lights[2, c]


@njit(cache=True, nogil=True, fastmath=True)
def _resolve(
    image, x0, y0, depth, number, points, triangles, world, normals, rest, materials, tints, occlusion, paint,
    shadow, light, lights, eye, soft, tone,
):  # fmt: skip
    """Shades what the z-buffer holds into the picture; a pixel's colour is weighted by the share of it that is covered."""
    height, width = depth.shape
    near, far = np.empty(3), np.empty(3)
    for py in range(height // SAMPLES):
        for px in range(width // SAMPLES):
            least, best, count = np.float32(1e9), -1, 0
            bx, by = 0, 0
            for j in range(SAMPLES):
                for i in range(SAMPLES):
                    z = depth[SAMPLES * py + j, SAMPLES * px + i]
                    if z < 1e8:
                        count += 1
                        if z < least:
                            least, best = z, number[SAMPLES * py + j, SAMPLES * px + i]
                            bx, by = SAMPLES * px + i, SAMPLES * py + j
            if count == 0:
                continue
            behind, second, behind_x, behind_y = 0, -1, 0, 0
            for j in range(SAMPLES):
                for i in range(SAMPLES):
                    z = depth[SAMPLES * py + j, SAMPLES * px + i]
                    if z < 1e8 and z > least + EDGE:
                        behind += 1
                        second = number[SAMPLES * py + j, SAMPLES * px + i]
                        behind_x, behind_y = SAMPLES * px + i, SAMPLES * py + j
            ox, oy = SAMPLES * x0, SAMPLES * y0
            _shade(
                best, bx + ox, by + oy, points, triangles, world, normals, rest, materials, tints, occlusion, paint, shadow,
                light, lights, eye, soft, near,
            )  # fmt: skip
            share = np.float64(count - behind) / (SAMPLES * SAMPLES)
            back = np.float64(behind) / (SAMPLES * SAMPLES)
            if behind > 0:
                _shade(
                    second, behind_x + ox, behind_y + oy, points, triangles, world, normals, rest, materials, tints, occlusion,
                    paint, shadow, light, lights, eye, soft, far,
                )  # fmt: skip
            for c in range(3):
                value = share * tone[c, min(max(int(near[c] * 2048), 0), 4095)]
                if behind > 0:
                    value += back * tone[c, min(max(int(far[c] * 2048), 0), 4095)]
                value += (1 - share - back) * image[y0 + py, x0 + px, c]
                image[y0 + py, x0 + px, c] = np.uint8(min(value + 0.5, 255.0))


@njit(cache=True, nogil=True, fastmath=True)
def _darken_floor(image, floor, shade, corner, texel, x0, y0, x1, y1):
    """Multiplies floor pixels of a box by the shadow that lies on them (looked up bilinearly)."""
    size = shade.shape[0]
    for y in range(y0, y1):
        for x in range(x0, x1):
            fx = floor[y, x, 0]
            if fx > 1e8:
                continue
            u = (fx - corner[0]) / texel - 0.5
            v = (floor[y, x, 1] - corner[1]) / texel - 0.5
            if u < 0 or v < 0 or u >= size - 1 or v >= size - 1:
                continue
            i, j = int(u), int(v)
            a, b = u - i, v - j
            s = (1 - b) * ((1 - a) * shade[j, i] + a * shade[j, i + 1]) + b * (
                (1 - a) * shade[j + 1, i] + a * shade[j + 1, i + 1]
            )
            if s > 0.004:
                k = 1 - s
                for c in range(3):
                    image[y, x, c] = np.uint8(image[y, x, c] * k)


def tone_curve(exposure: float = 1.0, tint: np.ndarray | float = 1.0, contrast: float = 1.0) -> np.ndarray:
    """(3, 4096) for red, green, blue: linear light 0 … 2 -> sRGB 0 … 255, with a shoulder instead of a clipped white.

    Args:
        exposure: what light is multiplied by.
        tint: the same for each colour (3,): a white balance that is off.
        contrast: exponent about a middle grey.
    """
    x = np.arange(4096) / 2048 * exposure * (np.ones(3) * tint)[:, None]
    x = 0.2 * (x / 0.2) ** contrast
    x = np.where(x < 0.6, x, 0.6 + 0.4 * np.tanh((x - 0.6) / 0.4 * 0.85))
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255


# --- what the rest of the studio uses ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posed:
    """A dancer at one moment, and the shadow it casts: the same for all cameras."""

    vertices: np.ndarray  # (V, 3) f32 world, metres
    normals: np.ndarray  # (V, 3) f32
    shadow: np.ndarray  # (S, S) f32 depth from the light
    to_light: np.ndarray  # (3, 4) world -> texel x, y and depth of `shadow`
    floor_shadow: np.ndarray  # (F, F) f32: 0 lit … 1 dark
    floor_corner: np.ndarray  # (2,) world x, z of its corner


class Renderer:
    """Draws one dancer under one light. Keeps its buffers between frames; one per thread."""

    def __init__(self, dancer: Dancer, light: Light, floor: float) -> None:
        """Args:
        dancer: who is drawn.
        light: what lights the dancer.
        floor: the floor's height in the world, metres.
        """
        self.dancer, self.mesh, self.floor = dancer, dancer.mesh, floor
        self._paint = _paint(dancer)
        self._tints = np.empty((0, 4), np.float32) if dancer.mesh.tints is None else dancer.mesh.tints
        self._key = light.key_direction
        self._lights = np.stack(
            [light.key_direction, light.fill_direction, light.sky, light.ground, light.key, light.fill]
        )
        self._depth = np.empty(0, np.float32)
        self._number = np.empty(0, np.int32)

    def pose(self, turned: np.ndarray, placed: np.ndarray) -> Posed:
        """Skins the dancer and casts its shadows.

        Args:
            turned: (24, 3, 3) the bones' rotations in the world.
            placed: (24, 3) their positions, metres.
        """
        mesh = self.mesh
        vertices, normals = np.empty_like(mesh.vertices), np.empty_like(mesh.normals)
        dq = _dual_quaternions(turned, placed, self.dancer.bind)
        _skin(mesh.vertices, mesh.normals, mesh.bones, mesh.weights, dq, vertices, normals)

        # the light's view: an orthographic camera around the dancer
        centre = (vertices.min(0) + vertices.max(0)).astype(np.float64) / 2
        side = np.cross([0.0, 1.0, 0.0], self._key)
        side /= np.linalg.norm(side)
        up = np.cross(self._key, side)
        scale = SHADOW_SIZE / SHADOW_SPAN
        to_light = np.empty((3, 4))
        to_light[:, :3] = side * scale, up * scale, -self._key
        to_light[:, 3] = -to_light[:, :3] @ centre + (SHADOW_SIZE / 2, SHADOW_SIZE / 2, 0)
        points = (vertices @ to_light[:, :3].T + to_light[:, 3]).astype(np.float32)
        shadow = np.full((SHADOW_SIZE, SHADOW_SIZE), 1e9, np.float32)
        number = np.empty((SHADOW_SIZE, SHADOW_SIZE), np.int32)
        _fill(points, mesh.triangles, 1, 0.0, 0.0, shadow, number)

        # the floor's: the vertices along the light onto the floor; and, softer, straight down (contact)
        texel = FLOOR_SPAN / FLOOR_SIZE
        reach = self._key[[0, 2]] / self._key[1]
        corner = centre[[0, 2]] - reach * (centre[1] - self.floor) / 2 - FLOOR_SPAN / 2
        cast = _splat(vertices, self.floor, reach[0], reach[1], corner, texel, FLOOR_SIZE)
        soft = (cast < 10).astype(np.float32)
        _blur(soft, 3)
        below = _splat(vertices, self.floor, 0.0, 0.0, corner, texel, FLOOR_SIZE)
        near = np.exp(-below / 0.12)
        _blur(near, 2)
        wide = np.exp(-below / 0.8)
        _blur(wide, 12)
        key, ambient = self._lights[4].mean() * self._key[1], self._lights[2].mean()
        dark = 1 - (1 - soft * key / (key + ambient)) * (1 - 0.55 * near) * (1 - 0.35 * wide)
        # linear light -> what a picture's values are to be multiplied by
        dark = 1 - np.maximum(1 - dark, 0.02) ** (1 / 2.2)
        return Posed(vertices, normals, shadow, to_light, dark.astype(np.float32), corner)

    def draw(
        self, posed: Posed, camera: Camera, tone: np.ndarray, image: np.ndarray, floor_map: np.ndarray
    ) -> tuple[int, int, int, int]:
        """Draws the dancer and the shadow on the floor into a picture of the empty room.

        Args:
            posed: the moment.
            camera: whose picture it is.
            tone: (3, 4096) the camera's `tone_curve`.
            image: (H, W, 3) uint8, changed in place.
            floor_map: (H, W, 2) f32 world x and z of the floor at each pixel; 1e9 where there is none.

        Returns:
            The box that was changed: x0, y0, x1, y1.
        """
        mesh = self.mesh
        height, width = image.shape[:2]
        points = np.empty_like(posed.vertices)
        behind = _project(posed.vertices, camera.rotation, camera.translation, camera.matrix, camera.distortion, points)
        dirty = self._draw_shadow(posed, camera, image, floor_map)
        if behind:  # a dancer around the lens cannot be drawn, nor can anybody make sense of it
            return dirty
        low = np.floor(points[:, :2].min(0) / SAMPLES).astype(int)
        high = np.ceil(points[:, :2].max(0) / SAMPLES).astype(int) + 1
        x0, y0 = max(low[0], 0), max(low[1], 0)
        x1, y1 = min(high[0], width), min(high[1], height)
        if x0 >= x1 or y0 >= y1:
            return dirty
        depth, number = self.rasterise(points, (x0, y0, x1, y1))
        scale = camera.matrix[0, 0] / float(np.median(points[:, 2]))  # pixels per metre on the dancer
        _resolve(
            image, x0, y0, depth, number, points, mesh.triangles, posed.vertices, posed.normals, mesh.vertices,
            mesh.materials, self._tints, mesh.occlusion, self._paint, posed.shadow, posed.to_light, self._lights,
            camera.position, 0.5 / scale, tone,
        )  # fmt: skip
        return min(dirty[0], x0), min(dirty[1], y0), max(dirty[2], x1), max(dirty[3], y1)

    def rasterise(self, points: np.ndarray, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Depth (metres, 1e9 where nothing is) and triangle numbers, `SAMPLES` times as fine as the box's pixels."""
        x0, y0, x1, y1 = box
        shape = (SAMPLES * (y1 - y0), SAMPLES * (x1 - x0))
        if self._depth.size < shape[0] * shape[1]:
            self._depth = np.empty(shape[0] * shape[1], np.float32)
            self._number = np.empty(shape[0] * shape[1], np.int32)
        depth = self._depth[: shape[0] * shape[1]].reshape(shape)
        number = self._number[: shape[0] * shape[1]].reshape(shape)
        depth.fill(1e9)
        _fill(points, self.mesh.triangles, 1, float(SAMPLES * x0), float(SAMPLES * y0), depth, number)
        return depth, number

    def depth(self, posed: Posed, camera: Camera) -> np.ndarray:
        """(H, W) f32 the dancer's depth in the camera's frame at every pixel's centre, metres; inf where nobody is."""
        width, height = camera.size
        points = np.empty_like(posed.vertices)
        _project(posed.vertices, camera.rotation, camera.translation, camera.matrix, camera.distortion, points)
        depth, _ = self.rasterise(points, (0, 0, width, height))
        # a pixel's centre lies between its four samples
        least = depth.reshape(height, SAMPLES, width, SAMPLES).min(axis=(1, 3))
        return np.where(least < 1e8, least, np.inf)

    def _draw_shadow(
        self, posed: Posed, camera: Camera, image: np.ndarray, floor_map: np.ndarray
    ) -> tuple[int, int, int, int]:
        height, width = image.shape[:2]
        rows, columns = np.nonzero(posed.floor_shadow > 0.01)
        if len(rows) == 0:
            return width, height, 0, 0
        texel = FLOOR_SPAN / FLOOR_SIZE
        x = posed.floor_corner[0] + np.array([columns.min() - 1, columns.max() + 2]) * texel
        z = posed.floor_corner[1] + np.array([rows.min() - 1, rows.max() + 2]) * texel
        # the outline of the shadow's box, finely enough for the lens to bend it
        t = np.linspace(0, 1, 9)
        xs = np.concatenate([x[0] + t * (x[1] - x[0]), np.full(9, x[1]), x[1] - t * (x[1] - x[0]), np.full(9, x[0])])
        zs = np.concatenate([np.full(9, z[0]), z[0] + t * (z[1] - z[0]), np.full(9, z[1]), z[1] - t * (z[1] - z[0])])
        outline = np.stack([xs, np.full_like(xs, self.floor), zs], axis=1)
        seen = camera.project(outline)
        if not np.isfinite(seen).all():
            x0, y0, x1, y1 = 0, 0, width, height
        else:
            x0, y0 = np.clip(np.floor(seen.min(0)).astype(int) - 2, 0, (width, height))
            x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int) + 3, 0, (width, height))
        if x0 >= x1 or y0 >= y1:
            return width, height, 0, 0
        _darken_floor(image, floor_map, posed.floor_shadow, posed.floor_corner, texel, x0, y0, x1, y1)
        return int(x0), int(y0), int(x1), int(y1)


@njit(cache=True, nogil=True)
def _project(vertices, rotation, translation, matrix, distortion, out):
    """World -> samples (`SAMPLES` to a pixel) and depth, the same formula as `Camera.project`. True if anything is behind.

    A pixel's centre has whole coordinates, as OpenCV has it; its samples lie symmetrically about it.
    """
    k1, k2, p1, p2, k3 = distortion
    shift = (SAMPLES - 1) / 2
    for v in range(vertices.shape[0]):
        a, b, c = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        z = rotation[2, 0] * a + rotation[2, 1] * b + rotation[2, 2] * c + translation[2]
        if z < 0.2:
            return True
        x = (rotation[0, 0] * a + rotation[0, 1] * b + rotation[0, 2] * c + translation[0]) / z
        y = (rotation[1, 0] * a + rotation[1, 1] * b + rotation[1, 2] * c + translation[1]) / z
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        out[v, 0] = (matrix[0, 0] * xd + matrix[0, 1] * yd + matrix[0, 2]) * SAMPLES + shift
        out[v, 1] = (matrix[1, 1] * yd + matrix[1, 2]) * SAMPLES + shift
        out[v, 2] = z
    return False
