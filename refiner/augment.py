"""Variations of a training batch. The random numbers are drawn for the whole (global) batch and then cut, so that what a
pair goes through does not depend on how many workers share the batch."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from refiner.model import Inputs, mirror_joints, mirrored
from refiner.skeleton import HIPS


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How often and how much."""

    mirror: float = 0.5
    """Share of pairs that are mirrored: x, left and right joints, azimuth and image points."""
    noise_m: float = 0.005
    """Sigma of the noise on each joint of the observed pose, metres; the same at all moments of a window."""
    still: float = 0.15
    """Share of windows that stand still, as a single pose or the first frame of a clip does."""
    blind: float = 0.1
    """Share of pairs whose visibility is unknown (all ones), as when a caller sends none."""


class Draws(NamedTuple):
    """Random numbers for a batch of B."""

    mirror: Tensor  # (B,) bool
    still: Tensor  # (B,) bool
    blind: Tensor  # (B,) bool
    noise: Tensor  # (B, 17, 3) m


def draw(size: int, options: Augmentation, generator: torch.Generator) -> Draws:
    """Draws for a batch, on the generator's device."""
    device = generator.device
    chance = torch.rand(3, size, generator=generator, device=device)
    noise = torch.randn(size, 17, 3, generator=generator, device=device) * options.noise_m
    return Draws(
        chance[0] < options.mirror,
        chance[1] < options.still,
        chance[2] < options.blind,
        noise - noise[:, HIPS].mean(1, keepdim=True),  # the root stays at the origin
    )


def apply(draws: Draws, inputs: Inputs, truth: Tensor, centre: int) -> tuple[Inputs, Tensor]:
    """The batch and its truth after these variations.

    Args:
        draws: for these B pairs.
        inputs: of the network.
        truth: (B, 17, 3).
        centre: index of the tap that is the refined pose.
    """
    poses, visibility, azimuth, points = inputs
    still = draws.still[:, None, None, None]
    poses = torch.where(still, poses[:, centre : centre + 1], poses) + draws.noise[:, None]
    points = torch.where(still, points[:, centre : centre + 1], points)
    visibility = torch.where(draws.still[:, None, None], visibility[:, centre : centre + 1], visibility)
    visibility = torch.where(draws.blind[:, None, None], torch.ones_like(visibility), visibility)
    plain = Inputs(poses, visibility, azimuth, points)
    swapped = mirrored(plain)
    chosen = (
        torch.where(draws.mirror.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(plain, swapped, strict=True)
    )
    return Inputs(*chosen), torch.where(draws.mirror[:, None, None], mirror_joints(truth), truth)
