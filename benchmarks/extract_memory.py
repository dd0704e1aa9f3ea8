"""Does the memory of a process that looks at video after video stay flat? Without the recycling that rayjobs.extract does.

    python -m benchmarks.extract_memory --videos data/studio/dataset/videos

The last line is JSON.
"""

import itertools
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rayjobs.storage import list_videos
from refiner.command import parse
from refiner.estimators.isolation import Isolated
from refiner.estimators.mediapipe_assets import model_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    videos: str
    """Folder or glob of videos; short ones will do, for what is kept is kept per video. They are taken again and again."""
    estimator: str = "mediapipe"
    """Or blazepose."""
    looks: int = 1
    count: int = 600
    """Videos to look at."""
    every: int = 50
    """Print a line after so many."""


def resident_mib(process: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(options: Options) -> None:
    model, resident = str(model_path()), []
    with tempfile.TemporaryDirectory() as out, Isolated("refiner.estimators.observe:observe", stall_s=120) as observe:
        videos = itertools.islice(itertools.cycle(list_videos(options.videos)), options.count)
        for number, video in enumerate(videos, 1):
            given = {"estimator": options.estimator, "looks": options.looks, "model": model, "stride": 1}
            observe(lambda _: None, video=video.where, out=f"{out}/a.parquet", **given)
            if number % options.every == 0:
                resident.append((number, resident_mib(observe.pid)))
                print(f"{number:6,} videos {resident[-1][1]:8.1f} MiB", flush=True)
    late = [point for point in resident if point[0] > options.count // 2]
    slope = float(np.polyfit(*zip(*late, strict=True), 1)[0])
    print(
        json.dumps(
            {
                "estimator": options.estimator,
                "looks": options.looks,
                "videos": options.count,
                "mib": round(resident[-1][1], 1),
                "mib_per_video": round(slope, 4),
            }
        )
    )


if __name__ == "__main__":
    main(parse(Options))
