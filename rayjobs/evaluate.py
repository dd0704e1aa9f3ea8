"""Evaluate: a registered refiner beside every baseline, on pairs no training saw; the winner becomes the champion.

    python -m rayjobs.evaluate --pairs data/pairs

The alias 'champion' moves to the candidate when it is better than the present champion on the same pairs and the interval
of the difference (bootstrap over sequences) excludes zero; the first champion must beat MediaPipe so. Tables and plots go
to MLflow, to the candidate's run.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rayjobs.launch import launch, log, to_json
from refiner import DepthRefiner, baselines, evaluation, metrics, plausibility, records, registry
from refiner.evaluation import REFINED
from refiner.records import Pairs
from refiner.registry import CANDIDATE, CHAMPION, NAME


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    split: Literal["train", "val", "test"] = "test"
    """What is measured on."""
    model: str = f"models:/{NAME}@{CANDIDATE}"
    """The candidate: models:/NAME@ALIAS, models:/NAME/VERSION, or a checkpoint's folder, which is never promoted."""
    promote: bool = True
    """Move the alias 'champion' if the candidate wins."""
    out: str | None = None
    """Folder for evaluation.json, evaluation.md and the plots, beside MLflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    mediapipe: dict[str, float]
    refined: dict[str, float]
    """Of `model`."""
    baselines: dict[str, float]
    """Mean |Δz|, cm, of the cheap alternatives."""
    model: dict[str, str]
    """Name and version of the champion as it is now, or of the candidate where nothing was to be promoted."""
    promoted: bool
    verdict: str
    """Why."""
    candidate: dict[str, str]
    differences: dict[str, tuple[float, float, float]]
    """What refined gains against each method, cm: difference, low and high end of the 95 % interval."""
    confidence: dict[str, float]
    worse: list[str]
    """Joints and view angles in which refined is worse than MediaPipe."""
    pairs: int
    sequences: int


def run(options: Options) -> Summary:
    plausibility.check_splits(options.pairs)
    pairs = _read(options.pairs, options.split)
    candidate = DepthRefiner(options.model)
    champion = _champion() if options.promote and _is_registered(options) else None
    answer = candidate.predict_pairs(pairs)
    methods = {name: method(pairs) for name, method in baselines.fit_all(_read(options.pairs, "train")).items()}
    found = evaluation.evaluate(answer, methods, pairs)
    log(evaluation.table(found))
    promoted, verdict, shown = False, "nothing was to be promoted", candidate
    if options.promote and _is_registered(options):
        promoted, verdict = judge(candidate, champion, answer.poses, found, pairs)
        if promoted:
            registry.set_alias(CHAMPION, candidate.version)
        elif champion is not None:
            shown = champion
    log(verdict)
    _publish(options, candidate, found, answer, methods, pairs)
    if shown is not candidate:  # the figures below belong to the model that is named
        answer = shown.predict_pairs(pairs)
        found = evaluation.evaluate(answer, methods, pairs)
    return Summary(
        mediapipe=found.methods["mediapipe"],
        refined=found.methods[REFINED],
        baselines={n: row["depth_cm"] for n, row in found.methods.items() if n not in ("mediapipe", REFINED)},
        model={"name": shown.name, "version": shown.version},
        promoted=promoted,
        verdict=verdict,
        candidate={"name": candidate.name, "version": candidate.version},
        differences=found.differences,
        confidence=found.confidence,
        worse=found.worse,
        pairs=found.pairs,
        sequences=found.sequences,
    )


def judge(
    candidate: DepthRefiner,
    champion: DepthRefiner | None,
    poses: np.ndarray,
    found: evaluation.Evaluation,
    pairs: Pairs,
) -> tuple[bool, str]:
    """Whether the candidate becomes the champion, and a sentence that says why."""
    difference, low, high = found.differences["mediapipe"]
    rival = "MediaPipe"
    if champion is not None and champion.version == candidate.version:
        return False, f"version {candidate.version} is the champion already"
    if high < 0 and champion is not None:
        rival = f"champion {champion.version}"
        difference, low, high = metrics.depth_difference(poses, champion.predict_pairs(pairs).poses, pairs)
    interval = f"{difference:+.2f} cm ({low:+.2f} … {high:+.2f}) against {rival}"
    if high < 0:
        return True, f"version {candidate.version} is the new champion: {interval}"
    return False, f"version {candidate.version} is not promoted: {interval}, which does not exclude zero"


def _champion() -> DepthRefiner | None:
    return DepthRefiner(f"models:/{NAME}@{CHAMPION}") if registry.get_alias(CHAMPION) is not None else None


def _is_registered(options: Options) -> bool:
    return options.model.startswith("models:")


def _read(root: str, split: str) -> Pairs:
    pairs = records.read_pairs(root, split)
    plausibility.check_pairs(pairs, split)
    return pairs


def _publish(options, candidate, found, answer, methods, pairs) -> None:
    """Writes the report and hands it to MLflow."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(to_json(asdict(found)), indent=1))
        title = f"{candidate.name} {candidate.version} on the {options.split} split"
        (folder / "evaluation.md").write_text(evaluation.markdown(found, title))
        evaluation.plots(answer, methods, pairs, folder)
        if _is_registered(options):
            figures = {f"{options.split}/{k}": v for k, v in {**found.methods[REFINED], **found.confidence}.items()}
            for name, row in found.methods.items():
                figures[f"{options.split}/{name}/depth_cm"] = row["depth_cm"]
            registry.record_evaluation(candidate.version, figures, folder, under=f"evaluation/{options.split}")


if __name__ == "__main__":
    launch(run, Options)
