"""Where videos lie."""

import glob
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
