"""What the network sees: batches of poses, how they are mirrored, turned upright and described."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from refiner.model.config import LINEAR_HARMONICS, RefinerConfig
from refiner.skeleton import LEFT_HIP, LEFT_SHOULDER, NUM_JOINTS, RIGHT_HIP, RIGHT_SHOULDER


class Inputs(NamedTuple):
    """A batch of what the network sees; T is the number of taps. Made by `depth_refiner.prepare` and nowhere else."""

    poses: Tensor  # (B, T, 17, 3) m, virtual camera frame, root-centred
    visibility: Tensor  # (B, T, 17) 0 … 1
    azimuth: Tensor  # (B,) degrees, signed, of the pose at the centre tap
    image_points: Tensor  # (B, T, 17, 2) crop-normalised

    def to(self, device: torch.device | str) -> "Inputs":
        return Inputs(*(t.to(device) for t in self))


def mirrored(inputs: Inputs) -> Inputs:
    """The same batch in a mirror: x negated, left and right exchanged, the azimuth's sign changed."""
    return Inputs(
        mirror_joints(inputs.poses),
        exchanged(inputs.visibility, -1),
        -inputs.azimuth,
        mirror_joints(inputs.image_points),
    )


def exchanged(values: Tensor, dim: int) -> Tensor:
    """Left and right joints exchanged along that (negative) dimension, as `skeleton.MIRROR` says: COCO's pairs are neighbours.

    By slices, because a table of indices would be copied to a GPU in each call, which then waits for it.
    """
    nose, sides = values.split([1, NUM_JOINTS - 1], dim)
    return torch.cat([nose, sides.unflatten(dim, (-1, 2)).flip(dim).flatten(dim - 1, dim)], dim)


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


def linear_features(inputs: Inputs, config: RefinerConfig) -> Tensor:
    """Rows of the linear term: 1, angle, visibility, poses at all taps, the pose × angle, image points.

    Returns:
        (B, config.linear_features).
    """
    pose = inputs.poses[:, config.centre].flatten(1)  # (B, 51)
    angle = harmonics(inputs.azimuth, LINEAR_HARMONICS)  # (B, 4)
    parts = [
        torch.ones_like(angle[:, :1]),
        angle,
        inputs.visibility[:, config.centre],
        inputs.poses.flatten(1),
        (pose[:, :, None] * angle[:, None, :]).flatten(1),
    ]
    if config.image_points:
        parts.append(inputs.image_points[:, config.centre].flatten(1))
    return torch.cat(parts, dim=-1)


def upright(inputs: Inputs, centre: int) -> tuple[Inputs, Tensor]:
    """The batch, each window turned about the optical axis so that the torso at its centre stands upright in the image.

    Returns:
        The turned batch, its azimuth that of the turned pose; (B, 2, 2) the rotations that turned x and y.
    """
    pose = inputs.poses[:, centre]
    left, right = pose[:, LEFT_SHOULDER], pose[:, RIGHT_SHOULDER]
    up = (left + right - pose[:, LEFT_HIP] - pose[:, RIGHT_HIP])[:, :2]
    # a torso that points at the camera has no direction in the image: it stays nearly as it is
    sine, cosine = F.normalize(torch.stack([up[:, 0], 1e-4 - up[:, 1]], -1), dim=-1).unbind(-1)
    turn = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)  # (B, 2, 2)
    poses = turned(inputs.poses, turn)
    pose = poses[:, centre]
    across, spine = pose[:, LEFT_SHOULDER] - pose[:, RIGHT_SHOULDER], pose[:, LEFT_SHOULDER] + pose[:, RIGHT_SHOULDER]
    spine = spine - pose[:, LEFT_HIP] - pose[:, RIGHT_HIP]
    normal = torch.linalg.cross(across, spine)
    return Inputs(
        poses,
        inputs.visibility,
        torch.rad2deg(torch.atan2(normal[:, 0], -normal[:, 2])),
        crop_normalise(turned(inputs.image_points, turn)),
    ), turn


def turned(points: Tensor, turn: Tensor) -> Tensor:
    """(B, …, 17, 2 or 3) with x and y turned by (B, 2, 2)."""
    turn = turn.view(-1, *(1,) * (points.ndim - 3), 2, 2)
    xy = points[..., :2] @ turn.transpose(-1, -2)
    return torch.cat([xy, points[..., 2:]], dim=-1)
