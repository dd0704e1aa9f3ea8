"""One sequence: who dances what, where, filmed by which cameras; its annotations and its videos."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from refiner import files
from refiner.data.aistpp import (
    CAMERAS,
    FPS,
    GENRES,
    METRES_PER_UNIT,
    Name,
    read_cameras,
    timestamps_us,
    write_pickle,
)
from refiner.data.video import VideoWriter
from refiner.errors import UserError
from refiner.geometry import Camera
from studio import rig
from studio.bodies.body import Body
from studio.cameras import FLOOR, resized
from studio.dataset.spec import BODIES, VIEWPOINTS, Spec, seed_of
from studio.motion.choreography import dance
from studio.motion.retarget import perform
from studio.motion.sources import Source
from studio.motion.tracks import Motion
from studio.pictures.footage import Footage
from studio.pictures.renderer import Posed, Renderer
from studio.pictures.room import Room
from studio.pictures.stage import Set

# The split of each ten sequences in turn: the smallest datasets have all three, larger ones 70/10/20 %.
PATTERN = ("train", "test", "val", "train", "train", "train", "test", "train", "train", "train")
# Of each ten, these dance what the one before danced: as in AIST++, dancers share choreographies (within a split).
_SHARED = (4, 8)
# SMPL's pelvis in its template, metres: its `trans` is counted from the template's origin, not from the pelvis.
_SMPL_PELVIS = np.array([-0.0018, -0.2233, 0.0282])
_SMPL_HEIGHT = 1.72  # metres, of the template

ANNOTATIONS = ("keypoints3d", "keypoints2d", "motions")


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
        and sRC recombined from two real ones.
        """
        situation = "sBM" if self.source is None else "sRM" if self.source.upper is None else "sRC"
        music = f"m{self.genre[1:]}{self.choreography % 6}"
        dancer = f"d{self.number + self.spec.first_dancer:02d}"
        return Name(self.genre, situation, "cAll", dancer, music, f"ch{self.choreography + 1:02d}")

    @cached_property
    def dancer(self) -> Body:
        return BODIES[self.spec.bodies].draw(seed_of(self.spec, "dancer", self.number))

    @cached_property
    def motion(self) -> Motion:
        if self.source is not None and self.spec.motions is not None:
            return perform(self.spec.motions, self.source, self.dancer, self.spec.seconds, FLOOR)
        return dance(
            self.genre,
            seed_of(self.spec, "choreography", self.choreography),
            self.dancer,
            seed_of(self.spec, "performance", self.number),
            self.spec.seconds,
            FLOOR,
        )

    @cached_property
    def _setting(self) -> tuple[str, dict[str, Camera]]:
        rng = np.random.default_rng(seed_of(self.spec, "cameras", self.number))
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
        rng = np.random.default_rng(seed_of(self.spec, "filming", self.number))
        return sorted(rng.permutation(CAMERAS)[: self.spec.cameras].tolist())

    def footage(self, camera: str) -> Footage:
        """What a camera does to its pictures."""
        if self.spec.footage == "clean":
            return Footage.clean()
        number = self.number * len(CAMERAS) + CAMERAS.index(camera)
        return Footage.draw(seed_of(self.spec, "footage", number), self.spec.size[1])

    @cached_property
    def room(self) -> Room:
        rng = np.random.default_rng(seed_of(self.spec, "room", self.number))
        around = self.spec.settings is not None or self.spec.viewpoints == "aistpp"
        return Room.draw(rng, FLOOR, self.cameras, tripods=around)

    def bones(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n, 24, 3, 3), (n, 24, 3)) where the bones are at these times, world, metres."""
        return rig.forward_kinematics(*self.motion.at(times), self.dancer.offsets)

    def joints(self, times: np.ndarray) -> np.ndarray:
        """(n, 17, 3) the truth at these times, world, metres."""
        return self.dancer.marked(*self.bones(times))

    # --- files

    def video_name(self, camera: str) -> str:
        """Its place in the dataset's folder."""
        return f"videos/{self.name.with_camera(camera)}.mp4"

    def video(self, root: Path, camera: str) -> Path:
        return root / self.video_name(camera)

    def missing(self, there: Collection[str]) -> list[str]:
        """Cameras whose video is not among the files of the dataset's folder (`files.below`): each appears when it is whole."""
        return [camera for camera in self.filming if self.video_name(camera) not in there]

    def is_whole(self, there: Collection[str], *, videos: bool = True) -> bool:
        """Whether its annotations are there and (unless no `videos` are wanted) all its videos."""
        annotations = [f"annotations/{kind}/{self.name}.pkl" for kind in ANNOTATIONS]
        return not (videos and self.missing(there)) and all(name in there for name in annotations)

    def write_annotations(self, root: str | Path) -> None:
        """keypoints3d, keypoints2d and motions, as AIST++ has them, into the dataset's folder (path or URI)."""
        times = np.arange(self.spec.annotations) / FPS
        joints = self.joints(times)
        file = f"{self.name}.pkl"
        centimetres = joints / METRES_PER_UNIT
        write_pickle(
            files.join(root, "annotations", "keypoints3d", file),
            {"keypoints3d": centimetres, "keypoints3d_optim": centimetres.copy()},
        )
        seen = np.stack([self.cameras[camera].project(joints) for camera in CAMERAS])
        certain = np.ones((*seen.shape[:-1], 1))
        write_pickle(
            files.join(root, "annotations", "keypoints2d", file),
            {
                "keypoints2d": np.concatenate([seen, certain], axis=-1).astype(np.float32),
                "det_scores": np.ones(seen.shape[:2], np.float32),
                "timestamps": timestamps_us(len(times)),
            },
        )
        write_pickle(files.join(root, "annotations", "motions", file), self._smpl(times))

    def _smpl(self, times: np.ndarray) -> dict[str, object]:
        """The motion as SMPL parameters. The studio's skeleton is SMPL's tree in SMPL's zero pose, so rotations carry over;
        its bones are not SMPL's, so a body posed with them resembles the dancer without being it.
        """
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
        sets = [Set(self.room, self.cameras[camera]) for camera in cameras]
        kinds = [self.footage(camera) for camera in cameras]
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(VideoWriter(self.video(root, camera), self.spec.size, self.spec.fps, crf=kind.crf))
                for camera, kind in zip(cameras, kinds, strict=True)
            ]
            for i, posed in enumerate(self.exposures(renderer, kinds)):
                for stage, kind, writer in zip(sets, kinds, writers, strict=True):
                    writer.write(kind.spoil(stage.exposed(renderer, posed[kind.shutter]), i))
        return self.spec.frames * len(cameras)

    def exposures(self, renderer: Renderer, kinds: Sequence[Footage]) -> Iterator[dict[float, list[Posed]]]:
        """For each frame, by the shutter of these cameras, the moments that its picture is the mean of."""
        times = np.arange(self.spec.frames) / self.spec.fps
        bones = {}
        for kind in kinds:
            moments = kind.moments(times, self.spec.fps)
            bones[kind.shutter] = [v.reshape(*moments.shape, *v.shape[1:]) for v in self.bones(moments.ravel())]
        for i in range(len(times)):
            yield {
                shutter: [renderer.pose(*moment) for moment in zip(turned[i], placed[i], strict=True)]
                for shutter, (turned, placed) in bones.items()
            }


def setting_files(folder: str) -> list[Path]:
    """Camera settings in a folder: AIST++'s `cameras`, or a dataset's root.

    Raises:
        UserError: there are none.
    """
    for where in (Path(folder), Path(folder) / "cameras", Path(folder) / "annotations/cameras"):
        settings = sorted(where.glob("setting*.json"))
        if settings:
            return settings
    raise UserError(f"no camera settings in {folder}: expected AIST++'s folder with setting1.json …")
