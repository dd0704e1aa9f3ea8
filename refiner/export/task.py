"""MediaPipe's model bundle (`.task`) with the refiner inside: any app of MediaPipe's gets refined world landmarks by one file.

The landmark network answers with image landmarks and world landmarks in the axes of its crop, which stands upright. The refiner
is appended behind them; what comes after it – MediaPipe turns the crop's axes back and filters over time – stays MediaPipe's.
Image landmarks, visibility and presence stay as they are, and so does the crop of the next frame, which follows from them.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refiner import __version__
from refiner.errors import UserError
from refiner.estimators import mediapipe_assets as assets
from refiner.estimators.blazepose.landmarks import MIN_CONFIDENCE, REACH, SIZE
from refiner.export import lowering
from refiner.export.graph import Graph
from refiner.export.landmarks import LandmarkRefiner
from refiner.inference.depth_refiner import DepthRefiner
from refiner.skeleton import NUM_LANDMARKS

CARD = "model_card.json"  # in the bundle, beside the networks
_POINTS = 39  # that the network gives, the 33 landmarks first
_HEATMAP = 64  # cells along each side
_LANDMARKS, _MAP, _WORLD = (1, 5 * _POINTS), (1, _HEATMAP, _HEATMAP, _POINTS), (1, 3 * _POINTS)  # shapes of its outputs
_STEEP = 1e4  # of a slope that stands for a step; half precision holds it
_UNREFINED = "unrefined_world_landmarks"


class BehindLandmarks(nn.Module):
    """What is appended: the landmark network's own outputs in, its world landmarks refined out."""

    def __init__(self, refiner: LandmarkRefiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, landmarks: Tensor, heatmap: Tensor, world: Tensor) -> Tensor:
        """
        Args:
            landmarks: (1, 195) x, y, z in pixels of the crop, logits of visibility and presence, of 39 points.
            heatmap: (1, 64, 64, 39) logits of where each of them is.
            world: (1, 117) metres, in the crop's axes, of the same.

        Returns:
            (1, 117) with the body's 33 refined; the auxiliary points after them stay.
        """
        values = landmarks.view(1, _POINTS, 5)
        points = at_heatmap(values[..., :2] * (_HEATMAP / SIZE), heatmap)[:, :NUM_LANDMARKS]
        sure = values[:, :NUM_LANDMARKS, 3:4].sigmoid()
        joints = self.refiner.picked(torch.cat([points, sure], -1))  # (1, 17, 3)
        poses = world[:, : 3 * NUM_LANDMARKS].view(1, NUM_LANDMARKS, 3)
        refined, _ = self.refiner.refined(poses, joints[..., 2], joints[..., :2])
        return torch.cat([refined.reshape(1, -1), world[:, 3 * NUM_LANDMARKS :]], -1)


def at_heatmap(points: Tensor, heatmap: Tensor) -> Tensor:
    """What MediaPipe does with image landmarks after the network: `blazepose.landmarks.refined` in tensors, without comparing.

    Args:
        points: (1, P, 2) in cells of the heatmap.
        heatmap: (1, H, W, P) logits.

    Returns:
        (1, P, 2) in cells.
    """
    height, width, count = heatmap.shape[1:]
    x, y = points.transpose(1, 2).reshape(1, 1, 2, count).split(1, 2)  # (1, 1, 1, P)
    columns, rows = torch.arange(float(width)).view(1, 1, -1, 1), torch.arange(float(height)).view(1, -1, 1, 1)

    def near(cells: Tensor, place: Tensor) -> Tensor:  # 1 up to REACH cells from the point's own, else 0
        return (REACH + 1 - (cells - place.relu().floor()).abs()).clamp(0, 1)

    weights = heatmap.sigmoid() * near(columns, x) * near(rows, y)  # (1, H, W, P)
    by_column, by_row = weights.sum(1, keepdim=True), weights.sum(2, keepdim=True)
    total = by_row.sum(1, keepdim=True).clamp(min=1e-6)  # (1, 1, 1, P)
    # each of these is 1 where the point moves and 0 where it stays; to the left, above and to the right of the heatmap it stays
    moves = ((weights.amax((1, 2), keepdim=True) - MIN_CONFIDENCE) * _STEEP + 1).clamp(0, 1)
    moves = moves * ((x + 1) * _STEEP).clamp(0, 1) * ((y + 1) * _STEEP).clamp(0, 1) * ((width - x) * _STEEP).clamp(0, 1)
    x = x + moves * ((by_column * columns).sum(2, keepdim=True) / total - x)
    y = y + moves * ((by_row * rows).sum(1, keepdim=True) / total - y)
    return torch.cat([x, y], 2).view(1, 2, count).transpose(1, 2)


def bundle(refiner: DepthRefiner, pose_model: Path) -> bytes:
    """MediaPipe's bundle with a refiner inside; the same of both give the same bytes.

    Args:
        refiner: its single-frame part is what is taken.
        pose_model: the `.task` file to put it in.

    Raises:
        UserError: the file is not a pose landmarker, or has a refiner already.
    """
    content = pose_model.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as stock:
            parts = {name: stock.read(name) for name in stock.namelist()}
        network = parts[assets.LANDMARKS]
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{pose_model} is not one of MediaPipe's pose landmarkers ({error}): give one's .task file"
        ) from None
    if CARD in parts:
        raise UserError(f"{pose_model} has a refiner inside already: give MediaPipe's own .task file")
    facts = card(refiner, pose_model.name, hashlib.sha256(content).hexdigest())

    def edit(model: Any) -> None:
        graph = Graph(model)
        outputs = {value.shape: (position, value) for position, value in enumerate(graph.outputs())}
        if not {_LANDMARKS, _MAP, _WORLD} <= outputs.keys():
            raise UserError(
                f"{pose_model} holds a landmark network of another kind: give a pose landmarker's .task file"
            )
        (_, landmarks), (_, heatmap), (position, world) = (outputs[shape] for shape in (_LANDMARKS, _MAP, _WORLD))
        behind = BehindLandmarks(LandmarkRefiner(refiner.model.cpu()))
        (refined,) = lowering.append(graph, behind, (landmarks, heatmap, world))
        graph.rename(refined, graph.name(world))
        graph.rename(world, _UNREFINED)
        graph.output(refined, position)
        described = assets.description(model)
        described.name, described.description = facts["name"], facts["what"]
        described.version, described.license = facts["refiner"]["version"], facts["licence"]
        assets.describe(model, described)

    parts[assets.LANDMARKS] = assets.edited(network, edit)
    parts[CARD] = json.dumps(facts, indent=1).encode()
    return assets.bundled(parts)


def card(refiner: DepthRefiner, pose_model: str, sha256: str) -> dict[str, Any]:
    """What the bundle is, from what it was made, and under which licences."""
    return {
        "name": "MediaPipe pose landmarker with pose-depth-refiner",
        "what": (
            "World landmarks are refined: the 17 joints of COCO by the network, the others move with the joint that carries "
            "them (eyes and mouth with the head, fingers with the wrist, heels and toes with the ankle). Every frame by "
            "itself; image landmarks, visibility and presence are MediaPipe's."
        ),
        "pose_model": {
            "file": pose_model, "sha256": sha256, "licence": "Apache-2.0", "copyright": "Google LLC",
        },
        "refiner": {
            "name": refiner.name, "version": refiner.version,
            "config": asdict(refiner.model.config), "card": refiner.card,
        },
        "licence": "Apache-2.0; the weights are also subject to the terms of what they were trained on, see refiner.card",
        "made_with": f"pose-depth-refiner {__version__}",
    }  # fmt: skip


def read_card(task: Path) -> dict[str, Any] | None:
    """The model card of a bundle; None where no refiner is inside."""
    with zipfile.ZipFile(task) as content:
        return json.loads(content.read(CARD)) if CARD in content.namelist() else None
