"""Sequences out of a seed, written as AIST++ lays its data out. `rayjobs.studio` calls this on every machine of a cluster.

A sequence's content depends on the seed and on its number alone: a larger dataset begins with the smaller one.
"""

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from refiner.data.aistpp import (
    CAMERAS,
    FPS,
    GENRES,
    METRES_PER_UNIT,
    SPLITS,
    Dataset,
    Name,
    read_cameras,
    timestamps_us,
    write_cameras,
    write_pickle,
)
from refiner.data.video import VideoWriter
from refiner.errors import UserError
from refiner.geometry import Camera
from studio.body import Dancer
from studio.cameras import FLOOR, draw_cameras, draw_free_cameras, resized
from studio.footage import Footage
from studio.motion import Motion, dance
from studio.person import Person
from studio.render import Posed, Renderer
from studio.retarget import Source, TooShort, draw_source, perform, recombined, sources, varied_source
from studio.rig import forward_kinematics
from studio.room import Room

VERSION = 6  # raise it when the same options render something else than before
MANIFEST = "studio.json"
# The split of each ten sequences in turn: the smallest datasets have all three, larger ones 70/10/20 %.
PATTERN = ("train", "test", "val", "train", "train", "train", "test", "train", "train", "train")
# Of each ten, these dance what the one before danced: as in AIST++, dancers share choreographies (within a split).
_SHARED = (4, 8)
# SMPL's pelvis in its template, metres: its `trans` is counted from the template's origin, not from the pelvis.
_SMPL_PELVIS = np.array([-0.0018, -0.2233, 0.0282])
_SMPL_HEIGHT = 1.72  # metres, of the template
FOOTAGE = ("clean", "camera")
VIEWPOINTS = {"aistpp": draw_cameras, "free": draw_free_cameras}
BODIES: dict[str, type[Dancer]] = {"drawn": Dancer, "makehuman": Person}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a rendered dataset is made from: the same spec gives the same pictures and annotations."""

    sequences: int
    seconds: float
    fps: float
    seed: int
    size: tuple[int, int]  # width, height
    settings: str | None = None  # folder of real camera settings
    motions: str | None = None  # folder in AIST++'s layout whose keypoints3d drive dancers
    real_share: float = 0.0  # share of the sequences that they drive
    recombine: float = 0.0  # share of these, for training, whose legs dance one motion and whose arms another
    varied: float = 0.0  # share of these, for training, that are danced otherwise than they were captured
    bodies: str = "drawn"  # or "makehuman": who dances
    footage: str = "clean"  # or "camera": with a real camera's faults
    viewpoints: str = "aistpp"  # or "free": where cameras stand that no settings are given for
    cameras: int = len(CAMERAS)  # that film each sequence, drawn from the nine
    first_dancer: int = 1  # number of the first dancer: sequences of datasets that are numbered apart have other names

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise UserError(f"there are {self.sequences} sequences to render: give one at least")
        if not 0.1 <= self.seconds <= 600:
            raise UserError(f"a sequence of {self.seconds} s: give 0.1 to 600 seconds")
        if not 1 <= self.fps <= 240:
            raise UserError(f"{self.fps} frames per second: give 1 to 240 (AIST++ has 60)")
        if self.size[0] % 2 or self.size[1] % 2 or min(self.size) < 64 or max(self.size) > 4096:
            raise UserError(f"a picture of {self.size[0]} × {self.size[1]}: give even numbers of pixels, 64 to 4096")
        if not 0 <= self.real_share <= 1:
            raise UserError(f"a share of {self.real_share} real motion: give 0 to 1")
        if not 0 <= self.recombine <= 1:
            raise UserError(f"a share of {self.recombine} recombined motion: give 0 to 1")
        if not 0 <= self.varied <= 1:
            raise UserError(f"a share of {self.varied} varied motion: give 0 to 1")
        if self.real_share > 0 and self.motions is None:
            raise UserError(
                "real motion was asked for without saying where it is: name an AIST++ folder with --motions"
            )
        if self.bodies not in BODIES:
            raise UserError(f"bodies '{self.bodies}': give {' or '.join(BODIES)}")
        if self.footage not in FOOTAGE:
            raise UserError(f"footage '{self.footage}': give {' or '.join(FOOTAGE)}")
        if self.viewpoints not in VIEWPOINTS:
            raise UserError(f"viewpoints '{self.viewpoints}': give {' or '.join(VIEWPOINTS)}")
        if not 1 <= self.cameras <= len(CAMERAS):
            raise UserError(f"{self.cameras} cameras: AIST++ has nine, give 1 to 9")
        if self.first_dancer < 1:
            raise UserError(f"the first dancer is number {self.first_dancer}: give a number from 1 on")
        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}: give a whole number from 0 on")

    @property
    def frames(self) -> int:
        """Of each video."""
        return max(1, round(self.seconds * self.fps))

    @property
    def annotations(self) -> int:
        """Of each sequence, at exactly 60 Hz whatever the videos' rate is."""
        return max(1, round(self.seconds * FPS))


def _seed(spec: Spec, what: str, number: int) -> int:
    """A seed of its own for each thing that is drawn."""
    kind = (
        "dancer",
        "choreography",
        "performance",
        "room",
        "cameras",
        "source",
        "filming",
        "upper",
        "footage",
        "varied",
    ).index(what)
    return int(np.random.SeedSequence([spec.seed, kind, number]).generate_state(1)[0])


@dataclass(frozen=True)
class Take:
    """One sequence: who dances what, where, and what the nine cameras are."""

    spec: Spec
    number: int  # among all sequences
    turn: int  # among those with the same kind of motion
    source: Source | None = None  # the real motion; None: a drawn choreography

    @property
    def split(self) -> str:
        return PATTERN[self.turn % len(PATTERN)]

    @property
    def choreography(self) -> int:
        if self.source is not None:
            return self.source.index
        return self.turn - 1 if self.turn % len(PATTERN) in _SHARED else self.turn

    @property
    def genre(self) -> str:
        if self.source is not None:
            return Name.parse(self.source.sequence).genre
        return tuple(GENRES)[self.choreography * 7 % len(GENRES)]

    @property
    def name(self) -> Name:
        """Valid in AIST++; the situation tells the motion: sBM drawn, and two that the real dataset does not have, sRM real
        and sRC recombined from two real ones."""
        situation = "sBM" if self.source is None else "sRM" if self.source.upper is None else "sRC"
        music = f"m{self.genre[1:]}{self.choreography % 6}"
        dancer = f"d{self.number + self.spec.first_dancer:02d}"
        return Name(self.genre, situation, "cAll", dancer, music, f"ch{self.choreography + 1:02d}")

    @cached_property
    def dancer(self) -> Dancer:
        return BODIES[self.spec.bodies].draw(_seed(self.spec, "dancer", self.number))

    @cached_property
    def motion(self) -> Motion:
        if self.source is not None:
            return perform(self.spec.motions, self.source, self.dancer, self.spec.seconds, FLOOR)
        return dance(
            self.genre,
            _seed(self.spec, "choreography", self.choreography),
            self.dancer,
            _seed(self.spec, "performance", self.number),
            self.spec.seconds,
            FLOOR,
        )

    @cached_property
    def _setting(self) -> tuple[str, dict[str, Camera]]:
        rng = np.random.default_rng(_seed(self.spec, "cameras", self.number))
        if self.spec.settings is None:
            return f"setting{self.number + 1}", VIEWPOINTS[self.spec.viewpoints](rng, self.spec.size)
        files = setting_files(self.spec.settings)
        file = files[rng.integers(len(files))]
        cameras = read_cameras(file.read_text(), file.stem)
        return file.stem, {c.name: resized(c, self.spec.size) for c in cameras}

    @property
    def setting(self) -> str:
        """Name of the camera setting."""
        return self._setting[0]

    @property
    def cameras(self) -> dict[str, Camera]:
        return self._setting[1]

    @property
    def filming(self) -> list[str]:
        """Names of the cameras that film this sequence. Annotations are of all nine."""
        rng = np.random.default_rng(_seed(self.spec, "filming", self.number))
        return sorted(rng.permutation(CAMERAS)[: self.spec.cameras].tolist())

    def footage(self, camera: str) -> Footage:
        """What a camera does to its pictures."""
        if self.spec.footage == "clean":
            return Footage.clean()
        number = self.number * len(CAMERAS) + CAMERAS.index(camera)
        return Footage.draw(_seed(self.spec, "footage", number), self.spec.size[1])

    @cached_property
    def room(self) -> Room:
        rng = np.random.default_rng(_seed(self.spec, "room", self.number))
        around = self.spec.settings is not None or self.spec.viewpoints == "aistpp"
        return Room.draw(rng, FLOOR, self.cameras, tripods=around)

    def bones(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n, 24, 3, 3), (n, 24, 3)) where the bones are at these times, world, metres."""
        return forward_kinematics(*self.motion.at(times), self.dancer.offsets)

    def joints(self, times: np.ndarray) -> np.ndarray:
        """(n, 17, 3) the truth at these times, world, metres."""
        return self.dancer.marked(*self.bones(times))

    # --- files

    def video(self, root: Path, camera: str) -> Path:
        return root / "videos" / f"{self.name.with_camera(camera)}.mp4"

    def missing(self, root: Path) -> list[str]:
        """Cameras whose video is not there. A video appears under its name when it is whole."""
        return [camera for camera in self.filming if not self.video(root, camera).exists()]

    def write_annotations(self, root: Path) -> None:
        """keypoints3d, keypoints2d and motions, as AIST++ has them."""
        times = np.arange(self.spec.annotations) / FPS
        joints = self.joints(times)
        file = f"{self.name}.pkl"
        centimetres = joints / METRES_PER_UNIT
        write_pickle(
            root / "annotations/keypoints3d" / file,
            {"keypoints3d": centimetres, "keypoints3d_optim": centimetres.copy()},
        )
        seen = np.stack([self.cameras[camera].project(joints) for camera in CAMERAS])
        certain = np.ones((*seen.shape[:-1], 1))
        write_pickle(
            root / "annotations/keypoints2d" / file,
            {
                "keypoints2d": np.concatenate([seen, certain], axis=-1).astype(np.float32),
                "det_scores": np.ones(seen.shape[:2], np.float32),
                "timestamps": timestamps_us(len(times)),
            },
        )
        write_pickle(root / "annotations/motions" / file, self._smpl(times))

    def _smpl(self, times: np.ndarray) -> dict[str, object]:
        """The motion as SMPL parameters. The studio's skeleton is SMPL's tree in SMPL's zero pose, so rotations carry over;
        its bones are not SMPL's, so a body posed with them resembles the dancer without being it."""
        from scipy.spatial.transform import Rotation

        rotations, root = self.motion.at(times)
        scaling = self.dancer.build.height / _SMPL_HEIGHT / METRES_PER_UNIT
        return {
            "smpl_loss": 0.0,
            "smpl_poses": Rotation.from_matrix(rotations.reshape(-1, 3, 3))
            .as_rotvec()
            .reshape(-1, 72)
            .astype(np.float32),
            "smpl_scaling": np.array([scaling], np.float32),
            "smpl_trans": (root / METRES_PER_UNIT - scaling * _SMPL_PELVIS).astype(np.float32),
        }

    def film(self, root: Path, cameras: Sequence[str]) -> int:
        """Renders the videos of some cameras, frame by frame for all of them: skinning and shadows are shared.

        Args:
            root: of the dataset.
            cameras: names c01 … c09.

        Returns:
            Frames rendered.
        """
        renderer = Renderer(self.dancer, self.room.light, FLOOR)
        times = np.arange(self.spec.frames) / self.spec.fps
        sets = [Set(self.room, self.cameras[camera]) for camera in cameras]
        kinds = [self.footage(camera) for camera in cameras]
        exposed = {}  # shutter -> the bones at each frame's moments
        for kind in kinds:
            moments = kind.moments(times, self.spec.fps)
            bones = self.bones(moments.ravel())
            exposed[kind.shutter] = [values.reshape(*moments.shape, *values.shape[1:]) for values in bones]
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(VideoWriter(self.video(root, camera), self.spec.size, self.spec.fps, crf=kind.crf))
                for camera, kind in zip(cameras, kinds, strict=True)
            ]
            for i in range(len(times)):
                posed = {
                    shutter: [renderer.pose(*moment) for moment in zip(turned[i], placed[i], strict=True)]
                    for shutter, (turned, placed) in exposed.items()
                }
                for stage, kind, writer in zip(sets, kinds, writers, strict=True):
                    writer.write(kind.spoil(stage.exposed(renderer, posed[kind.shutter]), i))
        return len(times) * len(cameras)


class Set:
    """One camera's picture of the room; only what the last dancer covered is restored before the next."""

    def __init__(self, room: Room, camera: Camera) -> None:
        self.camera, self.tone = camera, room.tones[camera.name]
        self.empty, self.floor_map = room.picture(camera)
        self.image = self.empty.copy()
        self.changed = (0, 0, 0, 0)

    def exposed(self, renderer: Renderer, moments: Sequence[Posed]) -> np.ndarray:
        """(H, W, 3) uint8 the mean picture of one or several moments."""
        if len(moments) == 1:
            return self.shoot(renderer, moments[0])
        total = sum(self.shoot(renderer, posed).astype(np.uint16) for posed in moments)
        return (total // len(moments)).astype(np.uint8)

    def shoot(self, renderer: Renderer, posed: Posed) -> np.ndarray:
        """(H, W, 3) uint8 the picture of a moment; the next one is drawn into the same memory."""
        x0, y0, x1, y1 = self.changed
        self.image[y0:y1, x0:x1] = self.empty[y0:y1, x0:x1]
        self.changed = renderer.draw(posed, self.camera, self.tone, self.image, self.floor_map)
        return self.image


def setting_files(folder: str) -> list[Path]:
    """Camera settings in a folder: AIST++'s `cameras`, or a dataset's root.

    Raises:
        UserError: there are none.
    """
    for where in (Path(folder), Path(folder) / "cameras", Path(folder) / "annotations/cameras"):
        files = sorted(where.glob("setting*.json"))
        if files:
            return files
    raise UserError(f"no camera settings in {folder}: expected AIST++'s folder with setting1.json …")


def plan(spec: Spec) -> list[Take]:
    """The sequences of a dataset.

    Raises:
        UserError: the real motions asked for are not there.
    """
    by_split = sources(spec.motions, PATTERN) if spec.real_share > 0 else {}
    order = sorted({name for names in by_split.values() for name in names})
    takes: list[Take] = []
    real = training = mixed = 0  # how many there are with real motion, of these for training, and of these recombined
    for number in range(spec.sequences):
        if int((number + 1) * spec.real_share + 1e-9) <= real:
            takes.append(Take(spec, number, number - real))
            continue
        # the splits take turns, and within each its sources
        split = PATTERN[real % len(PATTERN)]
        names = by_split[split]
        before = sum(PATTERN[i % len(PATTERN)] == split for i in range(real))
        source = _source(spec, names[before % len(names) :] + names[: before % len(names)], order, number)
        if split == "train":
            # legs that cannot be (they do not stand) leave it to later ones
            if int((training + 1) * spec.recombine + 1e-9) > mixed:
                others = [(name, order.index(name)) for name in names]
                source = recombined(spec.motions, source, others, spec.seconds, _seed(spec, "upper", number))
            if int((training + 1) * spec.varied + 1e-9) > int(training * spec.varied + 1e-9):
                source = varied_source(source, _seed(spec, "varied", number))
            training, mixed = training + 1, mixed + (source.upper is not None)
        takes.append(Take(spec, number, real, source))
        real += 1
    return takes


def _source(spec: Spec, names: list[str], order: list[str], number: int) -> Source:
    """A window of the first of these sequences that is long enough."""
    too_short: TooShort | None = None
    for name in names:
        try:
            return draw_source(spec.motions, name, order.index(name), spec.seconds, _seed(spec, "source", number))
        except TooShort as error:
            too_short = too_short or error
    raise too_short


def prepare(root: Path, spec: Spec) -> list[Take]:
    """Lays a dataset out: manifest, splits, camera settings, everything but annotations and videos of single sequences.

    Returns:
        Its sequences. Where a larger dataset of the same kind is there already, all of that.

    Raises:
        UserError: the folder holds a dataset made with other options, or something else.
    """
    manifest = root / MANIFEST
    made = {"version": VERSION, **dataclasses.asdict(spec), "size": list(spec.size)}
    if manifest.exists():
        # a manifest from before an option existed has what is its default now
        there = {f.name: f.default for f in dataclasses.fields(Spec)} | json.loads(manifest.read_text())
        other = [key for key in made if key != "sequences" and there.get(key) != made[key]]
        if other:
            key = other[0]
            raise UserError(
                f"{root} holds a studio dataset made with {key} {there.get(key)}, not {made[key]}: "
                "give the same options, another --out, or delete that folder"
            )
        spec = dataclasses.replace(spec, sequences=max(spec.sequences, there["sequences"]))
        made["sequences"] = spec.sequences
    elif (root / "annotations").exists() or (root / "videos").exists():
        raise UserError(f"{root} holds a dataset that the studio did not make: give another --out")
    takes = plan(spec)
    settings = {take.setting: write_cameras(take.cameras.values()) for take in takes}
    # the manifest first: whatever else an interrupted run leaves undone, the next one does
    write_text(manifest, json.dumps(made))
    annotations = root / "annotations"
    for split in SPLITS:
        names = [str(take.name) for take in takes if take.split == split]
        write_text(annotations / "splits" / f"pose_{split}.txt", "".join(f"{name}\n" for name in names))
    for name, text in settings.items():
        write_text(annotations / "cameras" / f"{name}.json", text)
    write_text(annotations / "cameras/mapping.txt", "".join(f"{take.name} {take.setting}\n" for take in takes))
    write_text(annotations / "ignore_list.txt", "")
    (root / "videos").mkdir(parents=True, exist_ok=True)
    return takes


def write_text(path: Path, text: str) -> None:
    """Writes a file in one step; leaves it alone where it already says so."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.write_text(text)
    os.replace(part, path)


def is_whole(root: Path, take: Take, *, videos: bool = True) -> bool:
    """Whether a sequence has its annotations and (unless no `videos` are wanted) all its videos."""
    file = f"{take.name}.pkl"
    return not (videos and take.missing(root)) and all(
        (Dataset(root).annotations / kind / file).exists() for kind in ("keypoints3d", "keypoints2d", "motions")
    )
