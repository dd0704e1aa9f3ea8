"""What `benchmarks.train` compares: the job's own step, a loop written by hand, and one over an NPZ file for each pair."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from refiner.model.inputs import Inputs
from refiner.model.network import Outputs, PoseAwareDepthRefiner
from refiner.skeleton import BONES, HIPS, MIRROR, SYMMETRIC_BONES
from refiner.training.trainer import Trainer, TrainingConfig, TrainingData


def project(trainer: Trainer) -> Iterator[None]:
    """The job's own step, over and over."""
    trainer.model.train()
    options = trainer.training
    while True:
        for step, share in enumerate(trainer.train.steps(options.batch_size, options.seed, trainer.epoch)):
            trainer.step(share, step)
            yield
        trainer.epoch += 1


class Plain:
    """What one writes by hand: the same network, loss, augmentation, clipping, schedule and averaged weights."""

    def __init__(self, model: PoseAwareDepthRefiner, training: TrainingConfig, steps: int = 10_000) -> None:
        self.model, self.training, self.config = model.train(), training, model.config
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.05)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    def step(self, poses: Tensor, visibility: Tensor, azimuth: Tensor, truth: Tensor) -> None:
        poses, visibility, azimuth, truth = self.augment(poses, visibility, azimuth, truth)
        points = torch.zeros(*poses.shape[:2], 2, device=poses.device)
        loss = self.loss(self.model(Inputs(poses, visibility, azimuth, points, torch.zeros_like(azimuth))), truth)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].mul_(self.training.ema).add_(parameter, alpha=1 - self.training.ema)

    def augment(self, poses: Tensor, visibility: Tensor, azimuth: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        options, batch, device = self.training.augmentation, len(truth), truth.device
        flip = torch.tensor([-1.0, 1.0, 1.0], device=device)
        noise = torch.randn(batch, 17, 3, device=device) * options.noise_m
        poses = poses + noise - noise[:, HIPS].mean(1, keepdim=True)
        blind = torch.rand(batch, device=device) < options.blind
        visibility = torch.where(blind[:, None], torch.ones_like(visibility), visibility)
        mirror = torch.rand(batch, device=device) < options.mirror
        return (
            torch.where(mirror[:, None, None], poses[:, MIRROR] * flip, poses),
            torch.where(mirror[:, None], visibility[:, MIRROR], visibility),
            torch.where(mirror, -azimuth, azimuth),
            torch.where(mirror[:, None, None], truth[:, MIRROR] * flip, truth),
        )

    def loss(self, outputs: Outputs, truth: Tensor) -> Tensor:
        weights, (left, right) = self.training.weights, SYMMETRIC_BONES.T
        poses = outputs.poses - outputs.poses[:, HIPS].mean(1, keepdim=True)
        depth = (poses - truth).abs()[..., 2] * 100
        length, true_length = (((p[:, BONES[:, 0]] - p[:, BONES[:, 1]]) ** 2).sum(-1) + 1e-12 for p in (poses, truth))
        length, true_length = length.sqrt(), true_length.sqrt()
        scale = outputs.log_scale.exp() * 100
        likelihood = (depth.detach() / scale + scale.log()).mean()
        bone = (length - true_length).abs().mean() * 100
        symmetry = (length[:, left] - length[:, right]).abs().mean() * 100
        return depth.mean() + weights.bone * bone + weights.symmetry * symmetry + weights.likelihood * likelihood

    def in_memory(self, data: TrainingData) -> Iterator[None]:
        inputs, truth = data.batch(torch.arange(len(data), device=data.device))  # all of them, laid out
        while True:
            for rows in torch.randperm(len(truth), device=truth.device).split(self.training.batch_size):
                if len(rows) == self.training.batch_size:
                    self.step(inputs.poses[rows], inputs.visibility[rows], inputs.azimuth[rows], truth[rows])
                    yield

    def from_files(self, folder: Path, workers: int, device: torch.device) -> Iterator[None]:
        loader = DataLoader(
            NpzPairs(folder),
            batch_size=self.training.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        while True:
            for batch in loader:
                self.step(*(t.to(device) for t in batch))
                yield


class NpzPairs(Dataset):
    """One file for each pair."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        with np.load(self.paths[row]) as file:
            return tuple(torch.from_numpy(file[k]) for k in ("corrupted", "visibility", "azimuth", "ground_truth"))

    @staticmethod
    def write(data: TrainingData, folder: Path, count: int) -> None:
        inputs, truth = data.batch(torch.arange(min(count, len(data)), device=data.device))
        columns = {"corrupted": inputs.poses, "visibility": inputs.visibility, "azimuth": inputs.azimuth}
        for i in range(len(truth)):
            row = {name: values[i].cpu().numpy() for name, values in columns.items()}
            # compressed, as records.export_npz writes
            np.savez_compressed(folder / f"{i:07d}.npz", **row, ground_truth=truth[i].cpu().numpy())
