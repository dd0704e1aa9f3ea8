"""A frame as crops are cut out of it: straight from the decoder's planes where that is possible, else as RGB.

A crop has 65,536 pixels, a 1080p frame two million: converting the whole frame to RGB first is the larger part of the work.
"""

from dataclasses import dataclass

import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace

from refiner.data.video import Frame

GREY = 128  # of a colour plane
_PLANAR = ("yuv420p", "yuvj420p")  # 8 bits, colour at half the resolution: nearly every video
# Weights of red and blue in luma (ITU-T H.273, table 4). FFmpeg takes what is not stated for BT.601, and so does this.
_BT601 = (0.299, 0.114)
_WEIGHTS: dict[int, tuple[float, float]] = {
    Colorspace.ITU709: (0.2126, 0.0722),
    Colorspace.FCC: (0.30, 0.11),
    Colorspace.ITU601: _BT601,
    Colorspace.SMPTE240M: (0.212, 0.087),
}
_UNSTATED = 2  # of the colour matrix, in H.273
UNTURNED = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, slots=True)
class Picture:
    """What `crop.crop` cuts from."""

    planes: tuple[np.ndarray, ...]  # (H, W, 3) RGB alone, or Y (H, W), U and V (⌈H/2⌉, ⌈W/2⌉); uint8
    size: tuple[int, int]  # width, height in pixels as the picture is shown
    to_stored: np.ndarray  # (2, 3): a pixel's index (x, y, 1) as shown -> its index in the planes
    to_rgb: np.ndarray | None = None  # (3, 4): (Y, U, V, 1) -> RGB; None where it is RGB
    black: int = 0  # of the luma plane


def picture_of(frame: Frame) -> Picture:
    """The fast way in where there is one: 8-bit 4:2:0 that is shown with every pixel as it was stored."""
    stored = frame.picture
    if stored is None or frame.display is None or stored.format.name not in _PLANAR:
        return _as_rgb(frame)
    display = frame.display
    odd = display.interlaced or display.crop != (0, 0, 0, 0) or display.aspect != 1
    if odd or stored.colorspace not in (*_WEIGHTS, _UNSTATED):
        return _as_rgb(frame)
    planes = tuple(_array(plane) for plane in stored.planes)
    full = stored.format.name == "yuvj420p" or stored.color_range == ColorRange.JPEG
    # pixel i has its middle at i + ½, where `to_decoded` counts from
    to_stored = display.to_decoded.copy()
    to_stored[:, 2] += to_stored[:, :2].sum(1) / 2 - 0.5
    return Picture(planes, display.size, to_stored, _to_rgb(stored.colorspace, full), 0 if full else 16)


def _as_rgb(frame: Frame) -> Picture:
    return Picture((frame.rgb,), frame.size, UNTURNED)


def _array(plane: VideoPlane) -> np.ndarray:
    """(H, W) uint8, a view of the decoder's memory."""
    stored = np.frombuffer(plane, dtype=np.uint8)  # pyright: ignore[reportCallIssue, reportArgumentType] (PyAV's stubs leave the buffer out)
    return stored.reshape(plane.height, plane.line_size)[:, : plane.width]


def _to_rgb(colorspace: int, full: bool) -> np.ndarray:
    """(3, 4) float32: (Y, U, V, 1) of 8 bits -> RGB of 8 bits (ITU-T H.273, 8.3)."""
    red, blue = _WEIGHTS.get(colorspace, _BT601)
    green = 1 - red - blue
    luma, colour, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    u, v = 2 * (1 - blue) * colour, 2 * (1 - red) * colour
    matrix = np.array([[luma, 0, v], [luma, -u * blue / green, -v * red / green], [luma, u, 0]])
    offset = -matrix @ (black, GREY, GREY)
    return np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32)
