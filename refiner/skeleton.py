"""COCO-17, the skeleton of AIST++ and of everything in this project; and how MediaPipe's 33 landmarks map onto it.

The only place that knows a joint's number, and how many there are. Everybody else imports the names.
"""

import numpy as np

# Joints without a side first, then left and right in turn: the network exchanges neighbours (`refiner.model.inputs.exchanged`).
JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
NUM_JOINTS = len(JOINTS)
INDEX = {name: i for i, name in enumerate(JOINTS)}

LEFT_SHOULDER, RIGHT_SHOULDER = INDEX["left_shoulder"], INDEX["right_shoulder"]
LEFT_HIP, RIGHT_HIP = INDEX["left_hip"], INDEX["right_hip"]
HIPS = (LEFT_HIP, RIGHT_HIP)
NOT_HIPS = tuple(i for i in range(NUM_JOINTS) if i not in HIPS)

# MIRROR[i] is the joint that joint i becomes in a mirror; an involution.
MIRROR = np.array(
    [
        INDEX[
            name.replace("left", "right")
            if name.startswith("left")
            else name.replace("right", "left")
            if name.startswith("right")
            else name
        ]
        for name in JOINTS
    ]
)
NUM_SIDELESS = int((np.arange(NUM_JOINTS) == MIRROR).sum())

# Bones whose length a body keeps while it moves. The face is left out: MediaPipe's eyes and ears are no landmarks of a
# rigid head, and a bone-length figure that mixes millimetres of face with centimetres of thigh says nothing.
_BONE_NAMES = (
    ("left_shoulder", "left_elbow"),
    ("right_shoulder", "right_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"),
    ("right_hip", "right_knee"),
    ("left_knee", "left_ankle"),
    ("right_knee", "right_ankle"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
)
BONES = np.array([(INDEX[a], INDEX[b]) for a, b in _BONE_NAMES])  # (12, 2) parent, child
LIMBS = BONES[:8]  # (8, 2) upper arms, forearms, thighs, shanks
# Rows of BONES that are each other's mirror image: the same length in any body.
SYMMETRIC_BONES = np.array([(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)])
# What is drawn: the bones and the lines of the face.
DRAWN = np.concatenate(
    [
        BONES,
        [
            (INDEX[a], INDEX[b])
            for a, b in (
                ("nose", "left_eye"),
                ("nose", "right_eye"),
                ("left_eye", "left_ear"),
                ("right_eye", "right_ear"),
            )
        ],
    ]
)

NUM_LANDMARKS = 33
# MediaPipe's landmark of each COCO joint (its "inner" and "outer" eye corners, mouth, hands and feet have none).
FROM_MEDIAPIPE = np.array([0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
EARS, MOUTH, HEELS, TOES = [7, 8], [9, 10], [29, 30], [31, 32]  # MediaPipe's left and right ones

# The joint with which each of MediaPipe's landmarks moves when joints are moved: eye corners with their eye, the mouth with the
# nose, fingers with their wrist, heels and toes with their ankle; a landmark that is a joint with itself.
_CARRIERS = (
    "nose", *("left_eye",) * 3, *("right_eye",) * 3, "left_ear", "right_ear", "nose", "nose",
    *(f"{side}_{joint}" for joint in ("shoulder", "elbow", *("wrist",) * 4, "hip", "knee", *("ankle",) * 3)
      for side in ("left", "right")),
)  # fmt: skip
CARRIED_BY = np.array([INDEX[name] for name in _CARRIERS])  # (33,) COCO joints

# LANDMARK_MIRROR[i] is MediaPipe's landmark that landmark i becomes in a mirror: the eyes in threes, the rest in pairs.
LANDMARK_MIRROR = np.array([0, 4, 5, 6, 1, 2, 3, *(i + 1 if i % 2 else i - 1 for i in range(7, NUM_LANDMARKS))])


def to_coco(landmarks: np.ndarray) -> np.ndarray:
    """MediaPipe's landmarks as COCO-17 joints.

    Args:
        landmarks: (..., 33, C) or (..., 17, C); the latter is handed back as it is.

    Returns:
        (..., 17, C), the same units and frame.
    """
    if landmarks.shape[-2] == NUM_JOINTS:
        return landmarks
    if landmarks.shape[-2] != NUM_LANDMARKS:
        raise ValueError(
            f"a pose has {NUM_JOINTS} (COCO) or {NUM_LANDMARKS} (MediaPipe) joints, not {landmarks.shape[-2]}"
        )
    return landmarks[..., FROM_MEDIAPIPE, :]


def hips_midpoint(poses: np.ndarray) -> np.ndarray:
    """(..., 17, 3) -> (..., 1, 3): the root of every pose in this project."""
    # two slices and a sum: a fifth of the time of indexing and mean(), which a single pose over HTTP feels
    return (poses[..., LEFT_HIP : LEFT_HIP + 1, :] + poses[..., RIGHT_HIP : RIGHT_HIP + 1, :]) / 2


def root_centred(poses: np.ndarray) -> np.ndarray:
    """(..., 17, 3) -> the same with the hips' midpoint at the origin."""
    return poses - hips_midpoint(poses)


def middle(poses: np.ndarray, joint: str) -> np.ndarray:
    """(N, 17, 3) -> (N, 3) half way between the left and the right one."""
    return (poses[:, INDEX[f"left_{joint}"]] + poses[:, INDEX[f"right_{joint}"]]) / 2
