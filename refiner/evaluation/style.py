"""What all pictures share: one colour and one label for each method, fonts, and a figure that needs no display."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType


# One colour for one thing, in every picture: what MediaPipe saw, what the refiner says, what is true; then the others.
COLOURS = {
    "mediapipe": "#e4572e",
    "refined": "#1f77b4",
    "truth": "#2b2d33",
    "ridge": "#8a6fb3",
    "bias": "#b8a04a",
    "azimuth_bias": "#6c9a5b",
    "smoothing": "#c77da4",
    "zero": "#9aa0a8",
}
LABELS = {
    "mediapipe": "MediaPipe",
    "refined": "refined",
    "truth": "truth",
    "ridge": "ridge regression",
    "bias": "per-joint bias",
    "azimuth_bias": "bias by azimuth",
    "smoothing": "smoothing of z",
    "zero": "z = 0",
}
STYLE: "dict[RcKeyType, Any]" = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#b9bdc5",
    "axes.labelcolor": "#3a3d45",
    "axes.titlecolor": "#1d1f24",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e7e9ed",
    "grid.linewidth": 0.8,
    "xtick.color": "#6b7078",
    "ytick.color": "#6b7078",
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
DPI = 150


@contextmanager
def new_figure(
    path: str | Path, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """A figure in this project's style and its axes, row by row; written to `path` at the end. pyplot's state is left alone."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
