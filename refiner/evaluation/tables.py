"""An evaluation as text: a table for the terminal, a report in Markdown."""

from collections.abc import Mapping, Sequence

from refiner.evaluation.compare import Evaluation
from refiner.evaluation.style import LABELS
from refiner.model.network import CONFIDENT_WITHIN_M

# Columns of the table: key in `metrics.FIGURES`, heading, decimals, factor.
COLUMNS = (
    ("mpjpe_cm", "MPJPE", 1, 1.0),
    ("n_mpjpe_cm", "N-", 1, 1.0),
    ("pa_mpjpe_cm", "PA-", 1, 1.0),
    ("pck_150mm", "PCK%", 0, 100.0),
    ("acceleration_error", "accel", 1, 1.0),
    ("bone_cv", "bone%", 1, 100.0),
    ("limb_sign_accuracy", "sign%", 0, 100.0),
)
# Kinds of motion by the situation in a sequence's name. AIST++ has the first two; in a studio set sBM are drawn dances.
SITUATIONS = {
    "sBM": "basic dances (in a studio set: drawn)",
    "sFM": "advanced dances",
    "sRM": "real motion, rendered",
    "sRC": "recombined from two real motions, rendered",
}


def table(evaluation: Evaluation) -> str:
    """The figures of all methods in 80 columns; then, where there are several, of each kind of motion."""
    lines = [
        f"{'':<17}{'mean |Δz| cm  (95 %)':<21}" + "".join(f"{heading:>6}" for _, heading, _, _ in COLUMNS).rstrip(),
    ]
    for name, row in evaluation.methods.items():
        ends = f"({row['depth_low_cm']:.2f}–{row['depth_high_cm']:.2f})"
        cells = "".join(f"{row[key] * factor:>6.{decimals}f}" for key, _, decimals, factor in COLUMNS)
        lines.append(f"{LABELS.get(name, name):<17}{row['depth_cm']:>6.2f}  {ends:<13}{cells}")
    if len(evaluation.by_situation) > 1:
        for kind, inner in evaluation.by_situation.items():
            lines += ["", f"{_kind(kind)}: {inner.pairs:,} pairs of {inner.sequences} sequences", table(inner)]
    return "\n".join(lines)


def goals_table(evaluation: Evaluation) -> str:
    """Goals in 80 columns."""
    return "\n".join(f"{'yes' if g.met else 'no':<4}{g.name:<23}{g.found:<14}{g.wanted}" for g in evaluation.goals)


def worst_clips(clips: Sequence[tuple[str, str, Mapping[str, float]]]) -> str:
    """A section of the report: clips (sequence, camera, mean |Δz| in cm by method), the worst first."""
    lines = ["## Worst clips", "", "Mean |Δz| in cm.", "", "| clip | MediaPipe | refined |", "|---|---:|---:|"]
    lines += [f"| {s} {c} | {errors['mediapipe']:.2f} | {errors['refined']:.2f} |" for s, c, errors in clips]
    return "\n".join(lines) + "\n"


def _kind(situation: str) -> str:
    return f"{situation}, {SITUATIONS[situation]}" if situation in SITUATIONS else situation


def markdown(evaluation: Evaluation, title: str) -> str:
    """The report: the table, each kind of motion, what refined gains against each method, the goals, the confidence, slices."""
    lines = [f"# {title}", "", f"{evaluation.pairs:,} pairs of {evaluation.sequences} sequences.", ""]
    lines += _methods(evaluation)
    lines += [
        "",
        "Lengths in cm, accelerations in m/s². `bone%` is the coefficient of variation of bone lengths. Intervals: 95 %, "
        "bootstrap over sequences.",
    ]
    for kind, inner in evaluation.by_situation.items():
        lines += ["", f"## {_kind(kind)}", "", f"{inner.pairs:,} pairs of {inner.sequences} sequences.", ""]
        lines += [*_methods(inner), "", *_gains(inner), "", _worse(inner)]
    lines += ["", "## Gain in mean |Δz|, paired by sequence", "", *_gains(evaluation), "", "## Goals", ""]
    lines += _rows(
        ["", "wanted", "found", *(f"found, {kind}" for kind in evaluation.by_situation), "met"],
        [
            [
                g.name,
                g.wanted,
                g.found,
                *(i.goals[n].found for i in evaluation.by_situation.values()),
                "yes" if g.met else "no",
            ]
            for n, g in enumerate(evaluation.goals)
        ],
    )
    confidence = evaluation.confidence
    lines += [
        "",
        "## Confidence",
        "",
        f"The probability that a joint's depth is within {CONFIDENT_WITHIN_M * 100:.0f} cm of the truth. "
        f"ECE {confidence['ece']:.3f}, AUSE {confidence['ause']:.3f}; the least confident tenth of the joints is off by "
        f"{confidence['lowest_decile_error']:.2f} times the median error.",
    ]
    for dimension, labels in evaluation.slices.items():
        lines += ["", f"## Mean |Δz| by {dimension}, cm", ""]
        lines += _rows(
            [dimension, *(LABELS.get(m, m) for m in evaluation.methods), "refined − MediaPipe (95 %)", "pairs"],
            [
                [
                    label.replace("_", " "),
                    *(f"{row.depth_cm[m]:.2f}" for m in evaluation.methods),
                    _signed(row.difference_cm),
                    f"{row.pairs:,}",
                ]
                for label, row in labels.items()
            ],
        )
    return "\n".join([*lines, "", _worse(evaluation), ""])


def _methods(evaluation: Evaluation) -> list[str]:
    headings = ["method", "mean \\|Δz\\| cm", "95 %"] + [
        f"{heading}MPJPE" if heading.endswith("-") else heading for _, heading, _, _ in COLUMNS
    ]
    return _rows(
        headings,
        [
            [
                LABELS.get(name, name),
                f"{row['depth_cm']:.2f}",
                f"{row['depth_low_cm']:.2f} – {row['depth_high_cm']:.2f}",
                *(f"{row[key] * factor:.{decimals}f}" for key, _, decimals, factor in COLUMNS),
            ]
            for name, row in evaluation.methods.items()
        ],
    )


def _gains(evaluation: Evaluation) -> list[str]:
    return _rows(
        ["against", "difference cm (95 %)", "relative"],
        [
            [LABELS.get(name, name), _signed(d), f"{d[0] / evaluation.methods[name]['depth_cm']:+.1%}"]
            for name, d in evaluation.differences.items()
        ],
    )


def _signed(difference: tuple[float, float, float]) -> str:
    return "{:+.2f} ({:+.2f} … {:+.2f})".format(*difference)


def _worse(evaluation: Evaluation) -> str:
    worse = ", ".join(w.replace("_", " ") for w in evaluation.worse)
    return f"Worse than MediaPipe in: {worse or 'none of the joints, view angles and azimuths'}."


def _rows(headings: list[str], rows: list[list[str]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (headings, ruler, *rows)]
