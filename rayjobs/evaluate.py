"""Evaluate: a registered refiner beside every baseline, on pairs no training saw; the winner becomes the champion.

    python -m rayjobs.evaluate --pairs data/pairs

The alias 'champion' moves to the candidate when it is better than the present champion on the same pairs and the interval
of the difference (bootstrap over sequences) excludes zero; the first champion must beat MediaPipe so. Tables and plots,
also for each kind of motion alone, go to MLflow, to the candidate's run. Any number of pairs: files are reduced to sums by
sequence where they are read, in this process or, if there are many, on the cluster.
"""

import json
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from rayjobs.evaluate_worker import CHAMPION_METHOD, fit_baselines, measure_all
from rayjobs.visualize import worst_of
from refiner import DepthRefiner, files, registry
from refiner.command import launch, log, to_json
from refiner.data import checks, manifest
from refiner.data.records import Seen
from refiner.evaluation import compare, plots, tables
from refiner.evaluation.atlas import Atlas
from refiner.evaluation.compare import MEDIAPIPE, REFINED, Evaluation
from refiner.evaluation.skeletons import contact_sheet
from refiner.evaluation.tally import Tally
from refiner.registry import CANDIDATE, CHAMPION, ModelSource, model_name

# Clips on which the candidate is most wrong: in the table, and of these drawn.
WORST_CLIPS, DRAWN_CLIPS = 20, 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    split: Literal["train", "val", "test"] = "test"
    """Split to measure on."""
    seen: Seen = "mediapipe"
    """How the frames of the pairs were seen: as in `rayjobs.train`, one of its ways."""
    model: str = field(default_factory=lambda: str(ModelSource(model_name(), alias=CANDIDATE)))
    """The candidate: models:/NAME@ALIAS, models:/NAME/VERSION, or a checkpoint's folder, which is never promoted."""
    promote: bool = True
    """Move the alias 'champion' of the candidate's name if the candidate wins."""
    out: str | None = None
    """Folder (path or URI) for evaluation.json, evaluation.md and the plots, beside MLflow."""
    workers: int = 0
    """Actors of a Ray Data job; 0: one per GPU, or as many as the cluster has cores.
    For fewer than 100,000 pairs none: this process is done before they have started."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    mediapipe: dict[str, float]
    refined: dict[str, float]
    """Of `model`."""
    baselines: dict[str, float]
    """Mean |Δz|, cm, of the cheap alternatives."""
    by_situation: dict[str, dict[str, float]]
    """Mean |Δz|, cm, of every method for each kind of motion: sBM, sFM, sRM …"""
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
    goals: dict[str, bool]
    """What a refiner should reach, and whether this one does."""
    pairs: int
    sequences: int


def run(options: Options) -> Summary:
    """Measures the model beside the baselines and the champion, and promotes it if it wins.

    Raises:
        UserError: the pairs cannot be right, or there is no such model.
    """
    checks.check_splits(options.pairs)
    registered = ModelSource.parse(options.model)
    if registered is None:
        options = replace(options, model=files.absolute(options.model))
    candidate = DepthRefiner(options.model)
    models = {REFINED: candidate}
    if options.promote and registered and registry.get_alias(registered.name, CHAMPION) is not None:
        models[CHAMPION_METHOD] = DepthRefiner(str(ModelSource(registered.name, alias=CHAMPION)))
    baselines = fit_baselines(options.pairs, options.workers, options.seen)
    # versions, not aliases, which may move meanwhile
    sources = {name: str(registered.at(m.version)) if registered else options.model for name, m in models.items()}
    tally, atlas = measure_all(options.pairs, options.split, baselines, sources, options.workers, options.seen)
    evaluation = compare.summarise(tally)
    log(tables.table(evaluation) + "\n\n" + tables.goals_table(evaluation))
    promoted, verdict, shown = False, "nothing was to be promoted", candidate
    if options.promote and registered:
        promoted, verdict = judge(models, tally, evaluation)
        if promoted:
            registry.set_alias(registered.name, CHAMPION, candidate.version)
        else:
            shown = models.get(CHAMPION_METHOD, candidate)
    log(verdict)
    _publish(options, candidate, registered is not None, evaluation, atlas)
    if shown is not candidate:  # the figures below belong to the model that is named
        evaluation = compare.summarise(tally, CHAMPION_METHOD)
    return Summary(
        mediapipe=evaluation.methods[MEDIAPIPE],
        refined=evaluation.methods[REFINED],
        baselines={n: row["depth_cm"] for n, row in evaluation.methods.items() if n not in (MEDIAPIPE, REFINED)},
        by_situation={
            kind: {name: row["depth_cm"] for name, row in inner.methods.items()}
            for kind, inner in evaluation.by_situation.items()
        },
        model={"name": shown.name, "version": shown.version},
        promoted=promoted,
        verdict=verdict,
        candidate={"name": candidate.name, "version": candidate.version},
        differences=evaluation.differences,
        confidence=evaluation.confidence,
        worse=evaluation.worse,
        goals={f"{goal.name} {goal.wanted}": goal.met for goal in evaluation.goals},
        pairs=evaluation.pairs,
        sequences=evaluation.sequences,
    )


def judge(models: dict[str, DepthRefiner], tally: Tally, evaluation: Evaluation) -> tuple[bool, str]:
    """Whether the candidate becomes the champion, and a sentence that says why."""
    candidate, champion = models[REFINED], models.get(CHAMPION_METHOD)
    difference, low, high = evaluation.differences[MEDIAPIPE]
    rival = "MediaPipe"
    if champion is not None and champion.version == candidate.version:
        return False, f"version {candidate.version} is the champion already"
    if high < 0 and champion is not None:
        rival = f"champion {champion.version}"
        difference, low, high = compare.difference(tally, REFINED, CHAMPION_METHOD)
    interval = f"{difference:+.2f} cm ({low:+.2f} … {high:+.2f}) against {rival}"
    if high < 0:
        return True, f"version {candidate.version} is the new champion: {interval}"
    return False, f"version {candidate.version} is not promoted: {interval}, which does not exclude zero"


def _publish(options: Options, model: DepthRefiner, registered: bool, evaluation: Evaluation, atlas: Atlas) -> None:
    """Writes the report and, of a registered model, hands it to MLflow."""
    with tempfile.TemporaryDirectory() as scratch:
        far = options.out is not None and files.is_uri(options.out)
        folder = Path(scratch if far or options.out is None else options.out)
        folder.mkdir(parents=True, exist_ok=True)
        worst = atlas.worst_clips(REFINED, WORST_CLIPS)
        content = to_json(asdict(evaluation)) | {"worst_clips": [[*clip, errors] for *clip, errors in worst]}
        (folder / "evaluation.json").write_text(json.dumps(content, indent=1))
        text = tables.markdown(evaluation, f"{model.name} {model.version} on the {options.split} split")
        (folder / "evaluation.md").write_text(text + "\n" + tables.worst_clips(worst))
        plots.draw_all(evaluation, folder)
        plots.error_atlas(atlas, folder / "error_atlas.png")
        drawn = [(sequence, camera) for sequence, camera, _ in worst[:DRAWN_CLIPS]]
        samples = worst_of(options.pairs, options.split, drawn, lambda pairs: model.predict_pairs(pairs).poses)
        contact_sheet(samples, folder / "worst_clips.png")
        if far and options.out is not None:
            files.copy_folder(folder, options.out)
        if registered:
            figures = {f"{options.split}/{key}": value for key, value in compare.flat(evaluation).items()}
            under = f"evaluation/{options.split}"
            fingerprint, counts = manifest.counted(options.pairs)
            run_id = registry.record_evaluation(model.name, model.version, figures, folder, under, fingerprint)
            registry.log_dataset(run_id, files.absolute(options.pairs), fingerprint, counts, "evaluation")


if __name__ == "__main__":
    launch(run, Options)
