"""What a running job tells Prometheus, through Ray's metrics; nothing where there is no Ray.

Gauges, all of them: a job's numbers begin with the job.
"""

import re
import sys
import threading
import time
import weakref
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


# Ray forgets a gauge that was not set for 20 s, as long as an epoch or a video may take.
REPEAT_S = 5.0


class JobMetrics:
    """Gauges of this process, made when they are first told, and told again until nobody holds this any more."""

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def tell(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        # Ray takes labels for ASCII and ends the job where they are not
        plain = {key: text.encode("ascii", "backslashreplace").decode() for key, text in (labels or {}).items()}
        if not self._told:
            repeat = threading.Thread(target=_repeat, args=(weakref.ref(self),), name="job metrics", daemon=True)
            repeat.start()
        self._told[name, tuple(plain.items())] = value
        self._set(name, value, plain)

    def tell_again(self) -> None:
        """Sets what was told last."""
        for (name, labels), value in list(self._told.items()):
            self._set(name, value, dict(labels))

    def _set(self, name: str, value: float, labels: dict[str, str]) -> None:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            text, keys = GAUGES[name]
            self._gauges[name] = Gauge(name, text, keys)
        self._gauges[name].set(value, labels)


def _repeat(told: "weakref.ref[JobMetrics]") -> None:
    while True:
        time.sleep(REPEAT_S)
        metrics = told()
        if metrics is None:
            return
        metrics.tell_again()
        del metrics


def kind_of(reason: str) -> str:
    """A reason without what differs from one item to the next – paths, numbers –, so that there are few kinds."""
    return re.sub(r"\S*/\S*|\d[\d.,]*", "...", reason)[:80]
