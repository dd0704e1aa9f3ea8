"""The AIST++ dataset: names, cameras, annotations, splits and known faults. Nobody else knows how it lies on disk.

Source: Li et al., "AI Choreographer: Music Conditioned 3D Dance Generation with AIST++", ICCV 2021, and the annotation
files themselves. The studio writes the same layout, so nothing downstream can tell a rendered dancer from a real one.
"""

import io
import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from refiner import files
from refiner.errors import UserError
from refiner.geometry import Camera, rotation_matrix, rotation_vector
from refiner.skeleton import NUM_JOINTS

FPS = 60  # of the annotations, exactly; the videos' own rates are only nearly 60
CAMERAS = tuple(f"c{i:02d}" for i in range(1, 10))
SPLITS = ("train", "val", "test")
NUM_SEQUENCES, NUM_VIDEOS = 1408, 12670
METRES_PER_UNIT = 0.01  # annotations are in centimetres
GENRES = {
    "gBR": "Break",
    "gPO": "Pop",
    "gLO": "Lock",
    "gMH": "Middle Hip-hop",
    "gLH": "LA-style Hip-hop",
    "gHO": "House",
    "gWA": "Waack",
    "gKR": "Krump",
    "gJS": "Street Jazz",
    "gJB": "Ballet Jazz",
}
# Faults of single sequences that are not on the official ignore list.
OUT_OF_SYNC = frozenset({"gBR_sBM_cAll_d04_mBR0_ch01"})  # the nine videos do not show the same moment
OTHER_SIZE = {"gJB_sBM_cAll_d07_mJB3_ch05": (640, 480)}  # pixels; its cameras are calibrated for 1920 × 1080

_NAME = re.compile(
    r"(?P<genre>g[A-Z]{2})_(?P<situation>s[A-Z]{2})_(?P<camera>c(?:\d{2}|All))"
    r"_(?P<dancer>d\d{2,})_(?P<music>m[A-Z]{2}\d)_(?P<choreography>ch\d{2,})"
)


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a video (`camera` c01 … c09) or of a sequence (`camera` cAll), taken apart."""

    genre: str
    situation: str
    camera: str
    dancer: str
    music: str
    choreography: str

    @classmethod
    def parse(cls, name: str) -> "Name":
        """Reads a name, a file name or a path.

        Raises:
            UserError: it is not an AIST++ name.
        """
        stem = Path(name).stem
        match = _NAME.fullmatch(stem)
        if match is None:
            raise UserError(
                f"'{stem}' is not an AIST++ name: expected the form gBR_sBM_c01_d04_mBR0_ch01, "
                "since the name says which annotation and which camera belong to a video"
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"{self.genre}_{self.situation}_{self.camera}_{self.dancer}_{self.music}_{self.choreography}"

    def with_camera(self, camera: str) -> "Name":
        return Name(self.genre, self.situation, camera, self.dancer, self.music, self.choreography)

    @property
    def sequence(self) -> str:
        return str(self.with_camera("cAll"))

    @property
    def dance(self) -> str:
        """The choreography as something that can be shared: `chNN` counts anew in each genre and situation."""
        return f"{self.genre}_{self.situation}_{self.choreography}"


# --- annotation pickles -----------------------------------------------------------------------------------------------


class _ArraysOnly(pickle.Unpickler):
    """Admits what a dict of numpy arrays consists of, and nothing that could run code."""

    _ALLOWED = frozenset(
        (module, name)
        for package in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{package}.multiarray", "_reconstruct"),
            (f"{package}.multiarray", "scalar"),
            (f"{package}.numeric", "_frombuffer"),
        )
    ) | {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        # protocol 2 pickles of bytes made by Python 3 call this to turn text into the array's buffer
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"refers to {module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encodes as {encoding}")
    return text.encode("latin1")


def read_pickle(path: Path, keys: Iterable[str] = (), any_of: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Reads an annotation file without trusting it: arrays and numbers are admitted, anything else is refused.

    Args:
        path: the file.
        keys: arrays that must be in it.
        any_of: arrays of which at least one must be in it.

    Raises:
        UserError: it is missing, damaged, lacks a key, or holds something other than plain numeric arrays.
    """
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise UserError(
            f"annotation {path} is missing: fetch it with 'python -m rayjobs.download --annotations'"
        ) from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"annotation {path} was refused ({error}): an annotation holds arrays and nothing else; "
            "fetch it again from its source"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"annotation {path} is damaged ({type(error).__name__}: {error}): fetch it again") from None
    keys, any_of = tuple(keys), tuple(any_of)
    if not isinstance(content, dict):
        raise UserError(
            f"annotation {path} holds a {type(content).__name__}, not the arrays {', '.join(keys + any_of)}"
        )
    missing = [key for key in keys if key not in content]
    if any_of and not any(key in content for key in any_of):
        missing.append(" or ".join(any_of))
    if missing:
        has = ", ".join(map(str, content)) or "nothing"
        raise UserError(f"annotation {path} lacks {', '.join(missing)}: it has {has}; fetch it again")
    for key in keys + any_of:
        if key in content and (not isinstance(content[key], np.ndarray) or content[key].dtype.kind not in "fiu"):
            raise UserError(f"annotation {path}: '{key}' is not an array of numbers; fetch it again")
    return content


def write_pickle(where: str | Path, arrays: Mapping[str, object]) -> None:
    """Writes an annotation file (path or URI) as AIST++ has them, in one step. Only the studio does."""
    with files.written_whole(where) as part:
        part.write_bytes(pickle.dumps(dict(arrays), protocol=4))


# --- the dataset on disk ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A folder in AIST++'s layout: `annotations/…`, and often `videos/` beside it. Reads lazily, keeps what is small."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @property
    def annotations(self) -> Path:
        return self.root / "annotations"

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    def _text(self, *parts: str) -> str:
        path = self.annotations.joinpath(*parts)
        try:
            return path.read_text()
        except FileNotFoundError:
            raise UserError(
                f"{path.name} is missing in {path.parent}: run 'python -m rayjobs.download --annotations', "
                "or 'python -m rayjobs.studio' for a rendered dataset"
            ) from None

    @cached_property
    def mapping(self) -> dict[str, str]:
        """Sequence name -> name of its camera setting."""
        pairs = (line.split() for line in self._text("cameras", "mapping.txt").splitlines() if line.strip())
        try:
            return {sequence: setting for sequence, setting in pairs}
        except ValueError:
            raise UserError(
                f"{self.annotations / 'cameras/mapping.txt'} is damaged: each line must be 'sequence setting'; fetch it again"
            ) from None

    @cached_property
    def ignored(self) -> frozenset[str]:
        """Sequences whose annotations are known to be bad: the official list (empty where the file is not there)."""
        for path in (self.annotations / "ignore_list.txt", self.root / "ignore_list.txt"):
            if path.exists():
                return frozenset(path.read_text().split())
        return frozenset()

    def split(self, name: str) -> tuple[str, ...]:
        """Sequences of the official pose split `train`, `val` or `test`."""
        return tuple(self._text("splits", f"pose_{name}.txt").split())

    def cameras(self, sequence: str) -> dict[str, Camera]:
        """The nine calibrated cameras that filmed a sequence, by name (c01 … c09)."""
        try:
            setting = self.mapping[sequence]
        except KeyError:
            raise UserError(
                f"{sequence} is not in {self.annotations / 'cameras/mapping.txt'}: without its camera setting the truth "
                "cannot be brought into a view; is the mapping the one that belongs to these videos?"
            ) from None
        return self._setting(setting)

    @cached_property
    def _settings(self) -> dict[str, dict[str, Camera]]:
        return {}

    def _setting(self, setting: str) -> dict[str, Camera]:
        if setting not in self._settings:
            self._settings[setting] = {
                c.name: c for c in read_cameras(self._text("cameras", f"{setting}.json"), setting)
            }
        return self._settings[setting]

    def keypoints3d(self, sequence: str) -> np.ndarray:
        """(N, 17, 3) metres, world frame, one row per 1/60 s: the optimised triangulation, the ground truth of a sequence.

        Where `keypoints3d_optim` is missing the raw `keypoints3d` is used; its gaps are NaN.
        """
        path = self.annotations / "keypoints3d" / f"{sequence}.pkl"
        content = read_pickle(path, any_of=("keypoints3d_optim", "keypoints3d"))
        points = content["keypoints3d_optim" if "keypoints3d_optim" in content else "keypoints3d"]
        if points.ndim != 3 or points.shape[1:] != (NUM_JOINTS, 3):
            raise UserError(f"annotation {path} holds points of shape {points.shape}, expected (frames, 17, 3)")
        return points.astype(np.float64) * METRES_PER_UNIT

    def keypoints2d(self, sequence: str) -> tuple[np.ndarray, np.ndarray]:
        """((9, N, 17, 3) float32 x, y in pixels and score; (N,) int64 µs) of the nine views."""
        path = self.annotations / "keypoints2d" / f"{sequence}.pkl"
        content = read_pickle(path, ("keypoints2d", "timestamps"))
        return content["keypoints2d"], content["timestamps"]

    @cached_property
    def sequences(self) -> tuple[str, ...]:
        """Sequences that have a ground truth on this disk, sorted."""
        return tuple(sorted(p.stem for p in (self.annotations / "keypoints3d").glob("*.pkl")))


def timestamps_us(frames: int) -> np.ndarray:
    """(frames,) int64: when each annotation was taken, in microseconds from the start of the video."""
    return np.rint(np.arange(frames) * (1e6 / FPS)).astype(np.int64)


def read_cameras(text: str, where: str) -> list[Camera]:
    """Reads a `settingX.json`.

    Raises:
        UserError: it is not a camera setting.
    """
    try:
        return [
            Camera(
                name=str(camera["name"]),
                size=(int(camera["size"][0]), int(camera["size"][1])),
                matrix=np.array(camera["matrix"], dtype=np.float64).reshape(3, 3),
                distortion=np.array(camera["distortions"], dtype=np.float64).reshape(5),
                rotation=rotation_matrix(np.array(camera["rotation"], dtype=np.float64).reshape(3)),
                translation=np.array(camera["translation"], dtype=np.float64).reshape(3) * METRES_PER_UNIT,
            )
            for camera in json.loads(text)
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"camera setting {where} is damaged ({type(error).__name__}: {error}): "
            "expected a list of name, size, matrix, rotation, translation, distortions; fetch it again"
        ) from None


def write_cameras(cameras: Iterable[Camera]) -> str:
    """The text of a `settingX.json`; the inverse of `read_cameras`."""
    return json.dumps(
        [
            {
                "name": c.name,
                "size": list(c.size),
                "matrix": c.matrix.tolist(),
                "distortions": c.distortion.tolist(),
                "rotation": rotation_vector(c.rotation).tolist(),
                "translation": (c.translation / METRES_PER_UNIT).tolist(),
            }
            for c in cameras
        ]
    )
