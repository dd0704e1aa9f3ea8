"""A camera's picture of the room, and the dancer in it, moment after moment."""

from collections.abc import Callable, Sequence

import numpy as np

from refiner.geometry import Camera
from studio.pictures.renderer import Posed, Renderer, around
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
        self._clear()
        self.changed = renderer.draw(posed, self.camera, self.tone, self.image, self.floor_map)
        return self.image

    def shoot_all(self, dancers: Sequence[tuple[Renderer, Posed]]) -> np.ndarray:
        """The same with several dancers, the farthest first: whoever is nearer hides the others."""
        self._clear()
        height, width = self.image.shape[:2]
        self.changed = width, height, 0, 0
        for renderer, posed in dancers:
            box = renderer.draw_shadow(posed, self.camera, self.image, self.floor_map)
            self.changed = around(self.changed, box)
        away = [np.linalg.norm(posed.vertices.mean(0) - self.camera.position) for _, posed in dancers]
        for number in np.argsort(away)[::-1]:
            renderer, posed = dancers[number]
            box = renderer.draw_body(posed, self.camera, self.tone, self.image)
            self.changed = around(self.changed, box)
        return self.image

    def _clear(self) -> None:
        x0, y0, x1, y1 = self.changed
        if x0 < x1 and y0 < y1:
            self.image[y0:y1, x0:x1] = self.empty[y0:y1, x0:x1]


def exposed(shoot: Callable[[Posed], np.ndarray], moments: Sequence[Posed]) -> np.ndarray:
    """(H, W, 3) uint8 the mean of the pictures of one or several moments."""
    if len(moments) == 1:
        return shoot(moments[0])
    total = shoot(moments[0]).astype(np.uint16)
    for posed in moments[1:]:
        total += shoot(posed)
    return (total // len(moments)).astype(np.uint8)
