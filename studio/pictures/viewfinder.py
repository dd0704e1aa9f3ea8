"""A camera's pictures of which only that much is drawn that a landmark network looks at: what a decoder would show of a video.

The network sees a square of 256 pixels. What is drawn is the picture's own pixels around that square, encoded and decoded as
H.264 and cut by the estimator's own code, so that sampling, colour and compression are a video's. `studio.dataset.straight`
films with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from refiner.data.display import Display
from refiner.data.video import Frame, as_yuv, set_up, x264_options
from refiner.estimators.blazepose import detector, landmarks
from refiner.estimators.blazepose.crop import Region
from refiner.estimators.blazepose.picture import UNTURNED, Picture, picture_of
from refiner.geometry import Camera
from studio.cameras import Box, resized, windowed
from studio.pictures.footage import Footage
from studio.pictures.renderer import Posed, Renderer
from studio.pictures.room import Room
from studio.pictures.stage import exposed

BLOCK = 16  # pixels: a window moves by whole macroblocks, so that what stands still stays in its block
_SPARE = 1.15  # a window is that much larger than the first square in it, so that it seldom moves
_TILE = 64  # pixels: the empty room is drawn in such squares
_RIM = 4  # pixels around a square that have a share in it: bilinear interpolation, of colours at half the resolution


class Recording:
    """A camera's H.264, picture by picture: what a decoder shows of each as soon as it is encoded. Without B-frames, which
    would have to wait for the next picture.
    """

    def __init__(self, size: tuple[int, int], fps: float, crf: int) -> None:
        """Args:
        size: width, height in pixels, both even.
        fps: frames per second.
        crf: x264's quality.
        """
        self._encoder = av.CodecContext.create("libx264", "w")
        set_up(self._encoder, size)
        self._encoder.framerate = Fraction(fps).limit_denominator(1001)
        self._encoder.time_base = 1 / self._encoder.framerate
        self._encoder.options = x264_options(crf) | {"tune": "zerolatency"}
        self._decoder = av.CodecContext.create("h264", "r")
        self._decoder.thread_count = 1
        self._convert, self._count = VideoReformatter(), 0

    def __call__(self, rgb: np.ndarray) -> av.VideoFrame:
        """(H, W, 3) uint8 -> the same as it is played."""
        picture = as_yuv(rgb, self._convert)
        picture.pts, picture.time_base = self._count, self._encoder.time_base
        self._count += 1
        (packet,) = self._encoder.encode(picture)
        (played,) = self._decoder.decode(packet)
        return played


class Backdrop:
    """The empty room as a camera sees it: as much of it as was asked for so far, in tiles."""

    def __init__(self, room: Room, camera: Camera) -> None:
        self._room, self._camera = room, camera
        width, height = camera.size
        self._picture = np.empty((height, width, 3), np.uint8)
        self._floor = np.empty((height, width, 2), np.float32)
        self._done = np.zeros((-(-height // _TILE), -(-width // _TILE)), bool)

    def within(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the picture and the floor map (see `Room.picture`) of a box."""
        x0, y0, x1, y1 = box
        left, top = x0 // _TILE, y0 // _TILE
        tiles = self._done[top : -(-y1 // _TILE), left : -(-x1 // _TILE)]
        rows, columns = np.nonzero(~tiles)
        if len(rows):
            # who walks leaves an edge of the box undrawn: a rectangle
            missing = (
                (left + int(columns.min())) * _TILE, (top + int(rows.min())) * _TILE,
                min((left + int(columns.max()) + 1) * _TILE, self._camera.size[0]),
                min((top + int(rows.max()) + 1) * _TILE, self._camera.size[1]),
            )  # fmt: skip
            part = slice(missing[1], missing[3]), slice(missing[0], missing[2])
            self._picture[part], self._floor[part] = self._room.picture(self._camera, missing)
            tiles[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        return self._picture[y0:y1, x0:x1].copy(), self._floor[y0:y1, x0:x1]


class Viewfinder:
    """One camera in one take."""

    def __init__(self, room: Room, camera: Camera, footage: Footage, fps: float) -> None:
        """Args:
        room: where it stands.
        camera: its lens and place; its size is the whole picture's.
        footage: what it does to its pictures.
        fps: frames per second.
        """
        self._room, self._camera, self._footage, self._fps = room, camera, footage, fps
        self._tone = room.tones[camera.name]
        self._backdrop = Backdrop(room, camera)
        self._window: Box = (0, 0, 0, 0)
        self._recording: Recording | None = None
        self._small: tuple[Camera, np.ndarray, np.ndarray] | None = None

    def at(self, renderer: Renderer, moments: Sequence[Posed], frame: int) -> "Glimpse":
        """The view of a frame.

        Args:
            renderer: of the dancer.
            moments: that the frame's picture is the mean of.
            frame: its number.
        """
        return Glimpse(self, renderer, moments, frame)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture, pixels."""
        return self._camera.size

    def whole(self, renderer: Renderer, moments: Sequence[Posed]) -> Picture:
        """The whole picture, small: the detector's own is 224 pixels wide, so little is lost."""
        if self._small is None:
            width, height = self._camera.size
            share = min(1.0, 2 * detector.SIZE / max(width, height))
            camera = resized(self._camera, (round(share * width), round(share * height)))
            self._small = (camera, *self._room.picture(camera))
        camera, empty, floor = self._small
        rgb = exposed(lambda posed: self._drawn(renderer, posed, camera, empty.copy(), floor), moments)
        # pixel i has its middle at i + ½
        share = np.array(camera.size) / self._camera.size
        to_stored = np.concatenate([np.diag(share), (share / 2 - 0.5)[:, None]], axis=1)
        return Picture((rgb,), self._camera.size, to_stored)

    def around(self, renderer: Renderer, moments: Sequence[Posed], frame: int, region: Region) -> Picture:
        """The picture as it is played, of which there is only a window around a region."""
        box = self._moved(region)
        empty, floor = self._backdrop.within(box)
        camera = windowed(self._camera, box)
        rgb = exposed(lambda posed: self._drawn(renderer, posed, camera, empty.copy(), floor), moments)
        rgb = self._footage.spoil(rgb, frame, box[:2], self._camera.size)
        if self._recording is None:
            self._recording = Recording(camera.size, self._fps, self._footage.crf)
        played = self._recording(rgb)
        picture = picture_of(Frame(frame, 0, picture=played, display=Display.of(played)))
        to_stored = UNTURNED.copy()
        to_stored[:, 2] = -np.array(box[:2])
        return replace(picture, size=self._camera.size, to_stored=to_stored)

    def _drawn(
        self, renderer: Renderer, posed: Posed, camera: Camera, picture: np.ndarray, floor: np.ndarray
    ) -> np.ndarray:
        renderer.draw(posed, camera, self._tone, picture, floor)
        return picture

    def _moved(self, region: Region) -> Box:
        """The window, where it has to be for a region: where it was, if that does; larger with a new recording, if it must."""
        size = np.array(self._camera.size)
        corners = region.to_picture(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        rim = _RIM + self._footage.reach + region.side / landmarks.SIZE
        # even, as the planes of colours are half as large
        low = np.clip(np.floor((corners.min(0) - rim) / 2).astype(int) * 2, 0, size - BLOCK)
        high = np.clip(np.ceil((corners.max(0) + rim) / 2).astype(int) * 2, low + BLOCK, size)
        x0, y0, x1, y1 = self._window
        if x0 <= low[0] and y0 <= low[1] and high[0] <= x1 and high[1] <= y1:
            return self._window
        span = np.array([x1 - x0, y1 - y0])
        if (high - low > span).any():
            spare = (_SPARE * (high - low)).astype(int)
            span = np.maximum(np.minimum(-(-spare // BLOCK) * BLOCK, size), span)
            self._recording = None
        least = np.maximum(high - span, 0)
        middle = (least + np.minimum(low, size - span)) // 2
        blocks, even = middle // BLOCK * BLOCK, middle // 2 * 2
        corner = np.where(blocks >= least, blocks, even)
        self._window = (int(corner[0]), int(corner[1]), int(corner[0] + span[0]), int(corner[1] + span[1]))
        return self._window


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One frame of a camera, drawn when it is looked at: a `tracking.View`."""

    finder: Viewfinder
    renderer: Renderer
    moments: Sequence[Posed]
    frame: int

    @property
    def size(self) -> tuple[int, int]:
        return self.finder.size

    def whole(self) -> Picture:
        return self.finder.whole(self.renderer, self.moments)

    def around(self, region: Region) -> Picture:
        return self.finder.around(self.renderer, self.moments, self.frame, region)
