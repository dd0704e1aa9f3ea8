"""Where a person is in a picture, and the square crop of it that a network looks at.

The crop is what MediaPipe's image_to_tensor cuts: the same square, the same warp. The warp is the sensitive part: 1/32 of
a pixel more or less moves a pose by millimetres. MediaPipe is built with OpenCV 4, whose `warpPerspective` rounds
coordinates to 1/32 pixel; OpenCV 5's does not, and moves a pose by 13 mm. `cv2.remap` with fixed-point maps interpolates
as OpenCV 4 did in either, so the maps are made here.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from refiner.estimators.blazepose.picture import GREY, UNTURNED, Picture

_STEPS = 32  # of a pixel, to which OpenCV 4 rounds coordinates
_SHIFT = 5  # log2 of them
_FARTHEST = 32_000 * _STEPS  # a map holds 16 bits; what is farther outside a picture is as black as this


@dataclass(frozen=True, slots=True)
class Region:
    """A square of a picture, perhaps turned, perhaps reaching beyond the picture."""

    x: float  # of its centre, pixels
    y: float
    side: float  # pixels
    angle: float  # radians, clockwise as one sees it; 0: its top is the picture's

    @property
    def usable(self) -> bool:
        """Whether it has an extent: a network can give anything."""
        return bool(np.isfinite([self.x, self.y, self.side, self.angle]).all()) and self.side >= 1

    def turned(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (…, 2 or 3) in the axes of the crop, turned into the picture's; z, if there, stays."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = vectors.copy()
        turned[..., 0] = cos * vectors[..., 0] - sin * vectors[..., 1]
        turned[..., 1] = sin * vectors[..., 0] + cos * vectors[..., 1]
        return turned

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (…, 2) of the crop, 0 … 1, as pixels of the picture."""
        return self.turned(points - 0.5) * self.side + (self.x, self.y)

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Points (…, 2) of the picture, pixels, as points of the crop, 0 … 1: `to_picture` backwards."""
        back = Region(0.0, 0.0, 1.0, -self.angle)
        return back.turned((points - (self.x, self.y)) / self.side) + 0.5

    @classmethod
    def around(cls, centre: np.ndarray, top: np.ndarray, margin: float = 1.25) -> "Region":
        """MediaPipe's AlignmentPointsRectsCalculator and RectTransformationCalculator.

        Args:
            centre: (2,) pixels, the middle of the square.
            top: (2,) pixels, a point that lies straight above it in the crop; twice their distance is the person's size.
            margin: the crop is that much larger.
        """
        x, y = (top - centre).tolist()
        angle = np.pi / 2 - np.arctan2(-y, x)
        angle -= 2 * np.pi * np.floor((angle + np.pi) / (2 * np.pi))
        return cls(float(centre[0]), float(centre[1]), 2 * margin * float(np.hypot(x, y)), float(angle))

    @classmethod
    def whole(cls, size: tuple[int, int]) -> "Region":
        """The smallest upright square around a picture of that width and height."""
        return cls(size[0] / 2, size[1] / 2, max(size), 0.0)


def crop(picture: Picture, region: Region, size: int, *, black_outside: bool = False) -> np.ndarray:
    """Cuts a square out of a picture. Where it reaches beyond it, the picture's edge goes on, or it is black.

    Args:
        picture: RGB or YUV planes.
        region: where, in pixels of the picture as it is shown.
        size: of the crop, pixels.
        black_outside: as MediaPipe's detector sees it; its landmark network sees the edge go on.

    Returns:
        (size, size, 3) uint8 RGB
    """
    x, y = _coordinates(region, size, picture.to_stored)
    black, grey = (picture.black, GREY) if black_outside else (None, None)
    at = _maps(x, y)
    if picture.to_rgb is None:
        return _remap(picture.planes[0], at, black)
    luma, u, v = picture.planes
    # a colour sample belongs to the middle of two by two pixels: (x − ½) / 2
    colour_at = _maps((x - _STEPS // 2) >> 1, (y - _STEPS // 2) >> 1)
    channels = [_remap(luma, at, black), _remap(u, colour_at, grey), _remap(v, colour_at, grey)]
    return cv2.transform(cv2.merge(channels), picture.to_rgb)


def _coordinates(region: Region, size: int, to_stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the stored picture each pixel of a crop is, (size, size) int32 each, 1/32 pixels.

    The very steps of MediaPipe's image_to_tensor_converter_opencv.cc and of OpenCV 4's `warpPerspective`, whose rounding
    errors decide where a coordinate that lies between two steps goes.
    """
    side = (region.side, region.side)
    corners = cv2.boxPoints(((region.x, region.y), side, np.degrees(region.angle))).astype(np.float32)
    forth = cv2.getPerspectiveTransform(corners, np.array([[0, size], [0, 0], [size, 0], [size, size]], np.float32))
    back = cv2.invert(forth)[1]
    along = np.arange(size, dtype=np.float64)
    down = back[:, 1, None] * along + back[:, 2, None]  # (3, size): of each row's first pixel, homogeneous
    right = back[:, 0, None] * along
    x, y = np.add.outer(down[0], right[0]), np.add.outer(down[1], right[1])
    # a square's third coordinate is 1 everywhere, or nearly: where its corners agree, all of it does
    weight = np.add.outer(down[2, [0, -1]], right[2, [0, -1]])
    scale = _STEPS / (weight[0, 0] if (weight == weight[0, 0]).all() else np.add.outer(down[2], right[2]))
    x *= scale
    y *= scale
    if not np.array_equal(to_stored, UNTURNED):
        (xx, xy, left), (yx, yy, top) = to_stored
        x, y = xx * x + xy * y + left * _STEPS, yx * x + yy * y + top * _STEPS
    return _rounded(x), _rounded(y)


def _rounded(steps: np.ndarray) -> np.ndarray:
    corners = steps[[0, 0, -1, -1], [0, -1, 0, -1]]  # between which all others lie
    if not (np.abs(corners) < _FARTHEST).all():
        np.clip(steps, -_FARTHEST, _FARTHEST, out=steps)
    return np.rint(steps, out=steps).astype(np.int32)


def _maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in 1/32 pixels as `cv2.remap` takes them: whole pixels (…, 2) int16, and the rest of both in one number."""
    whole = np.empty((*x.shape, 2), dtype=np.int16)
    np.right_shift(x, _SHIFT, out=whole[..., 0], casting="unsafe")
    np.right_shift(y, _SHIFT, out=whole[..., 1], casting="unsafe")
    part = y & (_STEPS - 1)
    part <<= _SHIFT
    part |= x & (_STEPS - 1)
    return whole, part.astype(np.uint16)


def _remap(plane: np.ndarray, maps: tuple[np.ndarray, np.ndarray], outside: int | None) -> np.ndarray:
    """Bilinear interpolation; outside is that value, or, if None, the nearest pixel."""
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    return cv2.remap(plane, *maps, cv2.INTER_LINEAR, borderMode=border, borderValue=(outside or 0,) * 3)
