"""A camera's picture of the room, and the dancer in it, moment after moment."""

from collections.abc import Callable, Sequence

import numpy as np

from refiner.geometry import Camera
from studio.pictures.renderer import Posed, Renderer
from studio.pictures.room import Room


class Set:
    """One camera's picture of the room; only what the last dancer covered is restored before the next."""

    def __init__(self, room: Room, camera: Camera) -> None:
        self.camera, self.tone = camera, room.tones[camera.name]
        self.empty, self.floor_map = room.picture(camera)
        self.image = self.empty.copy()
        self.changed = (0, 0, 0, 0)

    def exposed(self, renderer: Renderer, moments: Sequence[Posed]) -> np.ndarray:
        """(H, W, 3) uint8 the mean picture of one or several moments."""
        return exposed(lambda posed: self.shoot(renderer, posed), moments)

    def shoot(self, renderer: Renderer, posed: Posed) -> np.ndarray:
        """(H, W, 3) uint8 the picture of a moment; the next one is drawn into the same memory."""
        x0, y0, x1, y1 = self.changed
        self.image[y0:y1, x0:x1] = self.empty[y0:y1, x0:x1]
        self.changed = renderer.draw(posed, self.camera, self.tone, self.image, self.floor_map)
        return self.image


def exposed(shoot: Callable[[Posed], np.ndarray], moments: Sequence[Posed]) -> np.ndarray:
    """(H, W, 3) uint8 the mean of the pictures of one or several moments."""
    if len(moments) == 1:
        return shoot(moments[0])
    total = shoot(moments[0]).astype(np.uint16)
    for posed in moments[1:]:
        total += shoot(posed)
    return (total // len(moments)).astype(np.uint8)
