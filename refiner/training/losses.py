"""What training minimises. All lengths in centimetres, so that the terms and their weights can be compared."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from refiner.model.config import AXES
from refiner.model.network import Outputs
from refiner.skeleton import BONES, HIPS, SYMMETRIC_BONES

CM = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of the terms; each is a mean over joints or bones, so a weight of 0.1 means: 10 cm of this for 1 cm of depth."""

    bone: float = 0.1
    """Length of each bone against its true length."""
    symmetry: float = 0.05
    """Left against right length of the same bone; lengths only, so any posture is allowed."""
    likelihood: float = 0.1
    """Laplace likelihood of the depth error under the predicted scale: teaches the confidence."""


class Bones(NamedTuple):
    """Indices on a device. A table on the host would be copied there in every step, which then waits for it."""

    parents: Tensor  # (bones,) joints
    children: Tensor
    left: Tensor  # (S,) bones that have a twin
    right: Tensor

    @classmethod
    def on(cls, device: torch.device | str) -> "Bones":
        return cls(*(torch.as_tensor(i.copy(), device=device) for i in (*BONES.T, *SYMMETRIC_BONES.T)))


def terms(outputs: Outputs, truth: Tensor, axes: Literal["z", "xyz"], bones: Bones) -> dict[str, Tensor]:
    """The single terms.

    Args:
        outputs: of the network.
        truth: (B, 17, 3) m, root-centred.
        axes: what the network corrects; other coordinates are not its fault.
        bones: on the outputs' device.

    Returns:
        Means over the batch: `depth` |Δz| cm, `plane` (|Δx| + |Δy|) cm (only where these are corrected), `bone` and
        `symmetry` cm, `likelihood` nats.
    """
    left, right = HIPS
    poses = outputs.poses - (outputs.poses[:, left, None] + outputs.poses[:, right, None]) / 2
    error = (poses - truth).abs() * CM  # (B, 17, 3)
    lengths, true_lengths = _lengths(poses, bones), _lengths(truth, bones)  # (B, bones)
    # The error is a given here: the scale follows it, but may not buy itself a better likelihood with worse depth.
    scale = outputs.log_scale.exp() * CM
    parts = {
        "depth": error[..., 2].mean(),
        "bone": (lengths - true_lengths).abs().mean() * CM,
        "symmetry": (lengths.index_select(1, bones.left) - lengths.index_select(1, bones.right)).abs().mean() * CM,
        "likelihood": (error[..., 2].detach() / scale + scale.log()).mean(),
    }
    if 0 in AXES[axes]:
        parts["plane"] = error[..., :2].mean() * 2
    return parts


def total(parts: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum."""
    return (
        parts["depth"]
        + parts.get("plane", 0.0)
        + weights.bone * parts["bone"]
        + weights.symmetry * parts["symmetry"]
        + weights.likelihood * parts["likelihood"]
    )


def _lengths(poses: Tensor, bones: Bones) -> Tensor:
    vectors = poses.index_select(1, bones.children) - poses.index_select(1, bones.parents)
    # the tiny constant keeps the root differentiable where two joints coincide
    return vectors.square().sum(-1).add(1e-12).sqrt()
