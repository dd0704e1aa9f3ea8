"""Who is who: the tracks of several people in a video become people with numbers that survive crossings and absences.

An estimator follows each person from frame to frame and begins a new track wherever it is doubtful whom it follows (see
`base.Sighting`). When the whole video is seen, each track is given to the person whose clothes it wears and who was near when
it began: a whole track says more about colours than the frame in which it begins.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from refiner.estimators.base import Observation, Sighting
from refiner.skeleton import HIPS, INDEX, to_coco

# Parts of the body whose colours tell people apart, each by the joints between which it is sampled.
PARTS = (
    ("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"),
    ("left_hip", "left_knee"), ("right_hip", "right_knee"), ("left_knee", "left_ankle"), ("right_knee", "right_ankle"),
    ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"), ("left_ear", "right_ear"),
)  # fmt: skip
_ENDS = np.array([[INDEX[a], INDEX[b]] for a, b in PARTS])  # (P, 2)
_ALONG = np.linspace(0.15, 0.85, 9)
SURE = 0.5  # visibility from which a joint's part is sampled
# Cost of giving a track to a person: colours in units of a difference that is plain to see (CIELAB); the way from where the
# person was last, in body sizes, which counts less the longer ago that is; a person not seen before.
COLOUR_STEP, WAY, WAY_FADES_S, NEW = 30.0, 0.25, 1.0, 0.6
# Shorter tracks are nobody: a detector's mistake, or a limb of somebody else.
LEAST_S = 0.1
# Longer ones say who they are. They are given out first, the others fill the gaps.
LONG_S = 0.5


def colours(picture: np.ndarray, points: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """What a person wears: the median colour of each of `PARTS`.

    Args:
        picture: (H, W, 3) uint8 RGB.
        points: (33 or 17, 2) pixels of it.
        visibility: (33 or 17,).

    Returns:
        (P, 3) CIELAB; NaN where a part is not seen, or outside the picture.
    """
    ends, sure = to_coco(points)[_ENDS], to_coco(visibility[:, None])[_ENDS, 0]  # (P, 2, 2), (P, 2)
    places = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * _ALONG[None, :, None]  # (P, 9, 2)
    x, y = np.moveaxis(np.rint(places).astype(int), -1, 0)
    height, width = picture.shape[:2]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    samples = picture[y.clip(0, height - 1), x.clip(0, width - 1)]
    lab = cv2.cvtColor(samples.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    seen = inside.all(1) & (sure >= SURE).all(1)
    return np.where(seen[:, None], np.median(lab, axis=1), np.nan)


def size_of(points: np.ndarray) -> float:
    """The larger side of the box around joints (17, 2), pixels."""
    return max(float(np.ptp(points, axis=0).max()), 1.0)


@dataclass(frozen=True, slots=True)
class _Track:
    number: int
    rows: np.ndarray  # frames, rising
    first: np.ndarray  # (2,) pixels, the hips at its start
    last: np.ndarray  # at its end
    size: float  # pixels
    colours: np.ndarray  # (P, 3) median over its frames; NaN where never seen
    begins_s: float
    ends_s: float

    @classmethod
    def of(cls, number: int, seen: Sequence[tuple[int, Sighting]], seconds: np.ndarray) -> "_Track":
        rows = np.array([row for row, _ in seen])
        joints = [to_coco(sighting.seen.image) for _, sighting in seen]
        worn = [sighting.colours for _, sighting in seen if sighting.colours is not None]
        return cls(
            number, rows, joints[0][HIPS, :].mean(0), joints[-1][HIPS, :].mean(0),
            float(np.median([size_of(points) for points in joints])), _median(worn),
            float(seconds[rows[0]]), float(seconds[rows[-1]]),
        )  # fmt: skip


@dataclass(slots=True)
class _Person:
    tracks: list[_Track]

    @property
    def colours(self) -> np.ndarray:
        """(P, 3) of all tracks, each counting by its length."""
        worn = np.stack([track.colours for track in self.tracks])  # (T, P, 3)
        weights = np.array([len(track.rows) for track in self.tracks])[:, None, None] * np.isfinite(worn)
        total = weights.sum(0)
        return np.where(total > 0, np.nansum(worn * weights, axis=0) / np.maximum(total, 1), np.nan)

    def cost(self, track: _Track, scenes: np.ndarray) -> float:
        """Of giving them that track; infinite where they are somewhere else at that time."""
        if np.isin(track.rows, np.concatenate([own.rows for own in self.tracks])).any():
            return np.inf
        before = [own for own in self.tracks if own.rows[-1] < track.rows[0]]
        after = [own for own in self.tracks if own.rows[0] > track.rows[-1]]
        ways = [way(max(before, key=lambda own: own.ends_s), track, scenes)] if before else []
        ways += [way(track, min(after, key=lambda own: own.begins_s), scenes)] if after else []
        return difference(self.colours, track.colours) / COLOUR_STEP + WAY * max(ways, default=0.0)


def way(one: _Track, other: _Track, scenes: np.ndarray) -> float:
    """From the end of a track to the beginning of another, in body sizes; the less the longer that took, 0 across scenes."""
    if scenes[one.rows[-1]] != scenes[other.rows[0]]:
        return 0.0
    distance = float(np.linalg.norm(other.first - one.last)) / min(one.size, other.size)
    return min(distance, 2.0) * float(np.exp((one.ends_s - other.begins_s) / WAY_FADES_S))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """How far two people's colours (P, 3) are apart: the mean over the parts that both show; 0 where there is none."""
    apart = np.linalg.norm(a - b, axis=-1)
    return float(np.nanmean(apart)) if np.isfinite(apart).any() else 0.0


def told_apart(
    frames: Sequence[Sequence[Sighting]], timestamp_us: np.ndarray, begins: np.ndarray, most: int
) -> list[list[Observation | None]]:
    """The people of a video.

    Args:
        frames: who was seen in each of F frames.
        timestamp_us: (F,) rising.
        begins: (F,) whether a scene begins with the frame.
        most: people that there are, at most.

    Returns:
        For each person, numbered by when they are first seen and then from the left, F observations; None where they are not
        seen. One person at least, who may be seen nowhere.
    """
    seconds, scenes = np.asarray(timestamp_us) * 1e-6, np.cumsum(np.asarray(begins, dtype=int))
    by_number: dict[int, list[tuple[int, Sighting]]] = {}
    for row, sightings in enumerate(frames):
        for sighting in sightings:
            by_number.setdefault(sighting.track, []).append((row, sighting))
    tracks = [_Track.of(number, seen, seconds) for number, seen in by_number.items()]
    length = float(seconds[-1] - seconds[0]) if len(seconds) else 0.0
    long = [track for track in tracks if track.ends_s - track.begins_s >= min(LEAST_S, length / 2)]
    people: list[_Person] = []
    # those that begin together are given out together, so that two who separate get one person each
    order = sorted(
        long or tracks, key=lambda track: (track.ends_s - track.begins_s < LONG_S, track.rows[0], track.first[0])
    )
    for _, together in itertools.groupby(order, key=lambda track: track.rows[0]):
        _give(list(together), people, scenes, most)
    people.sort(key=lambda person: min((track.rows[0], track.first[0]) for track in person.tracks))
    seen: list[list[Observation | None]] = [[None] * len(frames) for _ in range(max(len(people), 1))]
    for person, observations in zip(people, seen, strict=False):
        for track in person.tracks:
            for row, sighting in by_number[track.number]:
                observations[row] = sighting.seen
    return seen


def _give(tracks: list[_Track], people: list[_Person], scenes: np.ndarray, most: int) -> None:
    """Tracks that begin in one frame to people, at the least cost together. Nobody gets what there is nobody for."""
    unknown = most - len(people)
    costs = np.full((len(tracks), len(people) + unknown), NEW)
    for row, track in enumerate(tracks):
        costs[row, : len(people)] = [person.cost(track, scenes) for person in people]
    given = set()
    for row, column in zip(*linear_sum_assignment(np.where(np.isfinite(costs), costs, 1e6)), strict=True):
        if column < len(people) and np.isfinite(costs[row, column]):
            people[column].tracks.append(tracks[row])
            given.add(row)
    people += [_Person([track]) for row, track in enumerate(tracks) if row not in given][:unknown]


def _median(colours: Sequence[np.ndarray]) -> np.ndarray:
    """(P, 3) over many of them, NaN where none shows a part."""
    if not colours:
        return np.full((len(PARTS), 3), np.nan)
    stacked = np.stack(colours)
    shown = np.isfinite(stacked).any(0)
    return np.where(shown, np.nanmedian(np.where(shown, stacked, 0.0), axis=0), np.nan)
