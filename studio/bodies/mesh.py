"""A body's surface as the renderer takes it."""

from dataclasses import dataclass

import numpy as np

FOLDS = 0.16  # how far cloth's normals lean


@dataclass(frozen=True)
class Mesh:
    """A dancer's surface in the bind pose. V vertices, T triangles."""

    vertices: np.ndarray  # (V, 3) f32 m
    normals: np.ndarray  # (V, 3) f32
    triangles: np.ndarray  # (T, 3) i32, clockwise from outside
    bones: np.ndarray  # (V, 4) i32
    weights: np.ndarray  # (V, 4) f32, sum 1
    materials: np.ndarray  # (V, 5) f32: distance to each material's surface; the least one is what is seen
    occlusion: np.ndarray  # (V,) f32: 1 open … 0 in a fold
    tints: np.ndarray | None = (
        None  # (V, 4) f32 linear rgb, and how much of it instead of the look's paint; None: painted
    )


def creases(p: np.ndarray) -> np.ndarray:
    """(V, 3) m -> (V, 3) the gradient of a wavy field without a visible period, about unit length: folds in cloth."""
    x, y, z = p.T
    a = 31 * x + 13 * y + 2.3 * np.sin(17 * z + 5 * y)
    b = 37 * y - 19 * z + 1.9 * np.sin(23 * x)
    c = 24 * z + 29 * x + 2.1 * np.sin(19 * y)
    return np.stack([np.cos(a) + np.cos(c), 0.4 * np.cos(a) + 1.2 * np.cos(b), np.cos(c) - 0.6 * np.cos(b)], axis=1)


def strongest(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 24) weights of the bones -> (V, 4) those of the four strongest, sum 1, and (V, 4) which they are."""
    bones = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(weights, bones, 1)
    return weights / weights.sum(1, keepdims=True), bones
