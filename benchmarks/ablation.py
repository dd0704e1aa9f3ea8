"""Which of the refiner's choices pay: variants trained on the same pairs, compared on held-out dancers and choreographies.

    python -m benchmarks.ablation --pairs data/pairs --max-seconds 120

Each variant is trained on the training split (early stop on the validation split), without Ray. What is chosen is what is
best on the validation split (on its real motion, where there is any); the tables are of the test split. Differences are
paired by sequence, with 95 % intervals. Prints Markdown; the last line is one JSON object.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import tyro

from benchmarks.fit import fit
from refiner import DepthRefiner, UserError
from refiner.command import launch, log
from refiner.data import checks
from refiner.data.records import Pairs
from refiner.evaluation import baselines, trials
from refiner.evaluation.compare import MEDIAPIPE, RIDGE, SMOOTHING
from refiner.evaluation.style import LABELS
from refiner.model.config import RefinerConfig
from refiner.model.presets import PRESETS
from refiner.training.augment import Augmentation
from refiner.training.losses import LossWeights
from refiner.training.trainer import TrainingConfig

# Of a model's options those that no training sees, at values that leave them out.
IN_USE = {"smoothing_s": 0.0, "constant_bones": False, "strength": 1.0, "symmetric": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    model: RefinerConfig
    training: Callable[[TrainingConfig], TrainingConfig] = lambda training: training
    true_angle: bool = False
    """Learns with the azimuth of the truth."""


def _best(**changes: object) -> RefinerConfig:
    return dataclasses.replace(PRESETS["best"], **changes)


NO_AUGMENTATION = Augmentation(mirror=0, noise_m=0, blind=0, pointless=0)

VARIANTS: dict[str, Variant] = {
    # the published single-frame transformer, and one change at a time
    "published": Variant(model=RefinerConfig()),
    "published, no mirroring": Variant(
        model=RefinerConfig(),
        training=lambda t: dataclasses.replace(t, augmentation=dataclasses.replace(t.augmentation, mirror=0.0)),
    ),
    "published, no augmentation": Variant(
        model=RefinerConfig(),
        training=lambda t: dataclasses.replace(t, augmentation=Augmentation(mirror=0, noise_m=0, blind=0, pointless=0)),
    ),
    "published, learns truth's angle": Variant(model=RefinerConfig(), true_angle=True),
    "published, depth loss only": Variant(
        model=RefinerConfig(), training=lambda t: dataclasses.replace(t, weights=LossWeights(bone=0, symmetry=0))
    ),
    "published + image points": Variant(model=RefinerConfig(image_points=True)),
    "published + xyz": Variant(model=RefinerConfig(axes="xyz")),
    "published + smoothing": Variant(model=RefinerConfig(smoothing_s=0.07)),
    "published + whole pose": Variant(model=RefinerConfig(encoder="whole_pose", width=256, layers=2)),
    # what ships, and with one thing different at a time
    "best": Variant(model=_best()),
    "best, as they lie": Variant(model=_best(upright=False)),
    "best, attention": Variant(model=_best(encoder="attention", width=64, layers=4, frequencies=12, dropout=0.1)),
    "best, half the width": Variant(model=_best(width=256)),
    "best, no image points": Variant(model=_best(image_points=False)),
    "best, depth alone": Variant(model=_best(axes="z")),
    "best, no smoothing": Variant(model=_best(smoothing_s=0.0)),
    "best, free bones": Variant(model=_best(constant_bones=False)),
    "best, not symmetric": Variant(model=_best(symmetric=False)),
    "best, half strength": Variant(model=_best(strength=0.5)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    variants: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Name of a variant to try, or how several names begin; may be repeated. All by default."""
    seeds: int = 1
    """Times that each is trained; of their errors the mean counts."""
    epochs: int = TrainingConfig().epochs
    max_seconds: float = 120.0
    """Of training, for each variant and seed; then no further epoch starts, and the table says so."""
    batch_size: int = TrainingConfig().batch_size
    learning_rate: float = TrainingConfig().learning_rate

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UserError(f"--seeds is {self.seeds}: it must be at least 1")


def run(options: Options) -> dict:
    checks.check_splits(options.pairs)
    begins = tuple(o for o in options.variants if o not in VARIANTS)
    chosen = {
        n: v for n, v in VARIANTS.items() if not options.variants or n in options.variants or n.startswith(begins)
    }
    if not chosen:
        raise UserError(f"--variants {', '.join(options.variants)}: there are {', '.join(VARIANTS)}")
    train, val, test = (checks.read_checked(options.pairs, split) for split in ("train", "val", "test"))
    models, facts = trained(chosen, options, train, val)
    methods = {n: m for n, m in baselines.fit_all(train).items() if n in (MEDIAPIPE, SMOOTHING, RIDGE)}
    on_val, on_test = (trials.tally(pairs, methods, models) for pairs in (val, test))
    val_cm = dict(zip(on_val.methods, trials.headline(on_val).tolist(), strict=True))
    winner = min(models, key=val_cm.__getitem__)
    summary = {
        "train_pairs": len(train),
        "train_sequences": len(set(train.sequence)),
        "seeds": options.seeds,
        "chosen_on_val": winner,
        "val_cm": val_cm,
        "variants": facts,
        "test": {
            kind: {"pairs": int(part.pairs.sum()), "sequences": len(part.sequences)}
            | {"methods": trials.figures(part, (MEDIAPIPE, RIDGE))}
            for kind, part in trials.kinds(on_test).items()
        },
    }
    print(markdown(summary))
    return summary


def trained(
    variants: dict[str, Variant], options: Options, train: Pairs, val: Pairs
) -> tuple[dict[str, list[DepthRefiner]], dict[str, dict]]:
    """Models of all seeds by variant, and facts about their training. What differs only in use is trained once."""
    models: dict[str, list[DepthRefiner]] = {}
    facts: dict[str, dict] = {}
    known: dict[tuple, tuple[DepthRefiner, dict]] = {}
    for number, (name, variant) in enumerate(variants.items(), 1):
        models[name], began = [], time.monotonic()
        for seed in range(options.seeds):
            training = variant.training(
                TrainingConfig(
                    epochs=options.epochs, max_seconds=options.max_seconds, seed=seed,
                    batch_size=options.batch_size, learning_rate=options.learning_rate,
                )
            )  # fmt: skip
            learnt = dataclasses.replace(variant.model, **IN_USE)
            key = (learnt, training, variant.true_angle)
            if key not in known:
                known[key] = fit(learnt, training, train, val, true_angle=variant.true_angle)
            model, facts[name] = known[key]
            models[name].append(trials.as_used(model, variant.model))
        log(f"{number}/{len(variants)} {name}: {time.monotonic() - began:.0f} s")
    return models, facts


def markdown(summary: dict) -> str:
    """Tables of at most 120 columns: facts, then the figures of each kind of motion."""
    lines = [
        f"{summary['train_pairs']:,} training pairs of {summary['train_sequences']} sequences, {summary['seeds']} seed(s). "
        f"Chosen on the validation split: **{summary['chosen_on_val']}**.",
    ]
    for kind, part in summary["test"].items():
        lines += ["", f"{kind}: {part['pairs']:,} held-out pairs of {part['sequences']} sequences; cm, m/s²", ""]
        head = (
            f"| {'':<31} | {'val':>5} | {'|Δz|':>5} | {'− MediaPipe':>19} | {'− ridge':>19} | MPJPE | accel | bone% |"
        )
        lines += [head.replace("|Δz|", "Δz"), "| --- |" + " ---: |" * 7]
        for name, row in part["methods"].items():
            minus = [_signed(row["minus"][o]) if o != name else "" for o in (MEDIAPIPE, RIDGE)]
            cut = " †" if summary["variants"].get(name, {}).get("cut") else ""
            lines.append(
                f"| {LABELS.get(name, name) + cut:<31} | {summary['val_cm'][name]:5.2f} | {row['depth_cm']:5.2f} "
                f"| {minus[0]:>19} | {minus[1]:>19} | {row['mpjpe_cm']:5.2f} | {row['acceleration_error']:5.1f} "
                f"| {100 * row['bone_cv']:5.1f} |"
            )
    if any(v["cut"] for v in summary["variants"].values()):
        lines += ["", "† stopped by --max-seconds"]
    return "\n".join(lines)


def _signed(difference: tuple[float, float, float]) -> str:
    return "{:+.2f} ({:+.2f}…{:+.2f})".format(*difference)


if __name__ == "__main__":
    launch(run, Options)
