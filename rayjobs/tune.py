"""Tune: pairs in, the options that do best on held-out dancers out. Ray Tune; trials that fall behind end early (ASHA).

    python -m rayjobs.tune --pairs data/pairs --trials 20

Every trial is a child run of one run in MLflow. The last line holds the winner's figures, the checkpoint of its network, and
the command that trains with its options.
"""

import shlex
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from rayjobs.session import cluster_cores, ray_session
from rayjobs.tune_runs import ChildRuns
from refiner import UserError, files, registry
from refiner.command import launch
from refiner.data import checks
from refiner.model import presets
from refiner.model.checkpoint import save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.training.dataset import load
from refiner.training.trainer import Trainer, TrainingConfig, initialise

METRIC = "val_depth_cm"  # of the best epoch so far
GRACE = 2  # epochs that every trial gets
REDUCTION = 3  # of as many trials, one goes on
# What is tried, beside what `network_space` says.
TRAINING = {"learning_rate": tune.loguniform(3e-4, 1e-2), "weight_decay": tune.loguniform(1e-3, 0.3)}
AUGMENTATION = {"noise_m": tune.uniform(0.0, 0.04)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    trials: int = 20
    preset: presets.PresetName = "best"
    """The network whose other options all trials share."""
    name: str = ""
    """Name of the run; the time by default."""
    storage: str = "runs/tune"
    """Folder of the trials; on several machines one that all of them reach."""
    gpus_per_trial: float = 0.25
    """Share of a GPU that a trial gets, where there are any: the network is small, and several fit."""
    search_seconds: float | None = None
    """Time after which the search ends with what it has."""
    memory_gb: float = 0.0
    """As in rayjobs.train."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"trials is {self.trials}: it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    run_id: str
    name: str
    run_url: str
    val_depth_cm: float
    """Of the winner: mean |Δz| on the validation split, cm."""
    options: dict[str, Any]
    """The winner's, of those that were tried."""
    network: str
    """Folder of the winner's checkpoint."""
    command: str
    """Trains with the winner's options."""
    trials: list[dict[str, Any]]
    """All of them, the best first: options, val_depth_cm, epochs."""
    seconds: float


def run(options: Options) -> Summary:
    """Searches, and writes the best trial's network to <storage>/<name>/best.

    Raises:
        UserError: the pairs cannot be right, or no trial finished.
    """
    started = time.monotonic()
    checks.check_splits(options.pairs)
    name = options.name or time.strftime("tune-%Y%m%d-%H%M%S")
    run_id = registry.start_run(name, asdict(options))
    try:
        with ray_session():
            grid = search(options, name, run_id)
        measured = [(r, r.metrics, r.checkpoint) for r in grid if r.metrics and METRIC in r.metrics]
        done = sorted(measured, key=lambda r: r[1][METRIC])
        if not done:
            raise UserError(f"no trial of {name} finished: {grid.errors[0] if grid.errors else 'no time'}")
        trials = [
            {"options": r.config, METRIC: metrics[METRIC], "epochs": metrics["training_iteration"]}
            for r, metrics, _ in done
        ]
        network = files.join(files.absolute(options.storage), name, "best")
        checkpoint = done[0][2]
        assert checkpoint is not None  # each report of a figure comes with one
        with checkpoint.as_directory() as folder:
            files.copy_folder(Path(folder), network)
        registry.log_metrics(run_id, {METRIC: trials[0][METRIC]})
    except BaseException:
        registry.finish_run(run_id, failed=True)
        raise
    registry.finish_run(run_id)
    return Summary(
        run_id=run_id,
        name=name,
        run_url=registry.run_url(run_id),
        val_depth_cm=trials[0][METRIC],
        options=trials[0]["options"],
        network=network,
        command=command(options, trials[0]["options"], network),
        trials=trials,
        seconds=time.monotonic() - started,
    )


def search(options: Options, name: str, run_id: str) -> tune.ResultGrid:
    """Runs all trials on the cluster."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    resources: dict[str, float] = {"cpu": 1, "gpu": options.gpus_per_trial} if gpus else {"cpu": 1}
    work = tune.with_parameters(trial, options=replace(options, pairs=files.absolute(options.pairs)))
    tuner = tune.Tuner(
        tune.with_resources(work, resources),
        param_space=network_space(presets.PRESETS[options.preset]) | TRAINING | AUGMENTATION,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="min",
            num_samples=options.trials,
            search_alg=BasicVariantGenerator(random_state=options.training.seed),
            scheduler=ASHAScheduler(
                max_t=options.training.epochs,
                grace_period=min(GRACE, options.training.epochs),
                reduction_factor=REDUCTION,
            ),
            max_concurrent_trials=None if gpus else cluster_cores(),  # Ray may count more CPUs than there are
            time_budget_s=options.search_seconds,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=files.absolute(options.storage),
            callbacks=[ChildRuns(name, run_id, METRIC)],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )
    return tuner.fit()


def trial(settings: dict[str, Any], *, options: Options) -> None:
    """Trains with these settings and reports every epoch. A process of its own."""
    config, training = applied(settings, options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    train, val = load(options.pairs, config, device, options.memory_gb * 1e9)
    trainer = Trainer(initialise(config, training, train), training, train, val)
    for figures in trainer.epochs():
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(trainer.best_model(), folder, {METRIC: trainer.best_error, "training": asdict(training)})
            metrics = {METRIC: trainer.best_error, **{k: v for k, v in figures.items() if k != "epoch"}}
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def network_space(preset: RefinerConfig) -> dict[str, Any]:
    """What is tried of the network: half, one and one and a half times the preset's width, and so on."""
    return {
        "dropout": tune.uniform(0.0, 0.4),
        "width": tune.choice([preset.width // 2, preset.width, preset.width * 3 // 2]),
        "upright": tune.choice([False, True]),
    }


def applied(settings: dict[str, Any], options: Options) -> tuple[RefinerConfig, TrainingConfig]:
    """The preset's network and the training, with a trial's settings."""
    preset = presets.PRESETS[options.preset]
    network, training, augmentation = (
        {name: settings[name] for name in group} for group in (network_space(preset), TRAINING, AUGMENTATION)
    )
    varied = replace(options.training.augmentation, **augmentation)
    return (
        replace(preset, **network),
        replace(options.training, augmentation=varied, **training),
    )


def command(options: Options, settings: dict[str, Any], network: str) -> str:
    """The command line that trains with these settings."""
    parts = ["python", "-m", "rayjobs.train", "--pairs", options.pairs, "--network", str(network)]
    for prefix, group in (("", TRAINING), ("augmentation.", AUGMENTATION)):
        for name in group:
            parts += [f"--{prefix}{name.replace('_', '-')}", f"{settings[name]:.6g}"]
    return shlex.join(parts)


if __name__ == "__main__":
    launch(run, Options)
