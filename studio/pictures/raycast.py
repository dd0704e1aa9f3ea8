"""A room by ray casting, one ray to a pixel."""

from typing import NamedTuple

import numpy as np

from studio.kernels import fast
from studio.pictures.surfaces import floor_colour, hashed, hit, wall_colour

TILE = 32  # pixels: things are sorted out for so many at once
_FLOOR, _CEILING = 4, 5  # what a ray meets; 0 … 3 are the walls +x, −x, +z, −z


class Lens(NamedTuple):
    """A camera: see `geometry.Camera`."""

    rotation: np.ndarray  # (3, 3)
    position: np.ndarray  # (3,) world, m
    matrix: np.ndarray  # (3, 3)
    distortion: np.ndarray  # (5,)


class Scene(NamedTuple):
    """What stands before it: see `room.Room`."""

    floor: float
    half: np.ndarray
    ceiling: float
    floor_kind: int
    walls: np.ndarray  # i64
    colours: np.ndarray
    things: np.ndarray
    key_direction: np.ndarray
    key: np.ndarray
    sky: np.ndarray
    curved: float
    contact: np.ndarray  # from `contact`


@fast
def contact(things, floor, half, cells):
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


@fast
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


@fast
def _near_tile(left, top, right, bottom, lens, things, ray, order):
    """Sorts out which things a tile's rays can meet (those whose bounding ball is near enough to its middle ray); how many."""
    eye = lens.position
    _ray((left + right) / 2, (top + bottom) / 2, lens.matrix, lens.distortion, lens.rotation, ray)
    mx, my, mz = ray[0], ray[1], ray[2]
    _ray(left - 1.0, top - 1.0, lens.matrix, lens.distortion, lens.rotation, ray)
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
    return count


@fast
def _meet(dx, dy, dz, eye, scene, near, normal, candidate):
    """What a ray meets first: how far away, which of the room's sides, and which of the things `near` (−1: none)."""
    half, floor, things = scene.half, scene.floor, scene.things
    best, surface = 1e9, 0
    t = ((half[0] if dx > 0 else -half[0]) - eye[0]) / dx if abs(dx) > 1e-9 else 1e9
    if t < best:
        best, surface = t, 0 if dx > 0 else 1
    t = ((half[1] if dz > 0 else -half[1]) - eye[2]) / dz if abs(dz) > 1e-9 else 1e9
    if t < best:
        best, surface = t, 2 if dz > 0 else 3
    t = ((floor + scene.ceiling if dy > 0 else floor) - eye[1]) / dy if abs(dy) > 1e-9 else 1e9
    if t < best:
        best, surface = t, _CEILING if dy > 0 else _FLOOR
    thing = -1
    for i in near:
        t = hit(things[i], eye[0], eye[1], eye[2], dx, dy, dz, candidate)
        if t < best:
            best, thing = t, i
            for c in range(3):
                normal[c] = candidate[c]
    return best, surface, thing


@fast
def _colour(surface, thing, wx, wz, h, scene, normal, rgb):
    """Colour and normal where a ray ends; hands back how much it glows by itself."""
    things = scene.things
    if thing >= 0:
        for c in range(3):
            rgb[c] = things[thing, 7 + c]
        s = 1 / np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
        for c in range(3):
            normal[c] *= s
        return things[thing, 10]
    normal[0] = normal[1] = normal[2] = 0.0
    if surface == _FLOOR:
        floor_colour(scene.floor_kind, wx, wz, scene.colours, rgb)
        normal[1] = 1.0
        return 0.0
    if surface == _CEILING:
        a, b = wx / 1.5, wz / 1.5
        panel = max(abs(a - np.floor(a) - 0.5) * 2, abs(b - np.floor(b) - 0.5)) < 0.42
        lamp = panel and int(np.floor(a)) % 3 == 0
        for c in range(3):
            rgb[c] = 1.0 if lamp else scene.colours[4, c] * 0.8
        normal[1] = -1.0
        return 0.9 if lamp else 0.0
    u = wz if surface < 2 else wx
    glow = wall_colour(scene.walls[surface], u, h, scene.curved == 0, scene.colours, rgb)
    normal[0 if surface < 2 else 2] = -1.0 if surface % 2 == 0 else 1.0
    return glow


@fast
def _openness(surface, thing, wx, wz, h, scene, normal):
    """How much light reaches a point: nearness to corners darkens; a cyclorama has none, its light turns over gradually."""
    half, contact_map = scene.half, scene.contact
    to_wall = min(half[0] - abs(wx), half[1] - abs(wz))
    if scene.curved > 0 and surface != _CEILING and thing < 0:
        bend = min(max(1 - (h if surface < _FLOOR else to_wall) / scene.curved, 0.0), 1.0)
        bend = 0.5 * bend * bend
        if surface < _FLOOR:
            normal[1] += bend * 1.2
        else:
            normal[1] -= bend * 0.5
        open_ = 1.0
    else:
        open_ = 1 - 0.30 * np.exp(-min(h, scene.ceiling - h) / 0.35) * (surface < _FLOOR)
        open_ *= 1 - 0.30 * np.exp(-to_wall / 0.45) * (surface >= _FLOOR)
    if surface == _FLOOR and thing < 0:
        # things stand in a little darkness
        cells = contact_map.shape[0]
        u = min(max((wx / half[0] + 1) / 2 * (cells - 1), 0.0), cells - 1.001)
        v = min(max((wz / half[1] + 1) / 2 * (cells - 1), 0.0), cells - 1.001)
        i, j = int(u), int(v)
        a, b = u - i, v - j
        open_ *= (1 - b) * ((1 - a) * contact_map[j, i] + a * contact_map[j, i + 1]) + b * (
            (1 - a) * contact_map[j + 1, i] + a * contact_map[j + 1, i + 1]
        )
    return open_


@fast
def cast(image, floor_map, lens, scene, tone, x0, y0):
    """The picture (H, W, 3) f32 of an empty room, and (H, W, 2) f32 where the floor is (see `Room.picture`), in place.

    The lens's pixel (0, 0) is the image's; (x0, y0) is where that is in the whole picture, from which the grain follows.
    """
    height, width = image.shape[:2]
    rgb, normal, candidate, ray = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    order = np.empty(scene.things.shape[0], np.int64)
    eye, key, sky, towards = lens.position, scene.key, scene.sky, scene.key_direction
    columns = (width + TILE - 1) // TILE
    for tile in range(((height + TILE - 1) // TILE) * columns):
        top, left = tile // columns * TILE, tile % columns * TILE
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        count = _near_tile(left, top, right, bottom, lens, scene.things, ray, order)
        for py in range(top, bottom):
            for px in range(left, right):
                _ray(px, py, lens.matrix, lens.distortion, lens.rotation, ray)
                dx, dy, dz = ray[0], ray[1], ray[2]
                best, surface, thing = _meet(dx, dy, dz, eye, scene, order[:count], normal, candidate)
                wx, wy, wz = eye[0] + best * dx, eye[1] + best * dy, eye[2] + best * dz
                h = wy - scene.floor
                glow = _colour(surface, thing, wx, wz, h, scene, normal, rgb)
                if surface == _FLOOR and thing < 0:
                    floor_map[py, px, 0], floor_map[py, px, 1] = wx, wz
                open_ = _openness(surface, thing, wx, wz, h, scene, normal)
                facing = max(normal[0] * towards[0] + normal[1] * towards[1] + normal[2] * towards[2], 0.0)
                # the key light is a lamp with a cone: the middle of the room is the brightest
                pool = np.exp(-(wx * wx + wz * wz) / 30.0)
                # fine grain, so that flat walls do not band
                grain = (hashed((px + x0) * 3 + 11, (py + y0) * 7 + 5) - 0.5) * 5.0
                for c in range(3):
                    lit = key[c] * (0.25 + 0.75 * facing) * (0.45 + 0.55 * pool) + sky[c] * open_ * (
                        0.75 + 0.25 * normal[1]
                    )
                    value = rgb[c] * (lit * open_ * (1 - glow) + glow)
                    image[py, px, c] = tone[c, min(max(int(value * 2048), 0), 4095)]
                    image[py, px, c] += grain
