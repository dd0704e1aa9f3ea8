"""MediaPipe's filters over time: they steady a live picture, and lag behind it.

One-Euro as in mediapipe/util/filtering/one_euro_filter.cc, with the settings of pose_landmarks_detector_graph.cc.
"""

import dataclasses

import numpy as np

from refiner.estimators.base import Observation

_FREQUENCY = 30.0  # Hz, until two timestamps say otherwise
_VISIBILITY_SHARE = 0.1  # of a new visibility in the filtered one


class LowPass:
    """Exponential smoothing of an array, in single precision as MediaPipe's."""

    def __init__(self) -> None:
        self.raw: np.ndarray | None = None  # the last value that came in
        self._smoothed: np.ndarray | None = None

    def __call__(self, value: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
        """`alpha` is the share of the new value."""
        value = np.asarray(value, dtype=np.float32)
        if self._smoothed is None:
            smoothed = value
        else:
            alpha = np.asarray(alpha, dtype=np.float32)
            smoothed = (alpha * value + (1.0 - alpha.astype(np.float64)) * self._smoothed).astype(np.float32)
        self.raw, self._smoothed = value, smoothed
        return smoothed


class OneEuro:
    """Smooths what is at rest, and lets through what moves fast (Casiez et al., CHI 2012)."""

    def __init__(self, min_cutoff: float, beta: float, derivative_cutoff: float = 1.0) -> None:
        """Args:
        min_cutoff: Hz, at rest.
        beta: how much the cut-off rises with speed.
        derivative_cutoff: Hz, for the speed itself.
        """
        self._min_cutoff, self._beta, self._derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self._value, self._speed = LowPass(), LowPass()
        self._frequency, self._last_us = _FREQUENCY, -1

    def __call__(self, value: np.ndarray, timestamp_us: int, scale: float = 1.0) -> np.ndarray:
        """
        Args:
            value: any shape, the same each time.
            timestamp_us: rising.
            scale: the speed counts that many times: 1 / the person's size makes it a speed in persons a second.
        """
        if timestamp_us <= self._last_us:
            return value
        # MediaPipe takes a last timestamp of 0 for none: after a first frame at 0 one step counts as 1/30 s
        if self._last_us > 0:
            self._frequency = 1e6 / (timestamp_us - self._last_us)
        self._last_us = timestamp_us
        value = np.asarray(value, dtype=np.float32)
        change = np.zeros_like(value, dtype=np.float64)
        if self._value.raw is not None:
            change = (value.astype(np.float64) - self._value.raw) * scale * self._frequency
        speed = self._speed(change, self._alpha(self._derivative_cutoff))
        cutoff = self._min_cutoff + self._beta * np.abs(speed.astype(np.float64))
        return self._value(value, self._alpha(cutoff))

    def _alpha(self, cutoff: np.ndarray | float) -> np.ndarray | float:
        return 1.0 / (1.0 + self._frequency / (2 * np.pi * cutoff))


class Filters:
    """Of one person, for as long as they are tracked."""

    def __init__(self) -> None:
        self._visibility = LowPass()
        self._world = OneEuro(min_cutoff=0.1, beta=40.0)
        self._image = OneEuro(min_cutoff=0.05, beta=80.0)

    def __call__(self, seen: Observation, timestamp_us: int, side: float) -> Observation:
        """
        Args:
            seen: the unfiltered observation.
            timestamp_us: of the frame.
            side: of the crop in which the person will be looked for next, pixels.
        """
        return dataclasses.replace(
            seen,
            world=self._world(seen.world, timestamp_us),
            image=self._image(seen.image, timestamp_us, 1 / side),
            visibility=self._visibility(seen.visibility, _VISIBILITY_SHARE),
        )
