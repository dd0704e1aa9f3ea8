"""A line of progress every few seconds, for logs as much as for terminals: what is done, how fast, how long still. The same is
told to Prometheus, where the job is connected to Ray.
"""

import threading
import time
from types import TracebackType

from rayjobs.metrics import JobMetrics, kind_of
from refiner.command import log

EVERY_S = 5.0


class Progress:
    """Counts work and logs a line every few seconds while the job goes on.

        with Progress("videos", total=12670, weight=total_bytes) as progress:
            progress.add(1, weight=size, frames=1200)

    A line is `videos 120/12,670 · 144,210 frames · 98.5 frames/s · 31 h left · 2 failed`.
    """

    def __init__(self, unit: str, total: int, weight: float) -> None:
        """Args:
        unit: what is counted.
        total: how many there are.
        weight: the sum of all their weights (bytes, seconds): the time left is judged by it.
        """
        self._unit, self._total, self._weight = unit, total, weight
        self._done, self._weight_done, self._failed, self._counts = 0, 0.0, 0, {}
        self._reasons: dict[str, int] = {}
        self._metrics = JobMetrics()
        self._started = self._logged = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def add(self, number: int, weight: float, failed: int = 0, reason: str = "", **counts: int) -> None:
        """Some more is done, `failed` of it in vain, for that reason; `counts` (frames, bytes …) are shown with their rates."""
        self._done += number
        self._weight_done += weight
        self._failed += failed
        if failed:
            self._reasons[kind_of(reason)] = self._reasons.get(kind_of(reason), 0) + failed
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count

    def line(self) -> str:
        elapsed = time.monotonic() - self._started
        parts = [f"{self._unit} {self._done:,}/{self._total:,}"]
        parts += [f"{count:,} {name} · {count / elapsed:,.1f} {name}/s" for name, count in self._counts.items()]
        if (left := self.left_s(elapsed)) is not None:
            parts.append(f"{duration(left)} left")
        else:
            parts.append(f"{duration(elapsed)} so far")
        return " · ".join([*parts, f"{self._failed:,} failed"] if self._failed else parts)

    def left_s(self, elapsed: float) -> float | None:
        """Seconds until all is done, as it went so far; None before anything is done, and after all is."""
        if not 0 < self._weight_done < self._weight:
            return None
        return elapsed * (self._weight - self._weight_done) / self._weight_done

    def tell(self) -> None:
        """Hands the same to Prometheus."""
        unit = {"unit": self._unit}
        for state, number in (("total", self._total), ("done", self._done), ("failed", self._failed)):
            self._metrics.tell("pose_job_items", number, unit | {"state": state})
        for what, count in list(self._counts.items()):
            self._metrics.tell("pose_job_counts", count, unit | {"what": what})
        for reason, number in list(self._reasons.items()):
            self._metrics.tell("pose_job_failures", number, unit | {"reason": reason})
        self._metrics.tell("pose_job_left_seconds", self.left_s(time.monotonic() - self._started) or 0.0, unit)

    def _tick(self) -> None:
        while not self._stop.wait(EVERY_S):
            log(self.line())
            self.tell()

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        log(self.line())
        self.tell()


def duration(seconds: float) -> str:
    """Seconds as a person says them: `45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < limit * length:
            return f"{seconds / length:.0f} {unit}" if unit != "h" else f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"
