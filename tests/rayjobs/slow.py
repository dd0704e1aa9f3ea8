"""Takes its time over a video and leaves its process's and its actor's number beside it, for a test that kills them."""

import os
import time
from pathlib import Path

from refiner.estimators.observe import observe as observe_well


def observe(*, video: str, **arguments) -> dict:
    Path(video).with_suffix(".pids").write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(1)
    return observe_well(video=video, **arguments)


def observe_beside_another(*, video: str, on_progress, **arguments) -> dict:
    """The same, but no video is finished before two actors have been at work, so that two runs are at the same time."""
    (Path(video).parent / f"{os.getppid()}.actor").touch()
    while len(list(Path(video).parent.glob("*.actor"))) < 2:
        time.sleep(0.1)
        on_progress(0)
    return observe(video=video, on_progress=on_progress, **arguments)
