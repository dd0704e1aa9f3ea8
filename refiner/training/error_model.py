"""What MediaPipe would have made of a pose, learnt from pairs: motion alone then teaches a refiner, without a video.

A network learns what MediaPipe's errors are on average for a pose and the side it is seen from; what it leaves unexplained
is drawn from real errors in similar poses, of all joints, axes, image points and visibilities together, so that joints go on
being wrong together. For training alone, of networks that see single frames: every figure is measured on what MediaPipe
really saw. Used by `rayjobs.simulate`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refiner import geometry
from refiner.data.records import Pairs
from refiner.model.inputs import crop_normalise, exchanged, harmonics, mirror_joints
from refiner.model.network import ResidualLayers
from refiner.skeleton import NUM_JOINTS, root_centred

WIDTH, LAYERS, DROPOUT = 384, 1, 0.2
FREQUENCIES = 3  # of the azimuth
EPOCHS, BATCH, LEARNING_RATE = 6, 512, 2e-3
NOISE = 0.03  # on the standardised inputs
CHUNK = 2048
# Unexplained errors that are kept, and how many of the nearest of them one is drawn from.
BANK, NEIGHBOURS = 32_768, 40
# Numbers for each joint: pose x, y, z in metres and image point x, y, both as differences from the truth, and visibility.
CHANNELS = 6


class Observed(NamedTuple):
    """What MediaPipe would have said; N poses."""

    poses: np.ndarray  # (N, 17, 3) float32 m, virtual camera frame, hips' midpoint at the origin
    visibility: np.ndarray  # (N, 17) float32 0 … 1
    image_points: np.ndarray  # (N, 17, 2) float32 crop-normalised


class _Expected(ResidualLayers):
    """Standardised truth and azimuth -> the mean error, standardised."""

    def __init__(self) -> None:
        super().__init__(NUM_JOINTS * 3 + 2 * FREQUENCIES, WIDTH, LAYERS, DROPOUT)
        self.answer = nn.Linear(WIDTH, NUM_JOINTS * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.trunk(x))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """The network, and what standardises its two sides."""

    network: _Expected
    inputs: tuple[Tensor, Tensor]  # mean and spread
    outputs: tuple[Tensor, Tensor]

    @classmethod
    def to(cls, x: Tensor, y: Tensor, generator: torch.Generator) -> "_Fitted":
        """Fits a network to (M, features) and (M, 102)."""
        inputs, outputs = ((t.mean(0), t.std(0).clamp(min=1e-3)) for t in (x, y))
        x, y = (x - inputs[0]) / inputs[1], (y - outputs[0]) / outputs[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(1 << 31, (), generator=generator)))
            network = _Expected().train()
            optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
            batch = min(BATCH, len(x))
            steps = EPOCHS * (len(x) // batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
            for _ in range(EPOCHS):
                order = torch.randperm(len(x))
                for rows in order[: len(x) // batch * batch].view(-1, batch):
                    seen = x[rows] + NOISE * torch.randn(batch, x.shape[1])
                    optimizer.zero_grad(set_to_none=True)
                    F.smooth_l1_loss(network(seen), y[rows]).backward()
                    optimizer.step()
                    schedule.step()
        return cls(network=network.eval(), inputs=inputs, outputs=outputs)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        parts = [self.network((part - self.inputs[0]) / self.inputs[1]) for part in x.split(CHUNK)]
        return torch.cat(parts) * self.outputs[1] + self.outputs[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorModel:
    """MediaPipe's errors as a function of the truth, with their spread."""

    expected: _Fitted
    poses: Tensor  # (M, features) of the kept errors, in the units that distances are measured in
    errors: Tensor  # (M, 102) what the expected errors leave unexplained there
    explained: float
    """Share of the variance of the errors in depth that the expected ones explain, on sequences they were not fitted to."""

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> "ErrorModel":
        """Fits the model to real pairs and their mirror images.

        The unexplained errors are of networks that did not see those sequences (two folds); a network's errors on what it
        was fitted to are too small.

        Args:
            pairs: of the training split. Where image points are not known (NaN), the observed pose's x and y stand in.
            seed: the same pairs and seed give the same model.
        """
        generator = torch.Generator().manual_seed(seed)
        truth = torch.from_numpy(root_centred(pairs.ground_truth).astype(np.float32))
        poses = torch.from_numpy(root_centred(pairs.corrupted).astype(np.float32))
        points = torch.from_numpy(pairs.image_points.astype(np.float32))
        points = torch.where(points.isfinite(), points, crop_normalise(poses[..., :2]))
        seen = poses, torch.from_numpy(pairs.visibility.astype(np.float32)), points
        mirror = mirror_joints(seen[0]), exchanged(seen[1], -1), mirror_joints(seen[2])
        x = torch.cat([_features(truth), _features(mirror_joints(truth))])
        y = torch.cat([_errors(truth, *seen), _errors(mirror_joints(truth), *mirror)])
        fold = torch.from_numpy(np.unique(pairs.sequence, return_inverse=True)[1] % 2).repeat(2)
        unexplained = torch.empty_like(y)
        for k in (0, 1) if len(fold.unique()) == 2 else ():
            unexplained[fold == k] = y[fold == k] - _Fitted.to(x[fold != k], y[fold != k], generator)(x[fold == k])
        expected = _Fitted.to(x, y, generator)
        if len(fold.unique()) < 2:  # a single sequence
            unexplained = y - expected(x)
        depth = torch.arange(2, y.shape[1], CHANNELS)
        explained = 1 - float(unexplained[:, depth].square().mean() / y[:, depth].var(0, correction=0).mean())
        kept = torch.randperm(len(x), generator=generator)[:BANK]
        return cls(expected=expected, poses=x[kept] / expected.inputs[1], errors=unexplained[kept], explained=explained)

    def observe(self, truth: np.ndarray, seed: int = 0) -> Observed:
        """Draws what MediaPipe might have said of each pose alone: what it says of successive ones is not smooth.

        Args:
            truth: (N, 17, 3) m, virtual camera frame.
            seed: the same poses and seed give the same observations.
        """
        poses = torch.from_numpy(root_centred(truth).astype(np.float32))
        x = _features(poses)
        ranks = torch.rand(len(x), generator=torch.Generator().manual_seed(seed))
        errors = self.expected(x) + self.errors[self._neighbours(x / self.expected.inputs[1], ranks)]
        errors = errors.unflatten(1, (NUM_JOINTS, CHANNELS)).numpy()
        points = crop_normalise(crop_normalise(poses[..., :2]) + torch.from_numpy(errors[..., 3:5]))
        return Observed(
            root_centred(poses.numpy() + errors[..., :3]).astype(np.float32),
            errors[..., 5].clip(0, 1),
            points.numpy(),
        )

    def _neighbours(self, x: Tensor, ranks: Tensor) -> Tensor:
        """(N, features) in units of distance and (N,) 0 … 1 -> (N,) the row of a kept error in a similar pose."""
        count = min(NEIGHBOURS, len(self.poses))
        squares = self.poses.square().sum(1)
        chosen_rows = []
        for part, rank in zip(x.split(CHUNK), ranks.split(CHUNK), strict=True):
            nearest = (squares - 2 * part @ self.poses.T).topk(count, largest=False).indices
            chosen_rows.append(nearest.gather(1, (rank * count).long()[:, None])[:, 0])
        return torch.cat(chosen_rows)


def _features(truth: Tensor) -> Tensor:
    """(N, 17, 3) -> (N, 57): the pose, and harmonics of its azimuth."""
    azimuth = torch.from_numpy(geometry.azimuth(truth.numpy()).astype(np.float32))
    return torch.cat([truth.flatten(1), harmonics(azimuth, FREQUENCIES)], dim=1)


def _errors(truth: Tensor, poses: Tensor, visibility: Tensor, points: Tensor) -> Tensor:
    """What was observed -> (N, 102), as differences from the truth where there is one."""
    return torch.cat([poses - truth, points - crop_normalise(truth[..., :2]), visibility[..., None]], -1).flatten(1)
