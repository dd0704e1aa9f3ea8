"""A video with both skeletons on the picture, and beside it both from the side, where depth can be seen."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from refiner.data.video import Frame, VideoWriter
from refiner.evaluation.style import COLOURS, LABELS
from refiner.skeleton import DRAWN

PANEL_SHARE = 0.62  # of the picture's height: the panel's width
LONGEST = 1280  # side of the written picture, pixels; larger ones are scaled down
BACKGROUND, INK, FLOOR = (255, 255, 255), (58, 61, 69), (176, 180, 188)
REACH_M = 1.15  # from the hips to the panel's edge


def rgb_of(method: str) -> tuple[int, int, int]:
    """The project's colour of a method, as cv2 draws it into an RGB picture."""
    colour = COLOURS[method]
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]


class OverlayWriter:
    """Writes the overlay of a video, frame by frame.

    with OverlayWriter("joey.overlay.mp4", size=(1920, 1080), fps=30) as overlay:
        overlay.write(frame, {"mediapipe": (points, side), "refined": (points, side)})
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: float, people: int = 1) -> None:
        """Args:
        path: of the MP4 file.
        size: of the video's first picture, width and height in pixels, upright; others are fitted into it.
        fps: of the video.
        people: that there are; each has a place of their own in the panel, one below the other.
        """
        self._people = people
        scale = min(1.0, LONGEST / max(size))
        self._width, self._height = (max(2, round(side * scale) // 2 * 2) for side in size)
        self._panel = round(self._height * PANEL_SHARE) // 2 * 2
        self._writer = VideoWriter(path, (self._width + self._panel, self._height), fps or 30)

    def write(
        self, frame: Frame, *people: dict[str, tuple[np.ndarray, np.ndarray]], floors: Sequence[float | None] = ()
    ) -> None:
        """Appends a frame.

        Args:
            frame: of the video.
            people: of each person the skeletons by method, `mediapipe` and `refined`: where its joints are in this picture,
                (17, 2) pixels, and where they are from the side, (17, 2) m, away from the camera and down, about the hips.
                Empty where they are not seen.
            floors: how far the floor is below each person's hips, m, where it is known.
        """
        picture, scale, corner = self._fitted(frame.rgb)
        panel = np.full((self._height, self._panel, 3), BACKGROUND, dtype=np.uint8)
        thick = max(1, round(self._height / 260))
        row = self._height / self._people
        unit = min(self._panel, row) / 2 / REACH_M
        for number, (skeletons, floor) in enumerate(itertools.zip_longest(people, floors)):
            below = math.inf if floor is None else 0.5 + floor * unit / row  # a share of this person's place
            if below < 1:
                y = round((number + below) * row)
                cv2.line(panel, (0, y), (self._panel, y), FLOOR, thick, cv2.LINE_AA)
            for method, (points, side) in skeletons.items():
                self._draw(picture, corner + points * scale, method, thick)
                middle = np.array([self._panel / 2, (number + 0.5) * row])
                self._draw(panel, middle + unit * side, method, thick)
        self._label(panel, dict.fromkeys(method for skeletons in people for method in skeletons), thick)
        self._writer.write(np.concatenate([picture, panel], axis=1), frame.timestamp_us)

    def _fitted(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A picture as large as it may be; how it was scaled, and where its corner is: (2,) each."""
        height, width = rgb.shape[:2]
        share = min(self._width / width, self._height / height)
        # up to an odd pixel, which H.264 does not take, a picture of the first one's shape fills it all
        size = np.array([whole if whole - side * share < 2 else round(side * share)
                         for side, whole in ((width, self._width), (height, self._height))])  # fmt: skip
        corner = (np.array([self._width, self._height]) - size) // 2
        picture = np.full((self._height, self._width, 3), BACKGROUND, dtype=np.uint8)
        fitted = cv2.resize(rgb, tuple(size.tolist()), interpolation=cv2.INTER_AREA)
        picture[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = fitted
        return picture, size / (width, height), corner

    def _draw(self, canvas: np.ndarray, points: np.ndarray, method: str, thick: int) -> None:
        corners = np.round(np.clip(points, -1e4, 1e4)).astype(int)
        for width, colour in ((3 * thick, BACKGROUND), (thick + 1, rgb_of(method))):
            for a, b in DRAWN:
                cv2.line(canvas, tuple(corners[a]), tuple(corners[b]), colour, width, cv2.LINE_AA)

    def _label(self, panel: np.ndarray, methods: Iterable[str], thick: int) -> None:
        size = self._height / 900
        line = round(34 * size)

        def text(words: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
            cv2.putText(panel, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, thick // 2), cv2.LINE_AA)

        text("from the side", line // 2, line, INK)
        text("< camera", line // 2, self._height - line // 2, INK)
        for row, method in enumerate(methods, 2):
            text(LABELS[method], line // 2, row * line, rgb_of(method))

    def __enter__(self) -> "OverlayWriter":
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._writer.__exit__(kind, error, traceback)  # type: ignore[arg-type]
