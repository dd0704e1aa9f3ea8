"""What tests of survival share: videos and pairs to work on, and what came of them."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cluster.running import CHECKOUT
from rayjobs import train
from refiner import files
from refiner.data import records, video

SLOW = CHECKOUT / "tests" / "rayjobs"  # where slow.py is
VIDEOS, FRAMES = 24, 10

Row = tuple[str, int]  # a video and a frame of it


def make_videos(folder: Path) -> list[Row]:
    """Small videos; the rows that extraction is to make of them, sorted."""
    for i in range(VIDEOS):
        with video.VideoWriter(folder / f"v{i}.mp4", (128, 96), 60) as writer:
            for j in range(FRAMES + i):
                writer.write(np.full((96, 128, 3), 100 + j, dtype=np.uint8))
    return sorted((f"v{i}", f) for i in range(VIDEOS) for f in range(FRAMES + i))


def extracted_rows(folder: str | Path) -> list[Row]:
    """Those that are there, sorted."""
    rows: list[Row] = []
    for file in files.find(folder, {".parquet"}):
        table = records.read_table(file.where, records.OBSERVATIONS)
        rows += zip(table.column("video").to_pylist(), table.column("frame").to_pylist(), strict=True)
    return sorted(rows)


def pairs_in(folder: Path, make_pairs: Callable) -> Path:
    for number, split in enumerate(("train", "val")):
        pairs = make_pairs(4, seed=number, first=4 * number)
        records.write_atomically(pairs.to_table(), folder / f"split={split}" / "a.parquet", {})
    return folder


def training_command(options: train.Options) -> list[str]:
    """`python -m rayjobs.train` with what a test of survival sets."""
    command = [*(sys.executable, "-m", "rayjobs.train", "--pairs", options.pairs, "--storage", options.storage)]
    command += ["--name", options.name, "--model-name", options.model_name, "--preset", options.preset]
    command += ["--workers", str(options.workers), "--epochs", str(options.training.epochs)]
    return [*command, *("--batch-size", str(options.training.batch_size), "--patience", str(options.training.patience))]
