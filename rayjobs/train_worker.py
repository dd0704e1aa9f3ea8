"""What each worker of `rayjobs.train` runs: reads the pairs, trains in DDP, reports checkpoints; rank 0 logs to MLflow."""

import logging
import tempfile
from dataclasses import asdict
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch.nn.parallel import DistributedDataParallel

from rayjobs.metrics import JobMetrics
from refiner import UserError, files, registry
from refiner.command import log
from refiner.data import checks, records
from refiner.data.records import Seen
from refiner.evaluation.metrics import CM
from refiner.model.checkpoint import load_checkpoint, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.training.dataset import load, row_counts
from refiner.training.trainer import Trainer, TrainingConfig, depth_errors, initialise

EPOCHS_AHEAD = 5  # that MLflow may have of a worker that died, beyond the last checkpoint that Ray knows


def train_worker(config: dict[str, Any]) -> str | None:
    """What each worker runs. A mistake of the user's that all of them find at the start is returned, not raised: what is raised
    is tried again.
    """
    try:
        trainer, history = _set_up(**config)
    except UserError as error:
        return str(error)
    _train(trainer, history, **config)
    return None


def _set_up(
    *,
    pairs: str,
    model: RefinerConfig,
    training: TrainingConfig,
    memory: float,
    threads: int,
    recovered: str | None,
    simulated: str | None,
    seen: tuple[Seen, ...],
    start: str,
    **_: Any,
) -> tuple[Trainer, list[dict[str, float]]]:
    """The trainer, where the last checkpoint left it, and the figures of the epochs before."""
    logging.getLogger().setLevel(logging.WARNING)  # Ray logs each report of each rank under a name its own level misses
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if threads:
        torch.set_num_threads(threads)  # more threads than cores make each step wait for the others
    device = ray.train.torch.get_device()
    train, val = load(pairs, model, device, memory, simulated, seen)
    network = initialise(model, training, train, load_checkpoint(start) if start else None)
    wrapped = network
    if world > 1:
        wrapped = DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    trainer = Trainer(network, training, train, val, wrapped=wrapped, rank=rank, world=world)
    history: list[dict[str, float]] = []
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None and recovered is not None:
        checkpoint = ray.train.Checkpoint.from_directory(recovered)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            history = trainer.load(folder)["history"]
    return trainer, history


def _train(
    trainer: Trainer,
    history: list[dict[str, float]],
    *,
    pairs: str,
    simulated: str | None,
    seen: tuple[Seen, ...],
    run_id: str,
    tracking_uri: str,
    **_: Any,
) -> None:
    rank = trainer.rank
    watched = JobMetrics()
    # An epoch is sent before its checkpoint is reported, and Ray may not have taken some before it in yet.
    metrics = registry.MetricLog(run_id, tracking_uri, once_until=len(history) + EPOCHS_AHEAD) if rank == 0 else None

    def publish(figures: dict[str, float]) -> None:
        if metrics is not None:
            metrics.log({k: v for k, v in figures.items() if k != "epoch"}, step=int(figures["epoch"]))

    def report(done: bool = False) -> None:
        if rank != 0:  # as often as rank 0: a report waits for all workers
            ray.train.report({})
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(folder, {"run_id": run_id, "history": history})
            if done:
                save_checkpoint(trainer.best_model(), folder, _card(trainer, history, pairs, simulated, seen))
            try:
                ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))
            except OSError as error:
                if files.is_away(error):
                    raise
                raise UserError(
                    f"the checkpoint of epoch {trainer.epoch} could not be written to the --storage ({error}): make room "
                    "there; the one before is kept, and the same --name goes on from it"
                ) from None

    for figures in history:
        publish(figures)  # whoever was killed may have reported an epoch and not sent it yet
    for figures in trainer.epochs():
        history.append(figures)
        publish(figures)
        if metrics is not None:
            for name, value in figures.items():
                watched.tell("pose_train_figure", value, {"figure": name})
            watched.tell("pose_train_epoch", figures["epoch"])
            log(
                f"epoch {trainer.epoch}/{trainer.training.epochs} · train {figures['train/depth']:.2f} cm · "
                f"val {figures['val/depth_cm']:.2f} cm · {figures['samples_per_s']:,.0f} pairs/s"
            )
        report()
    report(done=True)
    if metrics is not None:
        metrics.close()


def _card(
    trainer: Trainer, history: list[dict[str, float]], pairs: str, simulated: str | None, seen: tuple[Seen, ...]
) -> dict[str, Any]:
    """What a checkpoint says of its training."""

    def count(root: str) -> int:
        return sum(row_counts(records.pair_files(root, "train")))

    mediapipe = depth_errors(trainer.val.frames.poses, trainer.val.truth).mean()
    return {
        "epochs": trainer.epoch,
        "best_epoch": trainer.best_epoch,
        "val_depth_cm": trainer.best_error,
        "val_mediapipe_depth_cm": float(mediapipe) * CM,
        "train_pairs": count(pairs),
        "train_sequences": len(checks.sequences_of(pairs, "train")),
        "simulated_pairs": count(simulated) if simulated else 0,
        "simulated_sequences": len(checks.sequences_of(simulated, "train")) if simulated else 0,
        "seen": list(seen),
        "training": asdict(trainer.training),
        "history": history,
    }
