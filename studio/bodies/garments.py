"""A MakeHuman figure's clothes and shoes as layers.

They are cut from the helper geometry that MakeHuman keeps around every body: moved outwards, hung from what sticks out, and cut
along hems.
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import map_coordinates

from studio import rig
from studio.bodies.cuts import Cut
from studio.bodies.layers import Layer, group_layer
from studio.bodies.looks import BOTTOM, SHOES, TOP
from studio.curves import smoothed_tube, smoothstep


def _hung(points: np.ndarray, on: np.ndarray, centre: np.ndarray, low: float, high: float, keep: float) -> np.ndarray:
    """(P,) how far cloth stands off a torso: from the parts that stick out it hangs down instead of following the body.

    Args:
        points: (P, 3) on the body.
        on: (P,) which of them the cloth hangs around.
        centre: (3,) of the torso.
        low: where the cloth ends, metres.
        high: where it begins, metres.
        keep: how much of what sticks out above is kept per 10 cm.
    """
    rows, columns = 28, 40
    away = points[:, [0, 2]] - centre[[0, 2]]
    radius = np.linalg.norm(away, axis=1)
    angle = np.arctan2(away[:, 0], away[:, 1]) / (2 * np.pi) % 1 * columns
    row = (high - points[:, 1]) / (high - low) * (rows - 1)
    grid = np.zeros((rows, columns))
    inside = on & (row >= -0.5) & (row <= rows - 0.5)
    np.maximum.at(
        grid, (np.rint(row[inside]).astype(int), np.rint(angle[inside]).astype(int) % columns), radius[inside]
    )
    for _ in range(6):  # cells without a vertex take their neighbours'
        around = np.stack([np.roll(grid, 1, 1), np.roll(grid, -1, 1),
                           np.vstack([grid[1:], grid[-1:]]), np.vstack([grid[:1], grid[:-1]])])  # fmt: skip
        grid = np.where(grid > 0, grid, around.max(0))
    body = smoothed_tube(grid, 1, 1)
    hanging, kept = body.copy(), keep ** ((high - low) / (rows - 1) / 0.1)
    for i in range(1, rows):
        hanging[i] = np.maximum(body[i], body[i] + (hanging[i - 1] - body[i]) * kept)
    apart = smoothed_tube(hanging - body, 1.2, 1.2)
    apart = map_coordinates(
        np.hstack([apart, apart[:, :1]]), [np.clip(row, 0, rows - 1), angle], order=1, mode="nearest"
    )
    return np.where(on, apart * smoothstep(high, high - 0.08, points[:, 1]), 0)


def _outwards(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(P, 3) unit directions away from a limb's axis."""
    axis = (end - start) / np.linalg.norm(end - start)
    away = points - start
    away = away - (away @ axis)[:, None] * axis
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)


def top(vertices: np.ndarray, cut: Cut, rng: np.random.Generator) -> Layer:
    """What is worn above: shirt, jumper or dress' upper half, cut at hem, neckline and sleeves."""
    layer = group_layer(TOP, "helper-tights", vertices, 1)
    points, normals, weights = layer.vertices, layer.normals(), layer.weights
    placed, look = cut.placed, cut.look
    arm = weights[
        :, [rig.L_SHOULDER, rig.L_SHOULDER + 1, rig.L_ELBOW, rig.L_ELBOW + 1, rig.L_WRIST, rig.L_WRIST + 1]
    ].sum(1)
    field = cut.top(points, weights)
    torso = (arm < 0.25) & (points[:, 1] > cut.hem - 0.03)
    low, high = cut.hem - 0.03, placed[rig.SPINE3][1] + 0.09
    apart = _hung(points, torso, placed[rig.SPINE1], low, high, 0.82 if look.loose > 0.011 else 0.5)
    outward = normals * (1, 0.3, 1)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    away = (points - placed[rig.SPINE1]) * (1, 0, 1)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    slack = look.loose * (0.45 + 0.55 * smoothstep(placed[rig.SPINE3][1] + 0.05, cut.hem, points[:, 1]))
    close = smoothstep(0.0, 0.05, cut.neckline(points))
    moved = points + normals * (0.003 + 0.004 * close)[:, None]
    moved += outward * (slack * close * (arm < 0.5))[:, None] + away * (apart * close)[:, None]
    for side in (0, 1):
        s, on = cut.along(points, weights, rig.L_SHOULDER + side)
        length = cut.length(rig.L_SHOULDER + side, look.sleeves)
        flare = look.loose * (0.5 + (1.0 if look.sleeves < 1.2 else 0.25) * np.clip(s / length, 0, 1))
        if look.sleeves > 1.2:  # cuffs
            flare *= 1 - 0.8 * smoothstep(length - 0.06, length - 0.01, s)
        upper = _outwards(points, placed[rig.L_SHOULDER + side], placed[rig.L_ELBOW + side])
        lower = _outwards(points, placed[rig.L_ELBOW + side], placed[rig.L_WRIST + side])
        bend = smoothstep(-0.05, 0.05, s - np.linalg.norm(placed[rig.L_ELBOW + side] - placed[rig.L_SHOULDER + side]))[
            :, None
        ]
        moved += ((1 - bend) * upper + bend * lower) * (flare * on * smoothstep(-0.02, 0.08, s))[:, None]
    layer = replace(layer, vertices=moved + _wrinkles(points, normals, rng) * (0.35 + 25 * look.loose))
    return layer.cut(field)


def trousers(vertices: np.ndarray, cut: Cut, wide: float, rng: np.random.Generator) -> Layer:
    """Trousers of the look's length, `wide` metres off the legs where they are widest."""
    layer = group_layer(BOTTOM, "helper-tights", vertices, 1)
    points, normals, weights = layer.vertices, layer.normals(), layer.weights
    placed, look = cut.placed, cut.look
    moved = points + normals * 0.005
    for side in (0, 1):
        s, on = cut.along(points, weights, rig.L_HIP + side)
        length = cut.length(rig.L_HIP + side, look.trousers)
        upper = _outwards(points, placed[rig.L_HIP + side], placed[rig.L_KNEE + side])
        lower = _outwards(points, placed[rig.L_KNEE + side], placed[rig.L_ANKLE + side])
        thigh = float(np.linalg.norm(placed[rig.L_KNEE + side] - placed[rig.L_HIP + side]))
        bend = smoothstep(-0.06, 0.06, s - thigh)[:, None]
        # straight legs: below the knee the cloth stands off more, for a calf is thinner than a thigh
        calf = 0.45 * smoothstep(thigh - 0.05, thigh + 0.25, s) if look.trousers > 1.2 else 0.0
        flare = wide * (0.15 + 0.85 * smoothstep(0.02, 0.6 * length, s) + calf)
        if look.trousers > 1.2 and wide < 0.02:
            flare *= 1 - 0.7 * smoothstep(length - 0.10, length, s)
        moved += ((1 - bend) * upper + bend * lower) * (flare * on)[:, None]
    return replace(layer, vertices=moved + _wrinkles(points, normals, rng) * (0.4 + 15 * wide)).cut(
        cut.bottom(points, weights)
    )


def _wrinkles(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P, 3) m: broad folds, half a centimetre deep."""
    waves = rng.normal(0, 1, (7, 3)) * (14, 26, 14)
    depth = np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, 7)).sum(1) / np.sqrt(7)
    return normals * (0.0035 * depth)[:, None]


def skirt(vertices: np.ndarray, cut: Cut, length: float, rng: np.random.Generator) -> Layer:
    """A pleated skirt that ends `length` metres below the hips."""
    layer = group_layer(BOTTOM, "helper-skirt", vertices, 1)
    points, normals = layer.vertices, layer.normals()
    down = np.clip((cut.waist - points[:, 1]) / 0.5, 0, 1.5)
    angle = np.arctan2(points[:, 0], points[:, 2])
    pleats = 0.012 * down * np.sin(rng.integers(7, 14) * angle + 2 * np.sin(angle * 3 + rng.uniform(0, 6)))
    moved = points + normals * (0.008 + pleats)[:, None] + points * (1, 0, 1) * (rng.uniform(0, 0.15) * down)[:, None]
    field = np.minimum(cut.waist - points[:, 1], points[:, 1] - (cut.placed[rig.L_HIP][1] - length))
    return replace(layer, vertices=moved).cut(field)


def shoes(vertices: np.ndarray, cut: Cut, ground: float) -> Layer:
    """Shoes with soles at the height `ground`, metres."""
    layer = group_layer(SHOES, "helper-tights", vertices, 1)
    points, normals, weights = layer.vertices, layer.normals(), layer.weights
    field = cut.shoes(points, weights)
    lowest = points[field > 0, 1].min()
    moved = points + normals * 0.007
    toes = smoothstep(0.06, 0.16, points[:, 2])
    moved[:, 2] += 0.010 * toes
    under = smoothstep(-0.2, -0.7, normals[:, 1]) * (points[:, 1] < lowest + 0.035)
    moved[:, 1] += under * (ground - moved[:, 1])
    # a rim of the sole all around
    rim = (1 - smoothstep(0.012, 0.03, points[:, 1] - lowest)) * (1 - under)
    moved += normals * (1, 0, 1) * (0.004 * rim)[:, None]
    moved[:, 1] = np.maximum(moved[:, 1], ground)
    return replace(layer, vertices=moved).cut(field)
