"""The mesh of a drawn dancer: marching cubes, and how much of each vertex every bone carries."""

import numpy as np
from scipy.sparse import coo_matrix

from studio import rig
from studio.bodies.clothes import clothes
from studio.bodies.flesh import Bind, flesh, head_scale
from studio.bodies.implicit import Shape, distance_to, openness, surface
from studio.bodies.looks import BOTTOM, NUM_MATERIALS, TOP, Build, Look
from studio.bodies.mesh import FOLDS, Mesh, creases, strongest
from studio.kernels import exact

# Grid spacings, metres: a pixel at 1080p is about 3.5 mm on the dancer.
BODY_SPACING, FINE_SPACING = 0.015, 0.008

# Blending widths of the bones' weights, metres: a spine bends over its whole length, a wrist does not.
_SOFTNESS = np.full(rig.NUM_BONES, 0.018)
_SOFTNESS[[rig.PELVIS, rig.SPINE1, rig.SPINE2, rig.SPINE3]] = 0.030
_SOFTNESS[[rig.L_WRIST, rig.R_WRIST, rig.L_HAND, rig.R_HAND, rig.HEAD, rig.NECK]] = 0.012


def _tree_distance() -> np.ndarray:
    """(24, 24) how many joints lie between two bones."""
    steps = np.full((rig.NUM_BONES, rig.NUM_BONES), 99)
    np.fill_diagonal(steps, 0)
    for bone, parent in enumerate(rig.PARENTS):
        if parent >= 0:
            steps[bone, parent] = steps[parent, bone] = 1
    for k in range(rig.NUM_BONES):
        steps = np.minimum(steps, steps[:, k : k + 1] + steps[k : k + 1])
    return steps


Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # vertices, normals, distances to each material, triangles


def meshed(build: Build, look: Look, offsets: np.ndarray, bind: Bind) -> Mesh:
    """Meshes a dancer: the body coarsely, head and hands finely.

    Args:
        build: its proportions.
        look: its clothes and hair.
        offsets: (24, 3) its skeleton, see `Body.offsets`.
        bind: the pose in which it is meshed.
    """
    naked = flesh(build, offsets, bind)
    worn = clothes(build, look, offsets, bind, naked)
    rows = np.array(naked.rows + worn.rows)
    bones = np.array(naked.bones + worn.bones)
    materials = np.array(naked.materials + worn.materials)
    vertices, normals, fields, triangles = _joined(_parts(rows, bones, materials, naked, bind, head_scale(build)))
    occlusion = openness(rows, vertices, normals)
    weights, carriers = _weights(naked, vertices, triangles)
    cloth = np.isin(fields.argmin(1), (TOP, BOTTOM))
    normals[cloth] += FOLDS * creases(vertices[cloth])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(
        vertices.astype(np.float32),
        normals.astype(np.float32),
        triangles.astype(np.int32),
        carriers.astype(np.int32),
        weights.astype(np.float32),
        fields.astype(np.float32),
        occlusion.astype(np.float32),
    )


def _parts(
    rows: np.ndarray, bones: np.ndarray, materials: np.ndarray, naked: Shape, bind: Bind, scale: float
) -> list[Part]:
    """The coarse mesh without head and hands, and the fine ones of these."""
    turned, placed = bind
    neck = placed[rig.HEAD][1] - 0.012 * scale  # where the fine mesh of the head takes over
    hands = (rig.L_WRIST, rig.R_WRIST)
    low, high = rows[:, 14:17].min(0) - 0.03, rows[:, 17:20].max(0) + 0.03
    top = np.array([high[0], neck + 0.02, high[2]])
    vertices, normals, fields, triangles = surface(rows, materials, NUM_MATERIALS, low, top, BODY_SPACING)
    # the coarse mesh leaves hands and head to the fine ones
    nearest = np.argmin(_bone_distances(np.array(naked.rows), np.array(naked.bones), vertices), axis=1)
    drop = (nearest == rig.HEAD) & (vertices[:, 1] > neck)
    for side, bone in enumerate(hands):
        axis = turned[bone][:, 0] * (1 if side == 0 else -1)
        drop |= (nearest == bone) & ((vertices - placed[bone]) @ axis > 0.012)
    parts = [(vertices, normals, fields, triangles[~drop[triangles].all(1)])]
    own = bones == rig.HEAD
    low, high = rows[own, 14:17].min(0) - 0.03, rows[own, 17:20].max(0) + 0.03
    low[1] = neck - 0.02  # the meshes overlap by two centimetres, in which they are the same surface
    parts.append(surface(rows, materials, NUM_MATERIALS, low, high, FINE_SPACING))
    for bone in hands:
        own = bones == bone
        low, high = rows[own, 14:17].min(0) - 0.02, rows[own, 17:20].max(0) + 0.02
        forearm = own | (bones == rig.PARENTS[bone])
        parts.append(surface(rows[forearm], materials[forearm], NUM_MATERIALS, low, high, FINE_SPACING))
    return parts


def _joined(parts: list[Part]) -> Part:
    """One mesh, without vertices that no triangle uses."""
    vertices, normals, fields = (np.concatenate([part[k] for part in parts]) for k in range(3))
    starts = np.cumsum([0] + [len(part[0]) for part in parts])
    triangles = np.concatenate([part[3] + start for part, start in zip(parts, starts[:-1], strict=True)])
    used, triangles = np.unique(triangles, return_inverse=True)
    return vertices[used], normals[used], fields[used], triangles.reshape(-1, 3)


def _weights(naked: Shape, vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 4) weights and (V, 4) bones: falling off with the distance to each bone's flesh, smoothed over the surface."""
    distance = _bone_distances(np.array(naked.rows), np.array(naked.bones), vertices)
    nearest = distance.argmin(1)
    weights = np.exp(-np.maximum(distance - distance.min(1, keepdims=True), 0) / _SOFTNESS)
    # a hand beside a thigh is no part of it
    weights[_tree_distance()[nearest] > 2] = 0
    weights /= weights.sum(1, keepdims=True)
    a, b = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
    n = len(vertices)
    ones = np.ones(len(a))
    graph = coo_matrix((ones, (a, b)), (n, n)).tocsr() + coo_matrix((ones, (b, a)), (n, n)).tocsr()
    degree = np.maximum(np.asarray(graph.sum(1)), 1)
    for _ in range(6):
        weights = 0.5 * weights + 0.5 * (graph @ weights) / degree
    return strongest(weights)


@exact
def _bone_distances(rows, bones, points):
    """(V, 24) distance of each point to the flesh of each bone."""
    out = np.full((points.shape[0], rig.NUM_BONES), 1.0)
    for v in range(points.shape[0]):
        for p in range(rows.shape[0]):
            d = distance_to(rows[p], points[v, 0], points[v, 1], points[v, 2])
            out[v, bones[p]] = min(out[v, bones[p]], d)
    return out
