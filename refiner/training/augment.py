"""Variations of a training batch. The random numbers are drawn for the whole (global) batch and then cut, so that what a
pair goes through does not depend on how many workers share the batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from refiner.model.config import RefinerConfig
from refiner.model.inputs import Inputs, crop_normalise, mirror_joints, mirrored
from refiner.skeleton import HIPS, NUM_JOINTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How often and how much."""

    mirror: float = 0.5
    """Share of pairs that are mirrored: x, left and right joints, azimuth and image points."""
    noise_m: float = 0.01
    """Sigma of the noise on each joint of the observed pose, metres."""
    blind: float = 0.1
    """Share of pairs whose visibility is unknown (all ones), as when a caller sends none."""
    pointless: float = 0.15
    """Share of pairs whose image points are unknown, as when a caller sends none: the pose's own x and y stand in."""
    pitchless: float = 0.4
    """Share of pairs for which the camera's pitch is unknown, as when a caller does not say it."""


class Draws(NamedTuple):
    """Random numbers for a batch of B."""

    mirror: Tensor  # (B,) bool
    blind: Tensor  # (B,) bool
    pointless: Tensor  # (B,) bool
    pitchless: Tensor  # (B,) bool
    noise: Tensor  # (B, 17, 3) m

    def take(self, rows: slice) -> "Draws":
        return Draws(*(d[rows] for d in self))


def draw(size: int, options: Augmentation, generator: torch.Generator) -> Draws:
    """Draws for a batch, on the generator's device."""
    device = generator.device
    chance = torch.rand(3, size, generator=generator, device=device)
    noise = torch.randn(size, NUM_JOINTS, 3, generator=generator, device=device) * options.noise_m
    left, right = HIPS
    return Draws(
        chance[0] < options.mirror,
        chance[2] < options.blind,
        torch.rand(size, generator=generator, device=device) < options.pointless,
        chance[1] < options.pitchless,
        noise - (noise[:, left, None] + noise[:, right, None]) / 2,  # the root stays at the origin
    )


def apply(draws: Draws, inputs: Inputs, truth: Tensor, config: RefinerConfig) -> tuple[Inputs, Tensor]:
    """The batch and its truth after these variations.

    Args:
        draws: for these B pairs.
        inputs: of the network.
        truth: (B, 17, 3).
        config: of the network.
    """
    poses, visibility, azimuth, points, pitch = inputs
    if config.image_points:
        unknown = draws.pointless[:, None, None]
        points = torch.where(unknown, crop_normalise(poses[..., :2]), points)
    poses = poses + draws.noise
    visibility = visibility.masked_fill(draws.blind[:, None], 1.0)
    if config.camera_pitch:
        pitch = pitch.masked_fill(draws.pitchless, torch.nan)
    swapped = mirrored(Inputs(poses, visibility, azimuth, points, pitch))
    mirror = draws.mirror[:, None, None]
    return (
        Inputs(
            torch.where(mirror, swapped.poses, poses),
            torch.where(mirror[..., 0], swapped.visibility, visibility),
            torch.where(draws.mirror, swapped.azimuth, azimuth),
            torch.where(mirror, swapped.image_points, points) if config.image_points else points,
            pitch,
        ),
        torch.where(mirror, mirror_joints(truth), truth),
    )
