"""The refiner's network and its checkpoints.

`PoseAwareDepthRefiner` sees the joints of a pose and which way the body faces, and answers with a correction and a
confidence per joint. Its default configuration is the published baseline, in which the joints look at each other
(self-attention over 17 tokens), 226,116 parameters. Trained by `refiner.training`, used through
`refiner.inference.DepthRefiner`.
"""

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refiner.errors import UserError
from refiner.skeleton import LEFT_HIP, LEFT_SHOULDER, NUM_JOINTS, RIGHT_HIP, RIGHT_SHOULDER

ARCHITECTURE = "PoseAwareDepthRefiner"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
AXES = {"z": (2,), "xyz": (0, 1, 2)}
# The network speaks in units of 10 cm, the size of a typical depth error, so that its outputs are of order one.
METRES_PER_OUTPUT = 0.1
# Least spread that a feature is divided by, metres and shares of a crop: what varies less is noise. Visibility has one of
# its own, for it hardly varies until a joint is hidden.
LEAST_SPREAD, LEAST_SPREAD_VISIBILITY = 0.01, 0.2
# Standard deviations at which the network's inputs are cut off, so that what was never seen is not extrapolated.
FARTHEST_OUT = 6.0
# Angle harmonics that the linear term multiplies the pose with: cos θ, sin θ, cos 2θ, sin 2θ.
LINEAR_HARMONICS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinerConfig:
    """What a checkpoint's network looks like. The defaults are the published baseline."""

    encoder: Literal["attention", "whole_pose"] = "attention"
    """attention: the joints are tokens that look at each other. whole_pose: residual layers over all joints at once."""
    width: int = 64
    """Size of a joint's token, or of the whole pose's layers."""
    layers: int = 4
    """Encoder layers, or residual blocks of two layers each."""
    heads: int = 4
    """Of the attention."""
    feedforward: int = 256
    """Width inside the attention's layers."""
    frequencies: int = 12
    """Fourier features of the azimuth: cos kθ and sin kθ for k = 1 … this."""
    dropout: float = 0.0
    taps_s: tuple[float, ...] = (0.0,)
    """Moments that the network sees, in seconds from the pose that is refined. (0.0,) is a single frame; a temporal window
    lists more of them. In seconds and not in frames, so that a model trained at 30 frames a second works at 60."""
    image_points: bool = False
    """Whether the crop-normalised image points are inputs too."""
    axes: Literal["z", "xyz"] = "z"
    """What is corrected: depth alone, or all three coordinates."""
    upright: bool = False
    """Poses are turned about the optical axis until the torso stands upright, and the answer is turned back: MediaPipe turns
    its crop like that, so its errors turn with the person. Helps with everything but standing (the linear term sees poses
    as they are)."""
    linear: bool = False
    """Adds a linear term (pose, visibility, azimuth and their products), solved in closed form before training starts, so
    that the network only learns what ridge regression cannot."""
    strength: float = 1.0
    """Share of the correction that is applied. Less than 1 where a model is used on people unlike those it was trained on."""
    symmetric: bool = False
    """In use (not in training), answers are averaged with those for the mirrored pose: a mirrored pose then gets the
    mirrored answer exactly, at twice the cost."""
    smoothing_s: float = 0.0
    """Sigma of the Gaussian over time that refined clips pass through at the end, seconds; 0 leaves it out."""
    constant_bones: bool = False
    """In refined clips every bone keeps one length. Moves joints in all three axes, by a centimetre or so."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps_s", tuple(float(t) for t in self.taps_s))
        if self.encoder not in ("attention", "whole_pose"):
            raise UserError(f"encoder '{self.encoder}' is unknown: choose attention or whole_pose")
        if self.encoder == "attention" and self.width % self.heads:
            raise UserError(f"width {self.width} is no multiple of {self.heads} heads: choose one that is")
        if 0.0 not in self.taps_s:
            raise UserError(f"taps_s {self.taps_s} lacks 0.0: the pose that is refined must be among what is seen")
        if self.axes not in AXES:
            raise UserError(f"axes '{self.axes}' is unknown: choose z or xyz")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout:g} is no share: choose one of at least 0 and less than 1")

    @property
    def centre(self) -> int:
        """Index of the tap that is the refined pose itself."""
        return self.taps_s.index(0.0)

    @property
    def channels(self) -> int:
        """Numbers for each joint at each tap: position, visibility, and the image point where it is an input."""
        return 4 + 2 * self.image_points

    @property
    def linear_features(self) -> int:
        """Length of a row of `linear_features`."""
        taps = len(self.taps_s)
        per_joint = 3 * taps + 1 + 3 * 2 * LINEAR_HARMONICS + 2 * self.image_points
        return 1 + 2 * LINEAR_HARMONICS + NUM_JOINTS * per_joint


class Inputs(NamedTuple):
    """A batch of what the network sees; T is the number of taps. Made by `refiner.inference.prepare` and nowhere else."""

    poses: Tensor  # (B, T, 17, 3) m, virtual camera frame, root-centred
    visibility: Tensor  # (B, T, 17) 0 … 1
    azimuth: Tensor  # (B,) degrees, signed, of the pose at the centre tap
    image_points: Tensor  # (B, T, 17, 2) crop-normalised

    def to(self, device: torch.device | str) -> "Inputs":
        return Inputs(*(t.to(device) for t in self))


class Outputs(NamedTuple):
    """What the network answers."""

    poses: Tensor  # (B, 17, 3) m, the corrected poses, virtual camera frame
    log_scale: Tensor  # (B, 17) log of the expected |error| in depth, metres


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
    """The published network: a token for each joint, told the view angle; encoder layers; two heads on each token.

    The taps of a temporal window are further channels of each joint's token, so a window costs hardly more than a single
    frame.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        width = config.width
        channels = len(config.taps_s) * config.channels
        self.input = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))
        # as strong as the rest: with the usual 0.02 it took a thousand steps until joints were told apart
        self.joint = nn.Parameter(torch.randn(NUM_JOINTS, width))
        self.view = nn.Sequential(nn.Linear(2 * config.frequencies, width), nn.GELU(), nn.Linear(width, width))
        self.merge = nn.Linear(2 * width, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.correction = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))
        self.scale = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))

    def forward(self, features: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 17, C) and (B, 2·frequencies) -> (B, 17, 3) correction, (B, 17) log scale, in the network's units."""
        x = self.input(features.transpose(1, 2).flatten(2)) + self.joint
        view = self.view(angle)  # (B, D)
        x = self.merge(torch.cat([x, view[:, None].expand_as(x)], dim=-1))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.correction(x), self.scale(x).squeeze(-1)


class ResidualLayers(nn.Module):
    """Residual layers over all numbers at once, after Martinez et al., "A simple yet effective baseline for 3d human pose
    estimation" (2017), with layer norms."""

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

    def __init__(self, config: RefinerConfig) -> None:
        features = 2 * config.frequencies + len(config.taps_s) * NUM_JOINTS * config.channels
        super().__init__(features, config.width, config.layers, config.dropout)
        self.correction = nn.Sequential(nn.Linear(config.width, 3 * NUM_JOINTS))
        self.scale = nn.Sequential(nn.Linear(config.width, NUM_JOINTS))

    def forward(self, features: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 17, C) and (B, 2·frequencies) -> (B, 17, 3) correction, (B, 17) log scale, in the network's units."""
        x = self.trunk(torch.cat([angle, features.flatten(1)], dim=-1))
        return self.correction(x).unflatten(1, (NUM_JOINTS, 3)), self.scale(x)


ENCODERS = {"attention": JointAttention, "whole_pose": WholePose}


class PoseAwareDepthRefiner(nn.Module):
    """Corrects the depth of MediaPipe's poses. A single pose is a temporal window that stands still."""

    def __init__(self, config: RefinerConfig = RefinerConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = ENCODERS[config.encoder](config)
        # An untrained refiner changes nothing (or is its linear term alone).
        for layer in (self.encoder.correction[-1], self.encoder.scale[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Not parameters: what standardises the inputs, which axes are corrected, the linear term, and what turns an expected
        # error into a probability.
        shape = (len(config.taps_s), NUM_JOINTS, config.channels)
        self.register_buffer("offset", torch.zeros(shape))
        self.register_buffer(
            "spread", torch.tensor([0.3, 0.3, 0.3, 1.0, 0.5, 0.5])[: config.channels].repeat(*shape[:2], 1)
        )
        mask = torch.zeros(3)
        mask[list(AXES[config.axes])] = METRES_PER_OUTPUT
        self.register_buffer("axes", mask, persistent=False)
        if config.linear:
            self.register_buffer("linear", torch.zeros(config.linear_features, NUM_JOINTS * 3))
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
        return upright(inputs, self.config.centre) if self.config.upright else (inputs, None)

    def features(self, inputs: Inputs) -> Tensor:
        """(B, T, 17, channels) what the encoder is given, before it is standardised: the pose that is refined, and how far
        each joint is from there at the other taps; these are small, and would be lost in absolute positions."""
        parts = [inputs.poses, inputs.visibility[..., None]]
        if self.config.image_points:
            parts.append(inputs.image_points)
        x = torch.cat(parts, dim=-1)
        centre = self.config.centre
        here = x[:, centre : centre + 1]
        return torch.cat([x[:, :centre] - here, here, x[:, centre + 1 :] - here], dim=1)

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
        correction, log_scale = self.encoder(features, harmonics(seen.azimuth, config.frequencies))
        # what follows is in metres and small differences count: fp32, whatever autocast does above
        correction = correction.float() * self.axes  # (B, 17, 3)
        if turn is not None:
            correction = turned(correction, turn.transpose(-1, -2))
        if config.linear:
            with torch.autocast(correction.device.type, enabled=False):
                correction = correction + (linear_features(inputs, config) @ self.linear).view_as(correction)
        log_scale = log_scale.float() - 3.0  # starts at 5 cm, the error of a middling joint
        return Outputs(inputs.poses[:, config.centre] + config.strength * correction, log_scale.clamp(-7.0, 1.0))

    def confidence(self, log_scale: Tensor) -> Tensor:
        """(B, 17) expected |error| as log metres -> (B, 17) probability that the depth is within 5 cm of the truth.

        A logistic curve whose two numbers `refiner.training.calibrate` fits on the validation split.
        """
        offset, slope = self.calibration
        return torch.sigmoid(offset - slope * (log_scale - CONFIDENT_WITHIN_LOG))

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


# `confidence` is the probability that a joint's depth is within this of the truth.
CONFIDENT_WITHIN_M = 0.05
CONFIDENT_WITHIN_LOG = -2.995732  # its logarithm


def save_checkpoint(
    model: PoseAwareDepthRefiner, folder: str | Path, card: dict[str, object] | None = None, *, half: bool = False
) -> Path:
    """Writes `model.safetensors` and `config.json` into a folder, each whole or not at all.

    Args:
        model: the network; its weights are written as fp32.
        half: write the encoder's weights as fp16: half the size, and answers that differ by less than 0.2 mm.
        folder: made where it is not there.
        card: facts about the model (what it was trained on, its figures), kept under "card" in config.json.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in model.state_dict().items()}
    if half:
        tensors = {name: t.half() if name.startswith("encoder.") else t for name, t in tensors.items()}
    content = {"architecture": ARCHITECTURE, "config": asdict(model.config), "card": card or {}}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as part:
        save_file(tensors, Path(part, WEIGHTS_FILE))
        Path(part, CONFIG_FILE).write_text(json.dumps(content, indent=1) + "\n")
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            os.replace(Path(part, name), folder / name)
    return folder


def read_card(folder: str | Path) -> dict[str, object]:
    """The facts that `save_checkpoint` was given."""
    return _read_config(Path(folder))["card"]


def load_checkpoint(folder: str | Path) -> PoseAwareDepthRefiner:
    """Reads a checkpoint, ready for inference, on the CPU.

    Raises:
        UserError: a file is missing or damaged, or the weights belong to another architecture.
    """
    folder = Path(folder)
    content = _read_config(folder)
    known = {f.name for f in fields(RefinerConfig)}
    unknown = sorted(set(content["config"]) - known)
    if unknown:
        raise UserError(
            f"{folder / CONFIG_FILE} has options this version does not know ({', '.join(unknown)}): "
            "it was written by a newer one; update pose-depth-refiner"
        )
    model = PoseAwareDepthRefiner(RefinerConfig(**content["config"]))
    path = folder / WEIGHTS_FILE
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: a checkpoint is {WEIGHTS_FILE} beside {CONFIG_FILE}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}): fetch or train it anew") from None
    except RuntimeError:
        raise UserError(
            f"{path} does not hold the weights that {CONFIG_FILE} beside it describes: the two belong to different models"
        ) from None
    if not all(t.isfinite().all() for t in model.state_dict().values()):
        raise UserError(f"{path} holds weights that are not finite: its training diverged; train it anew")
    return model.eval()


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is no checkpoint: {CONFIG_FILE} is missing there") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch or train the checkpoint anew") from None
    if (
        not isinstance(content, dict)
        or content.get("architecture") != ARCHITECTURE
        or not isinstance(content.get("config"), dict)
    ):
        found = content.get("architecture") if isinstance(content, dict) else None
        raise UserError(
            f"{path} describes the architecture {found}, not {ARCHITECTURE}: it is another model's checkpoint"
        )
    return {"card": {}, **content}
