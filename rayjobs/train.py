"""Train: pairs in, a tracked, registered refiner out. Ray Train with DDP, on CPUs or GPUs.

    python -m rayjobs.train --pairs data/pairs

The run, its metrics and the model (alias 'candidate') are in MLflow. A worker that dies costs the epoch it was in. The
same --name again goes on with the same run from its last checkpoint.
"""

import os
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import ray
import ray.train
import tyro
from ray.exceptions import ActorDiedError
from ray.train.torch import TorchTrainer

from rayjobs import train_storage
from rayjobs.session import ray_session
from rayjobs.train_worker import train_worker
from refiner import UserError, files, registry
from refiner.command import cores, launch, log
from refiner.data import checks, manifest, records
from refiner.evaluation import plots
from refiner.inference import drift
from refiner.inference.depth_refiner import SHIPPED
from refiner.model import presets
from refiner.model.checkpoint import load_checkpoint, read_card, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.training.trainer import TrainingConfig

# How often Ray Train's controller asks the workers, in seconds; an epoch's report waits for it, by default for up to two.
POLL_ENV, POLL_S = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25"
RESUME_TAG = "train_name"  # of the MLflow run: finds it again when the same name is trained on


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of the pairs that 'rayjobs.pair' wrote."""
    simulated: str = ""
    """Folder of further pairs to train on, which 'rayjobs.simulate' wrote, for single-frame networks. Real ones validate."""
    seen: tuple[records.Seen, ...] = ("mediapipe",)
    """How the frames of the pairs were seen; where several are named, each pair is there in every one of these ways.
    raw and two_looks are in what 'rayjobs.film' made: without MediaPipe's filters, and of both looks of '--looks 2'."""
    preset: presets.PresetName = "best"
    """best: what did best on held-out dancers. baseline: the published single-frame network."""
    network: str = ""
    """Folder of a checkpoint (rayjobs.tune's best) whose network, not its weights, is trained in place of the preset's."""
    start: str = ""
    """Folder of a checkpoint whose weights training starts from, or 'box': the model in the box. Its network is trained."""
    dropout: float | None = None
    """Dropout in place of the network's own; best's 0.2 suits up to some 100,000 pairs, a million taught more with 0.05."""
    model_name: str = field(default_factory=registry.model_name)
    """Name of the registered model that gets a new version."""
    name: str = ""
    """Name of the run; one that was used before goes on from its last checkpoint. A new one by default."""
    workers: int = 0
    """DDP workers; 0: one for each GPU of the cluster, and two where there is none."""
    min_workers: int = 0
    """Fewest workers to go on with while the cluster has no room for all of them (a node was lost); 0: all or none."""
    memory_gb: float = 0.0
    """Pairs that would take more than this on a worker's device are streamed from disk in every epoch.
    0: a fifth of a machine's memory, half of a GPU's. For the same order of streamed pairs everywhere, name a number."""
    storage: str = "runs/train"
    """Folder or s3:// prefix of the checkpoints; on several machines one that all of them reach."""
    max_failures: int = 3
    """How often training goes on after a worker's death."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    model: Annotated[RefinerConfig | None, tyro.conf.Suppress] = None
    """Another network than the preset's, for the ablation."""

    def __post_init__(self) -> None:
        if not self.seen or len(set(self.seen)) < len(self.seen):
            raise UserError(f"--seen names {' '.join(self.seen) or 'nothing'}: give one or several ways, each once")
        if self.memory_gb < 0:
            raise UserError(f"memory_gb is {self.memory_gb:g}: it must be positive, or 0 for what fits")
        if self.start and self.network:
            raise UserError("--start brings a network of its own: leave --network out")
        if self.training.only_pitch and not self.start:
            raise UserError("--only-pitch goes on from weights that know all else: name them with --start")
        if self.workers and self.min_workers > self.workers:
            raise UserError(f"min_workers is {self.min_workers}, more than the {self.workers} workers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    run_id: str
    name: str
    version: str
    """Of the registered model, alias 'candidate'."""
    run_url: str
    parameters: int
    epochs: int
    best_epoch: int
    val_depth_cm: float
    """Mean |Δz| on the validation split, of the weights that were registered."""
    val_mediapipe_depth_cm: float
    samples_per_s: float
    """While training, over all workers; the median epoch."""
    history: list[dict[str, float]]
    """Each epoch's figures."""
    seconds: dict[str, float]
    """Wall time: start (until the first step), train, register."""


def run(options: Options) -> Summary:
    """Trains, or goes on with the run of that --name, and registers the best epoch as @candidate.

    Raises:
        UserError: the pairs cannot be right, or a worker found a mistake in the options.
    """
    clock = [time.monotonic()]
    start = str(SHIPPED if options.start == "box" else Path(options.start).absolute()) if options.start else ""
    config = options.model or presets.network(options.preset, start or options.network, options.dropout)
    if options.training.only_pitch:
        config = replace(config, camera_pitch=True)
    elif start:
        config = replace(config, strength=1.0)  # how much of it is applied is chosen when it is trained
    checks.check_splits(options.pairs, options.simulated)
    name = options.name or time.strftime("train-%Y%m%d-%H%M%S")
    run_id = registry.find_run(RESUME_TAG, name) if options.name else None
    if run_id is None:
        run_id = registry.start_run(
            name,
            {**asdict(options), "pairs": files.absolute(options.pairs), "model": asdict(config)},
            {RESUME_TAG: name},
        )
    else:
        registry.reopen_run(run_id)
        log(f"going on with run {run_id}")
    try:
        with ray_session(), tempfile.TemporaryDirectory() as scratch:
            checkpoint = fit(options, config, start, name, run_id)
            clock.append(time.monotonic())
            folder = files.patiently(lambda: checkpoint.to_directory(scratch))
            summary = _register(options, folder, run_id, name, clock)
    except BaseException:
        registry.finish_run(run_id, failed=True)
        raise
    registry.finish_run(run_id)
    return summary


def fit(options: Options, config: RefinerConfig, start: str, name: str, run_id: str) -> ray.train.Checkpoint:
    """Trains on the cluster and returns the last checkpoint: the model, its card and the state of the training."""
    os.environ.setdefault(POLL_ENV, POLL_S)  # Ray hands it on to the controller
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = options.workers or gpus or 2
    storage = files.absolute(options.storage)

    def once() -> ray.train.Result:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "pairs": files.absolute(options.pairs),
                "simulated": files.absolute(options.simulated) if options.simulated else None,
                "seen": options.seen,
                "start": start,
                "model": config,
                "training": options.training,
                "run_id": run_id,
                "tracking_uri": registry.tracking_uri(),
                "memory": options.memory_gb * 1e9,
                "recovered": train_storage.recover(storage, name),
                "threads": 0 if gpus else max(1, cores() // workers),
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=(options.min_workers, workers) if options.min_workers else workers, use_gpu=gpus > 0
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=storage,
                failure_config=ray.train.FailureConfig(max_failures=options.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),
                # else each line that rank 0 prints comes twice, by itself and through Ray's logger
                worker_runtime_env={"env_vars": {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}},
            ),
        )
        return trainer.fit()

    try:
        fitted = train_storage.whatever_is_away(once, storage)
    except (ray.train.TrainingFailedError, ActorDiedError) as error:
        raise train_storage.explained(error, storage) or error from None
    if fitted.return_value is not None:
        raise UserError(fitted.return_value)
    assert fitted.checkpoint is not None  # every epoch reports one
    return fitted.checkpoint


def _register(options: Options, folder: str, run_id: str, name: str, clock: list[float]) -> Summary:
    card = read_card(folder)
    history = card.pop("history")
    fingerprint, counts = manifest.counted(options.pairs)
    registry.log_dataset(run_id, files.absolute(options.pairs), fingerprint, counts)
    with tempfile.TemporaryDirectory() as scratch:
        # the checkpoint that is registered: without the state of the training, with where it comes from
        model = load_checkpoint(folder)
        card |= {"run_id": run_id, "git_commit": registry.git_commit(), "dataset_fingerprint": fingerprint}
        card[drift.CARD_KEY] = ((known := manifest.read(options.pairs)) and known.inputs) or drift.of_pairs(
            options.pairs
        )
        clean = save_checkpoint(model, Path(scratch, "checkpoint"), card)
        pictures = Path(scratch, "plots")
        plots.loss_curve(history, pictures / "loss.png")
        registry.log_files(run_id, pictures)
        example = records.read_pair_files(records.pair_files(options.pairs, "val")[:1]).take(slice(0, 4))
        version = registry.register(
            clean,
            run_id,
            name=options.model_name,
            example=(example.corrupted, example.visibility),
            metrics={"val_depth_cm": card["val_depth_cm"], "val_mediapipe_depth_cm": card["val_mediapipe_depth_cm"]},
            tags={"dataset_fingerprint": fingerprint, "train_name": name},
        )
    trained = sum(h["seconds"] for h in history)
    rates = sorted(h["samples_per_s"] for h in history)
    return Summary(
        run_id=run_id,
        name=name,
        version=version,
        run_url=registry.run_url(run_id),
        parameters=model.num_parameters(),
        epochs=card["epochs"],
        best_epoch=card["best_epoch"],
        val_depth_cm=card["val_depth_cm"],
        val_mediapipe_depth_cm=card["val_mediapipe_depth_cm"],
        samples_per_s=rates[len(rates) // 2],
        history=history,
        seconds={
            "start": clock[1] - clock[0] - trained,
            "train": trained,
            "register": time.monotonic() - clock[1],
        },
    )


if __name__ == "__main__":
    launch(run, Options)
