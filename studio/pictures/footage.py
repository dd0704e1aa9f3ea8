"""What a real camera does to a picture: an exposure that takes time, a lens that is not quite in focus, noise, compression."""

import functools
from dataclasses import dataclass

import numpy as np

_SUB_EXPOSURES = 3  # moments that a blurred picture is the mean of
_MARGIN = 64  # pixels by which the noise is larger than a picture, so that each frame sees another part of it


@dataclass(frozen=True, kw_only=True)
class Footage:
    """One camera's faults in one sequence."""

    seed: int
    shutter: float  # share of the time between two frames in which the picture is exposed; 0: a moment
    defocus: float  # standard deviation of the blur, pixels
    noise: float  # standard deviation at middle grey, of 0 … 255
    coarse: float  # size of the noise's grain, pixels
    crf: int  # x264's quality

    @classmethod
    def clean(cls) -> "Footage":
        """A camera without faults."""
        return cls(seed=0, shutter=0.0, defocus=0.0, noise=0.0, coarse=0.0, crf=20)

    @classmethod
    def draw(cls, seed: int, height: int) -> "Footage":
        """The faults of a seed for pictures so many pixels high."""
        rng = np.random.default_rng([seed, 0xF007])
        scale = height / 1080
        return cls(
            seed=seed,
            shutter=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.2 else 0.0,
            defocus=float(rng.choice([0.0, 0.6, 1.3, 2.2], p=[0.45, 0.3, 0.17, 0.08])) * scale,
            noise=float(rng.choice([0.0, 2.0, 4.5, 9.0], p=[0.3, 0.35, 0.25, 0.1]) * rng.uniform(0.7, 1.3)),
            coarse=float(rng.uniform(0.0, 0.9)),
            crf=int(rng.choice([20, 26, 31, 36], p=[0.4, 0.3, 0.2, 0.1])),
        )

    def moments(self, times: np.ndarray, fps: float) -> np.ndarray:
        """(n,) seconds -> (n, m) the moments about each time that its picture is the mean of."""
        if self.shutter == 0:
            return times[:, None]
        steps = (np.arange(_SUB_EXPOSURES) - (_SUB_EXPOSURES - 1) / 2) / _SUB_EXPOSURES
        return np.clip(times[:, None] + self.shutter / fps * steps, times[0], times[-1])

    def spoil(
        self, picture: np.ndarray, frame: int, corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8 -> the same as this camera records it. The same for the same frame number.

        Args:
            picture: the whole of it, or a part.
            frame: its number.
            corner: x, y of a part in the whole, pixels.
            size: width, height of the whole; by default this is it.
        """
        import cv2

        if self.defocus > 0.2:
            picture = cv2.GaussianBlur(picture, (0, 0), self.defocus)
        if self.noise > 0:
            height, width = picture.shape[:2]
            whole_width, whole_height = size or (width, height)
            grain = _noise(self.seed, self.noise, self.coarse, whole_height + _MARGIN, whole_width + _MARGIN)
            x, y = np.random.default_rng([self.seed, frame]).integers(0, _MARGIN, 2) + corner
            picture = cv2.add(picture, grain[y : y + height, x : x + width], dtype=cv2.CV_8U)
        return picture

    @property
    def reach(self) -> int:
        """How many pixels around a pixel have a share in what is recorded of it."""
        return int(np.ceil(4 * self.defocus)) + 1


@functools.lru_cache(maxsize=9)
def _noise(seed: int, deviation: float, coarse: float, height: int, width: int) -> np.ndarray:
    """(H, W, 3) int16: brightness and, less, colour."""
    import cv2

    rng = np.random.default_rng([seed, 0x6A1])
    bright = rng.standard_normal((height, width, 1), np.float32)
    noise = 0.85 * bright + 0.5 * rng.standard_normal((height, width, 3), np.float32)
    if coarse > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), coarse)
        noise /= noise.std()
    return np.rint(deviation * noise).astype(np.int16)
