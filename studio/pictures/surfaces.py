"""What floors and walls look like, and the things that stand in a room."""

import numpy as np

from studio.kernels import fast

BOX, CYLINDER, BALL = 0, 1, 2  # kinds of things

WOOD, VINYL, CONCRETE, TILES, CARPET = range(5)  # floors
PAINT, WAINSCOT, BRICK, PANELS, PLASTER, CURTAIN, WINDOWS = range(7)  # walls


@fast
def hashed(i, j):
    """Two whole numbers -> 0 … 1, the same everywhere."""
    n = (i * 374761393 + j * 668265263) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535.0


@fast
def noise(x, y):
    """Value noise, 0 … 1, with features of one unit."""
    i, j = int(np.floor(x)), int(np.floor(y))
    a, b = x - i, y - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    return (1 - b) * ((1 - a) * hashed(i, j) + a * hashed(i + 1, j)) + b * (
        (1 - a) * hashed(i, j + 1) + a * hashed(i + 1, j + 1)
    )


@fast
def floor_colour(kind, x, z, colours, rgb):
    """Writes the colour of the floor at a point (x, z metres) into `rgb`, linear light 0 … 1."""
    base, second = colours[0], colours[1]
    if kind == WOOD:
        plank = int(np.floor(x / 0.14))
        along = z / 1.8 + hashed(plank, 7) * 3
        tone = 0.82 + 0.3 * hashed(plank, int(np.floor(along)))
        tone *= 0.93 + 0.12 * noise(x * 60, z * 3 + plank * 17)
        gap = abs(x / 0.14 - plank - 0.5) * 2
        butt = abs(along - np.floor(along) - 0.5) * 2
        if gap > 0.965 or butt > 0.997:
            tone *= 0.62
        for c in range(3):
            rgb[c] = base[c] * tone
    elif kind == TILES:
        a, b = x / 0.6, z / 0.6
        line = max(abs(a - np.floor(a) - 0.5), abs(b - np.floor(b) - 0.5)) * 2
        tone = 0.9 + 0.16 * hashed(int(np.floor(a)), int(np.floor(b)))
        for c in range(3):
            rgb[c] = second[c] * 0.7 if line > 0.985 else base[c] * tone
    elif kind == CONCRETE:
        tone = 0.72 + 0.3 * noise(x * 1.1, z * 1.1) + 0.16 * noise(x * 5, z * 5) + 0.10 * noise(x * 23, z * 23)
        for c in range(3):
            rgb[c] = base[c] * tone
    elif kind == CARPET:
        tone = 0.8 + 0.25 * noise(x * 90, z * 90) + 0.12 * noise(x * 9, z * 9)
        for c in range(3):
            rgb[c] = base[c] * tone
    else:
        tone = 0.93 + 0.07 * noise(x * 0.9, z * 0.9) + 0.03 * noise(x * 40, z * 40)
        for c in range(3):
            rgb[c] = base[c] * tone


@fast
def wall_colour(kind, u, h, skirting, colours, rgb):
    """u along the wall, h above the floor, metres. Hands back how much it glows by itself."""
    base, second = colours[2], colours[3]
    tone = 0.95 + 0.06 * noise(u * 0.8, h * 0.8) + 0.02 * noise(u * 35, h * 35)
    for c in range(3):
        rgb[c] = base[c] * tone
    if kind == WAINSCOT and h < 1.1:
        edge = 0.55 if h > 1.06 else 1.0
        for c in range(3):
            rgb[c] = second[c] * tone * edge
    elif kind == BRICK:
        row = int(np.floor(h / 0.085))
        a = u / 0.25 + 0.5 * (row % 2)
        mortar = abs(h / 0.085 - row - 0.5) * 2 > 0.86 or abs(a - np.floor(a) - 0.5) * 2 > 0.95
        shade = 0.7 + 0.5 * hashed(int(np.floor(a)), row)
        for c in range(3):
            rgb[c] = base[c] * 0.75 if mortar else (second[c] * 0.6 + 0.4 * base[c] * (0.6, 0.35, 0.28)[c]) * shade
    elif kind == PANELS:
        a = u / 0.9
        gap = abs(a - np.floor(a) - 0.5) * 2
        shade = 0.9 + 0.14 * hashed(int(np.floor(a)), 3)
        for c in range(3):
            rgb[c] = (0.6 * base[c] + 0.4 * second[c]) * shade * (0.5 if gap > 0.98 else 1.0)
    elif kind == PLASTER:
        shade = 0.75 + 0.25 * noise(u * 1.7, h * 1.7) + 0.2 * noise(u * 6, h * 6)
        for c in range(3):
            rgb[c] = base[c] * shade
    elif kind == CURTAIN:
        fold = 0.62 + 0.38 * np.sin(u * 26 + 1.5 * np.sin(u * 3.1)) * 0.8
        for c in range(3):
            rgb[c] = second[c] * (0.6 + 0.5 * fold)
    elif kind == WINDOWS and 1.0 < h < 2.6:
        a = u / 1.6
        f = abs(a - np.floor(a) - 0.5) * 2
        if f < 0.72:
            bar = f < 0.025 or abs(h - 1.8) < 0.025
            for c in range(3):
                rgb[c] = 0.55 if bar else (0.80, 0.90, 1.0)[c] * (0.75 + 0.2 * (h - 1.0))
            return 0.0 if bar else 0.75
        if f < 0.76:
            for c in range(3):
                rgb[c] = 0.75
    if h < 0.10 and skirting:
        for c in range(3):
            rgb[c] = colours[5][c] * 0.8
    return 0.0


@fast
def hit(thing, ox, oy, oz, dx, dy, dz, normal):
    """Distance along the ray to a thing (1e9: none), and the normal there."""
    px, py, pz = ox - thing[1], oy - thing[2], oz - thing[3]
    sx, sy, sz = thing[4], thing[5], thing[6]
    if thing[0] == BALL:
        ax, ay, az, bx, by, bz = px / sx, py / sy, pz / sz, dx / sx, dy / sy, dz / sz
        a, b, c = bx * bx + by * by + bz * bz, ax * bx + ay * by + az * bz, ax * ax + ay * ay + az * az - 1
        disc = b * b - a * c
        if disc < 0:
            return 1e9
        t = (-b - np.sqrt(disc)) / a
        if t <= 0:
            return 1e9
        normal[0], normal[1], normal[2] = (px + t * dx) / sx, (py + t * dy) / sy, (pz + t * dz) / sz
        return t
    if thing[0] == CYLINDER:
        a, b, c = dx * dx + dz * dz, px * dx + pz * dz, px * px + pz * pz - sx * sx
        disc = b * b - a * c
        best = 1e9
        if disc > 0 and a > 1e-12:
            t = (-b - np.sqrt(disc)) / a
            if t > 0 and abs(py + t * dy) < sy:
                best = t
                normal[0], normal[1], normal[2] = (px + t * dx) / sx, 0.0, (pz + t * dz) / sx
        if dy < 0:
            t = (sy - py) / dy
            if 0 < t < best and (px + t * dx) ** 2 + (pz + t * dz) ** 2 < sx * sx:
                best = t
                normal[0], normal[1], normal[2] = 0.0, 1.0, 0.0
        return best
    ix = 1 / dx if abs(dx) > 1e-12 else 1e12
    iy = 1 / dy if abs(dy) > 1e-12 else 1e12
    iz = 1 / dz if abs(dz) > 1e-12 else 1e12
    tx, ty, tz = -px * ix - abs(ix) * sx, -py * iy - abs(iy) * sy, -pz * iz - abs(iz) * sz
    near = max(tx, ty, tz)
    far = min(-px * ix + abs(ix) * sx, -py * iy + abs(iy) * sy, -pz * iz + abs(iz) * sz)
    if near > far or near <= 0:
        return 1e9
    normal[0] = -np.sign(dx) if near == tx else 0.0
    normal[1] = -np.sign(dy) if near == ty and near != tx else 0.0
    normal[2] = -np.sign(dz) if near != tx and near != ty else 0.0
    return near
