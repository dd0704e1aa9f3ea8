"""Videos that break what looks at them: each fault is named by its video. Called by name in the extraction's children."""

import ctypes
import os
import time
from pathlib import Path

from refiner.estimators.observe import observe as observe_well


def observe(*, video: str, **arguments) -> dict:
    name = Path(video).stem
    if name.startswith("raise_late"):  # so that a driver on a busy machine learns of one before all have failed
        time.sleep(0.5)
    if name.startswith("raise"):
        raise RuntimeError("the filter graph is broken")
    if name.startswith("hang"):
        time.sleep(3600)
    if name.startswith("segfault"):
        ctypes.string_at(0)
    if name.startswith("once"):  # what dies the first time only: the machine's fault, not the video's
        marker = Path(video).with_suffix(".tried")
        if not marker.exists():
            marker.touch()
            os.abort()
    return observe_well(video=video, **arguments)
