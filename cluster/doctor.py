"""Doctor: what on this machine would make Ray, MLflow or a job fail, said beforehand.

    python -m cluster.doctor

One line for each check on stderr; exit status 2 if something would fail.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from refiner import UserError
from refiner.command import launch, log

# A Unix socket's path takes 107 bytes; Ray puts /ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store behind.
LONGEST_TMPDIR = 107 - 80
LEAST_SHM = 256 << 20  # bytes: Ray's object store; videos' rows and models are small
CONNECT_S = 5.0
BUILT = 1_735_689_600  # 2025-01-01: certificates and tokens of today fail before


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """None."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and what to do."""

    name: str
    sentence: str


def run(options: Options) -> dict[str, list[str]]:
    """Looks at everything, and says what would fail.

    Raises:
        UserError: something would; a line on stderr for each says what to do.
    """
    findings = list(examine(os.environ))
    for finding in findings:
        log(f"{finding.name}: {finding.sentence}")
    if findings:
        raise UserError(f"{len(findings)} of {len(CHECKS)} checks would fail here: see the lines above")
    log(f"all {len(CHECKS)} checks pass")
    return {"passed": [check.__name__ for check in CHECKS]}


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What would fail in this environment."""
    for check in CHECKS:
        sentence = check(environ)
        if sentence:
            yield Finding(check.__name__, sentence)


def temporary_folder(environ: Mapping[str, str]) -> str | None:
    """Ray's sockets lie in it: their paths are at most 107 bytes long, and it must be possible to write there."""
    folder = environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(folder)) > LONGEST_TMPDIR:
        return (
            f"{folder} is too long for Ray's sockets ({len(os.fsencode(folder))} bytes, at most {LONGEST_TMPDIR}): "
            "set RAY_TMPDIR=/tmp"
        )
    return None if writable(Path(folder)) else f"{folder} cannot be written: set TMPDIR to a folder that can"


def ray_address(environ: Mapping[str, str]) -> str | None:
    """Where jobs look for a cluster: host and port of one that answers, or nothing."""
    address = environ.get("RAY_ADDRESS", "").strip()
    if not address or address in ("auto", "local"):
        return None
    parts = urlsplit(address if "://" in address else f"ray-gcs://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        return f"RAY_ADDRESS is '{address}', which is not an address: give host:port, or unset it for a Ray of its own"
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        return (
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}): start it, "
            "or unset RAY_ADDRESS for a Ray of its own"
        )
    return None


def home(environ: Mapping[str, str]) -> str | None:
    """Models that are downloaded are kept below it."""
    folder = Path(environ.get("XDG_CACHE_HOME") or environ.get("HOME") or "/")
    if writable(folder):
        return None
    return f"{folder} cannot be written, so downloads are not kept: set XDG_CACHE_HOME to a folder that can"


def shared_memory(environ: Mapping[str, str]) -> str | None:
    """Ray's object store lies in it; containers have 64 MB by default."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return None  # not Linux
    free = shutil.disk_usage(folder).free
    if free >= LEAST_SHM:
        return None
    return f"/dev/shm has {free >> 20} MB free, Ray wants {LEAST_SHM >> 20}: start the container with --shm-size=1g"


def proxy(environ: Mapping[str, str]) -> str | None:
    """Ray, MLflow and Serve talk over loopback, which a proxy must not catch."""
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy")
    used = [name for name in names if environ.get(name)]
    direct = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"))
    if not used or "*" in direct or {"localhost", "127.0.0.1"} <= {part.strip() for part in direct.split(",")}:
        return None
    return f"{used[0]} also catches what stays on this machine: set no_proxy=localhost,127.0.0.1 beside it"


def clock(environ: Mapping[str, str]) -> str | None:
    """Tokens and certificates expire: the time cannot be before this was built."""
    now = time.time()
    if now > BUILT:
        return None
    return (
        f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}: set it, or tokens and certificates are refused"
    )


CHECKS = (temporary_folder, ray_address, home, shared_memory, proxy, clock)


def writable(folder: Path) -> bool:
    """Whether a file can be made in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    launch(run, Options)
