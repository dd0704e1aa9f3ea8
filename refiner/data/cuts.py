"""Scene cuts that the picture shows, found while a video is decoded."""

import av
import numpy as np

from refiner.data.video import Frame

# Cuts in the picture. A thumbnail of luma, GRID × GRID: mean difference (of 255) and 1 − correlation to the last one, and how
# much larger the difference is than it usually is here. On cuts between two views of one laboratory: 26, 0.51 and 30–70
# times; within takes at most 1.6, 0.011 and 2 times. Correlation ignores flashes and strobes, which change only brightness.
GRID = 24
CUT_DIFFERENCE, CUT_DECORRELATION, CUT_RATIO = 8.0, 0.15, 6.0
USUAL = 0.9  # share that the past has in what is usual, a frame


class CutFinder:
    """Says of successive pictures with which of them another scene begins."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._size: tuple[int, int] | None = None
        self._usual = 0.0

    def begins(self, frame: Frame) -> bool:
        """Whether a scene begins with this picture; the first one of a video begins none, for there is nothing before it."""
        thumbnail, last, size = _thumbnail(frame), self._last, self._size
        self._last, self._size = thumbnail, frame.size
        if last is None:
            return False
        if frame.size != size:
            self._usual = 0.0
            return True
        difference = float(np.abs(thumbnail - last).mean())
        a, b = thumbnail - thumbnail.mean(), last - last.mean()
        spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
        decorrelation = 1 - float((a * b).sum()) / spread if spread > 1e-6 else 0.0
        cut = (
            difference > CUT_DIFFERENCE
            and decorrelation > CUT_DECORRELATION
            and difference > CUT_RATIO * (self._usual + 0.5)
        )
        if not cut:
            self._usual = USUAL * self._usual + (1 - USUAL) * difference
        return cut


def _thumbnail(frame: Frame) -> np.ndarray:
    """(GRID, GRID) float32 luma, 0 … 255: means of sparse samples, so that it costs next to nothing."""
    picture = frame.picture
    if picture is not None and picture.format.name.startswith(("yuv4", "yuvj4", "nv12", "gray")) and _is_byte(picture):
        plane = picture.planes[0]
        stored = np.frombuffer(plane, np.uint8)  # pyright: ignore[reportCallIssue, reportArgumentType] (PyAV's stubs leave the buffer out)
        luma = stored.reshape(-1, plane.line_size)[: picture.height, : picture.width]
    else:
        luma = frame.rgb[..., 1]
    height, width = luma.shape
    rows = np.linspace(0, height - 1, GRID * 4).astype(int)
    columns = np.linspace(0, width - 1, GRID * 4).astype(int)
    return luma[np.ix_(rows, columns)].reshape(GRID, 4, GRID, 4).mean((1, 3), dtype=np.float32)


def _is_byte(picture: av.VideoFrame) -> bool:
    return picture.format.components[0].bits == 8
