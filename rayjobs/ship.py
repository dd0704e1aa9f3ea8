"""The model in the box: how much of its correction to apply to people unlike those it saw, and the checkpoint with its card.

    python -m rayjobs.ship --model runs/drawn --pairs data/people --strengths 0.4 0.6 0.8 1
    python -m rayjobs.ship --model models:/pose-depth-refiner@champion --pairs data/pairs --strengths 0.6 \
        --out refiner/weights/studio --trained-on "…" --limits "…"

Several strengths make a table: of the validation split, which is what choices are made on. A single one with --out is measured
on the test split, calibrated again and written with half the size. The last line is one JSON object.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from refiner import DepthRefiner, UserError, registry
from refiner.command import launch
from refiner.data import checks, records
from refiner.data.records import Pairs, Seen
from refiner.evaluation import baselines, metrics, trials
from refiner.evaluation.compare import MEDIAPIPE, REFINED, RIDGE, SMOOTHING
from refiner.evaluation.confidence import confidence_summary
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import CONFIDENT_WITHIN_M
from refiner.training.dataset import TrainingData
from refiner.training.trainer import calibrate

FULL = "refined, in full"
KINDS = {trials.ALL: "", "sBM": "drawn_motion", trials.REAL_MOTION: "real_motion"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    model: str
    """A checkpoint's folder, or models:/…"""
    pairs: str
    """Folder of pairs: the validation split and, for --out, the others, too; baselines learn from the training split."""
    strengths: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
    """Shares of the correction to compare."""
    share: float = 1.0
    """Share of its weights in the mean with those of the model in the box, which it started from: what was learnt forgets less
    of what was known (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022)."""
    seen: Seen = "mediapipe"
    """How the frames of the pairs were seen."""
    out: str = ""
    """Folder to write the model into; a single strength is needed then."""
    trained_on: str = ""
    """For the card: what the pairs are, in a sentence."""
    limits: str = ""
    """For the card: what it cannot do."""

    def __post_init__(self) -> None:
        if not self.strengths or not all(0 < s <= 1 for s in self.strengths):
            raise UserError("--strengths must be above 0 and at most 1")
        if not 0 < self.share <= 1:
            raise UserError("--share must be above 0 and at most 1")
        if self.out and (len(self.strengths) > 1 or not self.trained_on or not self.limits):
            raise UserError("--out needs a single --strengths, --trained-on and --limits")


def restrained(model: DepthRefiner, strength: float) -> DepthRefiner:
    """The same model that applies this share of its correction."""
    return trials.as_used(model, dataclasses.replace(model.model.config, strength=strength))


def blended(model: DepthRefiner, share: float) -> DepthRefiner:
    """A mean of the weights with those of the model in the box, calibrated as neither is."""
    if share == 1:
        return model
    box = DepthRefiner(device="cpu").model.with_camera_pitch(model.model.config.camera_pitch).state_dict()
    weights = model.model.state_dict()
    if {k: v.shape for k, v in box.items()} != {k: v.shape for k, v in weights.items()}:
        raise UserError("--share is for a model that started from the one in the box: this one has another network")
    network = type(model.model)(model.model.config)
    network.load_state_dict({key: torch.lerp(box[key], weights[key], share) for key in box})
    return DepthRefiner.of(network)


def fitted(pairs: Pairs, *names: str) -> dict[str, baselines.Method]:
    """These baselines, fitted on these pairs."""
    return {name: method for name, method in baselines.fit_all(pairs).items() if name in names}


def compared(pairs: Pairs, methods: dict[str, baselines.Method], models: dict[str, DepthRefiner]) -> dict[str, dict]:
    """By kind of motion, by method: `trials.figures`."""
    sums = trials.tally(pairs, methods, {name: [model] for name, model in models.items()})
    return {kind: trials.figures(part, (MEDIAPIPE, SMOOTHING)) for kind, part in trials.kinds(sums).items()}


def table(figures: dict[str, dict]) -> str:
    """Mean |Δz| in cm by method and kind of motion, and its difference to smoothing with a 95 % interval over sequences."""
    lines = [f"{'':<20}" + "".join(f"{kind:>8}" for kind in figures) + "   all − smoothing"]
    for name, row in figures[trials.ALL].items():
        minus = "" if name == SMOOTHING else "   {:+.2f} ({:+.2f} … {:+.2f})".format(*row["minus"][SMOOTHING])
        lines.append(f"{name:<20}" + "".join(f"{part[name]['depth_cm']:8.2f}" for part in figures.values()) + minus)
    return "\n".join(lines)


def card(options: Options, model: DepthRefiner, measured: dict[str, dict], test: Pairs) -> dict[str, object]:
    """What the model says of itself."""
    shown = {MEDIAPIPE: "mediapipe", SMOOTHING: "smoothing", RIDGE: "ridge", REFINED: "refined"}
    figures: dict[str, object] = {
        "split": f"test: {len(test):,} pairs of {len(set(test.sequence))} sequences, other dancers, choreographies and motions"
    }
    for kind, key in KINDS.items():
        if kind in measured:
            rows = measured[kind]
            part = {f"{short}_depth_cm": round(rows[name]["depth_cm"], 2) for name, short in shown.items()}
            part["refined_depth_cm_at_full_strength"] = round(rows[FULL]["depth_cm"], 2)
            part |= {f"{shown[n]}_mpjpe_cm": round(rows[n]["mpjpe_cm"], 2) for n in (MEDIAPIPE, REFINED)}
            figures |= {key: part} if key else part
    answer = model.predict_pairs(test)
    errors = metrics.depth_error(answer.poses, test.ground_truth)
    if model.model.config.camera_pitch and test.pitch is not None and np.isfinite(test.pitch).all():
        told = metrics.depth_error(model.predict_pairs(test, camera_pitch=True).poses, test.ground_truth)
        figures["refined_depth_cm_with_camera_pitch"] = round(float(told.mean()) * metrics.CM, 2)
    figures["ece"] = round(confidence_summary(answer.confidence, errors, CONFIDENT_WITHIN_M)["ece"], 3)
    return {
        "trained_on": options.trained_on,
        "dataset_fingerprint": records.fingerprint(options.pairs, ("train", "val", "test")),
        "figures": figures,
        "git_commit": registry.git_commit(),
        "limits": options.limits,
    }


def run(options: Options) -> dict:
    """Compares strengths on the validation split, or writes the model at one.

    Raises:
        UserError: --share is of another network, or there are no such pairs.
    """
    model = blended(DepthRefiner(options.model, device="cpu"), options.share)
    val = checks.read_checked(options.pairs, "val", options.seen)
    if not options.out:
        methods = fitted(val, MEDIAPIPE, SMOOTHING)  # which learn nothing from them
        figures = compared(val, methods, {f"strength {s:g}": restrained(model, s) for s in options.strengths})
        print(table(figures))
        return figures
    (strength,) = options.strengths
    shipped, full = restrained(model, strength), restrained(model, 1.0)
    # as for who does not say how the camera looks
    calibrate(shipped.model, TrainingData(dataclasses.replace(val, pitch=None), shipped.model.config))
    test = checks.read_checked(options.pairs, "test", options.seen)
    methods = fitted(checks.read_checked(options.pairs, "train", options.seen), MEDIAPIPE, SMOOTHING, RIDGE)
    figures = compared(test, methods, {REFINED: shipped, FULL: full})
    print(table(figures))
    save_checkpoint(shipped.model, options.out, card(options, shipped, figures, test), half=True)
    return figures


if __name__ == "__main__":
    launch(run, Options)
