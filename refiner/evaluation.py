"""A model beside every baseline on the same pairs: one table, its slices, the intervals, the confidence; JSON, Markdown, plots.

Used by `rayjobs.evaluate`; a notebook can call `evaluate` and `markdown` just so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner import metrics, visualize
from refiner.inference import Refinement
from refiner.model import CONFIDENT_WITHIN_M
from refiner.records import Pairs
from refiner.visualize import LABELS

REFINED = "refined"
# Columns of the table: key in `metrics.summarise`, heading, decimals, factor.
COLUMNS = (
    ("mpjpe_cm", "MPJPE", 1, 1.0),
    ("n_mpjpe_cm", "N-", 1, 1.0),
    ("pa_mpjpe_cm", "PA-", 1, 1.0),
    ("pck_150mm", "PCK%", 0, 100.0),
    ("acceleration_error", "accel", 1, 1.0),
    ("bone_cv", "bone%", 1, 100.0),
    ("limb_sign_accuracy", "sign%", 0, 100.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that is known about a model on some pairs."""

    pairs: int
    sequences: int
    methods: dict[str, dict[str, float]]
    """Method -> figures of `metrics.summarise`, with `depth_low_cm` and `depth_high_cm`, the ends of the 95 % interval."""
    differences: dict[str, tuple[float, float, float]]
    """Method -> how much lower the refined mean |Δz| is, with its interval, cm; negative where refined is better."""
    confidence: dict[str, float]
    """ECE, AUSE and error of the least confident tenth."""
    slices: dict[str, dict[str, dict[str, float]]]
    """Dimension -> label -> method -> mean |Δz|, cm."""
    worse: list[str]
    """Slices of joint, view angle and azimuth in which refined is worse than MediaPipe."""


def evaluate(refinement: Refinement, baselines: Mapping[str, np.ndarray], pairs: Pairs, seed: int = 0) -> Evaluation:
    """Compares.

    Args:
        refinement: the model's answer for these pairs.
        baselines: name -> (N, 17, 3) poses; "mediapipe" is among them.
        pairs: with their truth.
        seed: of the bootstrap.
    """
    methods = {**baselines, REFINED: refinement.poses}
    figures = {}
    for name, poses in methods.items():
        rows = metrics.depth_error(poses, pairs.ground_truth).mean(-1) * metrics.CM
        low, high = metrics.bootstrap(rows, pairs.sequence, seed=seed)
        figures[name] = {**metrics.summarise(poses, pairs), "depth_low_cm": low, "depth_high_cm": high}
    slices = metrics.depth_by_slice(methods, pairs)
    return Evaluation(
        pairs=len(pairs),
        sequences=len(np.unique(pairs.sequence)),
        methods=figures,
        differences={
            name: metrics.depth_difference(refinement.poses, poses, pairs, seed) for name, poses in baselines.items()
        },
        confidence=metrics.confidence_summary(
            refinement.confidence, metrics.depth_error(refinement.poses, pairs.ground_truth), CONFIDENT_WITHIN_M
        ),
        slices=slices,
        worse=[
            f"{dimension} {label}"
            for dimension in ("joint", "view angle", "azimuth")
            for label, row in slices[dimension].items()
            if row[REFINED] > row["mediapipe"]
        ],
    )


def table(found: Evaluation) -> str:
    """The figures of all methods, in 80 columns."""
    lines = [
        f"{'':<17}{'mean |Δz| cm  (95 %)':<21}" + "".join(f"{heading:>6}" for _, heading, _, _ in COLUMNS).rstrip(),
    ]
    for name, row in found.methods.items():
        interval = f"({row['depth_low_cm']:.2f}–{row['depth_high_cm']:.2f})"
        cells = "".join(f"{row[key] * factor:>6.{decimals}f}" for key, _, decimals, factor in COLUMNS)
        lines.append(f"{LABELS.get(name, name):<17}{row['depth_cm']:>6.2f}  {interval:<13}{cells}")
    return "\n".join(lines)


def markdown(found: Evaluation, title: str) -> str:
    """The report: the table, what refined gains against each method, the confidence, every slice."""
    lines = [f"# {title}", "", f"{found.pairs:,} pairs of {found.sequences} sequences that no training saw.", ""]
    headings = ["method", "mean \\|Δz\\| cm", "95 %"] + [
        f"{heading}MPJPE" if heading.endswith("-") else heading for _, heading, _, _ in COLUMNS
    ]
    lines += _rows(
        headings,
        [
            [
                LABELS.get(name, name),
                f"{row['depth_cm']:.2f}",
                f"{row['depth_low_cm']:.2f} – {row['depth_high_cm']:.2f}",
                *(f"{row[key] * factor:.{decimals}f}" for key, _, decimals, factor in COLUMNS),
            ]
            for name, row in found.methods.items()
        ],
    )
    lines += ["", "Lengths in cm, accelerations in m/s². `bone%` is the coefficient of variation of bone lengths.", ""]
    lines += ["## Gain in mean |Δz|, paired by sequence", ""]
    lines += _rows(
        ["against", "difference cm", "95 %", "relative"],
        [
            [
                LABELS.get(name, name),
                f"{d:+.2f}",
                f"{low:+.2f} … {high:+.2f}",
                f"{d / found.methods[name]['depth_cm']:+.1%}",
            ]
            for name, (d, low, high) in found.differences.items()
        ],
    )
    confidence = found.confidence
    lines += [
        "",
        "## Confidence",
        "",
        f"The probability that a joint's depth is within {CONFIDENT_WITHIN_M * 100:.0f} cm of the truth. "
        f"ECE {confidence['ece']:.3f}, AUSE {confidence['ause']:.3f}; the least confident tenth of the joints is off by "
        f"{confidence['lowest_decile_error']:.2f} times the median error.",
    ]
    for dimension, labels in found.slices.items():
        lines += ["", f"## Mean |Δz| by {dimension}, cm", ""]
        lines += _rows(
            [dimension, *(LABELS.get(m, m) for m in found.methods), "pairs"],
            [
                [
                    label.replace("_", " "),
                    *(f"{row[m]:.2f}" for m in found.methods),
                    f"{row['pairs']:,}" if "pairs" in row else "",
                ]
                for label, row in labels.items()
            ],
        )
    worse = ", ".join(w.replace("_", " ") for w in found.worse)
    lines += ["", f"Worse than MediaPipe in: {worse or 'none of the joints, view angles and azimuths'}.", ""]
    return "\n".join(lines)


def _rows(headings: list[str], rows: list[list[str]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (headings, ruler, *rows)]


def plots(refinement: Refinement, baselines: Mapping[str, np.ndarray], pairs: Pairs, folder: str | Path) -> None:
    """Depth error by azimuth and by joint, and the reliability diagram, as PNG files in a folder."""
    folder = Path(folder)
    shown = {name: baselines[name] for name in ("mediapipe", "ridge") if name in baselines}
    shown[REFINED] = refinement.poses
    visualize.depth_by_view_angle(shown, pairs, folder / "depth_by_view_angle.png")
    visualize.depth_by_joint(shown, pairs, folder / "depth_by_joint.png")
    within = metrics.depth_error(refinement.poses, pairs.ground_truth) < CONFIDENT_WITHIN_M
    visualize.reliability_diagram(refinement.confidence, within, folder / "reliability.png")
