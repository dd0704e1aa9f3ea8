"""Smoothing for live poses: of each frame only the past is known. Numpy; many streams at once, a row of state for each.

`temporal` smooths whole clips and looks ahead. What this one costs beside it is measured by `benchmarks.causal`.
"""

from dataclasses import dataclass

import numpy as np

from refiner.skeleton import BONES, NUM_JOINTS, root_centred
from refiner.temporal import keep_bone_lengths

# Longer without a frame, and a stream begins anew: what came before says nothing of what comes.
GAP_S = 0.5
# Frames that a bone's length is the mean of, at most: then older ones fade.
BONE_FRAMES = 120
# Of `keep_bone_lengths`: more make no bone more even here, where the lengths are those of the frames just before.
ROUNDS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class OneEuroSettings:
    """A low pass whose cut-off rises with a joint's speed (Casiez et al., CHI 2012)."""

    min_cutoff: float = 1.5  # Hz, at rest
    beta: float = 3.0  # Hz for each metre a second
    speed_cutoff: float = 1.0  # Hz, of the speed itself


class LiveSmoother:
    """One-Euro filters of up to so many streams, and bones of the mean length that they had so far.

    A joint's three coordinates share one cut-off, by its speed in space: filtered each for itself they would lag differently,
    and a straight movement would become a curve.
    """

    def __init__(self, streams: int, settings: OneEuroSettings = OneEuroSettings()) -> None:
        self._settings = settings
        self._raw, self._smoothed, self._speed = (np.zeros((streams, NUM_JOINTS, 3)) for _ in range(3))
        self._seconds = np.full(streams, -np.inf)
        self._lengths = np.zeros((streams, len(BONES)))
        self._counted = np.zeros(streams)

    def begin(self, row: int) -> None:
        """The stream in this row is a new one."""
        self._seconds[row], self._counted[row] = -np.inf, 0

    def __call__(self, rows: np.ndarray, poses: np.ndarray, seconds: np.ndarray, keep_bones: bool) -> np.ndarray:
        """The next frame of each of some streams.

        Args:
            rows: (N,) of the streams, each once.
            poses: (N, 17, 3) m, root-centred.
            seconds: (N,) when, rising in each stream.
            keep_bones: level the lengths of the bones, too.

        Returns:
            (N, 17, 3) float32 m, root-centred.
        """
        step = seconds - self._seconds[rows]
        begins = ~(step < GAP_S)
        self._counted[rows[begins]] = 0
        step = np.where(begins, 1.0, np.maximum(step, 1e-4))[:, None, None]
        speed = np.where(begins[:, None, None], 0.0, (poses - self._raw[rows]) / step)
        before = np.where(begins[:, None, None], 0.0, self._speed[rows])
        speed = before + self._share(self._settings.speed_cutoff, step) * (speed - before)
        cutoff = self._settings.min_cutoff + self._settings.beta * np.linalg.norm(speed, axis=-1, keepdims=True)
        last = np.where(begins[:, None, None], poses, self._smoothed[rows])
        smoothed = last + self._share(cutoff, step) * (poses - last)
        self._raw[rows], self._speed[rows], self._smoothed[rows] = poses, speed, smoothed
        self._seconds[rows] = seconds
        if keep_bones:
            smoothed = root_centred(keep_bone_lengths(smoothed, self._bones(rows, smoothed), ROUNDS))
        return smoothed.astype(np.float32)

    def _bones(self, rows: np.ndarray, poses: np.ndarray) -> np.ndarray:
        """(N, B) m, the mean lengths with these frames."""
        now = np.linalg.norm(poses[:, BONES[:, 0]] - poses[:, BONES[:, 1]], axis=-1)
        count = np.minimum(self._counted[rows] + 1, BONE_FRAMES)
        before = np.where(self._counted[rows, None] > 0, self._lengths[rows], now)
        lengths = before + (now - before) / count[:, None]
        self._lengths[rows], self._counted[rows] = lengths, count
        return lengths

    @staticmethod
    def _share(cutoff: np.ndarray | float, step: np.ndarray) -> np.ndarray:
        """Of the new value, with so many Hz and after so many seconds."""
        return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
