"""How a decoded picture is shown: upright, unmirrored, with square pixels, and only what the clean aperture lets through.

Files store pictures as sensors and codecs like them and say beside it how players are to show them. Everything that looks at
a video comes through `Display`, so what MediaPipe sees is what people see.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import Interpolation, VideoReformatter

# Anamorphic film has 2, DVDs 0.7 to 1.5; far beyond lies damage, which would make pictures of any size.
MOST_ASPECT = Fraction(4)

Crop = tuple[int, int, int, int]  # decoded pixels that are not shown: left, top, right, bottom
Orientation = tuple[bool, bool, bool]  # whether to transpose, then to flip left-right, then top-bottom


@dataclass(frozen=True, slots=True)
class Display:
    """From a decoded picture to the shown one. In this order: one field, crop, stretch to square pixels, transpose, flip."""

    decoded: tuple[int, int]  # width, height in pixels as they are stored
    crop: Crop = (0, 0, 0, 0)
    aspect: Fraction = Fraction(1)  # width over height of one stored pixel
    transposed: bool = False  # rows become columns
    flip_x: bool = False  # left and right exchanged, as shown
    flip_y: bool = False  # top and bottom exchanged, as shown
    interlaced: bool = False  # odd and even rows are of two moments: only the upper field is shown
    # one of each for all pictures of a video: they keep what they prepared for the last one
    _convert: VideoReformatter = field(default_factory=VideoReformatter, compare=False, repr=False)
    _stretch: VideoReformatter = field(default_factory=VideoReformatter, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        picture: av.VideoFrame,
        aspect: Fraction | None = None,
        crop: Crop = (0, 0, 0, 0),
        turned: Orientation | None = None,
    ) -> "Display":
        """
        Args:
            picture: as decoded, with the display matrix that its container or codec gave.
            aspect: of its pixels, width over height; None where the file does not say.
            crop: what the container's clean aperture cuts off.
            turned: as `orientation` says of it, where that is known.
        """
        left, top, right, bottom = crop
        if left + right >= picture.width or top + bottom >= picture.height or min(crop) < 0:
            crop = (0, 0, 0, 0)
        if aspect is None or not 1 / MOST_ASPECT <= aspect <= MOST_ASPECT:
            aspect = Fraction(1)
        turned = orientation(picture) if turned is None else turned
        return cls((picture.width, picture.height), crop, aspect, *turned, picture.interlaced_frame)

    @property
    def turned(self) -> Orientation:
        return self.transposed, self.flip_x, self.flip_y

    @property
    def _stretched(self) -> tuple[int, int]:
        """Width and height after cropping and stretching. The longer side of a pixel grows, so no detail is lost."""
        left, top, right, bottom = self.crop
        width, height = self.decoded[0] - left - right, self.decoded[1] - top - bottom
        if self.aspect >= 1:
            return round(width * self.aspect), height
        return width, round(height / self.aspect)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as shown."""
        width, height = self._stretched
        return (height, width) if self.transposed else (width, height)

    @property
    def to_decoded(self) -> np.ndarray:
        """(2, 3): a point of the shown picture (x, y, 1) -> the same point of the decoded one, both in pixels.

        Continuous coordinates: pixel i reaches from i to i + 1, its centre is at i + 0.5. For crops that are taken straight
        from the decoded planes.
        """
        width, height = self.size
        shown = np.array(
            [
                [-1.0 if self.flip_x else 1.0, 0.0, width if self.flip_x else 0.0],
                [0.0, -1.0 if self.flip_y else 1.0, height if self.flip_y else 0.0],
            ]
        )
        if self.transposed:
            shown = shown[::-1]
        left, top, right, bottom = self.crop
        wide, high = self._stretched
        shrink = np.array([(self.decoded[0] - left - right) / wide, (self.decoded[1] - top - bottom) / high])
        return shrink[:, None] * shown + np.array([[0, 0, left], [0, 0, top]])

    def rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8, C-contiguous: the picture as shown.

        FFmpeg pads rows to its alignment and PyAV hands the padding out as strides for many widths (1080, 1768, …).
        MediaPipe ignores strides and would see garbage, so the copy to contiguous rows is not optional.
        """
        left, top, right, bottom = self.crop
        array = self._convert.reformat(picture, format="rgb24", threads=1).to_ndarray()
        if self.interlaced:
            array = self._resized(array[::2], self.decoded)
        array = array[top : self.decoded[1] - bottom, left : self.decoded[0] - right]
        if self._stretched != (array.shape[1], array.shape[0]):
            array = self._resized(array, self._stretched)
        if self.transposed:
            array = array.transpose(1, 0, 2)
        if self.flip_x:
            array = array[:, ::-1]
        if self.flip_y:
            array = array[::-1]
        return np.ascontiguousarray(array)

    def _resized(self, rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        width, height = size
        return self._stretch.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
            width=width,
            height=height,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        ).to_ndarray()


def orientation(picture: av.VideoFrame) -> Orientation:
    """How a picture is to be turned.

    Of the display matrix (ISO/IEC 14496-12, 6.2.2; FFmpeg's libavutil/display.h): the point (p, q) of the stored picture is
    shown at (a p + c q, b p + d q), up to a shift. The nearest of the eight orientations is taken, as players do.
    """
    # not `picture.side_data`, a circle of references: the pixels would stay until Python's garbage collector comes by
    entries: list[Any] = list(SideDataContainer(picture))  # pyright: ignore[reportCallIssue] (PyAV's annotation leaves it out)
    matrix = next((d for d in entries if d.type == Type.DISPLAYMATRIX), None)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(matrix), dtype=np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0
