"""Layers: pieces of surface out of which a MakeHuman figure is dressed, and the parts of the base mesh they are made from."""

import functools
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, identity

from studio.bodies.makehuman import assets


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
def mesh_group(name: str, divisions: int) -> tuple[np.ndarray, csr_matrix, np.ndarray]:
    """A part of the base mesh: numbers of its vertices, a sparse matrix from them to the finer vertices, triangles."""
    quads = assets().faces[name]
    used, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    count, finer = len(used), csr_matrix(identity(len(used), format="csr"))
    for _ in range(divisions):  # Catmull–Clark, as bilinear division followed by averaging
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
        kept = coo_matrix((1 - pull, (np.arange(total),) * 2)).tocsr()
        count, finer = total, csr_matrix((kept + averaged) @ linear @ finer)
        quads = fine
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return used, finer, triangles


def group_layer(material: int, group: str, vertices: np.ndarray, divisions: int = 0) -> Layer:
    """A part of a figure's mesh, (N, 3) from `makehuman.shaped`, divided so many times."""
    used, finer, triangles = mesh_group(group, divisions)
    return Layer.of(material, finer @ vertices[used].astype(float), finer @ assets().weights[used], triangles)
