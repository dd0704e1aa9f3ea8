"""What a checkpoint's network looks like."""

from dataclasses import dataclass
from typing import Literal, get_args

from refiner.errors import UserError

EncoderName = Literal["attention", "whole_pose"]
AXES = {"z": (2,), "xyz": (0, 1, 2)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinerConfig:
    """What a checkpoint's network looks like. The defaults are the published baseline."""

    encoder: EncoderName = "attention"
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
    image_points: bool = False
    """Whether the crop-normalised image points are inputs too."""
    camera_pitch: bool = False
    """Whether the camera's pitch is an input, too, where it is known: towards a camera that looks down people lean who stand,
    and MediaPipe's depth shows a part of that only."""
    axes: Literal["z", "xyz"] = "z"
    """What is corrected: depth alone, or all three coordinates."""
    upright: bool = False
    """Poses are turned about the optical axis until the torso stands upright, and the answer is turned back: MediaPipe turns
    its crop like that, so its errors turn with the person. Helps with everything but standing."""
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
        if self.encoder not in get_args(EncoderName):
            raise UserError(f"encoder '{self.encoder}' is unknown: choose {' or '.join(get_args(EncoderName))}")
        if self.encoder == "attention" and self.width % self.heads:
            raise UserError(f"width {self.width} is not a multiple of {self.heads} heads: choose one that is")
        if self.axes not in AXES:
            raise UserError(f"axes '{self.axes}' is unknown: choose z or xyz")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout {self.dropout:g} is not a share: choose one from 0 to below 1")

    @property
    def channels(self) -> int:
        """Numbers for each joint: position, visibility, and the image point where it is an input."""
        return 4 + 2 * self.image_points

    @property
    def conditions(self) -> int:
        """Numbers for the whole pose: the harmonics of its azimuth, and the camera's pitch where it is an input."""
        return 2 * self.frequencies + 2 * self.camera_pitch
