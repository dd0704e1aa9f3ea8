"""The background: a room by ray casting, once per camera and sequence. The dancer is drawn into copies of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from refiner.geometry import Camera
from studio.looks import linear
from studio.render import Light, tone_curve

_BOX, _CYLINDER, _BALL = 0, 1, 2
WOOD, VINYL, CONCRETE, TILES, CARPET = range(5)  # floors
PAINT, WAINSCOT, BRICK, PANELS, PLASTER, CURTAIN, WINDOWS = range(7)  # walls


@dataclass(frozen=True)
class Room:
    """A box with a floor, four walls and things along them. Colours are linear light."""

    floor: float  # height of the floor in the world, metres
    half: np.ndarray  # (2,) half the room's width (x) and depth (z), metres
    ceiling: float  # metres above the floor
    floor_kind: int
    walls: np.ndarray  # (4,) kinds of the walls +x, −x, +z, −z
    colours: np.ndarray  # (6, 3) floor, floor's second, wall, wall's second, ceiling, skirting
    things: np.ndarray  # (T, 11) kind, centre xyz, half size xyz, colour rgb, glow
    light: Light
    tones: dict[str, np.ndarray]  # (3, 4096) tone curve of each camera: no two are set alike
    curved: float  # radius of the cyclorama's bend between floor and wall, metres; 0 for a corner

    @classmethod
    def draw(cls, rng: np.random.Generator, floor: float, cameras: dict[str, Camera], tripods: bool = True) -> "Room":
        """A room from a seed; the cameras stand in it on their tripods, and see each other. Without tripods they are there one
        at a time: background is drawn behind the dancer, so nothing may stand between."""
        light = Light.draw(rng)
        reach = max(np.abs(c.position[[0, 2]]).max() for c in cameras.values())
        half = reach + rng.uniform(0.9, 2.2, 2)
        hue = rng.integers(6)
        walls = [(222, 220, 214), (196, 204, 210), (214, 204, 190), (150, 160, 168), (206, 212, 202), (238, 238, 236)]
        seconds = [(90, 104, 122), (134, 92, 74), (70, 84, 80), (188, 172, 150), (64, 68, 78), (120, 128, 134)]
        floor_kind = int(rng.choice(5, p=[0.34, 0.22, 0.2, 0.12, 0.12]))
        floors = {
            WOOD: [(176, 128, 84), (196, 154, 108), (128, 88, 58)],
            VINYL: [(168, 170, 172), (92, 96, 104), (206, 204, 200)],
            CONCRETE: [(150, 148, 144), (122, 122, 124), (172, 170, 164)],
            TILES: [(186, 184, 178), (160, 166, 172), (120, 116, 112)],
            CARPET: [(96, 100, 112), (122, 74, 70), (78, 92, 84)],
        }[floor_kind]
        base = np.array(floors[rng.integers(3)])
        style = rng.random()
        if style < 0.3:  # a cyclorama: white or grey all around
            grey = rng.integers(150, 236)
            kinds, curved = np.full(4, PAINT), 0.7
            colours = [(grey,) * 3, (grey - 6,) * 3, (grey + 6,) * 3, (grey,) * 3, (grey,) * 3, (grey,) * 3]
            floor_kind = VINYL
        else:
            kinds, curved = rng.choice(7, 4, p=[0.26, 0.16, 0.14, 0.14, 0.12, 0.08, 0.10]), 0.0
            colours = [
                base,
                base * 0.8,
                walls[hue],
                seconds[rng.integers(6)],
                (226, 226, 224),
                np.array(walls[hue]) * 0.7,
            ]
        room = cls(
            floor=floor,
            half=half,
            ceiling=rng.uniform(3.0, 4.2),
            floor_kind=floor_kind,
            walls=np.asarray(kinds),
            colours=linear(np.clip(np.array(colours, float), 0, 255)),
            things=np.array(_clutter(rng, floor, half, curved > 0) + (_tripods(floor, cameras) if tripods else [])),
            light=light,
            tones={
                name: tone_curve(rng.uniform(0.95, 1.28), rng.normal(1, 0.025, 3), rng.uniform(0.94, 1.12))
                for name in cameras
            },
            curved=curved,
        )
        return room

    def picture(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """The empty room as a camera sees it.

        Returns:
            (H, W, 3) uint8 picture, and (H, W, 2) f32 world x and z of the floor at each pixel (1e9 where there is none).
        """
        import cv2

        width, height = camera.size
        # a camera does not see itself: things around its own centre are left out
        own = np.linalg.norm(self.things[:, [1, 3]] - camera.position[[0, 2]], axis=1) > 0.6
        image = np.empty((height, width, 3), np.float32)
        floor_map = np.full((height, width, 2), 1e9, np.float32)
        _cast(
            image, floor_map, camera.rotation, camera.position, camera.matrix, camera.distortion,
            self.floor, self.half, self.ceiling, self.floor_kind, self.walls.astype(np.int64), self.colours,
            self.things[own], self.light.key_direction, self.light.key, self.light.sky, self.curved, self.tones[camera.name],
            _contact(self.things[own], self.floor, self.half, 192),
        )  # fmt: skip
        # the dancer is in focus, the walls are not quite; and edges of one ray per pixel lose their steps
        image = cv2.GaussianBlur(image, (0, 0), 0.9 * height / 1080 + 0.35)
        return np.clip(image + 0.5, 0, 255).astype(np.uint8), floor_map


def _clutter(rng: np.random.Generator, floor: float, half: np.ndarray, empty: bool) -> list[np.ndarray]:
    """Boxes, speakers, stools, plants and posters along the walls."""
    things = []

    def put(
        kind: int,
        x: float,
        y: float,
        z: float,
        sx: float,
        sy: float,
        sz: float,
        colour: Sequence[float],
        glow: float = 0.0,
    ) -> None:
        things.append(np.array([kind, x, floor + y, z, sx, sy, sz, *linear(np.array(colour)), glow]))

    for _ in range(rng.integers(1, 4) if empty else rng.integers(5, 12)):
        wall, along = rng.integers(4), rng.uniform(-0.85, 0.85)
        gap = rng.uniform(0.35, 0.6)
        sign = 1 if wall % 2 == 0 else -1
        x, z = (sign * (half[0] - gap), along * half[1]) if wall < 2 else (along * half[0], sign * (half[1] - gap))
        kind = rng.integers(6)
        tone = rng.integers(30, 200, 3)
        if kind == 0:  # a speaker
            put(_BOX, x, 0.45, z, 0.2, 0.45, 0.2, (34, 34, 38))
            put(_BALL, x * 0.97, 0.6, z * 0.97, 0.12, 0.12, 0.12, (60, 60, 66))
        elif kind == 1:  # crates
            put(_BOX, x, 0.25, z, 0.3, 0.25, 0.25, tone)
            put(_BOX, x + rng.uniform(-0.05, 0.05), 0.65, z, 0.2, 0.15, 0.18, (176, 140, 96))
        elif kind == 2:  # a plant
            put(_CYLINDER, x, 0.2, z, 0.16, 0.2, 0.16, (190, 178, 164))
            for _ in range(7):
                d = rng.normal(0, 0.14, 3)
                put(_BALL, x + d[0], 0.85 + 1.4 * d[1], z + d[2], 0.13, 0.17, 0.13, (54 + rng.integers(30), 104, 58))
        elif kind == 3:  # a bench
            put(_BOX, x, 0.42, z, 0.5, 0.03, 0.2, (150, 108, 70))
            for d in (-0.4, 0.4):
                put(_BOX, x + d, 0.2, z, 0.03, 0.2, 0.16, (40, 40, 44))
        elif kind == 4:  # a lamp
            put(_CYLINDER, x, 0.75, z, 0.02, 0.75, 0.02, (40, 40, 42))
            put(_CYLINDER, x, 1.62, z, 0.17, 0.16, 0.17, (246, 232, 200), 0.6)
        else:  # a column
            put(_CYLINDER, x, 1.5, z, 0.22, 1.5, 0.22, (200, 198, 194))
    if not empty:
        for _ in range(rng.integers(2, 8)):  # posters
            wall, along = rng.integers(4), rng.uniform(-0.8, 0.8)
            sign = 1 if wall % 2 == 0 else -1
            w, h, y = rng.uniform(0.25, 0.8), rng.uniform(0.3, 0.6), rng.uniform(1.4, 2.1)
            tone = 0.45 * rng.integers(30, 230, 3) + 0.55 * rng.integers(60, 200)
            for grow, deep, colour in ((0.0, 0.03, tone), (0.04, 0.02, (232, 230, 226))):  # a print on white paper
                if wall < 2:
                    put(_BOX, sign * half[0], y, along * half[1], deep, h + grow, w + grow, colour)
                else:
                    put(_BOX, along * half[0], y, sign * half[1], w + grow, h + grow, deep, colour)
    return things


def _tripods(floor: float, cameras: dict[str, Camera]) -> list[np.ndarray]:
    things = []
    for camera in cameras.values():
        x, y, z = camera.position
        dark = linear(np.array((38, 38, 42)))
        things.append(np.array([_BOX, x, y, z, 0.07, 0.06, 0.07, *dark, 0.0]))
        things.append(np.array([_CYLINDER, x, (y + floor) / 2, z, 0.025, (y - floor) / 2, 0.025, *dark, 0.0]))
        for angle in (0.3, 2.4, 4.5):
            things.append(
                np.array(
                    [
                        _BOX,
                        x + 0.16 * np.sin(angle),
                        floor + 0.16,
                        z + 0.16 * np.cos(angle),
                        0.02,
                        0.16,
                        0.02,
                        *dark,
                        0.0,
                    ]
                )
            )
    return things


@njit(cache=True, nogil=True, fastmath=True)
def _hash(i, j):
    """Two whole numbers -> 0 … 1, the same everywhere."""
    n = (i * 374761393 + j * 668265263) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535.0


@njit(cache=True, nogil=True, fastmath=True)
def _noise(x, y):
    """Value noise, 0 … 1, with features of one unit."""
    i, j = int(np.floor(x)), int(np.floor(y))
    a, b = x - i, y - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    return (1 - b) * ((1 - a) * _hash(i, j) + a * _hash(i + 1, j)) + b * (
        (1 - a) * _hash(i, j + 1) + a * _hash(i + 1, j + 1)
    )


@njit(cache=True, nogil=True, fastmath=True)
def _floor_colour(kind, x, z, colours, rgb):
    base, second = colours[0], colours[1]
    if kind == WOOD:
        plank = int(np.floor(x / 0.14))
        along = z / 1.8 + _hash(plank, 7) * 3
        tone = 0.82 + 0.3 * _hash(plank, int(np.floor(along)))
        tone *= 0.93 + 0.12 * _noise(x * 60, z * 3 + plank * 17)
        gap = abs(x / 0.14 - plank - 0.5) * 2
        butt = abs(along - np.floor(along) - 0.5) * 2
        if gap > 0.965 or butt > 0.997:
            tone *= 0.62
        for c in range(3):
            rgb[c] = base[c] * tone
    elif kind == TILES:
        a, b = x / 0.6, z / 0.6
        line = max(abs(a - np.floor(a) - 0.5), abs(b - np.floor(b) - 0.5)) * 2
        tone = 0.9 + 0.16 * _hash(int(np.floor(a)), int(np.floor(b)))
        for c in range(3):
            rgb[c] = second[c] * 0.7 if line > 0.985 else base[c] * tone
    elif kind == CONCRETE:
        tone = 0.72 + 0.3 * _noise(x * 1.1, z * 1.1) + 0.16 * _noise(x * 5, z * 5) + 0.10 * _noise(x * 23, z * 23)
        for c in range(3):
            rgb[c] = base[c] * tone
    elif kind == CARPET:
        tone = 0.8 + 0.25 * _noise(x * 90, z * 90) + 0.12 * _noise(x * 9, z * 9)
        for c in range(3):
            rgb[c] = base[c] * tone
    else:
        tone = 0.93 + 0.07 * _noise(x * 0.9, z * 0.9) + 0.03 * _noise(x * 40, z * 40)
        for c in range(3):
            rgb[c] = base[c] * tone


@njit(cache=True, nogil=True, fastmath=True)
def _wall_colour(kind, u, h, skirting, colours, rgb):
    """u along the wall, h above the floor, metres. Hands back how much it glows by itself."""
    base, second = colours[2], colours[3]
    tone = 0.95 + 0.06 * _noise(u * 0.8, h * 0.8) + 0.02 * _noise(u * 35, h * 35)
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
        shade = 0.7 + 0.5 * _hash(int(np.floor(a)), row)
        for c in range(3):
            rgb[c] = base[c] * 0.75 if mortar else (second[c] * 0.6 + 0.4 * base[c] * (0.6, 0.35, 0.28)[c]) * shade
    elif kind == PANELS:
        a = u / 0.9
        gap = abs(a - np.floor(a) - 0.5) * 2
        shade = 0.9 + 0.14 * _hash(int(np.floor(a)), 3)
        for c in range(3):
            rgb[c] = (0.6 * base[c] + 0.4 * second[c]) * shade * (0.5 if gap > 0.98 else 1.0)
    elif kind == PLASTER:
        shade = 0.75 + 0.25 * _noise(u * 1.7, h * 1.7) + 0.2 * _noise(u * 6, h * 6)
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


@njit(cache=True, nogil=True, fastmath=True)
def _hit(thing, ox, oy, oz, dx, dy, dz, normal):
    """Distance along the ray to a thing (1e9: none), and the normal there."""
    px, py, pz = ox - thing[1], oy - thing[2], oz - thing[3]
    sx, sy, sz = thing[4], thing[5], thing[6]
    if thing[0] == _BALL:
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
    if thing[0] == _CYLINDER:
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


@njit(cache=True, nogil=True, fastmath=True)
def _contact(things, floor, half, cells):
    """(cells, cells) how much light the floor keeps beside what stands on it; rows along z, columns along x."""
    out = np.ones((cells, cells))
    for i in range(things.shape[0]):
        if things[i, 2] - things[i, 5] > floor + 0.06:
            continue
        for row in range(cells):
            z = (2 * row / (cells - 1) - 1) * half[1]
            away_z = max(abs(z - things[i, 3]) - things[i, 6], 0.0)
            if away_z > 0.5:
                continue
            for column in range(cells):
                x = (2 * column / (cells - 1) - 1) * half[0]
                away_x = max(abs(x - things[i, 1]) - things[i, 4], 0.0)
                if away_x < 0.5:
                    away = np.sqrt(away_x * away_x + away_z * away_z)
                    out[row, column] *= 1 - 0.5 * np.exp(-away / 0.12) * min(things[i, 5] / 0.15, 1.0)
    return out


TILE = 32  # pixels: things are sorted out for so many at once


@njit(cache=True, nogil=True, fastmath=True)
def _ray(px, py, matrix, distortion, rotation, ray):
    """The direction (unit, world) in which a pixel looks: the lens undone by fixed-point iteration."""
    k1, k2, p1, p2, k3 = distortion
    xd, yd = (px - matrix[0, 2]) / matrix[0, 0], (py - matrix[1, 2]) / matrix[1, 1]
    x, y = xd, yd
    for _ in range(20):
        r2 = x * x + y * y
        inv = 1 / max(1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 0.2)
        nx = (xd - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) * inv
        ny = (yd - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) * inv
        change = abs(nx - x) + abs(ny - y)
        x, y = nx, ny
        if change < 1e-5:
            break
    s = 1 / np.sqrt(x * x + y * y + 1)
    for c in range(3):
        ray[c] = (rotation[0, c] * x + rotation[1, c] * y + rotation[2, c]) * s


@njit(cache=True, nogil=True, fastmath=True)
def _cast(
    image, floor_map, rotation, eye, matrix, distortion, floor, half, ceiling, floor_kind, walls, colours, things,
    key_direction, key, sky, curved, tone, contact,
):  # fmt: skip
    height, width = image.shape[:2]
    rgb, normal, candidate, ray = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    order = np.empty(things.shape[0], np.int64)
    for tile in range(((height + TILE - 1) // TILE) * ((width + TILE - 1) // TILE)):
        columns = (width + TILE - 1) // TILE
        top, left = tile // columns * TILE, tile % columns * TILE
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        # which things a tile's rays can meet: those whose bounding ball is near enough to its middle ray
        _ray((left + right) / 2, (top + bottom) / 2, matrix, distortion, rotation, ray)
        mx, my, mz = ray[0], ray[1], ray[2]
        _ray(left - 1.0, top - 1.0, matrix, distortion, rotation, ray)
        opening = np.sqrt(2 - 2 * min(mx * ray[0] + my * ray[1] + mz * ray[2], 1.0)) * 1.4
        count = 0
        for i in range(things.shape[0]):
            x, y, z = things[i, 1] - eye[0], things[i, 2] - eye[1], things[i, 3] - eye[2]
            radius = np.sqrt(things[i, 4] ** 2 + things[i, 5] ** 2 + things[i, 6] ** 2)
            along = x * mx + y * my + z * mz
            away = np.sqrt(max(x * x + y * y + z * z - along * along, 0.0))
            if along > -radius and away < radius + opening * (abs(along) + radius):
                order[count] = i
                count += 1
        for py in range(top, bottom):
            for px in range(left, right):
                _ray(px, py, matrix, distortion, rotation, ray)
                dx, dy, dz = ray[0], ray[1], ray[2]
                # the room's inside
                best, surface = 1e9, 0
                t = ((half[0] if dx > 0 else -half[0]) - eye[0]) / dx if abs(dx) > 1e-9 else 1e9
                if t < best:
                    best, surface = t, 0 if dx > 0 else 1
                t = ((half[1] if dz > 0 else -half[1]) - eye[2]) / dz if abs(dz) > 1e-9 else 1e9
                if t < best:
                    best, surface = t, 2 if dz > 0 else 3
                t = ((floor + ceiling if dy > 0 else floor) - eye[1]) / dy if abs(dy) > 1e-9 else 1e9
                if t < best:
                    best, surface = t, 5 if dy > 0 else 4
                thing = -1
                for i in order[:count]:
                    t = _hit(things[i], eye[0], eye[1], eye[2], dx, dy, dz, candidate)
                    if t < best:
                        best, thing = t, i
                        for c in range(3):
                            normal[c] = candidate[c]
                wx, wy, wz = eye[0] + best * dx, eye[1] + best * dy, eye[2] + best * dz
                h = wy - floor
                glow = 0.0
                if thing >= 0:
                    for c in range(3):
                        rgb[c] = things[thing, 7 + c]
                    glow = things[thing, 10]
                    s = 1 / np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
                    for c in range(3):
                        normal[c] *= s
                else:
                    normal[0] = normal[1] = normal[2] = 0.0
                    if surface == 4:
                        _floor_colour(floor_kind, wx, wz, colours, rgb)
                        floor_map[py, px, 0], floor_map[py, px, 1] = wx, wz
                        normal[1] = 1.0
                    elif surface == 5:
                        a, b = wx / 1.5, wz / 1.5
                        panel = max(abs(a - np.floor(a) - 0.5) * 2, abs(b - np.floor(b) - 0.5)) < 0.42
                        lamp = panel and int(np.floor(a)) % 3 == 0
                        for c in range(3):
                            rgb[c] = 1.0 if lamp else colours[4, c] * 0.8
                        glow = 0.9 if lamp else 0.0
                        normal[1] = -1.0
                    else:
                        u = wz if surface < 2 else wx
                        glow = _wall_colour(walls[surface], u, h, curved == 0, colours, rgb)
                        normal[0 if surface < 2 else 2] = -1.0 if surface % 2 == 0 else 1.0
                # nearness to corners darkens; a cyclorama has none, its light turns over gradually
                to_wall = min(half[0] - abs(wx), half[1] - abs(wz))
                if curved > 0 and surface != 5 and thing < 0:
                    bend = min(max(1 - (h if surface < 4 else to_wall) / curved, 0.0), 1.0)
                    bend = 0.5 * bend * bend
                    if surface < 4:
                        normal[1] += bend * 1.2
                    else:
                        normal[1] -= bend * 0.5
                    open_ = 1.0
                else:
                    open_ = 1 - 0.30 * np.exp(-min(h, ceiling - h) / 0.35) * (surface < 4)
                    open_ *= 1 - 0.30 * np.exp(-to_wall / 0.45) * (surface >= 4)
                if surface == 4 and thing < 0:
                    # things stand in a little darkness
                    cells = contact.shape[0]
                    u = min(max((wx / half[0] + 1) / 2 * (cells - 1), 0.0), cells - 1.001)
                    v = min(max((wz / half[1] + 1) / 2 * (cells - 1), 0.0), cells - 1.001)
                    i, j = int(u), int(v)
                    a, b = u - i, v - j
                    open_ *= (1 - b) * ((1 - a) * contact[j, i] + a * contact[j, i + 1]) + b * (
                        (1 - a) * contact[j + 1, i] + a * contact[j + 1, i + 1]
                    )
                facing = max(
                    normal[0] * key_direction[0] + normal[1] * key_direction[1] + normal[2] * key_direction[2], 0.0
                )
                # the key light is a lamp with a cone: the middle of the room is the brightest
                pool = np.exp(-(wx * wx + wz * wz) / 30.0)
                for c in range(3):
                    lit = key[c] * (0.25 + 0.75 * facing) * (0.45 + 0.55 * pool) + sky[c] * open_ * (
                        0.75 + 0.25 * normal[1]
                    )
                    value = rgb[c] * (lit * open_ * (1 - glow) + glow)
                    image[py, px, c] = tone[c, min(max(int(value * 2048), 0), 4095)]
                # fine grain, so that flat walls do not band
                grain = (_hash(px * 3 + 11, py * 7 + 5) - 0.5) * 5.0
                for c in range(3):
                    image[py, px, c] += grain
