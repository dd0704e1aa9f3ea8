"""From the landmark network's answer to a pose: what MediaPipe's PoseLandmarksDetectorGraph does with it.

Constants are those of mediapipe/tasks/cc/vision/pose_landmarker/pose_landmarks_detector_graph.cc.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner.estimators.base import Observation
from refiner.estimators.blazepose.crop import Region
from refiner.estimators.blazepose.engine import Engine
from refiner.skeleton import LANDMARK_MIRROR, NUM_LANDMARKS

SIZE = 256  # of the network's input, pixels
MIN_PRESENCE = 0.5
_POINTS = 39  # that the network gives; 33 are the body's, the next two say where the next crop is
_AUXILIARY = slice(NUM_LANDMARKS, NUM_LANDMARKS + 2)
_USED = NUM_LANDMARKS + 2
_HEATMAP = 64
REACH = 3  # cells of the heatmap that count, to each side of a point
MIN_CONFIDENCE = 0.5  # of the heatmap's maximum: below, a point stays where it is


@dataclass(frozen=True, slots=True)
class Answer:
    """What the landmark network says of one crop."""

    landmarks: np.ndarray  # (195,) x, y, z in pixels of the crop, logits of visibility and presence, of 39 points
    presence: float  # of a person, 0 … 1
    heatmap: np.ndarray  # (64, 64, 39) logits
    world: np.ndarray  # (117,) metres, in the axes of the crop


def answered(look: Engine, pictures: np.ndarray) -> list[Answer]:
    """What the landmark network says of each picture, (N, 256, 256, 3)."""
    if not len(pictures):
        return []
    points, presence, _, heatmap, world = look(pictures)  # the third is the segmentation
    return [Answer(points[i], float(presence[i, 0]), heatmap[i], world[i]) for i in range(len(pictures))]


@dataclass(frozen=True, slots=True)
class Look:
    """A pose as one crop shows it, in the crop's axes."""

    world: np.ndarray  # (33, 3) metres
    points: np.ndarray  # (35, 2) of the crop, 0 … 1; the last two say where the next crop is
    visibility: np.ndarray  # (33,) 0 … 1
    presence: np.ndarray  # (33,) 0 … 1


def decoded(answer: Answer) -> Look:
    """The network's numbers as a pose."""
    values = answer.landmarks.reshape(_POINTS, 5)[:_USED]
    sure = 1 / (1 + np.exp(-values[:NUM_LANDMARKS, 3:]))
    return Look(
        world=answer.world.reshape(_POINTS, 3)[:NUM_LANDMARKS],
        points=refined(values[:, :2] / SIZE, answer.heatmap),
        visibility=sure[:, 0],
        presence=sure[:, 1],
    )


def refined(points: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Points (35, 2), 0 … 1, moved to the centre of mass of the heatmap around them, where it is sure enough.

    MediaPipe's RefineLandmarksFromHeatmapCalculator, which lets points below the heatmap pass where those beside it do not.
    """
    cells = np.trunc(points * _HEATMAP).astype(int)
    around = np.arange(-REACH, REACH + 1)
    columns, rows = cells[:, 0, None] + around, cells[:, 1, None] + around  # (35, 7)
    inside_x, inside_y = (columns >= 0) & (columns < _HEATMAP), (rows >= 0) & (rows < _HEATMAP)
    logits = heatmap[
        rows.clip(0, _HEATMAP - 1)[:, :, None],
        columns.clip(0, _HEATMAP - 1)[:, None, :],
        np.arange(len(points))[:, None, None],
    ]
    weights = inside_y[:, :, None] * inside_x[:, None, :] / (1 + np.exp(-logits))  # (35, 7, 7)
    by_column, by_row = weights.sum(1), weights.sum(2)
    total = by_row.sum(1)
    sure = (weights.max((1, 2)) >= MIN_CONFIDENCE) & (total > 0)
    sure &= (cells[:, 0] >= 0) & (cells[:, 0] < _HEATMAP) & (cells[:, 1] >= 0)
    moved = points.copy()
    moved[sure, 0] = (by_column * columns).sum(1)[sure] / total[sure] / _HEATMAP
    moved[sure, 1] = (by_row * rows).sum(1)[sure] / total[sure] / _HEATMAP
    return moved


def unmirrored(look: Look) -> Look:
    """A pose in the mirrored crop as it is in the crop itself: right is left again, and x the other way round."""
    order = np.concatenate([LANDMARK_MIRROR, np.arange(NUM_LANDMARKS, _USED)])
    points = look.points[order]
    points[:, 0] = (SIZE - 1) / SIZE - points[:, 0]  # the first column of pixels becomes the last
    return Look(
        world=look.world[LANDMARK_MIRROR] * np.array([-1, 1, 1], dtype=np.float32),
        points=points,
        visibility=look.visibility[LANDMARK_MIRROR],
        presence=look.presence[LANDMARK_MIRROR],
    )


def mean(looks: list[Look]) -> Look:
    """What several looks say on average."""
    if len(looks) == 1:
        return looks[0]
    return Look(*(np.mean([getattr(look, part) for look in looks], axis=0) for part in Look.__slots__))


def observation(look: Look, region: Region, looks: Sequence[Look]) -> Observation:
    """A pose in the picture's axes, pixels and metres; of two looks also by how much they differ."""
    return Observation(
        world=region.turned(look.world).astype(np.float32),
        image=region.to_picture(look.points[:NUM_LANDMARKS]).astype(np.float32),
        visibility=look.visibility.astype(np.float32),
        presence=look.presence.astype(np.float32),
        looks_differ=region.turned(looks[0].world - looks[1].world).astype(np.float32) if len(looks) == 2 else None,
    )


def next_region(look: Look, region: Region) -> Region:
    """Where the person will be in the next picture."""
    return Region.around(*region.to_picture(look.points[_AUXILIARY]))
