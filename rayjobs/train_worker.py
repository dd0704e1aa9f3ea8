"""What each worker of `rayjobs.train` runs: reads the pairs, trains in DDP, reports checkpoints; rank 0 logs to MLflow."""

import logging
import tempfile
from dataclasses import asdict
from typing import Any

import ray.train
import torch
from torch.nn.parallel import DistributedDataParallel

from rayjobs.launch import log
from refiner import UserError, plausibility, records, registry
from refiner.metrics import CM
from refiner.model import RefinerConfig, save_checkpoint
from refiner.training import Trainer, TrainingConfig, TrainingData, depth_errors, initialise


def train_worker(config: dict[str, Any]) -> str | None:
    """What each worker runs. A mistake of the user's is returned, not raised: what is raised is tried again."""
    try:
        _train(**config)
    except UserError as error:
        return str(error)
    return None


def _train(
    *, pairs: str, model: RefinerConfig, training: TrainingConfig, run_id: str, tracking_uri: str, threads: int
) -> None:
    logging.getLogger().setLevel(logging.WARNING)  # Ray logs each report of each rank under a name its own level misses
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if threads:
        torch.set_num_threads(threads)  # more threads than cores make each step wait for the others
    device = ray.train.torch.get_device()
    splits = [records.read_pairs(pairs, split) for split in ("train", "val")]
    for split, name in zip(splits, ("train", "val"), strict=True):
        plausibility.check_pairs(split, name)
    train, val = (TrainingData(split, model, device) for split in splits)
    network = initialise(model, training, train)
    wrapped = network
    if world > 1:
        wrapped = DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    trainer = Trainer(network, training, train, val, wrapped=wrapped, rank=rank, world=world)
    history: list[dict[str, float]] = []
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            history = trainer.load(folder)["history"]
    metrics = registry.MetricLog(run_id, tracking_uri) if rank == 0 else None

    def report(done: bool = False) -> None:
        if rank != 0:  # as often as rank 0: a report waits for all workers
            ray.train.report({})
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(folder, {"run_id": run_id, "history": history})
            if done:
                mediapipe = depth_errors(val.frames.poses[:, 0], val.truth).mean()
                card = {
                    "epochs": trainer.epoch,
                    "best_epoch": trainer.best_epoch,
                    "val_depth_cm": trainer.best_error,
                    "val_mediapipe_depth_cm": float(mediapipe) * CM,
                    "train_pairs": len(train),
                    "train_sequences": len(set(splits[0].sequence)),
                    "training": asdict(training),
                    "history": history,
                }
                save_checkpoint(trainer.best_model(), folder, card)
            ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    for figures in trainer.epochs():
        history.append(figures)
        if metrics is not None:
            metrics.log({k: v for k, v in figures.items() if k != "epoch"}, step=int(figures["epoch"]))
            log(
                f"epoch {trainer.epoch}/{training.epochs} · train {figures['train/depth']:.2f} cm · "
                f"val {figures['val/depth_cm']:.2f} cm · {figures['samples_per_s']:,.0f} pairs/s"
            )
        report()
    report(done=True)
    if metrics is not None:
        metrics.close()
