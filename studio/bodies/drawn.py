"""A drawn dancer: a skeleton, and around it a smooth mesh with clothes, face and hair. All of it is drawn from one seed.

The surface is the zero set of rounded cones and ellipsoids, blended smoothly within a material and cut sharply between
two (a hem is a real edge), meshed once with marching cubes in an A-pose.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from refiner.geometry import rotation_matrix
from studio import rig
from studio.bodies.body import Body, Marks
from studio.bodies.flesh import face_points, head_scale
from studio.bodies.looks import Build, Look
from studio.bodies.mesh import Mesh
from studio.bodies.meshing import meshed

# Where detectors see a joint, from where the body has it: the left side's (the right's are their mirror images), in the frame
# of a bone that carries it, metres at a height of 1.75 m. Medians over 40 dancers, MediaPipe's image points triangulated from
# nine views (the face's from those it looks at; docs/decisions/studio.md); a single frame is off by a centimetre an axis.
# AIST++'s own truth is triangulated from a detector's points, too.
MARKED: Marks = {
    "nose": (rig.HEAD, (0.0, 0.013, -0.015)),
    "left_eye": (rig.HEAD, (-0.004, 0.010, -0.012)),
    "left_ear": (rig.HEAD, (-0.025, 0.005, 0.021)),
    "left_shoulder": (rig.SPINE3, (0.027, 0.029, 0.007)),
    "left_elbow": (rig.L_SHOULDER, (0.0, -0.002, 0.006)),
    "left_wrist": (rig.L_ELBOW, (-0.001, -0.003, 0.006)),
    "left_hip": (rig.PELVIS, (0.002, -0.022, -0.002)),
    "left_knee": (rig.L_HIP, (0.002, 0.001, 0.005)),
    "left_ankle": (rig.L_KNEE, (-0.003, 0.017, -0.001)),
}


@dataclass(frozen=True)
class Dancer(Body):
    """One drawn body with its clothes."""

    build: Build
    look: Look

    marks = MARKED

    @classmethod
    def draw(cls, seed: int) -> "Dancer":
        rng = np.random.default_rng([seed, 0xB0D7])
        build = Build.draw(rng)
        return cls(build, Look.draw(rng, build.bust))

    @cached_property
    def offsets(self) -> np.ndarray:
        return self.build.offsets()

    @cached_property
    def bind(self) -> tuple[np.ndarray, np.ndarray]:
        """((24, 3, 3), (24, 3)) the A-pose in which the surface is meshed: limbs apart, so that they do not grow together."""
        rotations = np.tile(np.eye(3), (rig.NUM_BONES, 1, 1))
        for side, sign in ((0, 1), (1, -1)):
            rotations[rig.L_COLLAR + side] = rotation_matrix(np.array([0, 0, -0.10 * sign]))
            rotations[rig.L_SHOULDER + side] = rotation_matrix(np.array([0, 0, -0.70 * sign]))
            rotations[rig.L_HIP + side] = rotation_matrix(np.array([0, 0, 0.13 * sign]))
            rotations[rig.L_ANKLE + side] = rotation_matrix(np.array([0, 0, -0.13 * sign]))
        return rig.forward_kinematics(rotations, np.zeros(3), self.offsets)

    @cached_property
    def mesh(self) -> Mesh:
        return meshed(self.build, self.look, self.offsets, self.bind)

    @property
    def head(self) -> tuple[np.ndarray, float]:
        return self.bind[1][rig.HEAD], head_scale(self.build)

    @cached_property
    def face(self) -> dict[str, np.ndarray]:
        return face_points(self.build, self.bind)
