"""One file over HTTP, whatever the network does: resumed to the byte, verified, and there only when it is whole."""

import random
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import httpx

from refiner import UserError, files
from refiner.data import video

TIMEOUT = httpx.Timeout(30, connect=15)
LONGEST_PAUSE_S = 120.0


class FetchError(Exception):
    """A file cannot be had: one line that says why."""


class _Again(Exception):
    """This attempt failed and another one may not; `pause_s` is what the server asks for."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Fetcher:
    """Fetches files with patience: waits longer after each failure, at random, and as long as a server asks for."""

    def __init__(
        self,
        *,
        attempts: int = 6,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Args:
        attempts: in a row without a byte gained, before a file is given up.
        sleep: waits; a test's need not.
        jitter: 0 … 1, so that many clients do not come back all at once.
        """
        self._attempts, self._sleep, self._jitter = attempts, sleep, jitter
        self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=True)

    def fetch(
        self,
        url: str,
        path: Path,
        *,
        check: Callable[[Path], None] = lambda path: None,
        on_bytes: Callable[[int], None] = lambda count: None,
    ) -> int:
        """Fetches `url` to `path`, going on with what an earlier attempt or run has left in `<path>.part`.

        Args:
            url: the file.
            path: where it appears, when it is whole.
            check: raises FetchError where the content is not what it should be; it is then fetched anew.
            on_bytes: told of each number of bytes that came.

        Returns:
            Bytes that came.

        Raises:
            FetchError: it is not there, or not to be had within the attempts.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        failures = received = best = 0
        while True:
            try:
                for count in self._attempt(url, part):
                    received += count
                    on_bytes(count)
                check(part)
                part.replace(path)
                return received
            except FetchError as error:  # complete, but not what it should be
                part.unlink(missing_ok=True)
                failure = _Again(str(error))
            except httpx.HTTPError as error:
                failure = _Again(f"{type(error).__name__}: {error}".rstrip(": "))
            except _Again as error:
                failure = error
            except _Gone as error:
                raise FetchError(f"{url}: {error}") from None
            # a connection that drops every minute, but always brings something, gets there in the end
            size = part.stat().st_size if part.exists() else 0
            failures, best = (1, size) if size > best else (failures + 1, best)
            if failures >= self._attempts:
                raise FetchError(f"{url}: {failure}, {failures} times in a row")
            pause = failure.pause_s or 2.0 ** (failures - 1)
            self._sleep(min(pause, LONGEST_PAUSE_S) * (1 + self._jitter()))

    def deliver(self, url: str, where: str, parts: Path, **given: Callable) -> int:
        """As `fetch`, to a path or into an object store, which knows no half files: for it the file is fetched to `parts`,
        where an interrupted download goes on, and uploaded when it is whole.

        Raises:
            FetchError: it is not to be had, or not to be stored.
        """
        if not files.is_uri(where):
            return self.fetch(url, Path(where), **given)
        path = parts / PurePosixPath(files.resolve(where)[1]).name
        received = 0 if path.exists() else self.fetch(url, path, **given)  # there: an upload failed
        try:
            files.upload(path, where)
        except OSError as error:
            raise FetchError(f"{where} cannot be written ({error}); what was fetched is kept in {parts}") from None
        path.unlink()
        return received

    def _attempt(self, url: str, part: Path):
        """Numbers of bytes as they are appended to `part`; ends when the file is complete."""
        have = part.stat().st_size if part.exists() else 0
        # identity: a length is of no use for verifying if it is that of a compressed body
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:  # nothing beyond what we have: complete, or not the same file any more
                part.unlink()
                raise _Again("the server has another length than before")
            if response.status_code == 429 or response.status_code >= 500:
                wait = response.headers.get("Retry-After", "")
                raise _Again(f"HTTP {response.status_code}", float(wait) if wait.isdigit() else None)
            if response.status_code >= 400:
                raise _Gone(f"HTTP {response.status_code}")
            if response.status_code != 206 and have:  # the server knows no ranges: from the start
                have = 0
            total = _total(response)
            with open(part, "r+b" if have else "wb") as file:
                file.seek(have)
                for chunk in response.iter_raw():
                    file.write(chunk)
                    have += len(chunk)
                    yield len(chunk)
        if total is not None and have != total:
            if have > total:
                part.unlink()
            raise _Again(f"{have:,} of {total:,} bytes came")


class _Gone(Exception):
    """The server says that there is no such file for us."""


def _total(response: httpx.Response) -> int | None:
    """Length of the whole file, where the server says it."""
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def check_video(path: Path) -> None:
    """Raises FetchError where the container does not open."""
    try:
        video.probe(path)
    except UserError as error:
        raise FetchError(f"what arrived is not a complete video ({error})") from None


def check_archive(path: Path) -> None:
    """Raises FetchError where an archive is damaged."""
    if ".zip" not in path.suffixes:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise FetchError(f"what arrived is not an archive ({error})") from None
    if damaged:
        raise FetchError(f"{damaged} in the archive is damaged")


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive's files flat into `folder`, whatever folders it has itself; nothing lands anywhere else."""
    building = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            name = PurePosixPath(member.filename).name
            if not member.is_dir() and "__MACOSX" not in member.filename and not name.startswith("."):
                with content.open(member) as source, open(building / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    building.replace(folder)
