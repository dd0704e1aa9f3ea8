"""Files by local path or by URI (`s3://bucket/folder`, `gs://…`, any other that pyarrow or fsspec knows): found, read, written.

Whatever reads or writes videos, observations and refined poses goes through here, so that all of it may lie in an object
store. Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …) or from the URI's query
(`s3://bucket/folder?endpoint_override=…`).
"""

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from refiner.errors import UserError

T = TypeVar("T")
# A store that is away for a minute, as where it is restarted, costs no work that is under way. Listing a folder, with which
# jobs begin, is not tried again: there a wrong address is to be said at once.
PATIENCE_S = 180.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
# What pyarrow says of a store that may be back in a moment.
_AWAY = ("NETWORK_CONNECTION", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "INTERNAL_FAILURE", "REQUEST_TIMEOUT", "THROTTLING")


@dataclass(frozen=True, slots=True)
class File:
    """A file that was found."""

    where: str  # absolute path, or URI
    size: int  # bytes

    @property
    def name(self) -> str:
        """Without folders and suffix, as `plain_name` has it."""
        return plain_name(stem(self.where))


def is_uri(where: str | Path) -> bool:
    """Whether it is an address (s3://…, file://…) and not a path of this machine."""
    return "://" in str(where)


def absolute(where: str | Path) -> str:
    """A path made absolute; a URI as it is."""
    return str(where) if is_uri(where) else os.path.abspath(where)


def local_folder(where: str | Path, option: str) -> Path:
    """An absolute path, where only a local one will do.

    Raises:
        UserError: it is a URI, of which a folder called `s3:` would be made.
    """
    if is_uri(where):
        raise UserError(f"{option} {where} is a URI, but must be a folder of this machine (or one mounted here)")
    return Path(where).absolute()


def join(folder: str | Path, *names: str) -> str:
    """The path or URI of something in a folder. `names` are plain: what a URI must escape is escaped here."""
    if not is_uri(folder):
        return os.path.join(folder, *names)
    address, mark, query = str(folder).partition("?")
    return "/".join([address.rstrip("/"), *map(quote, names)]) + mark + query


def stem(where: str | Path) -> str:
    """A file's name without folders and suffix."""
    return PurePosixPath(resolve(where)[1]).stem if is_uri(where) else Path(where).stem


def printable(text: str | Path) -> str:
    r"""A path that can be printed and stored as UTF-8: bytes that are not UTF-8 become \xff."""
    return os.fsencode(text).decode(errors="backslashreplace")


def plain_name(name: str) -> str:
    """A file's name, without suffix, as that of what is made of it: printable, and short enough for a suffix behind it.

    File systems take 255 bytes. Of a longer name the end gives way to a digest of the whole.
    """
    name = printable(name)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}~{digest}"


_LONGEST_NAME = 239  # bytes; leaves 16 for suffixes


def unfinished(target: Path) -> Path:
    """Beside a file, where it is written until it is whole: a name of its own for each writer."""
    return target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}.part")


def resolve(where: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem on which a path or URI lies, and its path there.

    Raises:
        UserError: it is not a URI that pyarrow or fsspec understands.
    """
    if not is_uri(where):
        return _LOCAL, os.path.abspath(where)
    address, mark, query = str(where).partition("?")
    folder, _, name = address.rpartition("/")
    if folder.endswith((":/", ":")):  # a bucket
        return _filesystem(str(where))
    filesystem, path = _filesystem(folder + mark + query)
    return filesystem, f"{path.rstrip('/')}/{unquote(name)}"


_LOCAL = fs.LocalFileSystem()


@lru_cache(maxsize=64)
def _filesystem(folder: str) -> tuple[fs.FileSystem, str]:
    """Of a folder's URI. Kept, for each new one opens new connections and may ask the store for its region first."""
    try:
        return fs.FileSystem.from_uri(folder)
    except pa.ArrowInvalid as error:
        reason: Exception = error
    except OSError as error:
        raise UserError(
            f"{folder} cannot be reached ({error}): check its name, the credentials and the endpoint"
        ) from None
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(folder)
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{folder} is not a place for files ({reason}; {error}): give a path, or a URI like s3://bucket/folder"
        ) from None


def find(folder: str | Path, suffixes: Collection[str] | None, *, below: bool = False) -> list[File]:
    """The files of a folder with one of these suffixes (lower case, with the dot), sorted; none where there is no folder.

    Args:
        folder: path or URI.
        suffixes: of the files; None: any.
        below: of its subfolders, too, and of those that links in it lead to.

    Raises:
        UserError: the folder cannot be listed.
    """
    filesystem, root = resolve(folder)
    if isinstance(filesystem, fs.LocalFileSystem):
        paths = sorted(_below(Path(root)) if below else Path(root).glob("*"))
        wanted = (p for p in paths if suffixes is None or p.suffix.lower() in suffixes)
        return [File(str(p), p.stat().st_size) for p in wanted if p.is_file()]
    try:
        infos = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=below))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed ({error}): check its name, the credentials and the endpoint"
        ) from None
    length = len(root.rstrip("/")) + 1
    return sorted(
        (
            File(join(folder, *info.path[length:].split("/")), info.size)
            for info in infos
            if info.type == fs.FileType.File
            and (suffixes is None or PurePosixPath(info.path).suffix.lower() in suffixes)
        ),
        key=lambda file: file.where,
    )


def below(folder: str | Path) -> dict[str, File]:
    """All files of a folder and of those below, by their path in it, with slashes."""
    root = resolve(folder)[1].rstrip("/")
    return {
        PurePosixPath(resolve(file.where)[1]).relative_to(PurePosixPath(root)).as_posix(): file
        for file in find(folder, None, below=True)
    }


def _below(root: Path) -> Iterator[Path]:
    """Everything in a local folder and below. Links to folders are followed; each folder once, for some lead in circles."""
    entered = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        yield from (Path(folder, name) for name in names)


def info(where: str | Path) -> fs.FileInfo:
    """Type and size of what is there."""
    filesystem, path = resolve(where)
    return filesystem.get_file_info(path)


@contextmanager
def written_whole(where: str | Path) -> Iterator[Path]:
    """A local file to write, which takes its place at `where` when all went well: a killed writer leaves nothing there."""
    filesystem, path = resolve(where)
    if isinstance(filesystem, fs.LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = unfinished(target)  # two runs at once do not write into each other's file
        try:
            yield part
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "part")
        yield part
        upload(part, where)


def check_writable(folder: str | Path) -> None:
    """Makes a local folder (path or URI) where there is none, and tries whether files can be made in it; a store is not asked.

    Raises:
        UserError: they cannot.
    """
    filesystem, path = resolve(folder)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): choose another folder") from None


@contextmanager
def fetched(where: str | Path) -> Iterator[Path]:
    """The file as a local one of the same name: itself, or a copy that is deleted at the end.

    Raises:
        UserError: it is not there any more.
    """
    filesystem, path = resolve(where)
    if isinstance(filesystem, fs.LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PurePosixPath(path).name)
        try:
            patiently(
                lambda: fs.copy_files(path, str(copy), source_filesystem=filesystem, destination_filesystem=_LOCAL)
            )
        except FileNotFoundError:
            raise UserError(f"{where} is missing") from None
        yield copy


def upload(path: Path, where: str | Path) -> None:
    """Copies a local file to a URI, where it is there when it is whole."""
    filesystem, place = resolve(where)
    patiently(lambda: fs.copy_files(str(path), place, source_filesystem=_LOCAL, destination_filesystem=filesystem))


def patiently(call: Callable[[], T]) -> T:
    """What the call gives; while the store that it uses is away, it is tried again.

    Raises:
        OSError: for another reason, or for too long.
    """
    deadline, pause = time.monotonic() + PATIENCE_S, _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except OSError as error:
            if not is_away(error) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_S, 2 * pause)


def is_away(error: Exception) -> bool:
    """Whether this says that a store does not answer and may be back in a moment; errors of others may quote pyarrow's."""
    return isinstance(error, ConnectionError | TimeoutError) or any(word in str(error) for word in _AWAY)


def wait_for_store(where: str | Path) -> None:
    """Returns as soon as the store answers.

    Raises:
        OSError: it was away for too long.
    """
    patiently(lambda: info(where))


def copy_folder(folder: Path, where: str | Path) -> None:
    """Copies the files of a local folder, and of those below, to another folder (path or URI), beside what is there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with written_whole(join(where, *path.relative_to(folder).parts)) as part:
                shutil.copyfile(path, part)


@contextmanager
def opened(where: str | Path) -> Iterator[pa.NativeFile]:
    """The file for reading at any place in it; out of a store comes only what is read."""
    filesystem, path = resolve(where)
    with patiently(lambda: filesystem.open_input_file(path)) as file:
        yield file


def read_text(where: str | Path) -> str:
    """A text file as a whole.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not UTF-8.
    """
    with opened(where) as file:
        return file.read().decode()


def write_text(where: str | Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    filesystem, path = resolve(where)
    if not isinstance(filesystem, fs.LocalFileSystem):

        def put() -> None:  # not by way of a local file: that this machine's disk is full can still be said
            with filesystem.open_output_stream(path) as out:
                out.write(text.encode())

        patiently(put)
        return
    with written_whole(where) as part:
        part.write_text(text)


def delete(where: str | Path) -> None:
    """Deletes a file, if it is there."""
    filesystem, path = resolve(where)
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)
