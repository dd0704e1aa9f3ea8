"""Where errors are: mean |Δz| by joint, by the way the body faces and by visibility, and the clips that are worst.

In sums that add up, as `tally` has them, so that pairs need never be in memory at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refiner.data.records import Pairs
from refiner.evaluation import metrics
from refiner.geometry import AZIMUTH_EDGES, azimuth
from refiner.skeleton import NUM_JOINTS

# MediaPipe's visibility says little below 0.5, and most joints are above 0.9.
VISIBILITY_EDGES = np.array([0.0, 0.5, 0.9, 1.0])
SHAPE = (NUM_JOINTS, len(AZIMUTH_EDGES) - 1, len(VISIBILITY_EDGES) - 1)  # joints, A, V


@dataclass(frozen=True, kw_only=True, slots=True)
class Atlas:
    """Of M methods; of K clips, each a sequence as one camera filmed it."""

    methods: tuple[str, ...]
    counts: np.ndarray  # (17, A, V) joints
    sums: np.ndarray  # (M, 17, A, V) cm
    clips: np.ndarray  # (K, 2) str: sequence, camera
    frames: np.ndarray  # (K,) of each clip
    clip_sums: np.ndarray  # (M, K) cm: over its frames, of their means over the joints

    @classmethod
    def of(cls, pairs: Pairs, methods: Mapping[str, np.ndarray]) -> "Atlas":
        """Args:
        pairs: with their truth.
        methods: name -> (N, 17, 3) poses for them.
        """
        facing = _bin(azimuth(pairs.ground_truth), AZIMUTH_EDGES)[:, None]
        cell = np.ravel_multi_index(
            (np.arange(NUM_JOINTS)[None], facing, _bin(pairs.visibility, VISIBILITY_EDGES)), SHAPE
        ).ravel()
        names = np.stack([pairs.sequence, pairs.camera], axis=1).astype(str)
        clips, clip = np.unique(names, axis=0, return_inverse=True)
        errors = [
            metrics.depth_error(poses, pairs.ground_truth).astype(float) * metrics.CM for poses in methods.values()
        ]
        size = int(np.prod(SHAPE))
        return cls(
            methods=tuple(methods),
            counts=np.bincount(cell, minlength=size).reshape(SHAPE),
            sums=np.stack([np.bincount(cell, e.ravel(), size).reshape(SHAPE) for e in errors]),
            clips=clips,
            frames=np.bincount(clip, minlength=len(clips)),
            clip_sums=np.stack([np.bincount(clip, e.mean(1), len(clips)) for e in errors]),
        )

    def __add__(self, other: "Atlas") -> "Atlas":
        clips, clip = np.unique(np.concatenate([self.clips, other.clips]), axis=0, return_inverse=True)
        return Atlas(
            methods=self.methods,
            counts=self.counts + other.counts,
            sums=self.sums + other.sums,
            clips=clips,
            frames=np.bincount(clip, np.concatenate([self.frames, other.frames]), len(clips)).astype(int),
            clip_sums=np.stack(
                [
                    np.bincount(clip, np.concatenate(both), len(clips))
                    for both in zip(self.clip_sums, other.clip_sums, strict=True)
                ]
            ),
        )

    def means(self, method: str) -> np.ndarray:
        """(17, A, V) cm; NaN where no joint is."""
        with np.errstate(invalid="ignore"):
            return self.sums[self.methods.index(method)] / self.counts

    def worst_clips(self, method: str, most: int) -> list[tuple[str, str, dict[str, float]]]:
        """Sequence, camera and every method's mean |Δz| in cm of the clips on which a method is most wrong."""
        means = self.clip_sums / self.frames
        order = np.argsort(-means[self.methods.index(method)], kind="stable")[:most]
        return [
            (str(self.clips[k, 0]), str(self.clips[k, 1]), dict(zip(self.methods, means[:, k].tolist(), strict=True)))
            for k in order
        ]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As plain arrays, to be sent; `of_arrays` backwards."""
        return {
            "methods": np.array(self.methods, dtype=str), "counts": self.counts, "sums": self.sums, "clips": self.clips,
            "frames": self.frames, "clip_sums": self.clip_sums,
        }  # fmt: skip

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Atlas":
        return cls(**{**arrays, "methods": tuple(arrays["methods"].tolist())})


def _bin(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
