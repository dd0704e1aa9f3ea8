"""In which way frames are best seen: models trained on each way of `rayjobs.film`'s pairs, and on all, measured on each.

    python -m benchmarks.seen --pairs data/filmed --sets mediapipe raw two_looks mediapipe+raw+two_looks

All train in this process, with the same number of steps and the same seeds, stopped early on the validation split of the ways
that they learn from. Every model, the one in the box among them, is then used on the clips of the split --measure, seen in each
way. Mean |Δz| in cm with 95 % intervals over sequences; the last line is one JSON object.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import tyro

from benchmarks.fit import fit
from refiner import DepthRefiner, UserError
from refiner.command import launch, log
from refiner.data import checks, records
from refiner.data.records import Pairs, Seen
from refiner.evaluation import baselines, metrics, trials
from refiner.evaluation.compare import MEDIAPIPE, RIDGE, SMOOTHING
from refiner.evaluation.confidence import confidence_summary
from refiner.model.network import CONFIDENT_WITHIN_M
from refiner.model.presets import PRESETS, PresetName
from refiner.training.trainer import TrainingConfig

BOX, LEARNT = "model in the box", "learnt from {}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of pairs that 'rayjobs.film' made."""
    sets: tuple[str, ...] = ("mediapipe", "raw", "two_looks", "mediapipe+raw+two_looks")
    """What models learn from: ways of seeing, joined by +."""
    measure: Literal["val", "test"] = "val"
    """Split that models are measured on: choices are made on val."""
    stride: int = 1
    """Every n-th frame of each clip is learnt from."""
    start: str = ""
    """Folder of a checkpoint whose weights training starts from, or 'box'."""
    dropout: float | None = None
    preset: PresetName = "best"
    seeds: int = 1
    out: str = ""
    """Folder to write the models into."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        for name in self.sets:
            if unknown := set(ways(name)) - set(get_args(Seen)):
                raise UserError(f"--sets {name}: there is no way of seeing called {', '.join(sorted(unknown))}")


def ways(name: str) -> list[Seen]:
    """raw+two_looks -> both."""
    return [part for part in name.split("+")]  # type: ignore[misc] (checked by Options)


def thinned(pairs: Pairs, stride: int) -> Pairs:
    return pairs if stride == 1 else pairs.take(pairs.frame % stride == 0)


def joined(by_way: dict[Seen, Pairs], name: str, stride: int) -> Pairs:
    return Pairs.concatenate([thinned(by_way[way], stride) for way in ways(name)])


def trained(options: Options, train: dict[Seen, Pairs], val: dict[Seen, Pairs]) -> dict[str, list[DepthRefiner]]:
    """By set: a model for each seed."""
    start = None
    config = PRESETS[options.preset]
    if options.start:
        start = DepthRefiner(None if options.start == "box" else options.start, device="cpu").model
        config = dataclasses.replace(start.config, strength=1.0)
    if options.dropout is not None:
        config = dataclasses.replace(config, dropout=options.dropout)
    models: dict[str, list[DepthRefiner]] = {}
    for name in options.sets:
        count = len(ways(name))
        for seed in range(options.seeds):
            # the same number of steps for all
            epochs = max(1, round(options.training.epochs / count))
            training = dataclasses.replace(options.training, epochs=epochs, seed=options.training.seed + seed)
            data, check = joined(train, name, options.stride), joined(val, name, 3)
            model, facts = fit(config, training, data, check, start=start)
            log(f"{name}, seed {seed}: {len(data):,} pairs, {facts}")
            models.setdefault(LEARNT.format(name), []).append(model)
    return models


def run(options: Options) -> dict[str, Any]:
    checks.check_splits(options.pairs)
    all_ways = list(get_args(Seen))
    read = {
        split: {way: records.read_pairs(options.pairs, split, way) for way in all_ways} for split in ("train", "val")
    }
    models = {BOX: [DepthRefiner(device="cpu")]} | trained(options, read["train"], read["val"])
    if options.out:
        from refiner.model.checkpoint import save_checkpoint

        for name in options.sets:
            model = models[LEARNT.format(name)][0].model
            save_checkpoint(model, f"{options.out}/{name}", {"seen": ways(name), "pairs": options.pairs})
    figures: dict[str, Any] = {}
    for way in all_ways:
        pairs = (
            read["val"][way] if options.measure == "val" else records.read_pairs(options.pairs, options.measure, way)
        )
        fitted = baselines.fit_all(thinned(read["train"][way], max(3, options.stride)))
        methods = {name: fitted[name] for name in (MEDIAPIPE, SMOOTHING, RIDGE)}
        sums = trials.tally(pairs, methods, models)
        figures[way] = {kind: trials.figures(part, (MEDIAPIPE, BOX)) for kind, part in trials.kinds(sums).items()}
        print(f"seen by {way}: {len(pairs):,} frames of {len(set(pairs.sequence))} sequences")
        for name, row in figures[way][trials.ALL].items():
            low, high = row["interval_cm"]
            minus = "" if name == BOX else "  − box {:+.2f} ({:+.2f} … {:+.2f})".format(*row["minus"][BOX])
            print(
                f"  {name:<46}{row['depth_cm']:6.2f} ({low:.2f} – {high:.2f})  MPJPE {row['mpjpe_cm']:6.2f}"
                f"{ece(models[name][0], pairs) if name in models else '':>12}{minus}"
            )
    return figures


def ece(model: DepthRefiner, pairs: Pairs) -> str:
    answer = model.predict_pairs(pairs)
    errors = metrics.depth_error(answer.poses, pairs.ground_truth)
    return f"ECE {confidence_summary(answer.confidence, errors, CONFIDENT_WITHIN_M)['ece']:.3f}"


if __name__ == "__main__":
    launch(run, Options)
