"""Where files lie: finding videos, replacing folders as a whole."""

import glob
import itertools
import os
import shutil
import tempfile
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pyarrow.fs import FileType

from refiner import UserError, files
from refiner.command import log
from refiner.data import aistpp, manifest
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
                f"{files.printable(video.where)}: rename one of them, since files are named after their videos"
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
        log(f"not read, since their names are not those of videos: {kinds}{more}")
    return videos


def _globbed(where: str) -> list[File]:
    if not files.is_uri(where):
        paths = [Path(p).absolute() for p in sorted(glob.glob(where, recursive=True))]
        return [File(str(p), p.stat().st_size) for p in paths if p.is_file()]
    address, mark, query = where.partition("?")
    folders = list(itertools.takewhile(lambda part: not glob.has_magic(part), address.split("/")))
    pattern = files.resolve(where)[1]
    listed = files.find("/".join(folders) + mark + query, SUFFIXES, below=True)
    return [file for file in listed if PurePosixPath(files.resolve(file.where)[1]).match(pattern)]


@contextmanager
def annotated(where: str | Path) -> Iterator[aistpp.Dataset]:
    """A dataset's annotations, as far as jobs read them; out of a store they come into a folder that is deleted at the end.

    Args:
        where: root of the dataset, path or URI.
    """
    if not files.is_uri(where):
        yield aistpp.Dataset(Path(where).absolute())
        return
    annotations = files.join(where, "annotations")
    wanted = {
        name: file.where
        for name, file in files.below(annotations).items()
        if name.split("/")[0] in ("cameras", "keypoints3d", "splits", "ignore_list.txt")
    }
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: _fetch(wanted[name], Path(root, "annotations", name)), wanted))
        yield aistpp.Dataset(Path(root))


def _fetch(where: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.fetched(where) as copy:
        shutil.copyfile(copy, path)


@contextmanager
def replaced_folder(where: str | Path, marker: str) -> Iterator[Path]:
    """A new folder to build in, which takes the place of `where` when all went well; else `where` stays as it was.

    A store renames no folders. There the manifest comes first and the marker last: whoever reads meanwhile finds that the
    manifest does not describe what lies beside it.

    Args:
        where: the folder (path or URI), which need not be there.
        marker: a file that says whether a folder is one of ours. Another one is not replaced, unless it is empty.

    Raises:
        UserError: it holds something else.
    """
    if files.is_uri(where):
        with tempfile.TemporaryDirectory() as folder:
            there = files.below(where)
            if there and not {marker, manifest.FILE} & there.keys():
                raise _of_something_else(where, marker)
            yield Path(folder)
            _replace(Path(folder), where, marker, there)
        return
    where = Path(where).absolute()
    if where.exists() and any(where.iterdir()) and not (where / marker).exists():
        raise _of_something_else(where, marker)
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


def _of_something_else(where: str | Path, marker: str) -> UserError:
    return UserError(
        f"--out {where} has no {marker}, so something else made it, and it would be overwritten: name another folder"
    )


def _replace(folder: Path, where: str | Path, marker: str, there: dict[str, File]) -> None:
    """Puts the files of a local folder into a store's, the manifest first and the marker last; what else was there goes."""
    new = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    first, last = ([name] if name in new else [] for name in (manifest.FILE, marker))

    def put(name: str) -> None:
        files.upload(new[name], files.join(where, *name.split("/")))

    for name in first:
        put(name)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, new.keys() - {manifest.FILE, marker}))
        list(pool.map(lambda name: files.delete(there[name].where), there.keys() - new.keys()))
    for name in last:
        put(name)
