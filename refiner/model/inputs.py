"""What the network sees: batches of poses, how they are mirrored, turned upright and described."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from refiner.skeleton import LEFT_HIP, LEFT_SHOULDER, NUM_JOINTS, NUM_SIDELESS, RIGHT_HIP, RIGHT_SHOULDER


class Inputs(NamedTuple):
    """A batch of what the network sees. Made by `depth_refiner.prepare` and nowhere else."""

    poses: Tensor  # (B, 17, 3) m, virtual camera frame, root-centred
    visibility: Tensor  # (B, 17) 0 … 1
    azimuth: Tensor  # (B,) degrees, signed
    image_points: Tensor  # (B, 17, 2) crop-normalised
    pitch: Tensor  # (B,) degrees that the line of sight to the person looks down; NaN where it is not known

    def to(self, device: torch.device | str) -> "Inputs":
        return Inputs(*(t.to(device) for t in self))


def mirrored(inputs: Inputs) -> Inputs:
    """The same batch in a mirror: x negated, left and right exchanged, the azimuth's sign changed."""
    return Inputs(
        mirror_joints(inputs.poses),
        exchanged(inputs.visibility, -1),
        -inputs.azimuth,
        mirror_joints(inputs.image_points),
        inputs.pitch,
    )


def exchanged(values: Tensor, dim: int) -> Tensor:
    """Left and right joints exchanged along that (negative) dimension, as `skeleton.MIRROR` says: pairs are neighbours.

    By slices, because a table of indices would be copied to a GPU in each call, which then waits for it.
    """
    middle, sides = values.split([NUM_SIDELESS, NUM_JOINTS - NUM_SIDELESS], dim)
    return torch.cat([middle, sides.unflatten(dim, (-1, 2)).flip(dim).flatten(dim - 1, dim)], dim)


def mirror_joints(points: Tensor) -> Tensor:
    """(..., 17, C) -> the same in a mirror; `refiner.geometry.mirror` for tensors."""
    flip = torch.ones(points.shape[-1], device=points.device)
    flip[0] = -1
    return exchanged(points, -2) * flip


def crop_normalise(points: Tensor) -> Tensor:
    """(..., 17, 2) -> the same relative to their bounding box; `refiner.geometry.crop_normalise` for tensors."""
    low, high = points.amin(-2, keepdim=True), points.amax(-2, keepdim=True)
    half = (high - low).amax(-1, keepdim=True) / 2
    return (points - (low + high) / 2) / half.clamp(min=1e-6)


def harmonics(azimuth: Tensor, count: int) -> Tensor:
    """(B,) degrees -> (B, 2·count): cos kθ and sin kθ for k = 1 … count; continuous across ±180°."""
    angles = torch.deg2rad(azimuth)[:, None] * torch.arange(1, count + 1, device=azimuth.device, dtype=azimuth.dtype)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def upright(inputs: Inputs) -> tuple[Inputs, Tensor]:
    """The batch, each pose turned about the optical axis so that its torso stands upright in the image.

    Returns:
        The turned batch, its azimuth that of the turned pose; (B, 2, 2) the rotations that turned x and y.
    """
    pose = inputs.poses
    left, right = pose[:, LEFT_SHOULDER], pose[:, RIGHT_SHOULDER]
    up = (left + right - pose[:, LEFT_HIP] - pose[:, RIGHT_HIP])[:, :2]
    # a torso that points at the camera has no direction in the image: it stays nearly as it is
    sine, cosine = F.normalize(torch.stack([up[:, 0], 1e-4 - up[:, 1]], -1), dim=-1).unbind(-1)
    turn = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)  # (B, 2, 2)
    poses = turned(inputs.poses, turn)
    across, spine = (
        poses[:, LEFT_SHOULDER] - poses[:, RIGHT_SHOULDER],
        poses[:, LEFT_SHOULDER] + poses[:, RIGHT_SHOULDER],
    )
    spine = spine - poses[:, LEFT_HIP] - poses[:, RIGHT_HIP]
    normal = torch.linalg.cross(across, spine)
    return Inputs(
        poses,
        inputs.visibility,
        torch.rad2deg(torch.atan2(normal[:, 0], -normal[:, 2])),
        crop_normalise(turned(inputs.image_points, turn)),
        inputs.pitch,
    ), turn


def turned(points: Tensor, turn: Tensor) -> Tensor:
    """(B, 17, 2 or 3) with x and y turned by (B, 2, 2)."""
    xy = points[..., :2] @ turn.transpose(-1, -2)
    return torch.cat([xy, points[..., 2:]], dim=-1)
