"""Dresses a MakeHuman figure (`makehuman`): skin, clothes, shoes and hair as layers of one mesh in the bind pose.

Clothes are cut from the helper geometry that MakeHuman keeps around every body: moved outwards, hung from what sticks out,
and cut along hems. Where cloth lies on skin, the skin is left out, so that nothing pokes through.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from studio.body import FOLDS, Mesh, creases
from studio.looks import BOTTOM, HAIR, NUM_MATERIALS, SHOES, SKIN, TOP, Look
from studio.makehuman import Figure, assets
from studio.rig import (
    HEAD,
    L_ANKLE,
    L_ELBOW,
    L_FOOT,
    L_HIP,
    L_KNEE,
    L_SHOULDER,
    L_WRIST,
    NECK,
    NUM_BONES,
    SPINE1,
    SPINE3,
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A piece of surface of one material. V vertices, T triangles."""

    material: int
    vertices: np.ndarray  # (V, 3) m
    weights: np.ndarray  # (V, 24)
    triangles: np.ndarray  # (T, 3) counter-clockwise from outside
    hem: np.ndarray  # (V,) m from where it ends
    tints: np.ndarray  # (V, 4) linear rgb, and how much of it instead of the material's own

    @classmethod
    def of(cls, material: int, vertices: np.ndarray, weights: np.ndarray, triangles: np.ndarray) -> "Layer":
        count = len(vertices)
        return cls(material, vertices, weights, triangles, np.full(count, 1.0), np.zeros((count, 4)))

    def cut(self, field: np.ndarray) -> "Layer":
        """What lies where a field (V,) (metres) is positive; triangles are cut in two along its zero."""
        inside = field > 0
        count = inside[self.triangles].sum(1)
        whole, crossed = self.triangles[count == 3], self.triangles[(count == 1) | (count == 2)]
        # the corner that is alone on its side comes first
        alone = np.argmax(inside[crossed] == (inside[crossed].sum(1) == 1)[:, None], axis=1)
        a, b, c = (np.take_along_axis(crossed, (alone[:, None] + k) % 3, 1)[:, 0] for k in range(3))
        edges, number = np.unique(np.sort(np.concatenate([np.stack([a, b], 1), np.stack([a, c], 1)]), 1), axis=0,
                                  return_inverse=True)  # fmt: skip
        start = len(self.vertices)
        ab, ac = number.reshape(2, -1) + start
        first = inside[a]
        triangles = np.concatenate([
            whole,
            np.stack([a, ab, ac], 1)[first],
            np.stack([ab, b, c], 1)[~first],
            np.stack([ab, c, ac], 1)[~first],
        ])  # fmt: skip
        t = field[edges[:, 0]] / (field[edges[:, 0]] - field[edges[:, 1]])

        def grown(values: np.ndarray) -> np.ndarray:
            s = t.reshape(-1, *[1] * (values.ndim - 1))
            return np.concatenate([values, values[edges[:, 0]] * (1 - s) + values[edges[:, 1]] * s])

        hem = np.minimum(grown(self.hem), grown(field))
        return replace(
            self, vertices=grown(self.vertices), weights=grown(self.weights), hem=np.maximum(hem, 0),
            tints=grown(self.tints), triangles=triangles,
        ).compact()  # fmt: skip

    def compact(self) -> "Layer":
        """Without vertices that no triangle uses."""
        used, triangles = np.unique(self.triangles, return_inverse=True)
        return replace(
            self, vertices=self.vertices[used], weights=self.weights[used], hem=self.hem[used], tints=self.tints[used],
            triangles=triangles.reshape(-1, 3),
        )  # fmt: skip

    def lining(self, depth: float, reach: float) -> "Layer":
        """The inside of a garment where one can look into it: up to `reach` metres from its hems."""
        near = (self.hem < reach)[self.triangles].all(1)
        return replace(
            self, vertices=self.vertices - depth * self.normals(), triangles=self.triangles[near][:, ::-1]
        ).compact()

    def normals(self) -> np.ndarray:
        """(V, 3) unit, averaged over the triangles around."""
        a, b, c = (self.vertices[self.triangles[:, k]] for k in range(3))
        faces = np.cross(b - a, c - a)
        out = np.zeros_like(self.vertices)
        for k in range(3):
            np.add.at(out, self.triangles[:, k], faces)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


@functools.lru_cache(maxsize=8)
def _group(name: str, divisions: int) -> tuple[np.ndarray, object, np.ndarray]:
    """A part of the base mesh: numbers of its vertices, a sparse matrix from them to the finer vertices, triangles."""
    from scipy.sparse import coo_matrix, identity

    quads = assets().faces[name]
    used, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    finer = identity(len(used), format="csr")
    for _ in range(divisions):  # Catmull–Clark, as bilinear division followed by averaging
        count = finer.shape[0]
        edges, number, faces = np.unique(
            np.sort(np.stack([quads, np.roll(quads, -1, 1)], 2).reshape(-1, 2), 1), axis=0, return_inverse=True,
            return_counts=True,
        )  # fmt: skip
        number = number.reshape(-1, 4) + count
        middle = np.arange(len(quads)) + count + len(edges)
        rows = np.concatenate([np.arange(count), np.repeat(np.arange(len(edges)) + count, 2), np.repeat(middle, 4)])
        columns = np.concatenate([np.arange(count), edges.ravel(), quads.ravel()])
        values = np.concatenate([np.ones(count), np.full(edges.size, 0.5), np.full(quads.size, 0.25)])
        total = count + len(edges) + len(quads)
        linear = coo_matrix((values, (rows, columns)), (total, count)).tocsr()
        before = np.roll(number, 1, 1)
        fine = np.stack([quads, number, np.repeat(middle[:, None], 4, 1), before], 2).reshape(-1, 4)
        # averaging: each vertex to the mean of the middles of the quads around it
        ones = np.ones(fine.size)
        incidence = coo_matrix((ones, (fine.ravel(), np.repeat(np.arange(len(fine)), 4))), (total, len(fine))).tocsr()
        valence = np.asarray(incidence.sum(1)).ravel()
        mean = coo_matrix((np.full(fine.size, 0.25), (np.repeat(np.arange(len(fine)), 4), fine.ravel())),
                          (len(fine), total)).tocsr()  # fmt: skip
        border = np.zeros(total, bool)
        border[edges[faces == 1].ravel()] = True
        border[count:][: len(edges)][faces == 1] = True
        pull = np.where(border, 0, 4 / valence)
        averaged = coo_matrix((pull / valence, (np.arange(total),) * 2)).tocsr() @ incidence @ mean
        finer = (coo_matrix((1 - pull, (np.arange(total),) * 2)).tocsr() + averaged) @ linear @ finer
        quads = fine
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return used, finer, triangles


def _layer(material: int, group: str, vertices: np.ndarray, divisions: int = 0) -> Layer:
    used, finer, triangles = _group(group, divisions)
    return Layer.of(material, finer @ vertices[used].astype(float), finer @ assets().weights[used], triangles)


def _step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


# --- cuts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Where clothes end, as fields over the bind pose (metres, positive where there is cloth)."""

    placed: np.ndarray  # (24, 3) joints in the bind pose
    look: Look
    hem: float  # height at which the top ends
    waist: float  # height at which trousers or skirt begin
    collar: float  # how far below the neck's joint the top ends

    def along(self, points: np.ndarray, weights: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """((P,), (P,)) metres along a limb from its joint `first` (shoulder or hip), and whether a point is on it."""
        a, b, c = self.placed[first], self.placed[_NEXT[first]], self.placed[_NEXT[_NEXT[first]]]
        upper, lower = b - a, c - b
        length = np.linalg.norm(upper)
        u, v = upper / length, lower / np.linalg.norm(lower)
        s, t = (points - a) @ u, (points - b) @ v
        end = _NEXT[_NEXT[first]]
        bones = [first, _NEXT[first], end] + ([end + 3] if end >= L_ANKLE and end < L_FOOT else [])
        return np.where((t > 0) & (s > 0.7 * length), length + t, s), weights[:, bones].sum(1) > 0.35

    def top(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) of the top."""
        field = np.minimum(points[:, 1] - self.hem, self.neckline(points))
        for first in (L_SHOULDER, L_SHOULDER + 1):
            s, on = self.along(points, weights, first)
            field = np.where(on, np.minimum(field, self._length(first, self.look.sleeves) - s), field)
        return field

    def neckline(self, points: np.ndarray) -> np.ndarray:
        """(P,) below the plane in which the neck comes out of the top: higher behind than in front."""
        return -(points - self.placed[NECK] + (0, self.collar, 0)) @ np.array([0.0, 0.84, 0.54])

    def bottom(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) of the trousers."""
        field = self.waist - points[:, 1]
        for first in (L_HIP, L_HIP + 1):
            s, on = self.along(points, weights, first)
            field = np.where(on, np.minimum(field, self._length(first, self.look.trousers) - s), field)
        arms = weights[:, [L_SHOULDER, L_SHOULDER + 1, L_ELBOW, L_ELBOW + 1, L_WRIST, L_WRIST + 1]].sum(1) > 0.3
        return np.where(arms, -1.0, field)

    def shoes(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) of the shoes: up to the ankles, higher behind."""
        field = np.full(len(points), -1.0)
        for side in (0, 1):
            on = weights[:, [L_ANKLE + side, L_FOOT + side, L_KNEE + side]].sum(1) > 0.5
            ankle = self.placed[L_ANKLE + side]
            low = (ankle - points) @ np.array([0.0, 0.96, 0.28]) + 0.018
            field = np.where(on & (points[:, 0] * (1, -1)[side] > 0), low, field)
        return field

    def _length(self, first: int, share: float) -> float:
        """Metres from a limb's first joint to a share of it: 1 is the middle joint, 2 the last."""
        a, b, c = self.placed[first], self.placed[_NEXT[first]], self.placed[_NEXT[_NEXT[first]]]
        return float(np.linalg.norm(b - a) * min(share, 1) + np.linalg.norm(c - b) * max(share - 1, 0))


_NEXT = {bone: bone + step for start, step in ((L_SHOULDER, 2), (L_ELBOW, 2), (L_HIP, 3), (L_KNEE, 3))
         for bone in (start, start + 1)}  # fmt: skip


# --- garments ---------------------------------------------------------------------------------------------------------


def _hung(points: np.ndarray, on: np.ndarray, centre: np.ndarray, low: float, high: float, keep: float) -> np.ndarray:
    """(P,) how far cloth stands off a torso: from the parts that stick out it hangs down instead of following the body.

    Args:
        points: (P, 3) on the body.
        on: (P,) which of them the cloth hangs around.
        centre: (3,) of the torso.
        low, high: between these heights.
        keep: how much of what sticks out above is kept per 10 cm.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

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
    body = gaussian_filter(grid, (1, 1), mode=("nearest", "wrap"))
    hanging, kept = body.copy(), keep ** ((high - low) / (rows - 1) / 0.1)
    for i in range(1, rows):
        hanging[i] = np.maximum(body[i], body[i] + (hanging[i - 1] - body[i]) * kept)
    apart = gaussian_filter(hanging - body, (1.2, 1.2), mode=("nearest", "wrap"))
    apart = map_coordinates(
        np.hstack([apart, apart[:, :1]]), [np.clip(row, 0, rows - 1), angle], order=1, mode="nearest"
    )
    return np.where(on, apart * _step(high, high - 0.08, points[:, 1]), 0)


def _outwards(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(P, 3) unit directions away from a limb's axis."""
    axis = (end - start) / np.linalg.norm(end - start)
    away = points - start
    away = away - (away @ axis)[:, None] * axis
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)


def _top(vertices: np.ndarray, cut: Cut, rng: np.random.Generator) -> Layer:
    layer = _layer(TOP, "helper-tights", vertices, 1)
    points, normals, weights = layer.vertices, layer.normals(), layer.weights
    placed, look = cut.placed, cut.look
    arm = weights[:, [L_SHOULDER, L_SHOULDER + 1, L_ELBOW, L_ELBOW + 1, L_WRIST, L_WRIST + 1]].sum(1)
    field = cut.top(points, weights)
    torso = (arm < 0.25) & (points[:, 1] > cut.hem - 0.03)
    low, high = cut.hem - 0.03, placed[SPINE3][1] + 0.09
    apart = _hung(points, torso, placed[SPINE1], low, high, 0.82 if look.loose > 0.011 else 0.5)
    outward = normals * (1, 0.3, 1)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    away = (points - placed[SPINE1]) * (1, 0, 1)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    slack = look.loose * (0.45 + 0.55 * _step(placed[SPINE3][1] + 0.05, cut.hem, points[:, 1]))
    close = _step(0.0, 0.05, cut.neckline(points))
    moved = points + normals * (0.003 + 0.004 * close)[:, None]
    moved += outward * (slack * close * (arm < 0.5))[:, None] + away * (apart * close)[:, None]
    for side in (0, 1):
        s, on = cut.along(points, weights, L_SHOULDER + side)
        length = cut._length(L_SHOULDER + side, look.sleeves)
        flare = look.loose * (0.5 + (1.0 if look.sleeves < 1.2 else 0.25) * np.clip(s / length, 0, 1))
        if look.sleeves > 1.2:  # cuffs
            flare *= 1 - 0.8 * _step(length - 0.06, length - 0.01, s)
        upper = _outwards(points, placed[L_SHOULDER + side], placed[L_ELBOW + side])
        lower = _outwards(points, placed[L_ELBOW + side], placed[L_WRIST + side])
        bend = _step(-0.05, 0.05, s - np.linalg.norm(placed[L_ELBOW + side] - placed[L_SHOULDER + side]))[:, None]
        moved += ((1 - bend) * upper + bend * lower) * (flare * on * _step(-0.02, 0.08, s))[:, None]
    layer = replace(layer, vertices=moved + _wrinkles(points, normals, rng) * (0.35 + 25 * look.loose))
    return layer.cut(field)


def _trousers(vertices: np.ndarray, cut: Cut, wide: float, rng: np.random.Generator) -> Layer:
    layer = _layer(BOTTOM, "helper-tights", vertices, 1)
    points, normals, weights = layer.vertices, layer.normals(), layer.weights
    placed, look = cut.placed, cut.look
    moved = points + normals * 0.005
    for side in (0, 1):
        s, on = cut.along(points, weights, L_HIP + side)
        length = cut._length(L_HIP + side, look.trousers)
        upper = _outwards(points, placed[L_HIP + side], placed[L_KNEE + side])
        lower = _outwards(points, placed[L_KNEE + side], placed[L_ANKLE + side])
        thigh = np.linalg.norm(placed[L_KNEE + side] - placed[L_HIP + side])
        bend = _step(-0.06, 0.06, s - thigh)[:, None]
        # straight legs: below the knee the cloth stands off more, for a calf is thinner than a thigh
        calf = 0.45 * _step(thigh - 0.05, thigh + 0.25, s) if look.trousers > 1.2 else 0.0
        flare = wide * (0.15 + 0.85 * _step(0.02, 0.6 * length, s) + calf)
        if look.trousers > 1.2 and wide < 0.02:
            flare *= 1 - 0.7 * _step(length - 0.10, length, s)
        moved += ((1 - bend) * upper + bend * lower) * (flare * on)[:, None]
    return replace(layer, vertices=moved + _wrinkles(points, normals, rng) * (0.4 + 15 * wide)).cut(
        cut.bottom(points, weights)
    )


def _wrinkles(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P, 3) m: broad folds, half a centimetre deep."""
    waves = rng.normal(0, 1, (7, 3)) * (14, 26, 14)
    depth = np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, 7)).sum(1) / np.sqrt(7)
    return normals * (0.0035 * depth)[:, None]


def _skirt(vertices: np.ndarray, cut: Cut, length: float, rng: np.random.Generator) -> Layer:
    layer = _layer(BOTTOM, "helper-skirt", vertices, 1)
    points, normals = layer.vertices, layer.normals()
    down = np.clip((cut.waist - points[:, 1]) / 0.5, 0, 1.5)
    angle = np.arctan2(points[:, 0], points[:, 2])
    pleats = 0.012 * down * np.sin(rng.integers(7, 14) * angle + 2 * np.sin(angle * 3 + rng.uniform(0, 6)))
    moved = points + normals * (0.008 + pleats)[:, None] + points * (1, 0, 1) * (rng.uniform(0, 0.15) * down)[:, None]
    field = np.minimum(cut.waist - points[:, 1], points[:, 1] - (cut.placed[L_HIP][1] - length))
    return replace(layer, vertices=moved).cut(field)


def _shoes(vertices: np.ndarray, cut: Cut, ground: float) -> Layer:
    layer = _layer(SHOES, "helper-tights", vertices, 1)
    points, normals, weights = layer.vertices, layer.normals(), layer.weights
    field = cut.shoes(points, weights)
    lowest = points[field > 0, 1].min()
    moved = points + normals * 0.007
    toes = _step(0.06, 0.16, points[:, 2])
    moved[:, 2] += 0.010 * toes
    under = _step(-0.2, -0.7, normals[:, 1]) * (points[:, 1] < lowest + 0.035)
    moved[:, 1] += under * (ground - moved[:, 1])
    # a rim of the sole all around
    rim = (1 - _step(0.012, 0.03, points[:, 1] - lowest)) * (1 - under)
    moved += normals * (1, 0, 1) * (0.004 * rim)[:, None]
    moved[:, 1] = np.maximum(moved[:, 1], ground)
    return replace(layer, vertices=moved).cut(field)


# --- skin, face, hair -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """Where things are on a head in the bind pose."""

    eyes: np.ndarray  # (2, 3) the eyeballs' centres, left first
    canals: np.ndarray  # (2, 3) the ears' canals
    scale: float  # relative to the average adult's

    def tinted(self, layer: Layer, look: Look, man: float, age: float, rng: np.random.Generator) -> Layer:
        """Skin with lips, brows, beard and what else is not of one colour."""
        tints = np.zeros((len(layer.vertices), 4))
        used, finer, _ = _group("body", 0)
        masks = {name: finer @ mask[used] for name, mask in assets().masks.items()}
        skin, lips, brows, hair = look.colours[0], look.colours[8], look.colours[10], look.colours[7]

        def paint(colour: np.ndarray, amount: np.ndarray) -> None:
            amount = np.clip(amount, 0, 1)[:, None]
            total = amount + tints[:, 3:] * (1 - amount)
            mixed = (colour * amount + tints[:, :3] * tints[:, 3:] * (1 - amount)) / np.maximum(total, 1e-6)
            tints[:] = np.hstack([mixed, total])

        p = (layer.vertices - self.eyes.mean(0)) / self.scale  # metres on an average head, from between the eyes
        across, up, ahead = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        face = _step(-0.02, 0.0, ahead) * (np.linalg.norm(p, axis=1) < 0.2)
        side = (self.eyes[0] - self.eyes.mean(0))[0] / self.scale
        cheeks = np.exp(-((across - 0.042) ** 2 + (up + 0.038) ** 2) / 0.0006) + 0.7 * np.exp(
            -(across**2 + (up + 0.038) ** 2) / 0.0003
        )
        paint(skin * (1.0, 0.72, 0.70), 0.55 * cheeks * face)
        paint(skin * 0.60, 0.5 * masks["eyelids"])
        paint(lips * 0.08, masks["inside-mouth"])
        sockets = np.exp(-((across - side) ** 2 / 0.0004 + (up + 0.004) ** 2 / 0.0002))
        paint(skin * (0.66, 0.58, 0.56), (0.35 + 0.2 * age) * sockets * face)
        paint(lips * (1.0 - 0.25 * man), (0.55 + 0.35 * (1 - man)) * masks["lips"])
        paint(skin * (1.0, 0.9, 0.88) * 1.08, 0.6 * masks["fingernails"])
        if look.beard:
            jaw = _step(-0.047, -0.062, up + 0.3 * np.maximum(0.04 - across, 0)) * _step(-0.055, -0.025, ahead)
            jaw *= _step(-0.135, -0.118, up) * (1 - masks["lips"]) * (np.linalg.norm(p, axis=1) < 0.2)
            moustache = np.exp(-((up + 0.048) ** 2) / 0.00004) * _step(0.030, 0.018, across) * face
            paint(hair, rng.uniform(0.45, 0.9) * np.maximum(jaw, moustache))
        height = 0.0205 + 0.10 * (across - side) - 6 * (across - side - 0.004) ** 2
        brow = np.exp(-(((up - height) / (0.0036 + 0.0012 * man)) ** 2)) * _step(side - 0.022, side - 0.014, across)
        paint(brows, 0.95 * brow * _step(side + 0.026, side + 0.016, across) * face)
        return replace(layer, tints=tints)

    def eyeballs(self, vertices: np.ndarray, look: Look) -> list[Layer]:
        layers = []
        for group, centre in zip(("helper-l-eye", "helper-r-eye"), self.eyes, strict=True):
            layer = _layer(SKIN, group, vertices, 1)
            away = layer.vertices - centre
            radius = np.linalg.norm(away, axis=1)
            aside = np.hypot(away[:, 0], away[:, 1]) / radius.max() + (away[:, 2] < 0)
            colour = np.full((len(away), 3), 0.62)
            iris = 1 - _step(0.46, 0.56, aside)[:, None]
            colour += (look.colours[9] - colour) * iris
            colour *= 1 - 0.9 * (1 - _step(0.18, 0.28, aside)[:, None])
            layers.append(replace(layer, tints=np.hstack([colour, np.ones((len(away), 1))])))
        return layers


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
    from scipy.ndimage import gaussian_filter

    s = head.scale
    columns, dome = 64, 15
    on_head = skin.weights[:, HEAD] > 0.5
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
        body = gaussian_filter(body, (0.7, 1.5), mode=("nearest", "wrap"))[1:-1]
        ring = radius[-1]
        for i, y in enumerate(heights):
            ring = np.maximum(ring * (1 - cling), np.minimum(body[i], ring + 0.02))
            around = np.stack([np.sin(angle) * ring, 0 * angle, np.cos(angle) * ring], -1)
            rings.append((around + np.array([centre[0], y, centre[2]]))[None])
    points = np.concatenate(rings).reshape(-1, 3)
    low = points[:, 1]
    weights = np.zeros((len(points), NUM_BONES))
    onto_neck = _step(placed[HEAD][1], placed[NECK][1] + 0.01, low)
    onto_back = _step(placed[NECK][1] + 0.03, placed[NECK][1] - 0.12, low) * 0.85
    weights[:, SPINE3] = onto_back
    weights[:, NECK] = (onto_neck * 0.6) * (1 - onto_back)
    weights[:, HEAD] = 1 - weights.sum(1)
    return Layer.of(HAIR, points, weights, _lattice(len(points) // columns, columns))


def _grown(shell: Layer, field: np.ndarray, thickness: float, rise: float, rng: np.random.Generator) -> Layer:
    """Hair of a thickness where a field (V,) is positive; it rises from the hairline over `rise` metres."""
    waves = rng.normal(0, 1, (6, 3)) * (90, 22, 90)
    locks = np.sin(shell.vertices @ waves.T + rng.uniform(0, 6, 6)).sum(1) / np.sqrt(6)
    thick = (thickness + min(0.22 * thickness, 0.004) * locks) * (0.12 + 0.88 * _step(-0.1 * rise, rise, field))
    return replace(shell, vertices=shell.vertices + shell.normals() * thick[:, None]).cut(field)


def _hair(skin: Layer, head: Head, look: Look, placed: np.ndarray, rng: np.random.Generator) -> list[Layer]:
    s, style = head.scale, look.hair
    middle = head.eyes.mean(0)
    bone = np.eye(NUM_BONES)[HEAD]

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
        down = _step(0.02, -0.05, (hanging.vertices[:, 1] - middle[1]) / s)
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


def dress(
    figure: Figure,
    look: Look,
    vertices: np.ndarray,
    placed: np.ndarray,
    head: Head,
    ground: float,
    rng: np.random.Generator,
) -> Mesh:
    """The mesh of a clothed figure in its bind pose.

    Args:
        figure: whose body it is.
        look: clothes, hair and colours.
        vertices: (N, 3) from `makehuman.shaped`.
        placed: (24, 3) joints in the bind pose.
        head: where eyes and ears are.
        ground: height of the soles' undersides.
        rng: for folds, widths and lengths.
    """
    s = figure.height / 1.75
    hips = placed[L_HIP][1]
    cut = Cut(
        placed=placed,
        look=look,
        hem=hips + s * rng.choice([-0.035, 0.0, 0.04, 0.10], p=[0.4, 0.35, 0.15, 0.10]),
        waist=hips + s * rng.uniform(0.075, 0.13),
        collar=s * (rng.uniform(-0.012, 0.004) if look.hood else rng.uniform(-0.012, 0.012)),
    )
    wide = float(rng.choice([0.006, 0.014, 0.026, 0.045], p=[0.3, 0.35, 0.22, 0.13]))
    skirt = figure.male < 0.5 and rng.random() < 0.22
    if skirt:  # over short tights
        cut = replace(cut, look=replace(look, trousers=0.4))
    skin = _layer(SKIN, "body", vertices)
    skin = head.tinted(skin, look, figure.male, (figure.age - 18) / 47, rng)
    over = cut.top(skin.vertices, skin.weights)
    legs = cut.bottom(skin.vertices, skin.weights)
    feet = cut.shoes(skin.vertices, skin.weights)
    # what lies well under cloth is left out
    hidden = (np.maximum(over, legs) > 0.035) | (feet > 0.02)
    shown = replace(skin, triangles=skin.triangles[~hidden[skin.triangles].all(1)]).compact()
    top = _top(vertices, cut, rng)
    bottom = _trousers(vertices, cut, wide, rng)
    under = cut.top(bottom.vertices, bottom.weights) > 0.05
    bottom = replace(bottom, triangles=bottom.triangles[~under[bottom.triangles].all(1)]).compact()
    layers = [shown, top, top.lining(0.004, 0.24), bottom, bottom.lining(0.004, 0.12), _shoes(vertices, cut, ground)]
    if skirt:
        outer = _skirt(vertices, cut, s * rng.uniform(0.28, 0.62), rng)
        layers += [outer, outer.lining(0.004, 0.5)]
    layers += head.eyeballs(vertices, look) + _hair(skin, head, look, placed, rng)
    return _mesh(layers)


_NEAR = 0.5  # metres: what is farther than this from a material's surface is not of it


def _mesh(layers: list[Layer]) -> Mesh:
    starts = np.cumsum([0] + [len(layer.vertices) for layer in layers])
    vertices = np.concatenate([layer.vertices for layer in layers])
    normals = np.concatenate([layer.normals() for layer in layers])
    triangles = np.concatenate(
        [layer.triangles[:, ::-1] + start for layer, start in zip(layers, starts[:-1], strict=True)]
    )
    weights = np.concatenate([layer.weights for layer in layers])
    tints = np.concatenate([layer.tints for layer in layers])
    fields = np.full((len(vertices), NUM_MATERIALS), _NEAR)
    for layer, start, end in zip(layers, starts[:-1], starts[1:], strict=True):
        # hems are told by how near the skin's surface is (see the shader)
        fields[start:end, SKIN] = np.maximum(layer.hem, 1e-4)
        fields[start:end, layer.material] = 0
        if layer.material in (TOP, BOTTOM):
            normals[start:end] += FOLDS * creases(layer.vertices)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    least = np.take_along_axis(weights, order, 1)
    return Mesh(
        vertices=vertices.astype(np.float32),
        normals=normals.astype(np.float32),
        triangles=triangles.astype(np.int32),
        bones=order.astype(np.int32),
        weights=(least / least.sum(1, keepdims=True)).astype(np.float32),
        materials=fields.astype(np.float32),
        occlusion=_open(vertices, normals).astype(np.float32),
        tints=tints.astype(np.float32),
    )


def _open(vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(V,) 1 open … 0 in a fold: how little surface there is in front of each point, on a grid."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    cell = 0.02
    low = vertices.min(0) - 0.2
    shape = np.ceil((vertices.max(0) + 0.2 - low) / cell).astype(int)
    grid = np.zeros(shape, np.float32)
    grid[tuple(((vertices - low) / cell).astype(int).T)] = 1
    near = gaussian_filter(grid, 2.0)
    seen = map_coordinates(near, ((vertices + 0.05 * normals - low) / cell).T - 0.5, order=1)
    return np.clip(1.12 - 4.5 * seen, 0.35, 1.0)
