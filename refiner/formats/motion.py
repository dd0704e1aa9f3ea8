"""One person's motion as it is exported: joints in the room's frame, with their times and confidences."""

from dataclasses import dataclass, replace

import numpy as np

from refiner.skeleton import JOINTS, LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

# OpenPose's names of the joints, which OpenSim's and OpenCap's set-ups read, and two midpoints that those expect.
MARKERS = (
    "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist",
    "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle", "Neck", "midHip",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """One person's motion; N frames, rising in time, those without the person left out."""

    name: str
    fps: float  # of the video
    frames: np.ndarray  # (N,) int, numbers of the frames in the video
    timestamps_us: np.ndarray  # (N,) int, from the start of the video
    joints: np.ndarray  # (N, 17, 3) m, room frame: x to the image's right, y up, z towards the camera
    confidence: np.ndarray  # (N, 17) probability that the depth is within 5 cm of the truth
    person: int | None = None  # number, of one among several; None where one is followed
    span_s: tuple[float, float] | None = (
        None  # of files at even times: several people have one in common; None is the motion's own
    )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def seconds(self) -> np.ndarray:
        """(N,) from the start of the video."""
        return self.timestamps_us * 1e-6

    def even(self) -> tuple["Motion", np.ndarray]:
        """The same at even times, as formats want it that know a frame rate only: gaps are bridged in a straight line, and
        before and after what is known the person stands still.

        Returns:
            The motion, M frames from the first to the last moment of its span; (M,) bool, whether the person was seen then
            (within half a frame's distance).
        """
        start, end = self.span_s or (self.seconds[0], self.seconds[-1])
        moments = start + np.arange(round((end - start) * self.fps) + 1) / self.fps
        after = np.clip(np.searchsorted(self.seconds, moments), 1, max(len(self) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(self) - 1)
        span = np.maximum(self.seconds[after] - self.seconds[before], 1e-9)
        share = np.clip((moments - self.seconds[before]) / span, 0, 1)
        nearest = np.where(share < 0.5, before, after)
        seen = np.abs(self.seconds[nearest] - moments) <= 0.5 / self.fps
        weight = share[:, None, None]
        return replace(
            self,
            frames=np.round(moments * self.fps).astype(np.int64),
            timestamps_us=np.round(moments * 1e6).astype(np.int64),
            joints=self.joints[before] * (1 - weight) + self.joints[after] * weight,
            confidence=np.where(seen[:, None], self.confidence[nearest], 0.0),
        ), seen

    def markers(self) -> np.ndarray:
        """(N, 19, 3) m: the joints and the midpoints of shoulders and hips, in the order of `MARKERS`."""
        neck = (self.joints[:, LEFT_SHOULDER] + self.joints[:, RIGHT_SHOULDER]) / 2
        hips = (self.joints[:, LEFT_HIP] + self.joints[:, RIGHT_HIP]) / 2
        return np.concatenate([self.joints, neck[:, None], hips[:, None]], axis=1)


assert len(MARKERS) == len(JOINTS) + 2
