"""What live smoothing costs and gains beside smoothing whole clips: errors, jitter, lag.

    python -m rayjobs.studio --out data/live --sequences 30 --splits test --seconds 3 --fps 30 --cameras 2 --footage camera
    python -m rayjobs.extract --videos data/live/videos --out data/live/observations
    python -m rayjobs.pair --observations data/live/observations --dataset data/live --out data/live/pairs
    python -m benchmarks.causal --pairs data/live/pairs

Pairs must be of consecutive frames. The lag is the shift of the truth in time that fits the poses' velocities best; that of
MediaPipe, whose own filters are in it, stands beside. The last line is one JSON object.
"""

import json
from dataclasses import dataclass

import numpy as np
import torch

from refiner import DepthRefiner, temporal
from refiner.causal import LiveSmoother
from refiner.command import log, parse
from refiner.data import records
from refiner.data.records import Pairs
from refiner.evaluation import metrics

LAGS_S = np.arange(-0.05, 0.2, 0.005)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    pairs: str
    """Folder of pairs."""
    split: str = "test"
    model: str | None = None
    """Another than the model in the box."""


def live(refined: np.ndarray, seconds: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Refined poses frame by frame, as a stream gives them; all clips side by side."""
    streams = [np.flatnonzero(clips == clip) for clip in np.unique(clips)]
    smoother, smoothed = LiveSmoother(len(streams)), np.zeros_like(refined)
    for i in range(max(map(len, streams))):
        rows = np.array([row for row, frames in enumerate(streams) if i < len(frames)])
        frames = np.array([streams[row][i] for row in rows])
        smoothed[frames] = smoother(rows, refined[frames], seconds[frames], True)
    return smoothed


def lag_s(poses: np.ndarray, truth: np.ndarray, seconds: np.ndarray, clips: np.ndarray) -> float:
    """By how much poses (N, 17, 3) are behind."""
    errors = []
    for lag in LAGS_S:
        error, count = 0.0, 0
        for clip in np.unique(clips):
            rows = np.flatnonzero(clips == clip)
            then = seconds[rows] - lag
            inside = (then >= seconds[rows[0]]) & (then <= seconds[rows[-1]])
            flat = truth[rows].reshape(len(rows), -1)
            shifted = np.stack([np.interp(then, seconds[rows], column) for column in flat.T], 1).reshape(-1, 17, 3)
            both = inside[1:] & inside[:-1]
            difference = np.diff(poses[rows], axis=0) - np.diff(shifted, axis=0)
            error += np.linalg.norm(difference[both], axis=-1).mean(-1).sum()
            count += int(both.sum())
        errors.append(error / count)
    return float(LAGS_S[int(np.argmin(errors))])


def figures(poses: np.ndarray, pairs: Pairs, clips: np.ndarray) -> dict[str, float]:
    every = metrics.summarise(poses, pairs)
    lag = lag_s(poses, pairs.ground_truth, pairs.timestamp_us * 1e-6, clips)
    names = ("depth_cm", "mpjpe_cm", "acceleration_error", "bone_cv")
    return {name: round(every[name], 4) for name in names} | {"lag_ms": round(lag * 1e3)}


def main() -> None:
    options = parse(Options)
    torch.set_num_threads(1)
    pairs = records.read_pairs(options.pairs, options.split)
    seconds, clips = pairs.timestamp_us * 1e-6, temporal.clip_ids(pairs.clip_starts(), len(pairs))
    refiner = DepthRefiner(options.model, device="cpu")
    alone = refiner.predict(pairs.corrupted, pairs.visibility, image_points=pairs.image_points, recognise=False).poses
    methods = {
        "mediapipe": pairs.corrupted, "frame by frame": alone, "clip": refiner.predict_pairs(pairs).poses,
        "live": live(alone, seconds, clips),
    }  # fmt: skip
    table = {}
    for name, poses in methods.items():
        table[name] = figures(poses, pairs, clips)
        log(f"{name}: {table[name]}")
    print(json.dumps({"frames": len(pairs), "clips": int(clips[-1]) + 1, **table}))


if __name__ == "__main__":
    main()
