"""Where files lie: finding videos, replacing folders as a whole."""

import glob
import itertools
import os
import shutil
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pyarrow.fs import FileType

from refiner import UserError, files
from refiner.command import log
from refiner.data.containers import SUFFIXES
from refiner.files import File


def list_videos(where: str) -> list[File]:
    """The videos in a folder (and below), of a glob, or a single one; sorted by path. `where` is a path or a URI.

    What else lies in the folder is said once.

    Raises:
        UserError: there are none, or two have the same name, or one that another file system takes for the same.
    """
    try:
        info = files.info(where)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error}): check its name, the credentials and the endpoint") from None
    named = info.type == FileType.File
    videos = [File(files.absolute(where), info.size)] if named else _in_folder(where) or _globbed(where)
    if not videos:
        raise UserError(
            f"no videos found in {files.printable(where)}: give a folder, a glob like 'videos/*_c01_*.mp4', or a file"
        )
    by_name: dict[str, File] = {}
    for video in videos:
        # macOS and Windows take A.mp4 for a.mp4, and é for e with an accent behind it
        other = by_name.setdefault(unicodedata.normalize("NFC", video.name).casefold(), video)
        if other != video:
            alike = "" if other.name == video.name else ", as other file systems see it"
            raise UserError(
                f"two videos have the same name{alike}, {files.printable(other.where)} and "
                f"{files.printable(video.where)}: rename one, for the name says whose file is whose"
            )
    return videos


def _in_folder(where: str) -> list[File]:
    """The videos in a folder and below; logs what else is there."""
    videos, others = [], Counter()
    for file in files.find(where, None, below=True):
        name = PurePosixPath(files.resolve(file.where)[1])
        if name.name.startswith("._"):
            others["._… of macOS, which hold no pictures"] += 1
        elif name.suffix.lower() in SUFFIXES:
            videos.append(file)
        else:
            others[files.printable(name.suffix.lower() or name.name)] += 1
    if others:
        kinds = ", ".join(f"{count:,} × {kind}" for kind, count in others.most_common(6))
        more = "" if len(others) <= 6 else f" and {len(others) - 6} more kinds"
        log(f"not read, for their names are no video's: {kinds}{more}")
    return videos


def _globbed(where: str) -> list[File]:
    if not files.is_uri(where):
        paths = [Path(p).absolute() for p in sorted(glob.glob(where, recursive=True))]
        return [File(str(p), p.stat().st_size) for p in paths if p.is_file()]
    address, mark, query = where.partition("?")
    folders = list(itertools.takewhile(lambda part: not glob.has_magic(part), address.split("/")))
    pattern = files.resolve(where)[1]
    found = files.find("/".join(folders) + mark + query, SUFFIXES, below=True)
    return [file for file in found if PurePosixPath(files.resolve(file.where)[1]).match(pattern)]


@contextmanager
def replaced_folder(where: str | Path, marker: str) -> Iterator[Path]:
    """A new folder to build in, which takes the place of `where` when all went well; else `where` stays as it was.

    Args:
        where: the folder, which need not be there.
        marker: a file that says whether a folder is one of ours. Another one is not replaced, unless it is empty.

    Raises:
        UserError: it holds something else, or is in an object store, which cannot rename a folder.
    """
    where = files.local_folder(where, "--out")
    if where.exists() and any(where.iterdir()) and not (where / marker).exists():
        raise UserError(
            f"--out {where} has no {marker}, so it is of something else: name another folder, for it would be lost"
        )
    building = where.with_name(f".{where.name}.{uuid.uuid4().hex[:8]}.part")
    building.mkdir(parents=True)
    try:
        yield building
        old = building.with_suffix(".old")
        if where.exists():
            os.replace(where, old)
        os.replace(building, where)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
