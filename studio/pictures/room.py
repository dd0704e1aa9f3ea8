"""The background: a room, drawn once per camera and sequence. The dancer is drawn into copies of its picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from refiner.geometry import Camera
from studio.bodies.looks import linear
from studio.cameras import Box, windowed
from studio.pictures.light import Light, tone_curve
from studio.pictures.raycast import Lens, Scene, cast, contact
from studio.pictures.surfaces import BALL, BOX, CARPET, CONCRETE, CYLINDER, PAINT, TILES, VINYL, WOOD


@dataclass(frozen=True)
class Room:
    """A box with a floor, four walls and things along them. Colours are linear light."""

    floor: float  # height of the floor in the world, metres
    half: np.ndarray  # (2,) half the room's width (x) and depth (z), metres
    ceiling: float  # metres above the floor
    floor_kind: int
    walls: np.ndarray  # (4,) kinds of the walls +x, −x, +z, −z
    colours: np.ndarray  # (6, 3) floor, floor's second, wall, wall's second, ceiling, skirting
    things: np.ndarray  # (T, 11) kind, centre xyz, half size xyz, colour rgb, glow
    light: Light
    tones: dict[str, np.ndarray]  # (3, 4096) tone curve of each camera: no two are set alike
    curved: float  # radius of the cyclorama's bend between floor and wall, metres; 0 for a corner

    @classmethod
    def draw(cls, rng: np.random.Generator, floor: float, cameras: dict[str, Camera], tripods: bool = True) -> "Room":
        """A room from a seed; the cameras stand in it on their tripods, and see each other. Without tripods they are there one
        at a time: background is drawn behind the dancer, so nothing may stand between.
        """
        light = Light.draw(rng)
        reach = max(np.abs(c.position[[0, 2]]).max() for c in cameras.values())
        half = reach + rng.uniform(0.9, 2.2, 2)
        hue = rng.integers(6)
        walls = [(222, 220, 214), (196, 204, 210), (214, 204, 190), (150, 160, 168), (206, 212, 202), (238, 238, 236)]
        seconds = [(90, 104, 122), (134, 92, 74), (70, 84, 80), (188, 172, 150), (64, 68, 78), (120, 128, 134)]
        floor_kind = int(rng.choice(5, p=[0.34, 0.22, 0.2, 0.12, 0.12]))
        floors = {
            WOOD: [(176, 128, 84), (196, 154, 108), (128, 88, 58)],
            VINYL: [(168, 170, 172), (92, 96, 104), (206, 204, 200)],
            CONCRETE: [(150, 148, 144), (122, 122, 124), (172, 170, 164)],
            TILES: [(186, 184, 178), (160, 166, 172), (120, 116, 112)],
            CARPET: [(96, 100, 112), (122, 74, 70), (78, 92, 84)],
        }[floor_kind]
        base = np.array(floors[rng.integers(3)])
        style = rng.random()
        if style < 0.3:  # a cyclorama: white or grey all around
            grey = rng.integers(150, 236)
            kinds, curved = np.full(4, PAINT), 0.7
            colours = [(grey,) * 3, (grey - 6,) * 3, (grey + 6,) * 3, (grey,) * 3, (grey,) * 3, (grey,) * 3]
            floor_kind = VINYL
        else:
            kinds, curved = rng.choice(7, 4, p=[0.26, 0.16, 0.14, 0.14, 0.12, 0.08, 0.10]), 0.0
            colours = [
                base,
                base * 0.8,
                walls[hue],
                seconds[rng.integers(6)],
                (226, 226, 224),
                np.array(walls[hue]) * 0.7,
            ]
        room = cls(
            floor=floor,
            half=half,
            ceiling=rng.uniform(3.0, 4.2),
            floor_kind=floor_kind,
            walls=np.asarray(kinds),
            colours=linear(np.clip(np.array(colours, float), 0, 255)),
            things=np.array(_clutter(rng, floor, half, curved > 0) + (_tripods(floor, cameras) if tripods else [])),
            light=light,
            tones={
                name: tone_curve(rng.uniform(0.95, 1.28), rng.normal(1, 0.025, 3), rng.uniform(0.94, 1.12))
                for name in cameras
            },
            curved=curved,
        )
        return room

    def picture(self, camera: Camera, box: Box | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The empty room as a camera sees it.

        Args:
            camera: that sees it.
            box: the part that is wanted; all by default.

        Returns:
            (H, W, 3) uint8 picture, and (H, W, 2) f32 world x and z of the floor at each pixel (1e9 where there is none).
        """
        width, height = camera.size
        x0, y0, x1, y1 = box or (0, 0, width, height)
        # the dancer is in focus, the walls are not quite; and edges of one ray per pixel lose their steps
        blur = 0.9 * height / 1080 + 0.35
        reach = int(np.ceil(4 * blur)) + 1
        left, top, right, bottom = (
            max(x0 - reach, 0),
            max(y0 - reach, 0),
            min(x1 + reach, width),
            min(y1 + reach, height),
        )
        image = np.empty((bottom - top, right - left, 3), np.float32)
        floor_map = np.full((bottom - top, right - left, 2), 1e9, np.float32)

        # a camera does not see itself: things around its own centre are left out
        own = np.linalg.norm(self.things[:, [1, 3]] - camera.position[[0, 2]], axis=1) > 0.6
        things = self.things[own]
        scene = Scene(
            self.floor, self.half, self.ceiling, self.floor_kind, self.walls.astype(np.int64), self.colours, things,
            self.light.key_direction, self.light.key, self.light.sky, self.curved,
            contact(things, self.floor, self.half, 192),
        )  # fmt: skip
        seen = windowed(camera, (left, top, right, bottom))
        lens = Lens(camera.rotation, camera.position, seen.matrix, camera.distortion)
        cast(image, floor_map, lens, scene, self.tones[camera.name], left, top)
        image = cv2.GaussianBlur(image, (0, 0), blur)
        part = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        return np.clip(image[part] + 0.5, 0, 255).astype(np.uint8), np.ascontiguousarray(floor_map[part])


def _clutter(rng: np.random.Generator, floor: float, half: np.ndarray, empty: bool) -> list[np.ndarray]:
    """Boxes, speakers, stools, plants and posters along the walls."""
    things = []

    def put(
        kind: int,
        x: float,
        y: float,
        z: float,
        sx: float,
        sy: float,
        sz: float,
        colour: Sequence[float] | np.ndarray,
        glow: float = 0.0,
    ) -> None:
        things.append(np.array([kind, x, floor + y, z, sx, sy, sz, *linear(np.array(colour)), glow]))

    for _ in range(rng.integers(1, 4) if empty else rng.integers(5, 12)):
        wall, along = rng.integers(4), rng.uniform(-0.85, 0.85)
        gap = rng.uniform(0.35, 0.6)
        sign = 1 if wall % 2 == 0 else -1
        x, z = (sign * (half[0] - gap), along * half[1]) if wall < 2 else (along * half[0], sign * (half[1] - gap))
        kind = rng.integers(6)
        tone = rng.integers(30, 200, 3)
        if kind == 0:  # a speaker
            put(BOX, x, 0.45, z, 0.2, 0.45, 0.2, (34, 34, 38))
            put(BALL, x * 0.97, 0.6, z * 0.97, 0.12, 0.12, 0.12, (60, 60, 66))
        elif kind == 1:  # crates
            put(BOX, x, 0.25, z, 0.3, 0.25, 0.25, tone)
            put(BOX, x + rng.uniform(-0.05, 0.05), 0.65, z, 0.2, 0.15, 0.18, (176, 140, 96))
        elif kind == 2:  # a plant
            put(CYLINDER, x, 0.2, z, 0.16, 0.2, 0.16, (190, 178, 164))
            for _ in range(7):
                d = rng.normal(0, 0.14, 3)
                put(
                    BALL, x + d[0], 0.85 + 1.4 * d[1], z + d[2], 0.13, 0.17, 0.13, (54 + int(rng.integers(30)), 104, 58)
                )
        elif kind == 3:  # a bench
            put(BOX, x, 0.42, z, 0.5, 0.03, 0.2, (150, 108, 70))
            for d in (-0.4, 0.4):
                put(BOX, x + d, 0.2, z, 0.03, 0.2, 0.16, (40, 40, 44))
        elif kind == 4:  # a lamp
            put(CYLINDER, x, 0.75, z, 0.02, 0.75, 0.02, (40, 40, 42))
            put(CYLINDER, x, 1.62, z, 0.17, 0.16, 0.17, (246, 232, 200), 0.6)
        else:  # a column
            put(CYLINDER, x, 1.5, z, 0.22, 1.5, 0.22, (200, 198, 194))
    if not empty:
        for _ in range(rng.integers(2, 8)):  # posters
            wall, along = rng.integers(4), rng.uniform(-0.8, 0.8)
            sign = 1 if wall % 2 == 0 else -1
            w, h, y = rng.uniform(0.25, 0.8), rng.uniform(0.3, 0.6), rng.uniform(1.4, 2.1)
            tone = 0.45 * rng.integers(30, 230, 3) + 0.55 * rng.integers(60, 200)
            for grow, deep, colour in ((0.0, 0.03, tone), (0.04, 0.02, (232, 230, 226))):  # a print on white paper
                if wall < 2:
                    put(BOX, sign * half[0], y, along * half[1], deep, h + grow, w + grow, colour)
                else:
                    put(BOX, along * half[0], y, sign * half[1], w + grow, h + grow, deep, colour)
    return things


def _tripods(floor: float, cameras: dict[str, Camera]) -> list[np.ndarray]:
    things = []
    for camera in cameras.values():
        x, y, z = camera.position
        dark = linear(np.array((38, 38, 42)))
        things.append(np.array([BOX, x, y, z, 0.07, 0.06, 0.07, *dark, 0.0]))
        things.append(np.array([CYLINDER, x, (y + floor) / 2, z, 0.025, (y - floor) / 2, 0.025, *dark, 0.0]))
        for angle in (0.3, 2.4, 4.5):
            things.append(
                np.array(
                    [
                        BOX,
                        x + 0.16 * np.sin(angle),
                        floor + 0.16,
                        z + 0.16 * np.cos(angle),
                        0.02,
                        0.16,
                        0.02,
                        *dark,
                        0.0,
                    ]
                )
            )
    return things
