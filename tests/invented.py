"""Pairs of invented people whose depth is wrong in a way that can be learnt: for tests of what works on pairs.

Bodies keep their bones and move smoothly; the observed depth is squashed, shifted by joint and azimuth, bent by where the
limbs are, and noisy over time. Figures come from rendered dancers.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refiner.data import records
from refiner.data.records import Pairs
from refiner.geometry import azimuth, crop_normalise, view_angle
from refiner.skeleton import root_centred

# parent -> joint: mean direction (x right, y down, z away; the body's left is at +x) and length in metres
BONES = [
    (5, 7, (0.3, 1, 0), 0.28), (6, 8, (-0.3, 1, 0), 0.28),
    (7, 9, (0.2, 1, -0.5), 0.25), (8, 10, (-0.2, 1, -0.5), 0.25), (11, 13, (0, 1, -0.1), 0.42),
    (12, 14, (0, 1, -0.1), 0.42), (13, 15, (0, 1, 0.2), 0.40), (14, 16, (0, 1, 0.2), 0.40),
]  # fmt: skip
FACE = ((0, -0.2, -0.12), (0.03, -0.23, -0.1), (-0.03, -0.23, -0.1), (0.07, -0.2, 0), (-0.07, -0.2, 0))  # from the neck


def make_pairs(
    sequences: int,
    *,
    frames: int = 24,
    cameras: int = 2,
    fps: float = 30.0,
    seed: int = 0,
    dancers: int = 1000,
    first: int = 0,
) -> Pairs:
    rng = np.random.default_rng(seed)
    time = np.arange(frames) / fps
    parts = []
    for s in range(first, first + sequences):
        body = _body(rng, time)
        turn = rng.uniform(0, 360) + _wave(rng, time, size=40.0)
        for camera in range(cameras):
            truth, seen = _filmed(rng, time, body, np.radians(turn + camera * 360 / cameras))
            azimuths = azimuth(seen).astype(np.float32)
            parts.append(
                Pairs(
                    sequence=np.full(frames, f"gBR_sBM_cAll_d{s % dancers + 1:02d}_mBR0_ch{s + 1:02d}", dtype=object),
                    camera=np.full(frames, f"c{camera + 1:02d}", dtype=object),
                    frame=np.arange(frames, dtype=np.int32),
                    timestamp_us=np.rint(time * 1e6).astype(np.int64),
                    corrupted=seen,
                    ground_truth=truth,
                    visibility=rng.uniform(0.6, 1, (frames, 17)).astype(np.float32),
                    image_points=crop_normalise(seen[..., :2]),
                    view_angle=view_angle(azimuths),
                    azimuth=azimuths,
                )
            )
    return Pairs.concatenate(parts)


def leaning(pairs: Pairs, seed: int = 0) -> Pairs:
    """The same people before cameras that look up or down by up to 20 degrees, half of whose lean nobody observed."""
    pitch = np.random.default_rng(seed).uniform(-20, 20, len(pairs)).astype(np.float32)
    truth = pairs.ground_truth.copy()
    truth[..., 2] += 0.5 * np.tan(np.radians(pitch))[:, None] * truth[..., 1]
    return replace(pairs, ground_truth=truth, pitch=pitch)


def write_splits(
    root: Path, sequences: dict[str, int], *, real_motion: int = 0, each_alone: bool = False, **how: Any
) -> Path:
    """Writes so many sequences of each split below `root`, other people in each; `how` goes to `make_pairs`.

    Args:
        root: folder.
        sequences: by split.
        real_motion: so many sequences of the test split are called captured motion (sRM).
        each_alone: a file for each sequence, as `rayjobs.pair` writes them; else one for each split.
        how: for `make_pairs`.
    """
    for number, (split, count) in enumerate(sequences.items()):
        pairs = make_pairs(count, seed=number, first=100 * number, **how)
        if split == "test":
            real = {s: s.replace("sBM", "sRM") for s in np.unique(pairs.sequence)[:real_motion]}
            pairs.sequence[:] = [real.get(s, s) for s in pairs.sequence]
        parts = (
            {s: pairs.take(pairs.sequence == s) for s in np.unique(pairs.sequence)} if each_alone else {"all": pairs}
        )
        for name, part in parts.items():
            records.write_atomically(part.to_table(), root / f"split={split}" / f"{name}.parquet", {})
    return root


def _wave(rng: np.random.Generator, time: np.ndarray, *shape: int, size: float) -> np.ndarray:
    """(frames, *shape), smooth in time."""
    speed, phase = rng.uniform(0.3, 1.2, shape), rng.uniform(0, 2 * np.pi, shape)
    return size * np.sin(2 * np.pi * time.reshape(-1, *[1] * len(shape)) * speed + phase)


def _body(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """(frames, 17, 3) m: somebody who moves and does not turn."""
    body = np.zeros((len(time), 17, 3))
    size = rng.uniform(0.85, 1.15)
    body[:, 11, 0], body[:, 12, 0] = 0.12 * size, -0.12 * size
    lean = np.array((0, -1, 0)) + _wave(rng, time, 3, size=0.15)
    lean /= np.linalg.norm(lean, axis=-1, keepdims=True)
    for side, x in ((5, 0.18), (6, -0.18)):  # the shoulders' line is rigid
        body[:, side] = (0.5 * lean + (x, 0, 0)) * size
    for parent, joint, direction, length in BONES:
        towards = np.array(direction) + _wave(rng, time, 3, size=0.9) + rng.normal(0, 0.3, 3)
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        body[:, joint] = body[:, parent] + towards * length * size
    neck = body[:, 5:7].mean(1)
    for joint, offset in enumerate(FACE):
        body[:, joint] = neck + np.array(offset) * size
    return body


def _filmed(
    rng: np.random.Generator, time: np.ndarray, body: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(frames, 17, 3) m, twice: the truth of a body that is turned by these angles, and what is seen of it."""
    frames = len(time)
    c, n, z, o = np.cos(angle), np.sin(angle), np.zeros(frames), np.ones(frames)
    rotation = np.stack([c, z, -n, z, o, z, n, z, c], -1).reshape(-1, 3, 3)
    truth = np.einsum("nij,nkj->nki", rotation, body)
    height = np.linspace(0.2, 1, 17)
    depth = 0.75 * truth[..., 2] + 0.08 * height * (c + 0.5 * n)[:, None]
    depth += 0.06 * np.sin(6 * truth[..., 0]) * np.sin(4 * truth[..., 1]) + _wave(rng, time, 17, size=0.02)
    depth += rng.normal(0, 0.01, depth.shape)
    seen = np.concatenate([truth[..., :2] + rng.normal(0, 0.01, (frames, 17, 2)), depth[..., None]], -1)
    return root_centred(truth).astype(np.float32), root_centred(seen).astype(np.float32)
