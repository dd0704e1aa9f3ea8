"""Implicit surfaces: rounded cones and ellipsoids, blended, cut and carved; and the meshes of them.

Distance functions and smooth unions after Quílez (https://iquilezles.org/articles/distfunctions).
"""

from collections.abc import Sequence

import numpy as np

from refiner.geometry import rotation_matrix
from studio.kernels import exact

Point = Sequence[float] | np.ndarray  # three numbers
Cut = tuple[Point, Point]  # a point and a normal, in the bone's frame: what lies on the normal's side is cut away

_CONE, _ELLIPSOID = 0, 1
# A primitive is a row of 26 numbers, for numba's sake:
#    0      kind
#    1–3    cone: one end            ellipsoid: centre
#    4–8    cone: other end, radii   ellipsoid: 4–6 half axes, 7–12 directions of the first two
#   14–19   bounding box
#   20      width of the blend with what was added before, metres; negative: it is carved out
#   21–25   cut: normal, offset, and 1 where there is one
_ROUND = 0.012  # metres over which a cut edge is rounded


class Shape:
    """Primitives around a skeleton in one pose: rows of numbers, and the bone and material that each belongs to."""

    def __init__(self, turned: np.ndarray, placed: np.ndarray) -> None:
        self.turned, self.placed = turned, placed
        self.rows: list[np.ndarray] = []
        self.bones: list[int] = []
        self.materials: list[int] = []

    def _at(self, bone: int, local: Point) -> np.ndarray:
        return self.placed[bone] + self.turned[bone] @ np.asarray(local, float)

    def _add(self, row: np.ndarray, bone: int, material: int, blend: float, cut: Cut | None, carve: bool) -> None:
        row[20] = -blend if carve else blend
        row[21:25] = 0, 0, 0, -1
        if cut is not None:
            point, normal = cut  # what lies on the normal's side is cut away
            n = self.turned[bone] @ np.asarray(normal, float)
            n /= np.linalg.norm(n)
            row[21:24], row[24] = n, n @ self._at(bone, point)
            row[25] = 1
        self.rows.append(row)
        self.bones.append(bone)
        self.materials.append(material)

    def cone(
        self, bone: int, a: Point, b: Point, ra: float, rb: float, *,
        material: int = 0, blend: float = 0.03, cut: Cut | None = None, carve: bool = False,
    ) -> None:  # fmt: skip
        """A capsule from a to b (bone's frame) whose radius goes from ra to rb."""
        row = np.zeros(26)
        row[0] = _CONE
        row[1:4], row[4:7], row[7], row[8] = self._at(bone, a), self._at(bone, b), ra, rb
        low = np.minimum(row[1:4] - ra, row[4:7] - rb)
        high = np.maximum(row[1:4] + ra, row[4:7] + rb)
        row[14:17], row[17:20] = low, high
        self._add(row, bone, material, blend, cut, carve)

    def ellipsoid(
        self, bone: int, centre: Point, radii: Point, *, turn: Point = (0, 0, 0),
        material: int = 0, blend: float = 0.03, cut: Cut | None = None, carve: bool = False,
    ) -> None:  # fmt: skip
        """An ellipsoid about a point of the bone's frame, turned by a rotation vector."""
        row = np.zeros(26)
        row[0] = _ELLIPSOID
        row[1:4], row[4:7] = self._at(bone, centre), radii
        axes = self.turned[bone] @ rotation_matrix(np.array(turn, float))
        row[7:10], row[10:13] = axes[:, 0], axes[:, 1]
        extent = np.sqrt(((axes * np.asarray(radii)) ** 2).sum(1))
        row[14:17], row[17:20] = row[1:4] - extent, row[1:4] + extent
        self._add(row, bone, material, blend, cut, carve)

    def grown(self, row: np.ndarray, bone: int, by: float, *, material: int, cut: Cut | None = None) -> None:
        """A primitive of another shape, standing off by some metres: cloth over flesh."""
        row = row.copy()
        radii = slice(7, 9) if row[0] == _CONE else slice(4, 7)
        row[radii] += by
        row[14:17] -= by
        row[17:20] += by
        self._add(row, bone, material, row[20], cut, carve=False)


@exact
def distance_to(row, x, y, z):
    """Signed distance (metres, negative inside) of a point to one primitive."""
    if row[0] == _CONE:
        bx, by, bz = row[4] - row[1], row[5] - row[2], row[6] - row[3]
        px, py, pz = x - row[1], y - row[2], z - row[3]
        r1, r2 = row[7], row[8]
        l2 = bx * bx + by * by + bz * bz
        rr = r1 - r2
        a2 = l2 - rr * rr
        il2 = 1.0 / l2
        yy = px * bx + py * by + pz * bz
        zz = yy - l2
        cx, cy, cz = px * l2 - bx * yy, py * l2 - by * yy, pz * l2 - bz * yy
        x2 = cx * cx + cy * cy + cz * cz
        y2 = yy * yy * l2
        z2 = zz * zz * l2
        k = np.sign(rr) * rr * rr * x2
        if np.sign(zz) * a2 * z2 > k:
            d = np.sqrt(x2 + z2) * il2 - r2
        elif np.sign(yy) * a2 * y2 < k:
            d = np.sqrt(x2 + y2) * il2 - r1
        else:
            d = (np.sqrt(x2 * a2 * il2) + yy * rr) * il2 - r1
    else:
        px, py, pz = x - row[1], y - row[2], z - row[3]
        ux = px * row[7] + py * row[8] + pz * row[9]
        uy = px * row[10] + py * row[11] + pz * row[12]
        wx = row[8] * row[12] - row[9] * row[11]
        wy = row[9] * row[10] - row[7] * row[12]
        wz = row[7] * row[11] - row[8] * row[10]
        uz = px * wx + py * wy + pz * wz
        ux, uy, uz = ux / row[4], uy / row[5], uz / row[6]
        k0 = np.sqrt(ux * ux + uy * uy + uz * uz)
        qx, qy, qz = ux / row[4], uy / row[5], uz / row[6]
        k1 = np.sqrt(qx * qx + qy * qy + qz * qz)
        d = k0 * (k0 - 1.0) / k1 if k1 > 1e-9 else -min(row[4], row[5], row[6])
    if row[25] == 1:
        # a rounded edge: marching cubes makes teeth of a sharp one
        cut = row[21] * x + row[22] * y + row[23] * z - row[24]
        h = max(_ROUND - abs(d - cut), 0.0) / _ROUND
        d = max(d, cut) + h * h * _ROUND * 0.25
    return d


@exact
def evaluate(rows, origin, spacing, shape):
    """The smooth union of primitives on a grid; beyond a few centimetres of the nearest it stays at a constant."""
    far = 0.08
    field = np.full(shape, far)
    for p in range(rows.shape[0]):
        row = rows[p]
        blend = abs(row[20])
        low = np.empty(3, np.int64)
        high = np.empty(3, np.int64)
        for axis in range(3):
            low[axis] = max(0, int(np.floor((row[14 + axis] - far - origin[axis]) / spacing)))
            high[axis] = min(shape[axis], int(np.ceil((row[17 + axis] + far - origin[axis]) / spacing)) + 1)
        for i in range(low[0], high[0]):
            for j in range(low[1], high[1]):
                for k in range(low[2], high[2]):
                    d = distance_to(row, origin[0] + i * spacing, origin[1] + j * spacing, origin[2] + k * spacing)
                    f = field[i, j, k]
                    if row[20] < 0:  # carved away
                        h = max(blend - abs(-d - f), 0.0) / blend
                        field[i, j, k] = max(f, -d) + h * h * blend * 0.25
                    else:
                        h = max(blend - abs(d - f), 0.0) / blend
                        field[i, j, k] = min(f, d) - h * h * blend * 0.25
    return field


def surface(
    rows: np.ndarray, materials: np.ndarray, count: int, low: np.ndarray, high: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Meshes a box with marching cubes.

    Args:
        rows: (P, 26) primitives.
        materials: (P,) of each; primitives of one material blend, those of two meet in an edge.
        count: of the materials.
        low: (3,) corner of the box, metres.
        high: (3,) the opposite one.
        spacing: of the grid, metres.

    Returns:
        (V, 3) vertices, (V, 3) outward normals, (V, count) distance to each material, (T, 3) triangles.
    """
    from scipy.ndimage import map_coordinates
    from skimage.measure import marching_cubes

    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    fields = np.stack(
        [evaluate(rows[materials == m], low, spacing, shape) for m in range(count)]
    )  # far from a material's primitives its field is a constant
    field = fields.min(0)
    points, faces, normals, _ = marching_cubes(
        field.astype(np.float32), 0.0, spacing=(spacing,) * 3, gradient_direction="ascent"
    )
    at = points.T / spacing
    values = np.stack([map_coordinates(f, at, order=1, mode="nearest") for f in fields], axis=1)
    # normals out of the field itself: smoother than those of the triangles
    gradient = np.stack([map_coordinates(g, at, order=1, mode="nearest") for g in np.gradient(field, spacing)], axis=1)
    normals = gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9)
    return points + low, normals, values, faces


@exact
def openness(rows, vertices, normals):
    """(V,) how open a surface lies, 1 … 0.25: free distance along the normal against distance gone (Evans 2006)."""
    out = np.ones(vertices.shape[0])
    for v in range(vertices.shape[0]):
        dark = 0.0
        for step in range(1, 4):
            reach = 0.025 * step * step
            x = vertices[v, 0] + normals[v, 0] * reach
            y = vertices[v, 1] + normals[v, 1] * reach
            z = vertices[v, 2] + normals[v, 2] * reach
            nearest = reach
            for p in range(rows.shape[0]):
                if rows[p, 20] > 0:
                    nearest = min(nearest, distance_to(rows[p], x, y, z))
            dark += (reach - max(nearest, 0.0)) / reach * (0.5 if step == 1 else 0.32)
        out[v] = max(0.25, 1.0 - dark)
    return out
