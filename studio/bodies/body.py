"""What every body has: a skeleton, clothes, a mesh, and joints that are the truth of the pictures."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, Self

import numpy as np

from refiner.skeleton import INDEX, MIRROR, NUM_JOINTS
from studio import rig
from studio.bodies.looks import Look
from studio.bodies.mesh import Mesh

# Joints of the body that are joints of the skeleton, too: COCO's joint -> ours.
_COCO_BONES = {
    "left_shoulder": rig.L_SHOULDER,
    "right_shoulder": rig.R_SHOULDER,
    "left_elbow": rig.L_ELBOW,
    "right_elbow": rig.R_ELBOW,
    "left_wrist": rig.L_WRIST,
    "right_wrist": rig.R_WRIST,
    "left_hip": rig.L_HIP,
    "right_hip": rig.R_HIP,
    "left_knee": rig.L_KNEE,
    "right_knee": rig.R_KNEE,
    "left_ankle": rig.L_ANKLE,
    "right_ankle": rig.R_ANKLE,
}
_MIDDLE = (rig.PELVIS, rig.SPINE1, rig.SPINE2, rig.SPINE3, rig.NECK, rig.HEAD)  # bones of both sides

# For each mark: the bone that carries it, and where it lies from the body's own joint, in that bone's frame, metres at a height
# of 1.75 m. Of the left side: the right one's are the mirror images.
Marks = dict[str, tuple[int, tuple[float, float, float]]]


def both_sides(marks: Marks) -> tuple[np.ndarray, np.ndarray]:
    """Marks of the left side -> (17,) bones and (17, 3) metres at 1.75 m, of all joints."""
    bones, offsets = np.empty(NUM_JOINTS, dtype=int), np.empty((NUM_JOINTS, 3))
    for name, (bone, offset) in marks.items():
        joint = INDEX[name]
        bones[joint], offsets[joint] = bone, offset
        if (twin := MIRROR[joint]) != joint:
            bones[twin] = bone if bone in _MIDDLE else bone + 1
            offsets[twin] = np.array(offset) * (-1, 1, 1)
    return bones, offsets


# Points of the average head, metres from the head's joint. The paint of the drawn faces uses them, too.
EYE = np.array([0.0315, 0.108, 0.083])
MOUTH = np.array([0.0, 0.035, 0.09])
BROW_Y = 0.128


class Measures(Protocol):
    """What motion and clothes want to know of a body."""

    @property
    def height(self) -> float:
        """Metres."""
        ...

    @property
    def sole(self) -> float:
        """Height of the ankle joint above the sole, metres."""
        ...

    @property
    def bust(self) -> float:
        """0 … 1."""
        ...


@dataclass(frozen=True)
class Body(ABC):
    """One body with its clothes."""

    build: Measures
    look: Look

    marks: ClassVar[Marks]
    """Where detectors see its joints, from where it has them."""

    @classmethod
    @abstractmethod
    def draw(cls, seed: int) -> Self:
        """The body of a seed."""

    @cached_property
    @abstractmethod
    def offsets(self) -> np.ndarray:
        """(24, 3) the skeleton: each joint relative to its parent in the zero pose, metres."""

    @cached_property
    @abstractmethod
    def bind(self) -> tuple[np.ndarray, np.ndarray]:
        """((24, 3, 3), (24, 3)) the pose in which the surface is meshed."""

    @cached_property
    @abstractmethod
    def mesh(self) -> Mesh:
        """The surface in the bind pose."""

    @property
    @abstractmethod
    def head(self) -> tuple[np.ndarray, float]:
        """Where the paint's average head has its origin in the bind pose (metres), and how much larger than it this one is."""

    @cached_property
    @abstractmethod
    def face(self) -> dict[str, np.ndarray]:
        """Nose, eyes (on the surface) and ears in the head's frame, metres."""

    def joints(self, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
        """(..., 24, 3, 3), (..., 24, 3) -> (..., 17, 3) the COCO joints as the body has them, metres, world: joints of the
        skeleton, and points on the bare head.
        """
        poses = np.empty((*placed.shape[:-2], NUM_JOINTS, 3))
        for name, bone in _COCO_BONES.items():
            poses[..., INDEX[name], :] = placed[..., bone, :]
        for name, local in self.face.items():
            poses[..., INDEX[name], :] = placed[..., rig.HEAD, :] + turned[..., rig.HEAD, :, :] @ local
        return poses

    def marked(self, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
        """The same as detectors see them: the truth of what is rendered."""
        bones, offsets = both_sides(self.marks)
        scale = self.build.height / 1.75
        return self.joints(turned, placed) + (turned[..., bones, :, :] @ (offsets * scale)[..., None])[..., 0]
