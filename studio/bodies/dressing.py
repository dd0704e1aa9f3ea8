"""Dresses a MakeHuman figure (`makehuman`): skin, clothes, shoes and hair as layers of one mesh in the bind pose.

Where cloth lies on skin, the skin is left out, so that nothing pokes through.
"""

from dataclasses import replace

import numpy as np

from studio import rig
from studio.bodies import garments
from studio.bodies.cuts import Cut
from studio.bodies.hair import hair
from studio.bodies.heads import Head
from studio.bodies.layers import Layer, group_layer
from studio.bodies.looks import BOTTOM, NUM_MATERIALS, SKIN, TOP, Look
from studio.bodies.makehuman import Figure
from studio.bodies.mesh import FOLDS, Mesh, creases, strongest


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
    hips = placed[rig.L_HIP][1]
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
    skin = group_layer(SKIN, "body", vertices)
    skin = head.tinted(skin, look, figure.male, (figure.age - 18) / 47, rng)
    over = cut.top(skin.vertices, skin.weights)
    legs = cut.bottom(skin.vertices, skin.weights)
    feet = cut.shoes(skin.vertices, skin.weights)
    # what lies well under cloth is left out
    hidden = (np.maximum(over, legs) > 0.035) | (feet > 0.02)
    shown = replace(skin, triangles=skin.triangles[~hidden[skin.triangles].all(1)]).compact()
    top = garments.top(vertices, cut, rng)
    bottom = garments.trousers(vertices, cut, wide, rng)
    under = cut.top(bottom.vertices, bottom.weights) > 0.05
    bottom = replace(bottom, triangles=bottom.triangles[~under[bottom.triangles].all(1)]).compact()
    layers = [
        shown,
        top,
        top.lining(0.004, 0.24),
        bottom,
        bottom.lining(0.004, 0.12),
        garments.shoes(vertices, cut, ground),
    ]
    if skirt:
        outer = garments.skirt(vertices, cut, s * rng.uniform(0.28, 0.62), rng)
        layers += [outer, outer.lining(0.004, 0.5)]
    layers += head.eyeballs(vertices, look) + hair(skin, head, look, placed, rng)
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
    weights, bones = strongest(weights)
    return Mesh(
        vertices=vertices.astype(np.float32),
        normals=normals.astype(np.float32),
        triangles=triangles.astype(np.int32),
        bones=bones.astype(np.int32),
        weights=weights.astype(np.float32),
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
