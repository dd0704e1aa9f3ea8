"""Does more data still help: held-out error against the number of training sequences, of ridge regression and the refiner.

    python -m benchmarks.learning_curve --pairs data/pairs --out runs/learning_curve

The training sequences are shuffled once for each seed, and each share of them holds the smaller ones. All is trained without
Ray, stopped early on the same validation split and measured on the same test split. Writes learning_curve.png, .json and .md
into --out; the last line is one JSON object.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fit import fit
from refiner import DepthRefiner, UserError
from refiner.command import launch, log, to_json
from refiner.data import checks
from refiner.data.records import Pairs
from refiner.evaluation import plots, trials
from refiner.evaluation.baselines import Method, Moments
from refiner.evaluation.compare import MEDIAPIPE, REFINED, RIDGE
from refiner.evaluation.tally import Tally
from refiner.model.presets import PRESETS, PresetName
from refiner.training.trainer import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    out: str = "runs/learning_curve"
    """Folder of the plot and the tables."""
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    """Of the training sequences."""
    seeds: int = 1
    """Orders of the sequences and starts of the training; of their errors the mean counts."""
    preset: PresetName = "best"
    epochs: int = 10
    """With all sequences; with a share of them as many more as make the same number of steps, unless stopped early."""
    max_seconds: float = 120.0
    """Of training, for each share and seed."""
    batch_size: int = TrainingConfig().batch_size

    def __post_init__(self) -> None:
        if self.seeds < 1 or not all(0 < share <= 1 for share in self.shares):
            raise UserError("--seeds is at least 1, and --shares lie above 0 and at most at 1")


def run(options: Options) -> dict:
    checks.check_splits(options.pairs)
    train, val, test = (checks.read_checked(options.pairs, split) for split in ("train", "val", "test"))
    points = []
    for share in sorted(set(options.shares)):
        began = time.monotonic()
        rows = [subset(train, share, seed) for seed in range(options.seeds)]
        sizes = [len(np.unique(part.sequence)) for part in rows]
        ridges = [ridge(part) for part in rows]
        models = [model(part, val, options, share, seed) for seed, part in enumerate(rows)]
        sums = measured(test, ridges, models)
        points.append(
            {
                "sequences": sizes[0],
                "pairs": int(np.mean([len(part) for part in rows])),
                "test": {kind: trials.figures(part, (RIDGE,)) for kind, part in trials.kinds(sums).items()},
            }
        )
        log(f"{sizes[0]} sequences: {time.monotonic() - began:.0f} s")
    curve = {
        "seeds": options.seeds,
        "test_pairs": len(test),
        "test_sequences": len(set(test.sequence)),
        "points": points,
    }
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "learning_curve.json").write_text(json.dumps(to_json(curve), indent=1))
    (out / "learning_curve.md").write_text(markdown(curve) + "\n")
    plots.learning_curve(
        {
            kind: {
                name: [
                    (p["sequences"], p["test"][kind][name]["depth_cm"], *p["test"][kind][name]["interval_cm"])
                    for p in points
                ]
                for name in (MEDIAPIPE, RIDGE, REFINED)
            }
            for kind in points[0]["test"]
        },
        out / "learning_curve.png",
    )
    print(markdown(curve))
    return curve


def subset(train: Pairs, share: float, seed: int) -> Pairs:
    """The pairs of a share of the sequences, the first of them in the seed's order."""
    names = np.unique(train.sequence.astype(str))
    kept = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    return train.take(np.isin(train.sequence.astype(str), kept))


def ridge(train: Pairs) -> Method:
    return Moments.of(train).fit()[RIDGE]


def model(train: Pairs, val: Pairs, options: Options, share: float, seed: int) -> DepthRefiner:
    training = TrainingConfig(
        epochs=max(1, round(options.epochs / share)),
        max_seconds=options.max_seconds,
        batch_size=min(options.batch_size, len(train)),
        seed=seed,
    )
    return fit(PRESETS[options.preset], training, train, val)[0]


def measured(test: Pairs, ridges: list[Method], models: list[DepthRefiner]) -> Tally:
    """MediaPipe, ridge and refined on the test pairs; the mean over seeds of the latter two."""
    parts = [
        trials.tally(test, {MEDIAPIPE: lambda pairs: pairs.corrupted, RIDGE: fitted}, {REFINED: [refiner]})
        for fitted, refiner in zip(ridges, models, strict=True)
    ]
    return dataclasses.replace(parts[0], sums=np.mean([part.sums for part in parts], axis=0))


def markdown(curve: dict) -> str:
    """A table for each kind of motion."""
    lines = [
        f"{curve['test_pairs']:,} held-out pairs of {curve['test_sequences']} sequences; {curve['seeds']} seed(s)."
    ]
    for kind in curve["points"][0]["test"]:
        lines += [
            "",
            f"{kind}: mean Δz, cm (95 %)",
            "",
            "| sequences | pairs | MediaPipe | ridge regression | refined | − ridge |",
        ]
        lines.append("|" + " ---: |" * 6)
        for point in curve["points"]:
            rows = point["test"][kind]
            cells = [f"{rows[n]['depth_cm']:.2f} ({rows[n]['interval_cm'][0]:.2f} – {rows[n]['interval_cm'][1]:.2f})" for n in
                     (MEDIAPIPE, RIDGE, REFINED)]  # fmt: skip
            minus = "{:+.2f} ({:+.2f} … {:+.2f})".format(*rows[REFINED]["minus"][RIDGE])
            lines.append(f"| {point['sequences']} | {point['pairs']:,} | " + " | ".join([*cells, minus]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    launch(run, Options)
