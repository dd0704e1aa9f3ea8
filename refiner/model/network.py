"""The refiner's network and its checkpoints.

`PoseAwareDepthRefiner` sees the joints of a pose and which way the body faces, and answers with a correction and a
confidence per joint. Its default configuration is the published baseline, in which the joints look at each other
(self-attention over 17 tokens), 226,116 parameters. Trained by `refiner.training`, used through
`refiner.DepthRefiner`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refiner.model.config import AXES, RefinerConfig
from refiner.model.inputs import Inputs, exchanged, harmonics, mirror_joints, mirrored, turned, upright
from refiner.skeleton import NUM_JOINTS

# The network speaks in units of 10 cm, the size of a typical depth error, so that its outputs are of order one.
METRES_PER_OUTPUT = 0.1
# Least spread that a feature is divided by, metres and shares of a crop: what varies less is noise. Visibility has one of
# its own, for it hardly varies until a joint is hidden.
LEAST_SPREAD, LEAST_SPREAD_VISIBILITY = 0.01, 0.2
# What the sine of a camera's pitch is divided by: 9°, about as far as cameras look up or down.
PITCH_SPREAD = 0.15
# Standard deviations at which the network's inputs are cut off, so that what was never seen is not extrapolated.
FARTHEST_OUT = 6.0


class Outputs(NamedTuple):
    """What the network answers."""

    poses: Tensor  # (B, 17, 3) m, the corrected poses, virtual camera frame
    log_scale: Tensor  # (B, 17) log of the expected |error| in depth, metres


class Block(nn.Module):
    """One encoder layer: joints look at each other, then each is worked on alone. Normalised before each part."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.feedforward), nn.Linear(config.feedforward, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, 17, D)
        batch, joints, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, joints, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, 17, D/H) each
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, joints, width)
        x = x + F.dropout(self.out(seen), self.dropout, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), self.dropout, self.training)


class JointAttention(nn.Module):
    """The published network: a token for each joint, told the view angle; encoder layers; two heads on each token."""

    conditioned = "encoder.view.0.weight"  # whose first columns are for the conditions

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        width = config.width
        self.input = nn.Sequential(nn.Linear(config.channels, width), nn.GELU(), nn.Linear(width, width))
        # as strong as the rest: with the usual 0.02 it took a thousand steps until joints were told apart
        self.joint = nn.Parameter(torch.randn(NUM_JOINTS, width))
        self.view = nn.Sequential(nn.Linear(config.conditions, width), nn.GELU(), nn.Linear(width, width))
        self.merge = nn.Linear(2 * width, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.correction = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))
        self.scale = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))

    def forward(self, features: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 17, C) and (B, conditions) -> (B, 17, 3) correction, (B, 17) log scale, in the network's units."""
        x = self.input(features) + self.joint
        view = self.view(conditions)  # (B, D)
        x = self.merge(torch.cat([x, view[:, None].expand_as(x)], dim=-1))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.correction(x), self.scale(x).squeeze(-1)


class ResidualLayers(nn.Module):
    """Residual layers over all numbers at once, after Martinez et al., "A simple yet effective baseline for 3d human pose
    estimation" (2017), with layer norms.
    """

    def __init__(self, features: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()

        def layer(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))

        self.input = layer(features)
        self.blocks = nn.ModuleList(nn.Sequential(*layer(width), *layer(width)) for _ in range(layers))

    def trunk(self, x: Tensor) -> Tensor:
        """(B, features) -> (B, width)."""
        x = self.input(x)
        for block in self.blocks:
            x = x + block(x)
        return x


class WholePose(ResidualLayers):
    """The whole pose at once: no two joints share weights, and a pose costs a fifth of the attention's time on a CPU."""

    conditioned = "encoder.input.0.weight"  # whose first columns are for the conditions

    def __init__(self, config: RefinerConfig) -> None:
        features = config.conditions + NUM_JOINTS * config.channels
        super().__init__(features, config.width, config.layers, config.dropout)
        self.correction = nn.Sequential(nn.Linear(config.width, 3 * NUM_JOINTS))
        self.scale = nn.Sequential(nn.Linear(config.width, NUM_JOINTS))

    def forward(self, features: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 17, C) and (B, conditions) -> (B, 17, 3) correction, (B, 17) log scale, in the network's units."""
        x = self.trunk(torch.cat([conditions, features.flatten(1)], dim=-1))
        return self.correction(x).unflatten(1, (NUM_JOINTS, 3)), self.scale(x)


ENCODERS = {
    "attention": JointAttention,
    "whole_pose": WholePose,
}


class PoseAwareDepthRefiner(nn.Module):
    """Corrects the depth of MediaPipe's poses, each by itself."""

    # buffers
    offset: Tensor
    spread: Tensor
    axes: Tensor
    linear: Tensor
    calibration: Tensor

    def __init__(self, config: RefinerConfig = RefinerConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = ENCODERS[config.encoder](config)
        # An untrained refiner changes nothing.
        for layer in (self.encoder.correction[-1], self.encoder.scale[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Not parameters: what standardises the inputs, which axes are corrected, and what turns an expected error into a
        # probability.
        self.register_buffer("offset", torch.zeros(NUM_JOINTS, config.channels))
        self.register_buffer(
            "spread", torch.tensor([0.3, 0.3, 0.3, 1.0, 0.5, 0.5])[: config.channels].repeat(NUM_JOINTS, 1)
        )
        mask = torch.zeros(3)
        mask[list(AXES[config.axes])] = METRES_PER_OUTPUT
        self.register_buffer("axes", mask, persistent=False)
        self.register_buffer("calibration", torch.tensor([-3.0, 1.0]))

    def forward(self, inputs: Inputs) -> Outputs:
        if not self.config.symmetric or self.training:
            return self._answer(inputs)
        both = self._answer(Inputs(*(torch.cat(pair) for pair in zip(inputs, mirrored(inputs), strict=True))))
        poses, log_scale = (t.unflatten(0, (2, -1)) for t in both)
        return Outputs(
            (poses[0] + mirror_joints(poses[1])) / 2,
            (log_scale[0] + exchanged(log_scale[1], -1)) / 2,
        )

    def seen(self, inputs: Inputs) -> tuple[Inputs, Tensor | None]:
        """The batch as the network sees it, and how it was turned for that."""
        return upright(inputs) if self.config.upright else (inputs, None)

    def features(self, inputs: Inputs) -> Tensor:
        """(B, 17, channels) what the encoder is given, before it is standardised."""
        parts = [inputs.poses, inputs.visibility[..., None]]
        if self.config.image_points:
            parts.append(inputs.image_points)
        return torch.cat(parts, dim=-1)

    def facing(self, seen: Inputs) -> Tensor:
        """(B, 2·frequencies) what the encoder is told of which way the body faces."""
        return harmonics(seen.azimuth, self.config.frequencies)

    def looking_down(self, seen: Inputs) -> Tensor:
        """(B, 2) what the encoder is told of the camera's pitch: its sine, and whether it is known; zeros where it is not."""
        known = seen.pitch.isfinite()
        sine = torch.deg2rad(seen.pitch.masked_fill(~known, 0.0)).sin()
        return torch.stack([sine / PITCH_SPREAD, known.to(sine.dtype)], dim=-1)

    @torch.no_grad()
    def standardise(self, batches: Iterable[Inputs]) -> None:
        """Learns every input's mean and spread, over these batches and their mirror images.

        It matters more than the choice of network: depth errors hang on differences of centimetres between joints, in
        coordinates of half a metre.
        """
        count = torch.zeros((), dtype=torch.float64, device=self.offset.device)
        total, squares = torch.zeros_like(self.offset).double(), torch.zeros_like(self.offset).double()
        for inputs in batches:
            for side in (inputs, mirrored(inputs)):
                x = self.features(self.seen(side)[0]).double()
                count += len(x)
                total += x.sum(0)
                squares += x.square().sum(0)
        mean = total / count
        spread = (squares / count - mean.square()).clamp(min=0).sqrt()
        least = torch.full((self.config.channels,), LEAST_SPREAD, dtype=torch.float64, device=spread.device)
        least[3] = LEAST_SPREAD_VISIBILITY
        self.offset.copy_(mean)
        self.spread.copy_(torch.maximum(spread, least))

    def _answer(self, inputs: Inputs) -> Outputs:
        config = self.config
        seen, turn = self.seen(inputs)
        features = ((self.features(seen) - self.offset) / self.spread).clamp(-FARTHEST_OUT, FARTHEST_OUT)
        conditions = self.facing(seen)
        if config.camera_pitch:
            conditions = torch.cat([conditions, self.looking_down(seen)], dim=-1)
        correction, log_scale = self.encoder(features, conditions)
        # what follows is in metres and small differences count: fp32, whatever autocast does above
        correction = correction.float() * self.axes  # (B, 17, 3)
        if turn is not None:
            correction = turned(correction, turn.transpose(-1, -2))
        log_scale = log_scale.float() - 3.0  # starts at 5 cm, the error of a middling joint
        return Outputs(inputs.poses + config.strength * correction, log_scale.clamp(-7.0, 1.0))

    def confidence(self, log_scale: Tensor) -> Tensor:
        """(B, 17) expected |error| as log metres -> (B, 17) probability that the depth is within 5 cm of the truth.

        A logistic curve whose two numbers `refiner.training.trainer.calibrate` fits on the validation split.
        """
        offset, slope = self.calibration
        return torch.sigmoid(offset - slope * (log_scale - CONFIDENT_WITHIN_LOG))

    def with_camera_pitch(self, wanted: bool) -> "PoseAwareDepthRefiner":
        """The same network with the camera's pitch among its inputs, or without, on the same device.

        One that never learnt from it makes nothing of it; one that did and loses it answers as where it is not known.
        """
        if wanted == self.config.camera_pitch:
            return self
        model = PoseAwareDepthRefiner(replace(self.config, camera_pitch=wanted)).to(self.offset.device)
        state, first = self.state_dict(), self.encoder.conditioned
        angles = 2 * self.config.frequencies
        head, rest = state[first][:, :angles], state[first][:, self.config.conditions :]
        nothing = head.new_zeros(len(head), model.config.conditions - angles)
        state[first] = torch.cat([head, nothing, rest], dim=1)
        model.load_state_dict(state)
        return model.train(self.training)

    def learn_pitch_alone(self) -> None:
        """From now on training changes only the weights by which the camera's pitch comes in."""
        first = dict(self.named_parameters())[self.encoder.conditioned]
        theirs = torch.zeros_like(first)
        theirs[:, 2 * self.config.frequencies : self.config.conditions] = 1
        for parameter in self.parameters():
            parameter.requires_grad_(parameter is first)
        first.register_hook(lambda gradient: gradient * theirs)

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


# `confidence` is the probability that a joint's depth is within this of the truth.
CONFIDENT_WITHIN_M = 0.05
CONFIDENT_WITHIN_LOG = -2.995732  # its logarithm
