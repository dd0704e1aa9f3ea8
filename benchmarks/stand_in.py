"""What takes MediaPipe's place in benchmarks/extract_scale.py: it sleeps, and writes an empty file of observations.

A stand-in for a video is a sparse file of as many bytes as it takes microseconds.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

from refiner.data import records
from refiner.estimators import named
from refiner.estimators.base import EstimatorInfo


@functools.cache
def _info(estimator: str, model: str) -> EstimatorInfo:
    return named(estimator, model).info


def observe(
    *, video: str, out: str, model: str, estimator: str, stride: int, on_progress: Callable[[int], None], **_: object
) -> dict[str, float]:
    """As `refiner.estimators.observe.observe`, without looking; `seconds` are those it slept."""
    started = time.perf_counter()
    time.sleep(Path(video).stat().st_size / 1e6)
    slept = time.perf_counter() - started
    metadata = {"estimator": dataclasses.asdict(_info(estimator, model)), "stride": stride}
    records.write_atomically(records.OBSERVATIONS.empty_table(), out, metadata)
    return {"frames": 0, "detected": 0, "seconds": slept}
