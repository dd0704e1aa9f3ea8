"""MediaPipe's model file with the served refiner inside, for browsers that refine by themselves.

`refiner export` writes it when it is first wanted, in a process of its own, for tracing keeps Python's lock for seconds.
It stays in the cache, which all replicas of a node share.
"""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

from refiner import UserError, __version__
from serve.live import LiveModel, Served

TIMEOUT_S = 300


class RefinedModels:
    """Belongs to one event loop."""

    def __init__(self, live: LiveModel, cache: Path) -> None:
        self._live, self._folder = live, cache.expanduser() / "tasks"
        self._making: dict[Path, asyncio.Task[None]] = {}

    async def current(self) -> Path:
        """The file of the version that serves now.

        Raises:
            UserError: it cannot be written, and why.
        """
        served = self._live.current
        folder = self._folder / await asyncio.to_thread(_fingerprint, served)
        if not _written(folder):
            if folder not in self._making:
                making = asyncio.create_task(asyncio.to_thread(_write, self._live.address(served), folder))
                making.add_done_callback(lambda _: self._making.pop(folder))
                self._making[folder] = making
            await asyncio.shield(self._making[folder])  # others wait for it, too, when this one's client has left
        return _written(folder)[0]


def _written(folder: Path) -> list[Path]:
    return list(folder.glob("*.task"))


def _fingerprint(served: Served) -> str:
    """What the file depends on: the weights, their name, and this package's version."""
    state = served.refiner.model.state_dict()
    facts = [__version__, *served.model.values(), str(served.refiner.model.config), *state]
    digest = hashlib.sha256("\0".join(facts).encode())
    for tensor in state.values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:24]


def _write(model: str, folder: Path) -> None:
    command = [sys.executable, "-m", "refiner.cli", "export", "--to", "task", "--force", "--model", model]
    try:
        done = subprocess.run(
            [*command, "--out", str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"writing the model with the refiner inside took over {TIMEOUT_S} s: try again") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"the model with the refiner inside cannot be written: {last.removeprefix('error: ')}")
