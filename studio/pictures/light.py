"""What lights a room, and how a camera turns light into the values of a picture."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Light:
    """What lights a room. Directions point to the light; intensities are linear."""

    key_direction: np.ndarray  # (3,) unit
    key: np.ndarray  # (3,) colour times intensity
    sky: np.ndarray  # (3,) from above
    ground: np.ndarray  # (3,) from the floor
    fill_direction: np.ndarray  # (3,) unit
    fill: np.ndarray  # (3,)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Light":
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(48, 68))
        warm = rng.uniform(-1, 1)
        tint = np.array([1 + 0.06 * warm, 1.0, 1 - 0.08 * warm])
        key, ambient = rng.uniform(0.55, 0.85), rng.uniform(0.36, 0.52)

        def towards(azimuth: float, elevation: float) -> np.ndarray:
            return np.array(
                [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
            )

        return cls(
            key_direction=towards(azimuth, elevation),
            key=key * tint,
            sky=ambient * np.array([1.0, 1.01, 1.03]),
            ground=ambient * 0.55 * tint,
            fill_direction=towards(azimuth + np.pi * rng.uniform(0.7, 1.3), np.radians(25)),
            fill=rng.uniform(0.12, 0.25) * np.array([0.97, 1.0, 1.05]),
        )


def tone_curve(exposure: float = 1.0, tint: np.ndarray | float = 1.0, contrast: float = 1.0) -> np.ndarray:
    """(3, 4096) for red, green, blue: linear light 0 … 2 -> sRGB 0 … 255, with a shoulder instead of a clipped white.

    Args:
        exposure: what light is multiplied by.
        tint: the same for each colour (3,): a white balance that is off.
        contrast: exponent about a middle grey.
    """
    x = np.arange(4096) / 2048 * exposure * (np.ones(3) * tint)[:, None]
    x = 0.2 * (x / 0.2) ** contrast
    x = np.where(x < 0.6, x, 0.6 + 0.4 * np.tanh((x - 0.6) / 0.4 * 0.85))
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255
