"""GLB (binary glTF 2.0): the skeleton with a simple body, for the web, game engines and Blender. Metres, y up."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from refiner.formats.motion import Motion
from refiner.formats.rig import NAMES, PARENTS, Rigged, rig
from refiner.geometry import unit

if TYPE_CHECKING:
    from pygltflib import GLTF2, Animation

THICKNESS = 0.09  # of a bone's drawn body, as a share of its length
COLOURS = ([0.12, 0.47, 0.71, 1.0], [0.85, 0.37, 0.2, 1.0], [0.3, 0.6, 0.25, 1.0], [0.55, 0.4, 0.65, 1.0])


def write(motions: Sequence[Motion], path: Path) -> None:
    """Writes, for each person, a skinned body of one prism per bone, and one animation: rotations and the roots' places."""
    import pygltflib as gltf

    document = gltf.GLTF2(asset=gltf.Asset(version="2.0", generator="pose-depth-refiner"))
    buffer = _Buffer(gltf, document)
    document.materials = [
        gltf.Material(
            pbrMetallicRoughness=gltf.PbrMetallicRoughness(baseColorFactor=colour, metallicFactor=0.0), doubleSided=True
        )
        for _, colour in zip(motions, itertools.cycle(COLOURS), strict=False)
    ]
    roots: list[int] = []
    animation = gltf.Animation(name=motions[0].name)
    for motion in motions:
        roots += _add(gltf, document, buffer, animation, motion)
    document.scenes, document.scene = [gltf.Scene(nodes=roots)], 0
    document.animations = [animation]
    document.set_binary_blob(buffer.close())
    document.save_binary(str(path))


def _add(gltf: ModuleType, document: "GLTF2", buffer: "_Buffer", animation: "Animation", motion: Motion) -> list[int]:
    """One person: nodes, skin, mesh, and their tracks in the animation. Returns the nodes above which there is none."""
    even, _ = motion.even()
    rigged = rig(even.joints, even.fps)
    first, number = len(document.nodes), len(document.skins)
    document.nodes += [
        gltf.Node(
            name=name,
            translation=(rigged.root[0] if parent < 0 else rigged.offsets[j]).tolist(),
            children=[first + child for child, of in enumerate(PARENTS) if of == j],
        )
        for j, (name, parent) in enumerate(zip(NAMES, PARENTS, strict=True))
    ]
    at_rest = _at_rest(rigged)
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(NAMES), 1, 1))
    inverse[:, 3, :3] = -at_rest  # column-major: the translation is the last row
    joints = list(range(first, first + len(NAMES)))
    document.skins.append(gltf.Skin(joints=joints, skeleton=first, inverseBindMatrices=buffer.add(inverse, "MAT4")))
    vertices, faces, owners = _body(rigged, at_rest)
    bones = np.zeros((len(vertices), 4), np.uint8)
    bones[:, 0] = owners
    weights = np.zeros((len(vertices), 4), np.float32)
    weights[:, 0] = 1
    attributes = gltf.Attributes(
        POSITION=buffer.add(vertices, "VEC3", bounds=True),
        JOINTS_0=buffer.add(bones, "VEC4"),
        WEIGHTS_0=buffer.add(weights, "VEC4"),
    )
    primitive = gltf.Primitive(attributes=attributes, indices=buffer.add(faces, "SCALAR"), material=number)
    document.meshes.append(gltf.Mesh(primitives=[primitive]))
    several = motion.person is not None
    name = f"{motion.name} person {motion.person}" if several else motion.name
    document.nodes.append(gltf.Node(name=name, mesh=number, skin=number))
    roots = [first, first + len(NAMES)]
    if several:  # tools that find bones by name look below this node
        document.nodes.append(gltf.Node(name=f"person {motion.person}", children=roots))
        roots = [first + len(NAMES) + 1]
    _animate(gltf, buffer, animation, first, even.seconds - even.seconds[0], rigged)
    return roots


class _Buffer:
    """The document's binary part, filled array by array; each becomes an accessor, whose number `add` returns."""

    def __init__(self, gltf: ModuleType, document: "GLTF2") -> None:
        self._gltf, self._document, self._parts, self._length = gltf, document, [], 0

    def add(self, array: np.ndarray, kind: str, bounds: bool = False) -> int:
        """Args:
        array: of float32, uint8 or uint16; its first axis counts the elements.
        kind: glTF's name of an element: SCALAR, VEC3, VEC4, MAT4.
        bounds: state its least and greatest values, as positions and times must.
        """
        gltf, content = self._gltf, np.ascontiguousarray(array).tobytes()
        types = {"f": gltf.FLOAT, "B": gltf.UNSIGNED_BYTE, "H": gltf.UNSIGNED_SHORT}
        view = gltf.BufferView(buffer=0, byteOffset=self._length, byteLength=len(content))
        self._document.bufferViews.append(view)
        flat = array.reshape(len(array), -1)
        self._document.accessors.append(
            gltf.Accessor(
                bufferView=len(self._document.bufferViews) - 1,
                componentType=types[array.dtype.char],
                count=len(array),
                type=kind,
                min=flat.min(0).tolist() if bounds else None,
                max=flat.max(0).tolist() if bounds else None,
            )
        )
        padded = content + bytes(-len(content) % 4)
        self._parts.append(padded)
        self._length += len(padded)
        return len(self._document.accessors) - 1

    def close(self) -> bytes:
        self._document.buffers = [self._gltf.Buffer(byteLength=self._length)]
        return b"".join(self._parts)


def _at_rest(rigged: Rigged) -> np.ndarray:
    """(J, 3) m: the joints of the rest pose, about the hips."""
    places = np.zeros((len(NAMES), 3))
    for j, parent in enumerate(PARENTS):
        if parent >= 0:
            places[j] = places[parent] + rigged.offsets[j]
    return places


def _body(rigged: Rigged, at_rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A double pyramid for each bone, in the rest pose.

    Returns:
        (V, 3) float32 vertices m, (F,) uint16 indices of triangles, (V,) the joint that each vertex goes with.
    """
    bones = [(parent, at_rest[parent], at_rest[j]) for j, parent in enumerate(PARENTS) if parent >= 0]
    bones += [
        (NAMES.index(name), at_rest[NAMES.index(name)], at_rest[NAMES.index(name)] + tip)
        for name, tip in rigged.tips.items()
    ]
    bones = [bone for bone in bones if np.linalg.norm(bone[2] - bone[1]) > 1e-3]
    corners = np.array([(0, 4, 1), (0, 1, 2), (0, 2, 3), (0, 3, 4), (5, 1, 4), (5, 2, 1), (5, 3, 2), (5, 4, 3)])
    vertices, faces, owners = [], [], []
    for n, (owner, start, end) in enumerate(bones):
        along = end - start
        side = unit(
            np.cross(along, (0.0, 0.0, 1.0) if abs(along[2]) < 0.9 * np.linalg.norm(along) else (0.0, 1.0, 0.0))
        )
        front = unit(np.cross(along, side))
        radius = max(THICKNESS * np.linalg.norm(along), 0.012)
        ring = start + 0.2 * along + radius * np.array([side, front, -side, -front])
        vertices += [start, *ring, end]
        faces.append(corners + 6 * n)
        owners += [owner] * 6
    return np.array(vertices, np.float32), np.concatenate(faces).astype(np.uint16).ravel(), np.array(owners)


def _animate(
    gltf: ModuleType, buffer: _Buffer, animation: "Animation", first: int, seconds: np.ndarray, rigged: Rigged
) -> None:
    """Rotations of all joints and the root's place, over time (N,), of a skeleton whose nodes begin with number `first`."""
    count, joints = rigged.rotations.shape[:2]
    turns = Rotation.from_matrix(rigged.rotations.reshape(-1, 3, 3)).as_quat().reshape(count, joints, 4)
    # q and −q are one rotation; viewers interpolate between neighbours, so the sign must not jump
    signs = np.where((turns[1:] * turns[:-1]).sum(-1) < 0, -1.0, 1.0)
    turns[1:] *= np.cumprod(signs, axis=0)[..., None]
    times = buffer.add(seconds.astype(np.float32), "SCALAR", bounds=True)

    def track(joint: int, path: str, values: np.ndarray, kind: str) -> None:
        animation.samplers.append(
            gltf.AnimationSampler(input=times, output=buffer.add(values.astype(np.float32), kind))
        )
        target = gltf.AnimationChannelTarget(node=first + joint, path=path)
        animation.channels.append(gltf.AnimationChannel(sampler=len(animation.samplers) - 1, target=target))

    track(0, "translation", rigged.root, "VEC3")
    for joint in range(joints):
        track(joint, "rotation", turns[:, joint], "VEC4")
