"""Finding a person in a whole picture: what MediaPipe's PoseDetectorGraph makes of the detector network's answer.

Constants are those of mediapipe/tasks/cc/vision/pose_detector/pose_detector_graph.cc.
"""

import numpy as np

from refiner.estimators.blazepose.crop import Region

SIZE = 224  # of the network's input, pixels
_LAYERS = ((8, 2), (16, 2), (32, 6))  # stride in pixels, anchors a cell
_MIN_SCORE = 0.5
_SAME_PERSON = 0.3  # boxes that overlap more (intersection over union) are one person


def _anchors() -> np.ndarray:
    """Centres of the 2,254 anchors, (2254, 2) of x, y in 0 … 1; all have the size of the picture."""
    centres = []
    for stride, each in _LAYERS:
        along = (np.arange(SIZE // stride) + 0.5) * stride / SIZE
        y, x = np.meshgrid(along, along, indexing="ij")
        centres.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0))
    return np.concatenate(centres).astype(np.float32)


class Detector:
    """Turns the detector network's answer into the regions of the people in it."""

    def __init__(self) -> None:
        self._anchors = _anchors()

    def regions(self, boxes: np.ndarray, scores: np.ndarray, whole: Region, most: int = 1) -> list[Region]:
        """The most certain people, the most certain first.

        Args:
            boxes: (2254, 12) x, y, width, height and four key points, in pixels from each anchor.
            scores: (2254, 1) logits.
            whole: the region that was looked at.
            most: so many at most.
        """
        certainty = 1 / (1 + np.exp(-np.clip(scores[:, 0].astype(np.float64), -100, 100)))
        likely = (certainty >= _MIN_SCORE) & (boxes[:, 2] >= 0) & (boxes[:, 3] >= 0)
        boxes, certainty, anchors = boxes[likely] / SIZE, certainty[likely], self._anchors[likely]
        centres, sizes = boxes[:, :2] + anchors, boxes[:, 2:4]
        points = boxes[:, 4:].reshape(-1, 4, 2) + anchors[:, None]
        left, people = np.ones(len(boxes), dtype=bool), []
        while left.any() and len(people) < most:
            # weighted non-maximum suppression: what overlaps with the best one votes
            best = int(np.where(left, certainty, -1).argmax())
            same = left & (_overlap(centres, sizes, best) > _SAME_PERSON)
            same[best] = True
            middle, top = np.average(points[same, :2], axis=0, weights=certainty[same])
            people.append(Region.around(whole.to_picture(middle), whole.to_picture(top)))
            left &= ~same
        return [person for person in people if person.usable]


def _overlap(centres: np.ndarray, sizes: np.ndarray, one: int) -> np.ndarray:
    """(N,) how much boxes overlap with one of them: intersection over union."""
    low = np.maximum(centres - sizes / 2, centres[one] - sizes[one] / 2)
    high = np.minimum(centres + sizes / 2, centres[one] + sizes[one] / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = np.prod(sizes, axis=-1)
    return shared / np.maximum(areas + areas[one] - shared, np.finfo(np.float32).tiny)
