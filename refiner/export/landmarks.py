"""The refiner with MediaPipe's 33 landmarks in and out, each frame by itself: what is exported, in PyTorch.

Everything `DepthRefiner.refine` does around the network for a single frame is here as tensors: hips to the origin, image points
relative to their box, the facing. What belongs to clips – smoothing, bones of one length – is not: files for other programs see
one frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refiner.model.inputs import Inputs, crop_normalise
from refiner.model.network import PoseAwareDepthRefiner
from refiner.skeleton import (
    CARRIED_BY,
    FROM_MEDIAPIPE,
    LEFT_HIP,
    LEFT_SHOULDER,
    NUM_JOINTS,
    NUM_LANDMARKS,
    RIGHT_HIP,
    RIGHT_SHOULDER,
)


class FacingRefiner(PoseAwareDepthRefiner):
    """The same network with the same weights; the azimuth's cosine and sine, and from them its harmonics, come from the pose.

    So no angle is computed: few TFLite delegates know the arctangent.
    """

    def facing(self, seen: Inputs) -> Tensor:
        """(B, 2·frequencies) cos kθ and sin kθ, k = 1 …: by the angle addition formulae."""
        left, right = seen.poses[:, LEFT_SHOULDER], seen.poses[:, RIGHT_SHOULDER]
        across = left - right  # as in `refiner.geometry.azimuth`
        spine = left + right - seen.poses[:, LEFT_HIP] - seen.poses[:, RIGHT_HIP]
        x = across[:, 1:2] * spine[:, 2:] - across[:, 2:] * spine[:, 1:2]
        z = across[:, :1] * spine[:, 1:2] - across[:, 1:2] * spine[:, :1]
        # a body of half the size has a normal of a quarter: enlarged, so that half precision on a GPU has something to divide
        cosine, sine = F.normalize(torch.cat([-z, x], -1) * 16, dim=-1, eps=1e-6).split(1, -1)
        cosines, sines = [cosine], [sine]
        for _ in range(self.config.frequencies - 1):
            c, s = cosines[-1], sines[-1]
            cosines.append(c * cosine - s * sine)
            sines.append(s * cosine + c * sine)
        return torch.cat([*cosines, *sines], -1)


class LandmarkRefiner(nn.Module):
    """World landmarks in, refined ones out: the 17 joints are refined, the others move with the joint that carries them."""

    # buffers
    joints: Tensor  # (17, 33) picks
    carriers: Tensor  # (33, 17) hands out

    def __init__(self, model: PoseAwareDepthRefiner) -> None:
        super().__init__()
        model = model.with_camera_pitch(False)  # which MediaPipe's graph does not know
        self.model = FacingRefiner(model.config).eval()
        self.model.load_state_dict(model.state_dict())
        self.register_buffer("joints", torch.eye(NUM_LANDMARKS)[torch.from_numpy(FROM_MEDIAPIPE)])
        self.register_buffer("carriers", torch.eye(NUM_JOINTS)[torch.from_numpy(CARRIED_BY)])
        self.eval()

    def forward(self, world: Tensor, visibility: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            world: (B, 33, 3) m, MediaPipe's world landmarks.
            visibility: (B, 33) 0 … 1.
            points: (B, 33, 2) the image landmarks in any unit that is the same along x and y: pixels, not shares of a picture.

        Returns:
            (B, 33, 3) m, hips' midpoint at the origin; (B, 17) probability that each COCO joint's depth is within 5 cm.
        """
        return self.refined(world, self.picked(visibility[..., None])[..., 0], self.picked(points))

    def refined(self, world: Tensor, visibility: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with visibility (B, 17) and image points (B, 17, 2) of the COCO joints alone."""
        poses = self.picked(world)
        hips = (poses[:, LEFT_HIP : LEFT_HIP + 1] + poses[:, RIGHT_HIP : RIGHT_HIP + 1]) / 2  # (B, 1, 3)
        poses = poses - hips
        azimuth = poses[:, 0, 0]  # any number: `FacingRefiner` has it from the pose
        # the pitch is any number, too: this network is not told of it
        outputs = self.model(Inputs(poses, visibility, azimuth, crop_normalise(points), azimuth))
        moved = outputs.poses - poses
        moved = moved - (moved[:, LEFT_HIP : LEFT_HIP + 1] + moved[:, RIGHT_HIP : RIGHT_HIP + 1]) / 2
        whole = world - hips + F.linear(moved.transpose(1, 2), self.carriers).transpose(1, 2)
        return whole, self.model.confidence(outputs.log_scale)

    def picked(self, landmarks: Tensor) -> Tensor:
        """(B, 33, C) -> (B, 17, C), as `refiner.skeleton.to_coco`, by a product: no delegate lacks that."""
        return F.linear(landmarks.transpose(1, 2), self.joints).transpose(1, 2)
