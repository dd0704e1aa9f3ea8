"""Why a training failed, and what is left of its storage once a disk was full.

Ray Train keeps the list of a run's checkpoints in one file and writes it again, in place, after each of them. A disk that
fills up leaves that file cut off, and Ray then refuses to go on with the run although its checkpoints are whole.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from refiner import UserError, files
from refiner.command import log
from refiner.training.trainer import STATE_FILE, STATE_TENSORS

SNAPSHOT = "checkpoint_manager_snapshot.json"
FULL_BYTES = 1 << 20  # less room than one checkpoint needs


T = TypeVar("T")
TIMES_AWAY = 3  # a storage may be in one training


def whatever_is_away(fit: Callable[[], T], storage: str) -> T:
    """What a training gives, which goes on from its last checkpoint when a storage that was away is back.

    Ray Train, which writes checkpoints and their list, gives up at once. What `fit` raises for another reason, or where the
    storage is away for too long, goes through.
    """
    for _ in range(TIMES_AWAY):
        try:
            return fit()
        except Exception as error:
            if not files.is_away(error):
                raise
            log(f"{storage} is away: training goes on when it is back")
            try:
                files.wait_for_store(storage)
            except OSError:
                raise error from None
    return fit()


def is_full(storage: str) -> bool:
    """Whether a local folder's disk has no room left. Stores have none that fills up."""
    return "://" not in storage and Path(storage).is_dir() and shutil.disk_usage(storage).free < FULL_BYTES


def explained(error: Exception, storage: str) -> UserError | None:
    """What the user can do about a training that failed: a worker's own sentence, or that the disk is full."""
    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(cause := getattr(failure, "_base_exc", failure), UserError):
            return UserError(str(cause))
    if not is_full(storage):
        return None
    return UserError(
        f"the state of the training could not be written to {storage} (No space left on device): make room there; the same "
        "--name goes on from its last checkpoint"
    )


def recover(storage: str, name: str) -> str | None:
    """The newest whole checkpoint of a run whose list of checkpoints is cut off; what else was left half written is removed.

    Returns:
        Its folder; None where Ray finds the run's checkpoints by itself, or there is none.
    """
    folder = Path(storage, name)
    snapshot = folder / SNAPSHOT
    if "://" in storage or not snapshot.exists() or _is_json(snapshot):
        return None
    snapshot.unlink()
    checkpoints = list(folder.glob("checkpoint_*/"))
    # by what they hold: names and file times are of a clock, which may have been set back meanwhile
    steps = {path: _steps(path) for path in checkpoints}
    newest = max((path for path in checkpoints if steps[path] >= 0), key=lambda path: steps[path], default=None)
    for path in checkpoints:
        if path != newest:
            shutil.rmtree(path)
    return str(newest) if newest else None


def _steps(checkpoint: Path) -> int:
    """How many steps of training a checkpoint holds; −1 where it is not whole."""
    try:
        with safe_open(checkpoint / STATE_TENSORS, framework="numpy"):
            return int(json.loads((checkpoint / STATE_FILE).read_text())["steps"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return -1


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True
