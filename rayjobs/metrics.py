"""What a running job tells Prometheus, through Ray's metrics; nothing where there is no Ray.

Gauges, all of them: a job's numbers begin with the job.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

# Name -> what it is, and its labels.
GAUGES = {
    "pose_job_items": ("Of a job's work, by state: total, done, failed.", ("unit", "state")),
    "pose_job_counts": ("What a job counted so far: frames, pairs, bytes.", ("unit", "what")),
    "pose_job_failures": ("Failed so far, by reason.", ("unit", "reason")),
    "pose_job_left_seconds": ("Until the work is done, as it goes now.", ("unit",)),
    "pose_train_figure": ("The last epoch's figures: loss, depth error, pairs a second.", ("figure",)),
    "pose_train_epoch": ("The last epoch that is done.", ()),
}


class JobMetrics:
    """Gauges of this process, made when they are first told."""

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}

    def tell(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            text, keys = GAUGES[name]
            self._gauges[name] = Gauge(name, text, keys)
        # Ray takes labels for ASCII and ends the job where they are not
        plain = {key: text.encode("ascii", "backslashreplace").decode() for key, text in (labels or {}).items()}
        self._gauges[name].set(value, plain)


def kind_of(reason: str) -> str:
    """A reason without what differs from one item to the next – paths, numbers –, so that there are few kinds."""
    return re.sub(r"\S*/\S*|\d[\d.,]*", "...", reason)[:80]
