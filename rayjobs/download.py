"""Download: AIST++'s annotations and the AIST Dance Video Database's videos, from where they are published.

    python -m rayjobs.download --out data/aistpp --annotations --i-accept-the-aist-terms
    python -m rayjobs.download --out data/aistpp --videos --cameras c01 --limit 100
    python -m rayjobs.download --out s3://bucket/aistpp --videos --i-accept-the-aist-terms

The annotations are CC BY 4.0. The videos come under the database's own terms, which you accept by a flag, once, having
read them: https://aistdancedb.ongaaccel.jp/terms_of_use/. Nothing is fetched before that. What is there already is left
alone, what was interrupted goes on where it stopped; the same command again fetches exactly the rest.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from pyarrow.fs import FileType

from rayjobs.fetch import Fetcher, FetchError, check_archive, check_video, unpack
from rayjobs.progress import Progress
from refiner import UserError, files
from refiner.command import launch, log
from refiner.data import aistpp

TERMS = "https://aistdancedb.ongaaccel.jp/terms_of_use/"
VIDEOS = "https://aistdancedb.ongaaccel.jp/v1.0.0/video/10M"
VIDEO_LIST = "https://storage.googleapis.com/aist_plusplus_public/20121228/video_list.txt"
ANNOTATIONS = "https://github.com/google/aistplusplus_dataset/releases/download/v1.0"
Part = Literal["cameras", "splits", "keypoints3d", "keypoints2d", "motions"]
PARTS: tuple[Part, ...] = get_args(Part)
NEEDED = PARTS[:3]  # for pairs; keypoints2d (1.2 GB) and motions (0.3 GB) are for whoever looks into them


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    out: str
    """Root of the dataset: annotations/ and videos/ are made in it. Videos may go into an object store: s3://bucket/folder."""
    parts_folder: str = "data/download"
    """For an --out in a store: folder of this machine where downloads grow, and go on when they were interrupted."""
    annotations: bool = False
    """Fetch the annotations that pairs need: cameras, splits, keypoints3d and the ignore list (0.8 GB)."""
    parts: tuple[Part, ...] = NEEDED
    """Which parts of the annotations."""
    videos: bool = False
    """Fetch videos (all of them: 12,670)."""
    i_accept_the_aist_terms: bool = False
    """You have read the AIST Dance Video Database's terms of use and accept them. Noted in --out, so once is enough."""
    cameras: tuple[str, ...] = aistpp.CAMERAS
    """Only these cameras, c01 … c09."""
    sequences: tuple[str, ...] = ()
    """Only these sequences, such as gBR_sBM_cAll_d04_mBR0_ch01."""
    split: Literal["train", "val", "test"] | None = None
    """Only sequences of this official split (needs the annotations)."""
    limit: int | None = None
    """At most so many videos."""
    connections: int = 4
    """Downloads at once. The videos' server is a research institute's: be kind."""
    attempts: int = 6
    """Attempts for each file."""
    video_url: str = VIDEOS
    """Folder of the videos; a mirror's, where you have one."""
    video_list_url: str = VIDEO_LIST
    """List of their names."""
    annotations_url: str = ANNOTATIONS
    """Folder of the annotations' archives."""

    def __post_init__(self) -> None:
        if not (self.annotations or self.videos):
            raise UserError("nothing to fetch: give --annotations, --videos or both")
        unknown = set(self.cameras) - set(aistpp.CAMERAS)
        if unknown:
            raise UserError(f"--cameras: there is no {', '.join(sorted(unknown))}; AIST has c01 … c09")
        if files.is_uri(self.out) and (self.annotations or self.split):
            raise UserError(
                f"annotations are read from a folder of this machine, not from {self.out}: fetch them to a local --out, "
                "and take a part of the videos by --cameras and --sequences"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    wanted: int
    """Files."""
    there_before: int
    fetched: int
    bytes: int
    """Fetched."""
    missing: dict[str, str]
    """Reason by file."""
    reasons: dict[str, int]


def run(options: Options) -> Summary:
    """Fetches what is wanted and is not there yet; what fails after all attempts is listed under `missing`.

    Raises:
        UserError: the terms are not accepted, or a list cannot be had.
    """
    root = files.absolute(options.out)
    accept_terms(root, options.i_accept_the_aist_terms)
    fetcher, summaries = Fetcher(attempts=options.attempts), []
    if options.annotations:
        summaries.append(fetch_annotations(options, Path(root, "annotations"), fetcher))
    if options.videos:
        names = wanted(options, root, fetcher)
        targets = [(f"{options.video_url}/{name}.mp4", files.join(root, "videos", f"{name}.mp4")) for name in names]
        there = {file.where for file in files.find(files.join(root, "videos"), {".mp4"})}
        summaries.append(fetched(targets, there, options, fetcher, check_video))
    missing = {file: reason for s in summaries for file, reason in s.missing.items()}
    for file, reason in itertools.islice(missing.items(), 20):
        log(f"missing: {file}: {reason}")
    return Summary(
        wanted=sum(s.wanted for s in summaries),
        there_before=sum(s.there_before for s in summaries),
        fetched=sum(s.fetched for s in summaries),
        bytes=sum(s.bytes for s in summaries),
        missing=missing,
        reasons=dict(Counter(missing.values())),
    )


def accept_terms(root: str, accepted: bool) -> None:
    """Raises UserError where nobody has accepted the terms for this folder (path or URI), now or earlier."""
    note = files.join(root, "terms-accepted.txt")
    if accepted:
        files.write_text(note, f"The terms of the AIST Dance Video Database were read and accepted: {TERMS}\n")
    elif files.info(note).type != FileType.File:
        raise UserError(
            f"the videos come under the terms of the AIST Dance Video Database: read {TERMS}, "
            "and if you accept them, add --i-accept-the-aist-terms; nothing is fetched before"
        )


def wanted(options: Options, root: str, fetcher: Fetcher) -> list[str]:
    """Names of the videos that the options ask for."""
    listing = Path(options.parts_folder if files.is_uri(root) else root, "video_list.txt")
    if not listing.exists():
        try:
            fetcher.fetch(options.video_list_url, listing)
        except FetchError as error:
            raise UserError(f"the list of videos cannot be fetched ({error}): try again later") from None
    names = listing.read_text().split()
    sequences: Iterable[str] = options.sequences
    if options.split:
        of_split = aistpp.Dataset(Path(root)).split(options.split)
        sequences = set(of_split) & set(options.sequences) if options.sequences else of_split
    only = frozenset(sequences) if options.sequences or options.split else None
    parsed = ((name, aistpp.Name.parse(name)) for name in names)
    chosen = [n for n, p in parsed if p.camera in options.cameras and (only is None or p.sequence in only)]
    if not chosen:
        raise UserError(f"none of the {len(names)} videos in {listing} is of these cameras and sequences")
    return chosen[: options.limit]


def fetched(
    targets: list[tuple[str, str]], there: set[str], options: Options, fetcher: Fetcher, check: Callable[[Path], None]
) -> Summary:
    """Fetches (URL, path or URI), some at once; one that cannot be had is reported and costs nobody else."""
    todo = [(url, where) for url, where in targets if where not in there]
    missing, size, lock, parts = {}, 0, threading.Lock(), Path(options.parts_folder)
    with ThreadPoolExecutor(options.connections) as pool, Progress("files", len(todo), len(todo)) as progress:

        def count(number: int) -> None:
            with lock:
                progress.add(0, 0, bytes=number)

        jobs = {pool.submit(fetcher.deliver, *target, parts, check=check, on_bytes=count): target for target in todo}
        for job in as_completed(jobs):
            name = jobs[job][0].rpartition("/")[2]
            try:
                size += job.result()
            except FetchError as error:
                missing[name] = str(error)
            with lock:
                progress.add(1, 1, failed=name in missing)
    return Summary(
        wanted=len(targets),
        there_before=len(targets) - len(todo),
        fetched=len(todo) - len(missing),
        bytes=size,
        missing=missing,
        reasons={},
    )


def fetch_annotations(options: Options, folder: Path, fetcher: Fetcher) -> Summary:
    """Fetches the archives and unpacks each into a folder of its own, which is there when it is whole."""
    parts = [part for part in options.parts if not (folder / part).is_dir()]
    names = [*(f"{part}.zip" for part in parts), "ignore_list.txt"]
    targets = [(f"{options.annotations_url}/{name}", str(folder / name)) for name in names]
    there = {where for _, where in targets if Path(where).exists()}
    summary = fetched(targets, there, options, fetcher, check_archive)
    for part in parts:
        if (archive := folder / f"{part}.zip").exists():
            unpack(archive, folder / part)
            archive.unlink()
    before = len(options.parts) - len(parts)
    return replace(summary, wanted=summary.wanted + before, there_before=summary.there_before + before)


if __name__ == "__main__":
    launch(run, Options)
