"""Pictures: loss curves, depth error by view angle, skeletons on a frame and from the side, reliability diagrams.

Every function takes data and a path, writes one PNG there and returns the path. Headless: no display is touched.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refiner import metrics
from refiner.pair_profile import VISIBILITY_EDGES, PairProfile
from refiner.skeleton import DRAWN, JOINTS, root_centred

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
STYLE = {
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


def loss_curve(history: Sequence[Mapping[str, float]], path: str | Path) -> Path:
    """Training and validation depth error by epoch, from the figures that training yields."""
    with _figure(path, (7, 4)) as (figure, axes):
        epochs = [h["epoch"] + 1 for h in history]
        validation = [h["val/depth_cm"] for h in history]
        axes.plot(epochs, [h["train/depth"] for h in history], color=COLOURS["truth"], alpha=0.45, label="training")
        axes.plot(epochs, validation, color=COLOURS["refined"], label="validation (averaged weights)")
        best = int(np.argmin(validation))
        axes.scatter([epochs[best]], [validation[best]], color=COLOURS["refined"], s=36, zorder=3)
        axes.annotate(
            f"{validation[best]:.2f} cm",
            (epochs[best], validation[best]),
            xytext=(0, -16),
            textcoords="offset points",
            ha="center",
            color=COLOURS["refined"],
            weight="bold",
        )
        axes.set(title="Depth error while training", xlabel="epoch", ylabel="mean |Δz|, cm")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.2)
        axes.legend(loc="upper right")
        figure.tight_layout()
    return Path(path)


# Mean |Δz| in cm and the ends of its interval by label and method, as the functions below draw it.
Bars = Mapping[str, Mapping[str, tuple[float, float, float]]]


def depth_by_view_angle(bins: Bars, overall: Mapping[str, float], path: str | Path) -> Path:
    """Mean |Δz| by the signed azimuth of the body, with intervals over sequences.

    Args:
        bins: "-180 … -135°" and so on -> method -> mean and interval, cm.
        overall: method -> its mean over all pairs, cm, for the legend.
        path: of the PNG.
    """
    middles = np.array([float(label.split("…")[0]) for label in bins]) + np.diff(metrics.AZIMUTH_EDGES)[0] / 2
    with _figure(path, (7.5, 4.2)) as (figure, axes):
        for name, whole in overall.items():
            mean, low, high = np.array([row[name] for row in bins.values()]).T
            bounded = np.isfinite(low)
            axes.fill_between(middles, low, high, where=bounded, color=COLOURS.get(name), alpha=0.13, linewidth=0)
            axes.plot(
                middles, mean, "o-", ms=4.5, color=COLOURS.get(name), label=f"{LABELS.get(name, name)}  {whole:.1f} cm"
            )
        axes.set(
            title="Depth error by the way the body faces",
            xlabel="azimuth of the torso",
            ylabel="mean |Δz|, cm",
            xlim=(-180, 180),
            xticks=(-180, -90, 0, 90, 180),
        )
        axes.set_xticklabels(["away", "to image left", "to the camera", "to image right", "away"])
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower center", ncols=len(overall))
        figure.tight_layout()
    return Path(path)


def depth_by_joint(joints: Bars, path: str | Path) -> Path:
    """Mean |Δz| of each joint, left and right together, as bars."""
    rows = list(joints.values())
    methods = list(rows[0])
    groups = _sides_together()
    with _figure(path, (7.5, 4)) as (figure, axes):
        width = 0.8 / len(methods)
        for i, name in enumerate(methods):
            heights = [np.mean([rows[j][name][0] for j in members]) for members in groups.values()]
            places = np.arange(len(groups)) + (i - (len(methods) - 1) / 2) * width
            axes.bar(places, heights, width * 0.92, color=COLOURS.get(name), label=LABELS.get(name, name))
        axes.set_xticks(np.arange(len(groups)), list(groups))
        axes.tick_params(axis="x", length=0)
        axes.set(title="Depth error by joint", ylabel="mean |Δz|, cm")
        axes.legend(loc="upper left")
        figure.tight_layout()
    return Path(path)


def depth_by_label(dimensions: Mapping[str, Bars], path: str | Path) -> Path:
    """Mean |Δz| with intervals over sequences, a panel for each dimension (kind of motion, camera …), bars for its labels."""
    columns = 2
    rows = -(-len(dimensions) // columns)
    with _figure(path, (13, 3.6 * rows), rows=rows, columns=columns) as (figure, grid):
        panels = grid.ravel()
        for axes, (dimension, bars) in zip(panels, dimensions.items(), strict=False):
            methods = list(next(iter(bars.values())))
            width = 0.8 / len(methods)
            for i, name in enumerate(methods):
                mean, low, high = np.array([row[name] for row in bars.values()]).T
                reach = np.where(np.isfinite([low, high]), [mean - low, high - mean], 0).clip(0)
                places = np.arange(len(bars)) + (i - (len(methods) - 1) / 2) * width
                axes.bar(places, mean, width * 0.92, color=COLOURS.get(name), label=LABELS.get(name, name))
                axes.errorbar(places, mean, reach, fmt="none", ecolor=COLOURS["truth"], elinewidth=0.9, alpha=0.7)
            axes.set_xticks(np.arange(len(bars)), list(bars), fontsize=9)
            axes.tick_params(axis="x", length=0)
            axes.set(title=f"Depth error by {dimension}", ylabel="mean |Δz|, cm")
        for axes in panels[len(dimensions) :]:
            axes.axis("off")
        handles, labels = panels[0].get_legend_handles_labels()
        if len(panels) > len(dimensions):
            panels[-1].legend(handles, labels, loc="center", fontsize=11)
        else:
            panels[0].legend(handles, labels, loc="lower right")
        figure.tight_layout(h_pad=2.5, w_pad=2.5)
    return Path(path)


def learning_curve(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]], path: str | Path
) -> Path:
    """Held-out mean |Δz| against the number of training sequences, a panel for each kind of motion.

    Args:
        panels: title -> method -> points of (sequences, mean, low, high), cm; the ends are those of its interval.
        path: of the PNG.
    """
    with _figure(path, (6.2 * len(panels) + 0.4, 4.6), columns=len(panels)) as (figure, grid):
        for axes, (title, methods) in zip(np.atleast_1d(grid), panels.items(), strict=True):
            for name, points in methods.items():
                sequences, mean, low, high = np.array(points, dtype=float).T
                known = np.isfinite(low)
                axes.fill_between(sequences, low, high, where=known, color=COLOURS[name], alpha=0.1, linewidth=0)
                label = f"{LABELS[name]}  {mean[-1]:.2f} cm"
                axes.plot(sequences, mean, "o-", ms=4.5, color=COLOURS[name], label=label)
            axes.set_xscale("log")
            axes.set_xticks(sequences, [f"{s:,.0f}" for s in sequences])
            axes.minorticks_off()
            axes.set(title=f"Held-out depth error, {title}", xlabel="training sequences", ylabel="mean |Δz|, cm")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(methods), fontsize=9)
        figure.tight_layout()
    return Path(path)


def _sides_together() -> dict[str, list[int]]:
    """Indices of the joints by name, left and right under one."""
    groups: dict[str, list[int]] = {}
    for j, joint in enumerate(JOINTS):
        groups.setdefault(joint.split("_")[-1], []).append(j)
    return groups


def pairs_page(profile: PairProfile, path: str | Path) -> Path:
    """What a set of pairs is like: MediaPipe's depth error by joint, by the way the body faces and by visibility; coverage."""
    colour = COLOURS["mediapipe"]
    with _figure(path, (13, 8.5), rows=2, columns=2) as (figure, ((joints, facing), (visible, covered))):
        error = profile.joint / max(profile.pairs, 1) * metrics.CM
        groups = _sides_together()
        joints.bar(np.arange(len(groups)), [error[members].mean() for members in groups.values()], 0.7, color=colour)
        joints.set_xticks(np.arange(len(groups)), list(groups), fontsize=9)
        joints.tick_params(axis="x", length=0)
        joints.set(title=f"Depth error by joint ({error.mean():.1f} cm in all)", ylabel="mean |Δz|, cm")

        middles = (metrics.AZIMUTH_EDGES[1:] + metrics.AZIMUTH_EDGES[:-1]) / 2
        _bars_with_share(facing, middles, np.diff(metrics.AZIMUTH_EDGES), profile.azimuth, "share of pairs")
        facing.set(
            title="Depth error by the way the body faces",
            ylabel="mean |Δz|, cm",
            xlim=(-180, 180),
            xticks=(-180, -90, 0, 90, 180),
        )
        facing.set_xticklabels(["away", "to image left", "to the camera", "to image right", "away"])

        middles = (VISIBILITY_EDGES[1:] + VISIBILITY_EDGES[:-1]) / 2
        _bars_with_share(visible, middles, np.diff(VISIBILITY_EDGES), profile.visibility, "share of joints")
        visible.set(
            title="Depth error by visibility",
            xlim=(0, 1),
            xlabel="visibility that MediaPipe states",
            ylabel="mean |Δz|, cm",
        )

        dancers, cameras = (sorted({key[i] for key in profile.coverage}) for i in (0, 1))
        counts = np.array([[profile.coverage[dancer, camera] for dancer in dancers] for camera in cameras])
        picture = covered.imshow(np.ma.masked_equal(counts, 0), aspect="auto", cmap="Blues", vmin=0)
        covered.set_yticks(np.arange(len(cameras)), cameras)
        every = slice(None, None, 1 + len(dancers) // 32)  # names that would overlap are left out
        covered.set_xticks(np.arange(len(dancers))[every], dancers[every], rotation=90 if len(dancers) > 12 else 0)
        covered.tick_params(length=0)
        covered.grid(False)
        covered.set(title=f"Coverage: {profile.pairs:,} pairs by dancer and camera")
        figure.colorbar(picture, ax=covered, pad=0.02).outline.set_visible(False)
        figure.tight_layout(h_pad=2.5, w_pad=2.5)
    return Path(path)


def _bars_with_share(axes: "Axes", middles: np.ndarray, widths: np.ndarray, sums: np.ndarray, share: str) -> None:
    """Mean |Δz| in cm as bars, and behind them, on a scale of their own, how the values are spread; `sums` (bins, 2)."""
    total, number = sums.T
    spread = axes.twinx()
    spread.bar(middles, number / max(number.sum(), 1), widths, color=COLOURS["truth"], alpha=0.1)
    spread.set(ylim=(0, 1), yticks=(0, 0.5, 1), ylabel=share)
    spread.set_yticklabels(["0", "50 %", "100 %"])
    spread.grid(False)
    known = number > 0
    axes.bar(
        middles[known], total[known] / number[known] * metrics.CM, 0.55 * widths[known], color=COLOURS["mediapipe"]
    )
    axes.set_zorder(spread.get_zorder() + 1)
    axes.patch.set_visible(False)


def reliability_diagram(reliability: Mapping[str, Sequence[float]], ece: float, path: str | Path) -> Path:
    """How often a joint is within 5 cm, by how sure the refiner was; bars below show how often it says so.

    Args:
        reliability: by bins of the confidence: `said`, its mean; `true`, the share of joints within 5 cm; `joints`.
        ece: expected calibration error.
        path: of the PNG.
    """
    said, true, joints = (np.asarray(reliability[key], dtype=float) for key in ("said", "true", "joints"))
    with _figure(path, (5.2, 5)) as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#b9bdc5", lw=1.2, ls=(0, (4, 3)))
        centres = (np.arange(len(joints)) + 0.5) / len(joints)
        axes.bar(
            centres,
            joints / joints.sum(),
            0.9 / len(joints),
            color=COLOURS["refined"],
            alpha=0.16,
            label="share of joints",
        )
        known = joints > 0
        axes.plot(said[known], true[known], "o-", color=COLOURS["refined"], label="joints within 5 cm")
        axes.set(
            title=f"Confidence against fact (ECE {ece:.3f})",
            xlabel="confidence",
            ylabel="share",
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
        )
        axes.legend(loc="upper left")
        figure.tight_layout()
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
    low, high = image_points.min(0), image_points.max(0)
    # a square cut around the person, so that it has the size of the views beside it
    side = min(1.3 * (high - low).max(), *image.shape[:2])
    centre = np.clip((low + high) / 2, side / 2, np.array(image.shape[1::-1]) - side / 2)
    reach = 1.1 * max(np.abs(p).max() for p in poses.values())
    with _figure(path, (13, 4.3), columns=4) as (figure, all_axes):
        picture, views = all_axes[0], all_axes[1:]
        picture.imshow(image)
        project = _camera_of(poses["mediapipe"], image_points)
        for name, points in (("mediapipe", image_points), ("refined", project(poses["refined"]))):
            for width, colour in ((3.6, "white"), (2.0, COLOURS[name])):
                for a, b in DRAWN:
                    picture.plot(*points[[a, b]].T, color=colour, lw=width, alpha=0.95)
        picture.set(
            xlim=(centre[0] - side / 2, centre[0] + side / 2),
            ylim=(centre[1] + side / 2, centre[1] - side / 2),
            title="the frame",
        )
        picture.axis("off")
        # (horizontal axis, vertical axis, its sign): y is down and z away, so both are turned to be read as one expects
        for axes, (title, across, up, sign, left, right) in zip(
            views,
            (
                ("from the camera", 0, 1, -1, "", ""),
                ("from the side", 2, 1, -1, "← camera", "away →"),
                ("from above", 0, 2, 1, "", "camera ↓"),
            ),
            strict=True,
        ):
            for name, pose in poses.items():
                x, y = pose[:, across], sign * pose[:, up]
                for a, b in DRAWN:
                    axes.plot(
                        x[[a, b]],
                        y[[a, b]],
                        color=COLOURS[name],
                        lw=5 if name == "truth" else 2.2,
                        alpha=0.22 if name == "truth" else 0.95,
                    )
                axes.plot([], [], color=COLOURS[name], lw=5 if name == "truth" else 2.2, alpha=0.22 if name == "truth" else 1,
                          label=LABELS[name])  # fmt: skip
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title, xticks=(), yticks=())
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(False)
            axes.text(0.02, 0.01, left, transform=axes.transAxes, color="#6b7078")
            axes.text(0.98, 0.01, right, transform=axes.transAxes, color="#6b7078", ha="right")
        if truth is not None:
            for name in ("mediapipe", "refined"):
                error = np.abs(poses[name][:, 2] - poses["truth"][:, 2]).mean() * metrics.CM
                views[1].plot([], [], " ", label=f"{LABELS[name]}: {error:.1f} cm in depth")
        handles, labels = views[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels))
        figure.tight_layout(rect=(0, 0.07, 1, 1))
    return Path(path)


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


class _figure:
    """A figure in this project's style, written to `path` at the end; free of pyplot's global state."""

    def __init__(self, path: str | Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> None:
        self._path, self._size, self._grid = Path(path), size, (rows, columns)

    def __enter__(self) -> "tuple[Figure, Axes | np.ndarray]":
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(STYLE)
        self._style.__enter__()
        self._figure = Figure(figsize=self._size, dpi=DPI)
        FigureCanvasAgg(self._figure)
        return self._figure, self._figure.subplots(*self._grid)

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        try:
            if kind is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._figure.savefig(self._path)
        finally:
            self._style.__exit__(None, None, None)
