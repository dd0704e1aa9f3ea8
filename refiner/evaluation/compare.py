"""A model beside every baseline on the same pairs: one table, its slices, the intervals, the confidence; JSON, Markdown, plots.

Reads a `tally.Tally`, however many pairs it was added up from. Used by `rayjobs.evaluate` and the benchmarks; a
notebook can call `evaluate` and `markdown` just so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.evaluation.metrics import FIGURES
from refiner.evaluation.style import LABELS
from refiner.evaluation.tally import FIGURE, Tally, interval
from refiner.inference.depth_refiner import Refinement
from refiner.skeleton import JOINTS

REFINED, MEDIAPIPE, RIDGE, SMOOTHING = "refined", "mediapipe", "ridge", "smoothing"
# Where refined should never be worse than MediaPipe.
NEVER_WORSE = ("joint", "view angle", "azimuth")
# What a refiner has to reach to be worth its while: see `goals`.
DEPTH_GAIN, RIDGE_GAIN, MPJPE_GAIN, BONE_GAIN, ACCELERATION_GAIN = 0.35, 0.15, 0.20, 0.50, 0.50
ECE, LOWEST_DECILE = 0.05, 2.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of the pairs: one joint, one camera …"""

    pairs: int
    depth_cm: dict[str, float]
    """Method -> mean |Δz|."""
    interval_cm: dict[str, tuple[float, float]]
    """Method -> ends of its 95 % interval."""
    difference_cm: tuple[float, float, float]
    """Refined minus MediaPipe, with its interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """Something that a refiner should reach, and whether this one does."""

    name: str
    wanted: str
    found: str
    met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that is known about a model on some pairs."""

    pairs: int
    sequences: int
    methods: dict[str, dict[str, float]]
    """Method -> `metrics.FIGURES`, each with the ends of its 95 % interval (`depth_low_cm`, `depth_high_cm` for the
    headline; `mpjpe_cm_low` … for the others)."""
    differences: dict[str, tuple[float, float, float]]
    """Method -> how much lower the refined mean |Δz| is, with its interval, cm; negative where refined is better."""
    confidence: dict[str, float]
    """ECE, AUSE and error of the least confident tenth."""
    reliability: dict[str, list[float]]
    """By tenths of the confidence: `said`, its mean; `true`, the share of joints within 5 cm; `joints`."""
    slices: dict[str, dict[str, Slice]]
    """Dimension (joint, view angle, azimuth, visibility, camera, genre) -> label -> figures."""
    worse: list[str]
    """Slices of joint, view angle and azimuth in which refined is worse than MediaPipe."""
    goals: list[Goal]
    by_situation: dict[str, "Evaluation"]
    """The same for each kind of motion alone, by the situation in the sequences' names (sBM, sFM, sRM …)."""


def evaluate(refinement: Refinement, baselines: Mapping[str, np.ndarray], pairs: Pairs, seed: int = 0) -> Evaluation:
    """Compares.

    Args:
        refinement: the model's answer for these pairs.
        baselines: name -> (N, 17, 3) poses; "mediapipe" is among them.
        pairs: with their truth.
        seed: of the bootstrap.
    """
    methods = {**baselines, REFINED: refinement.poses}
    return summarise(Tally.of(pairs, methods, {REFINED: refinement.confidence}), seed=seed)


def summarise(tally: Tally, model: str = REFINED, *, seed: int = 0) -> Evaluation:
    """What a tally says of one of its models beside all its methods that are not models.

    Args:
        tally: with "mediapipe" among its methods, and `model` among those that state a confidence.
        model: which; it is called "refined" in what comes back.
        seed: of the bootstrap.
    """
    kinds = np.array([metrics.situation(s) for s in tally.sequences])
    by_situation = {
        str(kind): _summarise(tally.where(kinds == kind), model, seed, {}) for kind in np.unique(kinds).tolist()
    }
    return _summarise(tally, model, seed, by_situation)


def _summarise(tally: Tally, model: str, seed: int, by_situation: dict[str, Evaluation]) -> Evaluation:
    tally = tally.with_genres()
    names = {
        (REFINED if name == model else name): tally.methods.index(name)
        for name in tally.methods
        if name == model or name not in tally.confidence
    }
    refined, mediapipe = names[REFINED], names[MEDIAPIPE]
    means, samples = tally.means(), tally.resampled(seed)
    low, high = interval(samples, tally.few)
    differences = {name: _difference(tally, means, samples, refined, m) for name, m in names.items() if name != REFINED}
    against_mediapipe = [
        means[refined] - means[mediapipe],
        *interval(samples[:, refined] - samples[:, mediapipe], tally.few),
    ]
    figures: dict[str, dict[str, float]] = {name: {} for name in names}
    slices: dict[str, dict[str, Slice]] = {}
    counts = tally.weights.sum(0)
    for c, (dimension, label) in enumerate(tally.cells):
        if dimension == FIGURE:
            for name, m in names.items():
                ends = ("depth_low_cm", "depth_high_cm") if label == FIGURES[0] else (f"{label}_low", f"{label}_high")
                figures[name] |= {label: float(means[m, c]), ends[0]: float(low[m, c]), ends[1]: float(high[m, c])}
        elif counts[c]:
            change, change_low, change_high = (float(d[c]) for d in against_mediapipe)
            slices.setdefault(dimension, {})[label] = Slice(
                pairs=int(counts[c]),
                depth_cm={name: float(means[m, c]) for name, m in names.items()},
                interval_cm={name: (float(low[m, c]), float(high[m, c])) for name, m in names.items()},
                difference_cm=(change, change_low, change_high),
            )
    for dimension, labels in slices.items():  # bins and cameras come in the order in which they were met
        slices[dimension] = dict(sorted(labels.items(), key=lambda item: _rank(dimension, item[0])))
    worse = [
        f"{dimension} {label}"
        for dimension in NEVER_WORSE
        for label, row in slices[dimension].items()
        if row.difference_cm[0] > 0
    ]
    counted = tally.confidence[model].total()
    confidence = counted.summary()
    said, true, joints = counted.reliability()
    return Evaluation(
        pairs=int(tally.pairs.sum()),
        sequences=len(tally.sequences),
        methods=figures,
        differences=differences,
        confidence=confidence,
        reliability={"said": said.tolist(), "true": true.tolist(), "joints": joints.tolist()},
        slices=slices,
        worse=worse,
        goals=goals(figures, differences, confidence, worse),
        by_situation=by_situation,
    )


def _rank(dimension: str, label: str) -> tuple[float, str]:
    """Sorts labels: joints in the skeleton's order, bins by where they begin, all else by name."""
    if dimension == "joint":
        return JOINTS.index(label), ""
    number = re.match(r"-?[\d.]+ …", label)
    return (float(number[0][:-1]), "") if number else (0.0, label)


def difference(tally: Tally, method: str, other: str, *, seed: int = 0) -> tuple[float, float, float]:
    """How much lower the mean |Δz| of one method is than that of another, paired by sequence.

    Returns:
        Difference, low and high end of its interval, cm; below zero where `method` is better.
    """
    a, b = (tally.methods.index(name) for name in (method, other))
    return _difference(tally, tally.means(), tally.resampled(seed), a, b)


def _difference(tally: Tally, means: np.ndarray, samples: np.ndarray, a: int, b: int) -> tuple[float, float, float]:
    c = tally.cells.index((FIGURE, FIGURES[0]))
    low, high = interval(samples[:, a, c] - samples[:, b, c], tally.few[c])
    return float(means[a, c] - means[b, c]), float(low), float(high)


def goals(
    figures: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, tuple[float, float, float]],
    confidence: Mapping[str, float],
    worse: list[str],
) -> list[Goal]:
    """What a refiner should reach, beside what this one does; all figures as in `Evaluation`."""
    reached = []

    def lower(name: str, key: str, other: str, share: float, sure: bool = False) -> None:
        if other not in figures:
            return
        gain = 1 - figures[REFINED][key] / figures[other][key]
        met = bool(gain >= share and (not sure or differences[other][2] < 0))
        rival = LABELS[other].removesuffix(" regression")
        wanted = f"≥ {share:.0%} below {rival}" + (", significantly" if sure else "")
        reached.append(
            Goal(name=name, wanted=wanted, found=f"{abs(gain):.1%} {'below' if gain >= 0 else 'above'}", met=met)
        )

    lower("mean |Δz|", "depth_cm", MEDIAPIPE, DEPTH_GAIN, sure=True)
    lower("mean |Δz|", "depth_cm", RIDGE, RIDGE_GAIN, sure=True)
    lower("MPJPE", "mpjpe_cm", MEDIAPIPE, MPJPE_GAIN)
    lower("bone-length CV", "bone_cv", MEDIAPIPE, BONE_GAIN)
    lower("acceleration error", "acceleration_error", MEDIAPIPE, ACCELERATION_GAIN)
    count = f"{len(worse)} worse" if worse else "none worse"
    reached += [
        Goal(name="joints and view angles", wanted="none worse than MediaPipe", found=count, met=not worse),
        Goal(name="ECE", wanted=f"≤ {ECE}", found=f"{confidence['ece']:.3f}", met=confidence["ece"] <= ECE),
        Goal(
            name="least confident tenth",
            wanted=f"≥ {LOWEST_DECILE} × the median error",
            found=f"{confidence['lowest_decile_error']:.2f} ×",
            met=confidence["lowest_decile_error"] >= LOWEST_DECILE,
        ),
    ]
    return reached


def flat(evaluation: Evaluation) -> dict[str, float]:
    """Every figure under a name that MLflow takes, such as `mpjpe_cm`, `ridge/depth_cm`, `by/joint/nose/refined` and, for
    a kind of motion, `sRM/depth_cm`. Intervals are in the JSON only.
    """
    rows = dict(evaluation.confidence)
    for name, figures in evaluation.methods.items():
        prefix = "" if name == REFINED else f"{name}/"
        rows |= {prefix + key: figures[key] for key in FIGURES}
    for name, (d, _, _) in evaluation.differences.items():
        rows[f"gain_cm/{name}"] = -d
    for dimension, labels in evaluation.slices.items():
        for label, row in labels.items():
            plain = re.sub(r"[^\w .-]", "", label.replace("…", "to"))
            for name in (MEDIAPIPE, REFINED):
                rows[f"by/{dimension}/{plain}/{name}"] = row.depth_cm[name]
    for kind, inner in evaluation.by_situation.items():
        rows |= {f"{kind}/{key}": value for key, value in flat(inner).items() if not key.startswith("by/")}
    return rows
