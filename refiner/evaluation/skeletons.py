"""Frames with their poses, on the picture and from three sides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refiner.evaluation import metrics
from refiner.evaluation.style import COLOURS, LABELS, new_figure
from refiner.skeleton import DRAWN, root_centred

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Title, axis across, axis up and its sign, words at the edges: y is down and z away, so both are turned to be read as one
# expects.
VIEWS = (
    ("from the camera", 0, 1, -1, "", ""),
    ("from the side", 2, 1, -1, "← camera", "away →"),
    ("from above", 0, 2, 1, "", "camera ↓"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A frame to look at; poses (17, 3) m, whatever their origin."""

    title: str
    truth: np.ndarray
    observed: np.ndarray
    refined: np.ndarray
    image: np.ndarray | None = None  # (H, W, 3) uint8 RGB, the frame itself
    image_points: np.ndarray | None = None  # (17, 2) pixels, where MediaPipe saw the joints in it

    @property
    def poses(self) -> dict[str, np.ndarray]:
        """By method, about the hips."""
        poses = {"truth": self.truth, "mediapipe": self.observed, "refined": self.refined}
        return {name: root_centred(np.asarray(pose)) for name, pose in poses.items()}


def contact_sheet(samples: Sequence[Sample], path: str | Path) -> Path:
    """Frames one below the other, each from the camera, from the side and from above; where there are pictures, these first.

    Args:
        samples: at least one.
        path: of the PNG.
    """
    pictures = any(sample.image is not None for sample in samples)
    columns = len(VIEWS) + pictures
    with new_figure(path, (3.1 * columns, 3.5 * len(samples) + 0.4), rows=len(samples), columns=columns) as (
        figure,
        axes,
    ):
        for row, sample in enumerate(samples):
            poses, cells = sample.poses, axes[row * columns : (row + 1) * columns]
            reach = 1.1 * max(np.abs(pose).max() for pose in poses.values())
            if pictures:
                first, *cells = cells
                first.axis("off")
                if sample.image is not None and sample.image_points is not None:
                    _draw_picture(first, sample.image, sample.image_points, poses)
            for cell, view in zip(cells, VIEWS, strict=True):
                _draw_view(cell, poses, reach, *view)
            errors = [
                f"{LABELS[name]} {np.abs(poses[name][:, 2] - poses['truth'][:, 2]).mean() * metrics.CM:.1f} cm"
                for name in ("mediapipe", "refined")
            ]
            heading = axes[row * columns].text(
                0, 1.13, f"{sample.title}   in depth: {', '.join(errors)}", transform=axes[row * columns].transAxes,
                fontsize=9, weight="bold",
            )  # fmt: skip
            heading.set_in_layout(False)  # it runs over all columns
        handles, labels = axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels))
        figure.tight_layout(rect=(0, 0.4 / (3.5 * len(samples) + 0.4), 1, 1))
    return Path(path)


def skeletons(
    image: np.ndarray,
    image_points: np.ndarray,
    observed: np.ndarray,
    refined: np.ndarray,
    path: str | Path,
    truth: np.ndarray | None = None,
) -> Path:
    """One frame with its poses: on the picture, from the camera, from the side and from above, where depth can be seen.

    Args:
        image: (H, W, 3) uint8 RGB.
        image_points: (17, 2) pixels, where MediaPipe saw the joints in the picture.
        observed: (17, 3) m, MediaPipe's pose.
        refined: (17, 3) m.
        path: of the PNG.
        truth: (17, 3) m, where it is known.
    """
    poses = {"truth": truth, "mediapipe": observed, "refined": refined}
    poses = {name: root_centred(np.asarray(p)) for name, p in poses.items() if p is not None}
    reach = 1.1 * max(np.abs(p).max() for p in poses.values())
    with new_figure(path, (13, 4.3), columns=4) as (figure, all_axes):
        picture, views = all_axes[0], all_axes[1:]
        _draw_picture(picture, image, image_points, poses)
        for axes, view in zip(views, VIEWS, strict=True):
            _draw_view(axes, poses, reach, *view)
        if truth is not None:
            for name in ("mediapipe", "refined"):
                error = np.abs(poses[name][:, 2] - poses["truth"][:, 2]).mean() * metrics.CM
                views[1].plot([], [], " ", label=f"{LABELS[name]}: {error:.1f} cm in depth")
        handles, labels = views[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels))
        figure.tight_layout(rect=(0, 0.07, 1, 1))
    return Path(path)


def _draw_picture(axes: "Axes", image: np.ndarray, image_points: np.ndarray, poses: Mapping[str, np.ndarray]) -> None:
    """The frame with both skeletons, cut to a square around the person, so that it has the size of the views beside it."""
    low, high = image_points.min(0), image_points.max(0)
    side = min(1.3 * (high - low).max(), *image.shape[:2])
    centre = np.clip((low + high) / 2, side / 2, np.array(image.shape[1::-1]) - side / 2)
    axes.imshow(image)
    project = _camera_of(poses["mediapipe"], image_points)
    for name, points in (("mediapipe", image_points), ("refined", project(poses["refined"]))):
        for width, colour in ((3.6, "white"), (2.0, COLOURS[name])):
            for a, b in DRAWN:
                axes.plot(*points[[a, b]].T, color=colour, lw=width, alpha=0.95)
    axes.set(
        xlim=(centre[0] - side / 2, centre[0] + side / 2),
        ylim=(centre[1] + side / 2, centre[1] - side / 2),
        title="the frame",
    )
    axes.axis("off")


def _draw_view(
    axes: "Axes",
    poses: Mapping[str, np.ndarray],
    reach: float,
    title: str,
    across: int,
    up: int,
    sign: int,
    left: str,
    right: str,
) -> None:
    """All poses from one side: which axis goes across, which one up and with which sign, and what is said at the edges."""
    for name, pose in poses.items():
        true = name == "truth"
        x, y = pose[:, across], sign * pose[:, up]
        for a, b in DRAWN:
            axes.plot(x[[a, b]], y[[a, b]], color=COLOURS[name], lw=5 if true else 2.2, alpha=0.22 if true else 0.95)
        axes.plot([], [], color=COLOURS[name], lw=5 if true else 2.2, alpha=0.22 if true else 1, label=LABELS[name])
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title, xticks=(), yticks=())
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.02, 0.01, left, transform=axes.transAxes, color="#6b7078")
    axes.text(0.98, 0.01, right, transform=axes.transAxes, color="#6b7078", ha="right")


def _camera_of(pose: np.ndarray, image_points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The perspective in which a pose (17, 3) best covers its image points (17, 2): projects other poses into that picture.

    x, y = c + f · (X, Y) / (distance + Z); f and c by least squares, the distance by trying.
    """

    def fit(distance: float) -> tuple[float, np.ndarray]:
        rays = pose[:, :2] / (distance + pose[:, 2:])
        a = np.concatenate([rays.T.reshape(-1, 1), np.kron(np.eye(2), np.ones((len(pose), 1)))], 1)
        solution, *_ = np.linalg.lstsq(a, image_points.T.reshape(-1), rcond=None)
        return float(np.square(a @ solution - image_points.T.reshape(-1)).sum()), solution

    distance = min(np.geomspace(2, 20, 30), key=lambda d: fit(d)[0])
    focal, *centre = fit(distance)[1]
    return lambda other: np.array(centre) + focal * other[:, :2] / (distance + other[:, 2:])
