"""Several dancers in one room, before one camera: for whatever has to tell people apart. Their truth is exact, as a take's is.

Each dances a choreography of their own while a path carries them through the room: feet slide a little, people cross.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from refiner.data.video import VideoWriter
from refiner.errors import UserError
from refiner.geometry import Camera
from studio.cameras import FLOOR, look_at, resized
from studio.dataset.layout import plan
from studio.dataset.spec import Spec, seed_of
from studio.dataset.take import Take
from studio.pictures.renderer import Posed, Renderer
from studio.pictures.room import Room
from studio.pictures.stage import Set

Act = Literal["apart", "crossing", "leaving"]
# Metres: between the places of two dancers, between the rows in which they cross, half the way of a crossing; how far out
# whoever leaves goes; and of the camera, its distance and its height above the floor.
PLACES, ROWS, CROSSING, OUT = 1.5, 0.55, 1.3, 5.0
DISTANCE, EYE = 5.6, 1.4
CROSSING_S = 6.0  # for a way forth and back
NEARER_M = 0.15  # than a joint: whatever is, hides it
SMALLER = 4  # picture in which is looked for it


@dataclass(frozen=True)
class Ensemble:
    """What several dancers do; a seed's."""

    people: int
    act: Act
    seconds: float
    fps: float = 30.0
    seed: int = 0
    size: tuple[int, int] = (1280, 720)

    def __post_init__(self) -> None:
        if self.people < 1:
            raise UserError(f"an ensemble has at least one dancer, not {self.people}")

    @cached_property
    def takes(self) -> list[Take]:
        return plan(self._spec)

    @property
    def _spec(self) -> Spec:
        return Spec(sequences=self.people, seconds=self.seconds, fps=self.fps, seed=self.seed, size=self.size)

    @cached_property
    def camera(self) -> Camera:
        position, target = np.array([0.0, FLOOR + EYE, DISTANCE]), np.array([0.0, FLOOR + 0.9, 0.0])
        rotation, translation = look_at(position, target, 0.0)
        width, height = self.size
        focal = 0.8 * width
        matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return Camera("c01", self.size, matrix, np.zeros(5), rotation, translation)

    @property
    def times(self) -> np.ndarray:
        """(F,) seconds, of the video's frames."""
        return np.arange(max(1, round(self.seconds * self.fps))) / self.fps

    def paths(self) -> np.ndarray:
        """(N, F, 3) m: where the path has carried each dancer."""
        times, places = self.times, np.zeros((self.people, len(self.times), 3))
        for number in range(self.people):
            place = PLACES * (number - (self.people - 1) / 2)
            places[number, :, 2] = ROWS * ((self.people - 1) / 2 - number)
            if self.act == "crossing":
                turn = 2 * np.pi * (times / CROSSING_S + number / max(self.people, 2))
                places[number, :, 0] = CROSSING * np.cos(turn)
            else:
                places[number, :, 0] = place
        if self.act == "leaving":  # the outermost, behind the others' places and back
            away = np.clip(2.0 - np.abs(times - self.seconds / 2) / (self.seconds / 6), 0, 1)
            places[0, :, 0] -= OUT * away * away * (3 - 2 * away)
        return places

    def bones(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each dancer ((F, 24, 3, 3), (F, 24, 3)) the bones' rotations and places, world, metres."""
        moved = []
        for take, path in zip(self.takes, self.paths(), strict=True):
            turned, placed = take.bones(self.times)
            moved.append((turned, placed + path[:, None]))
        return moved

    def joints(self) -> np.ndarray:
        """(N, F, 17, 3) the truth, world, metres."""
        return np.stack([take.dancer.marked(*bones) for take, bones in zip(self.takes, self.bones(), strict=True)])

    def film(self, path: Path) -> np.ndarray:
        """Renders the video.

        Returns:
            (N, F) the share of each dancer's joints that others hide.
        """
        rng = np.random.default_rng(seed_of(self._spec, "room", 0))
        room = Room.draw(rng, FLOOR, {"c01": self.camera}, tripods=False)
        stage, bones, joints = Set(room, self.camera), self.bones(), self.joints()
        renderers = [Renderer(take.dancer, room.light, FLOOR) for take in self.takes]
        hidden = np.zeros(joints.shape[:2])
        with VideoWriter(path, self.size, self.fps) as writer:
            for frame in range(len(self.times)):
                posed = [
                    renderer.pose(turned[frame], placed[frame])
                    for renderer, (turned, placed) in zip(renderers, bones, strict=True)
                ]
                dancers = list(zip(renderers, posed, strict=True))
                writer.write(stage.shoot_all(dancers))
                hidden[:, frame] = self._hidden(dancers, joints[:, frame])
        return hidden

    def _hidden(self, dancers: list[tuple[Renderer, Posed]], joints: np.ndarray) -> np.ndarray:
        """(N,) of joints (N, 17, 3)."""
        width, height = (side // SMALLER for side in self.size)
        camera = resized(self.camera, (width, height))
        depths = [renderer.depth(posed, camera) for renderer, posed in dancers]
        pixels = np.rint(camera.project(joints)).astype(int)  # (N, 17, 2)
        x, y = pixels[..., 0].clip(0, width - 1), pixels[..., 1].clip(0, height - 1)
        own = self.camera.to_camera(joints)[..., 2]
        shares = np.zeros(len(dancers))
        for number in range(len(dancers)):
            others = [depth[y[number], x[number]] for other, depth in enumerate(depths) if other != number]
            if others:
                shares[number] = (np.min(others, axis=0) < own[number] - NEARER_M).mean()
        return shares
