"""Plots: loss curves, depth error by view angle and joint, reliability diagrams, what a set of pairs is like.

Every function takes data and a path, writes one PNG there and returns the path. Headless: no display is touched.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refiner.data.profile import VISIBILITY_EDGES, PairProfile
from refiner.evaluation import metrics
from refiner.evaluation.atlas import VISIBILITY_EDGES as BANDS
from refiner.evaluation.atlas import Atlas
from refiner.evaluation.compare import MEDIAPIPE, REFINED, RIDGE, Evaluation
from refiner.evaluation.style import COLOURS, LABELS, new_figure
from refiner.geometry import AZIMUTH_EDGES
from refiner.skeleton import JOINTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_all(evaluation: Evaluation, folder: str | Path) -> None:
    """Depth error by azimuth, joint, kind of motion and the other slices, and the reliability diagram, as PNG files."""
    folder = Path(folder)
    shown = [name for name in (MEDIAPIPE, RIDGE, REFINED) if name in evaluation.methods]
    overall = {name: evaluation.methods[name]["depth_cm"] for name in shown}
    by = {
        dimension: {
            label: {name: (row.depth_cm[name], *row.interval_cm[name]) for name in shown}
            for label, row in labels.items()
        }
        for dimension, labels in evaluation.slices.items()
    }
    depth_by_view_angle(by["azimuth"], overall, folder / "depth_by_view_angle.png")
    depth_by_joint(by["joint"], folder / "depth_by_joint.png")
    kinds = (
        {"all": evaluation, **evaluation.by_situation} if len(evaluation.by_situation) > 1 else evaluation.by_situation
    )
    depth_by_label(
        {
            "kind of motion": {
                kind: {
                    name: (row["depth_cm"], row["depth_low_cm"], row["depth_high_cm"])
                    for name, row in ((name, inner.methods[name]) for name in shown)
                }
                for kind, inner in kinds.items()
            },
            **{dimension: by[dimension] for dimension in ("view angle", "visibility", "camera", "genre")},
        },
        folder / "depth_by_slice.png",
    )
    reliability_diagram(evaluation.reliability, evaluation.confidence["ece"], folder / "reliability.png")


def loss_curve(history: Sequence[Mapping[str, float]], path: str | Path) -> Path:
    """Training and validation depth error by epoch, from the figures that training yields."""
    with new_figure(path, (7, 4)) as (figure, (axes,)):
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
        axes.locator_params(axis="x", integer=True)
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
    middles = np.array([float(label.split("…")[0]) for label in bins]) + np.diff(AZIMUTH_EDGES)[0] / 2
    with new_figure(path, (7.5, 4.2)) as (figure, (axes,)):
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
    with new_figure(path, (7.5, 4)) as (figure, (axes,)):
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
    with new_figure(path, (13, 3.6 * rows), rows=rows, columns=columns) as (figure, panels):
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
    with new_figure(path, (6.2 * len(panels) + 0.4, 4.6), columns=len(panels)) as (figure, all_axes):
        for axes, (title, methods) in zip(all_axes, panels.items(), strict=True):
            for name, points in methods.items():
                sequences, mean, low, high = np.array(points, dtype=float).T
                known = np.isfinite(low)
                axes.fill_between(sequences, low, high, where=known, color=COLOURS[name], alpha=0.1, linewidth=0)
                label = f"{LABELS[name]}  {mean[-1]:.2f} cm"
                axes.plot(sequences, mean, "o-", ms=4.5, color=COLOURS[name], label=label)
            counts = sorted({sequences for points in methods.values() for sequences, *_ in points})
            axes.set_xscale("log")
            axes.set_xticks(counts, [f"{count:,.0f}" for count in counts])
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
    with new_figure(path, (13, 8.5), rows=2, columns=2) as (figure, (joints, facing, visible, covered)):
        error = profile.joint / max(profile.pairs, 1) * metrics.CM
        groups = _sides_together()
        joints.bar(np.arange(len(groups)), [error[members].mean() for members in groups.values()], 0.7, color=colour)
        joints.set_xticks(np.arange(len(groups)), list(groups), fontsize=9)
        joints.tick_params(axis="x", length=0)
        joints.set(title=f"Depth error by joint ({error.mean():.1f} cm in all)", ylabel="mean |Δz|, cm")

        middles = (AZIMUTH_EDGES[1:] + AZIMUTH_EDGES[:-1]) / 2
        _bars_with_share(facing, middles, np.diff(AZIMUTH_EDGES), profile.azimuth, "share of pairs")
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


def error_atlas(atlas: Atlas, path: str | Path) -> Path:
    """Mean |Δz| by joint (down), by the way the body faces (across) and by visibility (a panel for each), of MediaPipe above
    and of the refiner below, in one scale of colours. Cells of fewer than 20 joints are empty.
    """
    shown = [name for name in (MEDIAPIPE, REFINED) if name in atlas.methods]
    bands = list(itertools.pairwise(BANDS))
    means = {name: np.where(atlas.counts >= 20, atlas.means(name), np.nan) for name in shown}
    known = [values[np.isfinite(values)] for values in means.values()]
    top = max((float(np.quantile(values, 0.98)) for values in known if len(values)), default=1.0)
    with new_figure(path, (4.3 * len(bands) + 1, 4.4 * len(shown)), rows=len(shown), columns=len(bands)) as (
        figure,
        panels,
    ):
        picture = None
        for axes, (name, band) in zip(panels, ((n, b) for n in shown for b in range(len(bands))), strict=True):
            extent = (AZIMUTH_EDGES[0], AZIMUTH_EDGES[-1], len(JOINTS) - 0.5, -0.5)
            picture = axes.imshow(
                means[name][..., band], aspect="auto", cmap="inferno", vmin=0, vmax=top, extent=extent
            )
            low, high = bands[band]
            axes.set_yticks(
                range(len(JOINTS)), [joint.replace("_", " ") for joint in JOINTS] if band == 0 else [], fontsize=8
            )
            axes.set_xticks((-180, -90, 0, 90, 180), ("away", "left", "camera", "right", "away"), fontsize=8)
            axes.set_title(f"{LABELS[name]}, visibility {low:g}–{high:g}", fontsize=10)
            axes.grid(False)
            axes.tick_params(length=0)
        figure.tight_layout(rect=(0, 0, 0.92, 1))
        if picture is not None:
            bar = figure.colorbar(picture, cax=figure.add_axes((0.94, 0.1, 0.014, 0.8)))
            bar.set_label("mean |Δz|, cm")
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return Path(path)


def reliability_diagram(reliability: Mapping[str, Sequence[float]], ece: float, path: str | Path) -> Path:
    """How often a joint is within 5 cm, by how sure the refiner was; bars below show how often it says so.

    Args:
        reliability: by bins of the confidence: `said`, its mean; `true`, the share of joints within 5 cm; `joints`.
        ece: expected calibration error.
        path: of the PNG.
    """
    said, true, joints = (np.asarray(reliability[key], dtype=float) for key in ("said", "true", "joints"))
    with new_figure(path, (5.2, 5)) as (figure, (axes,)):
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
