"""The skeleton of a dancer: SMPL's tree of 24 joints, and where it puts them.

Its zero pose is SMPL's, too (a T, every bone's axes along the world's: x to the dancer's left, y up, z forwards), so that
joint rotations are `smpl_poses` as they stand.
"""

import numpy as np

PELVIS, L_HIP, R_HIP, SPINE1, L_KNEE, R_KNEE, SPINE2, L_ANKLE, R_ANKLE, SPINE3, L_FOOT, R_FOOT = range(12)
NECK, L_COLLAR, R_COLLAR, HEAD, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST, L_HAND, R_HAND = range(
    12, 24
)
NUM_BONES = 24
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])


def forward_kinematics(rotations: np.ndarray, root: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint rotations -> where every bone is.

    Args:
        rotations: (..., 24, 3, 3), each relative to its parent; the pelvis' to the world.
        root: (..., 3) the pelvis in the world, metres.
        offsets: (24, 3) each joint relative to its parent in the zero pose, metres.

    Returns:
        (..., 24, 3, 3) rotations and (..., 24, 3) positions, both in the world.
    """
    turned, placed = np.empty_like(rotations), np.empty((*rotations.shape[:-2], 3))
    for bone, parent in enumerate(PARENTS):
        if parent < 0:
            turned[..., bone, :, :], placed[..., bone, :] = rotations[..., bone, :, :], root
        else:
            turned[..., bone, :, :] = turned[..., parent, :, :] @ rotations[..., bone, :, :]
            placed[..., bone, :] = placed[..., parent, :] + turned[..., parent, :, :] @ offsets[bone]
    return turned, placed
