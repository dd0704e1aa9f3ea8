"""The small data sets that the studio's tests are about."""

from studio.dataset import Spec


def spec(**changes) -> Spec:
    """Three sequences of half a second, unless changed."""
    return Spec(**{"sequences": 3, "seconds": 0.5, "fps": 10, "seed": 7, "size": (640, 360)} | changes)
