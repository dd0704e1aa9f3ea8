"""Hair and hats of a MakeHuman figure as layers."""

from dataclasses import replace

import numpy as np

from studio import rig
from studio.bodies.heads import Head
from studio.bodies.layers import Layer
from studio.bodies.looks import HAIR, Look
from studio.curves import smoothed_tube, smoothstep


def _blob(material: int, centre: np.ndarray, radii: np.ndarray, weights: np.ndarray) -> Layer:
    """An ellipsoid: a bun, a pony tail."""
    rows, columns = 10, 16
    polar, azimuth = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rows), np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    ball = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1).reshape(
        -1, 3
    )
    return Layer.of(material, centre + ball * radii, np.tile(weights, (len(ball), 1)), _lattice(rows, columns))


def _lattice(rows: int, columns: int) -> np.ndarray:
    """(T, 3) triangles of a tube of `rows` rings with `columns` vertices each, rings from the top down, to the left of +z."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def _shell(skin: Layer, head: Head, length: float, cling: float, placed: np.ndarray) -> Layer:
    """A shell around the head, close to the skin, down to `length` metres below the eyes; below the head it hangs down."""
    s = head.scale
    columns, dome = 64, 15
    on_head = skin.weights[:, rig.HEAD] > 0.5
    bare = skin.vertices[on_head]
    centre = np.array([0.0, head.eyes[0, 1] + 0.02 * s, (head.canals[0, 2] + 0.012 * s)])
    # ears would bulge the shell: hair lies behind or under them
    bare = bare[np.abs(bare[:, 0]) < abs(head.canals[0, 0]) + 0.004 * s] - centre
    polar = np.linspace(0.0, np.pi / 2, dome)
    angle = np.arange(columns) * 2 * np.pi / columns
    directions = np.stack([np.sin(polar)[:, None] * np.sin(angle), np.cos(polar)[:, None] + 0 * angle,
                           np.sin(polar)[:, None] * np.cos(angle)], -1)  # fmt: skip
    distance = np.linalg.norm(bare, axis=1)
    cosine = directions.reshape(-1, 3) @ (bare / distance[:, None]).T
    near = np.exp((cosine - 1) / 0.004)
    radius = ((near @ distance) / near.sum(1)).reshape(dome, columns)
    rings = [directions * radius[..., None] + centre]
    steps = max(int(np.ceil((length + 0.02 * s) / 0.015)), 0)
    if steps:
        heights = centre[1] - 0.015 * np.arange(1, steps + 1)
        near_body = (
            skin.vertices[(skin.vertices[:, 1] > heights[-1] - 0.03) & (np.abs(skin.vertices[:, 0]) < 0.16)] - centre
        )
        turn = np.rint(np.arctan2(near_body[:, 0], near_body[:, 2]) / (2 * np.pi) * columns).astype(int) % columns
        row = np.clip(np.rint((centre[1] - 0.015 - (near_body[:, 1] + centre[1])) / 0.015).astype(int), -1, steps)
        body = np.zeros((steps + 2, columns))
        np.maximum.at(body, (row + 1, turn), np.hypot(near_body[:, 0], near_body[:, 2]))
        body[0] = 0
        body = smoothed_tube(body, 0.7, 1.5)[1:-1]
        ring = radius[-1]
        for i, y in enumerate(heights):
            ring = np.maximum(ring * (1 - cling), np.minimum(body[i], ring + 0.02))
            around = np.stack([np.sin(angle) * ring, 0 * angle, np.cos(angle) * ring], -1)
            rings.append((around + np.array([centre[0], y, centre[2]]))[None])
    points = np.concatenate(rings).reshape(-1, 3)
    low = points[:, 1]
    weights = np.zeros((len(points), rig.NUM_BONES))
    onto_neck = smoothstep(placed[rig.HEAD][1], placed[rig.NECK][1] + 0.01, low)
    onto_back = smoothstep(placed[rig.NECK][1] + 0.03, placed[rig.NECK][1] - 0.12, low) * 0.85
    weights[:, rig.SPINE3] = onto_back
    weights[:, rig.NECK] = (onto_neck * 0.6) * (1 - onto_back)
    weights[:, rig.HEAD] = 1 - weights.sum(1)
    return Layer.of(HAIR, points, weights, _lattice(len(points) // columns, columns))


def _grown(shell: Layer, field: np.ndarray, thickness: float, rise: float, rng: np.random.Generator) -> Layer:
    """Hair of a thickness where a field (V,) is positive; it rises from the hairline over `rise` metres."""
    waves = rng.normal(0, 1, (6, 3)) * (90, 22, 90)
    locks = np.sin(shell.vertices @ waves.T + rng.uniform(0, 6, 6)).sum(1) / np.sqrt(6)
    thick = (thickness + min(0.22 * thickness, 0.004) * locks) * (0.12 + 0.88 * smoothstep(-0.1 * rise, rise, field))
    return replace(shell, vertices=shell.vertices + shell.normals() * thick[:, None]).cut(field)


def hair(skin: Layer, head: Head, look: Look, placed: np.ndarray, rng: np.random.Generator) -> list[Layer]:
    """The look's hairstyle as layers, and what is worn on it. `placed`: (J, 3) m, the joints."""
    s, style = head.scale, look.hair
    middle = head.eyes.mean(0)
    bone = np.eye(rig.NUM_BONES)[rig.HEAD]

    def at(*point: float) -> np.ndarray:
        """Metres on an average head, from between the eyes."""
        return middle + np.array(point) * s

    def face(layer: Layer, line: float = 0.053, lean: float = 0.76, front: float = -0.008) -> np.ndarray:
        """Where hair is not over the face: behind a plane through the hairline that leans back."""
        normal = np.array([0.0, -lean, np.sqrt(1 - lean**2)])
        ahead = (layer.vertices - at(0, line, front + 0.005)) @ normal
        return 0.012 * s * np.cos(60 * layer.vertices[:, 0] / s) * 0.3 - ahead

    def shell(length: float, cling: float = 0.07) -> Layer:
        return _shell(skin, head, length * s, cling, placed)

    def cropped(low: float) -> np.ndarray:
        """Short hair: off the face, around the ears, down to the nape."""
        ears = np.min([np.linalg.norm((short.vertices - ear) * (0.4, 1, 1), axis=1) for ear in head.canals], axis=0)
        return np.minimum(np.minimum(face(short), _nape(short, at, low)), ears - 0.030 * s)

    def grown(base: Layer, field: np.ndarray, thickness: float, rise: float = 0.018) -> Layer:
        return _grown(base, field, thickness * s, rise * s, rng)

    short = shell(0.10)
    if style == "shaved":
        return [grown(short, cropped(0.02), 0.003)]
    if style == "afro":
        return [grown(short, cropped(0.01), rng.uniform(0.03, 0.065), 0.035)]
    if style in ("cap", "beanie"):
        brow = rng.uniform(0.026, 0.040)
        dome = shell(0.0)
        hat = grown(dome, (dome.vertices - at(0, brow, 0)) @ np.array([0.0, 1.0, -0.10]), 0.013, 0.004)
        layers = [hat, hat.lining(0.004, 0.05), grown(short, cropped(0.02), 0.006)]
        if style == "cap":
            layers += _brim(at, s, bone, hat.vertices[:, 2].max() - middle[2], brow)
        return layers
    if style in ("bob", "long"):
        low = rng.uniform(0.09, 0.14) if style == "bob" else rng.uniform(0.18, 0.34)
        hanging = shell(low, 0.015)
        down = smoothstep(0.02, -0.05, (hanging.vertices[:, 1] - middle[1]) / s)
        behind = at(0, 0, rng.uniform(-0.065, -0.02))[2] - hanging.vertices[:, 2]
        end = hanging.vertices[:, 1] - (middle[1] - low * s)
        field = np.minimum(face(hanging) * (1 - down) + behind * down, end)
        edge = np.where(end < 0.03, 0.03, field)  # hair thins towards the face, not towards its tips
        cut = grown(
            hanging, np.where(field > 0, np.maximum(field, np.minimum(edge, 0.03) * (end < 0.03)), field), 0.015
        )
        return [cut, cut.lining(0.007, 0.3)]
    thickness = rng.uniform(0.009, 0.022) if style == "short" else 0.009
    layers = [grown(short, cropped(0.02), thickness)]
    if style == "tail":
        layers.append(_blob(HAIR, at(0, 0.05, -0.215), np.array([0.024, 0.026, 0.04]) * s, bone))
        layers.append(_blob(HAIR, at(0, -0.03, -0.240), np.array([0.026, 0.105, 0.030]) * s, bone))
    elif style == "bun":
        layers.append(_blob(HAIR, at(0, 0.10, -0.195), np.array([0.042, 0.040, 0.042]) * s, bone))
    return layers


def _nape(shell: Layer, at, low: float) -> np.ndarray:
    """(V,) above a line that falls from the temples to the nape."""
    return (shell.vertices - at(0, -0.010 - low, -0.085)) @ np.array([0.0, 0.94, -0.34])


def _brim(at, s: float, bone: np.ndarray, front: float, brow: float) -> list[Layer]:
    """The peak of a cap, seen from above and from below."""
    rows, columns = 6, 13
    out = np.linspace(0, 1, rows)[:, None]
    angle = np.linspace(-1.15, 1.15, columns)[None]
    x = np.sin(angle) * (0.072 + 0.004 * out)
    z = front / s - 0.080 + np.cos(angle) * (0.078 + 0.068 * out)
    y = brow + 0.003 - 0.012 * out - 0.10 * x**2 / 0.07
    points = np.stack([x + 0 * out, y + 0 * z, z], -1).reshape(-1, 3)
    points = np.array([at(*point) for point in points])
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (i * columns + j).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + columns, a + 1], 1), np.stack([a + 1, a + columns, a + columns + 1], 1)]
    )
    layer = Layer.of(HAIR, points, np.tile(bone, (len(points), 1)), triangles)
    return [layer, replace(layer, vertices=points - (0, 0.003, 0), triangles=triangles[:, ::-1])]
