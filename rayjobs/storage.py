"""Where files lie: finding videos, replacing folders and files as a whole."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from refiner import UserError

# What counts as a video in a folder. A file or glob that is named outright is taken whatever it is called.
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"}
)


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video and its size in bytes."""

    path: Path
    size: int

    @property
    def name(self) -> str:
        return self.path.stem


def list_videos(where: str) -> list[StoredVideo]:
    """The videos in a folder (and below), of a glob, or a single one; sorted by name.

    Raises:
        UserError: there are none, or two have the same name.
    """
    if Path(where).is_dir():
        paths = [p for p in Path(where).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    else:
        paths = [Path(p) for p in glob.glob(where, recursive=True) if Path(p).is_file()]
    if not paths:
        raise UserError(f"no videos found in {where}: give a folder, a glob like 'videos/*_c01_*.mp4', or a file")
    by_name: dict[str, Path] = {}
    for path in sorted(paths):
        other = by_name.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"two videos have the same name, {other} and {path}: rename one, for the name says whose file is whose"
            )
    return [StoredVideo(path.absolute(), path.stat().st_size) for path in by_name.values()]


@contextmanager
def replaced_folder(where: str | Path, marker: str) -> Iterator[Path]:
    """A new folder to build in, which takes the place of `where` when all went well; else `where` stays as it was.

    Args:
        where: the folder, which need not be there.
        marker: a file that says whether a folder is one of ours. Another one is not replaced, unless it is empty.

    Raises:
        UserError: it holds something else.
    """
    where = Path(where).absolute()
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


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.write_text(text)
    os.replace(part, path)
