"""Observations and pairs on disk: their Arrow schemas, how they are written (atomically) and read, NPZ in and out.

Observations are what MediaPipe saw, one Parquet file per video, a row for each person and frame. Pairs are observations
beside their ground truth, both COCO-17 in the virtual camera frame, metres, the hips' midpoint at the origin; Parquet, one
folder per split.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refiner import files
from refiner.errors import UserError
from refiner.skeleton import NUM_JOINTS, NUM_LANDMARKS

SCHEMA_VERSION = 3
READABLE = ("1", "2", "3")  # 1 has no clips and no marks of damage, 2 one person in each video
# What columns that came later hold in older files. −1: not looked for (see `clips.of_observations`).
_LATER = {"clip": -1, "damaged": False, "person": 0, "pitch": math.nan}


def _floats(*shape: int) -> pa.DataType:
    return pa.list_(pa.float32(), int(np.prod(shape)))


OBSERVATIONS = pa.schema(
    [
        ("video", pa.string()),
        ("sequence", pa.string()),
        ("camera", pa.string()),
        ("frame", pa.int32()),
        ("timestamp_us", pa.int64()),
        ("detected", pa.bool_()),
        ("world", _floats(NUM_LANDMARKS, 3)),  # metres, virtual camera frame; zeros where nobody was detected
        ("image", _floats(NUM_LANDMARKS, 2)),  # pixels
        ("visibility", _floats(NUM_LANDMARKS)),
        ("presence", _floats(NUM_LANDMARKS)),
        ("clip", pa.int32()),  # number of the scene: nothing that looks along time looks across
        ("damaged", pa.bool_()),  # the picture was decoded from damaged data, or built on such a one
        ("person", pa.int32()),  # from 0; a row for each person and frame, one person after the other
    ]
)
# Of two looks at each frame, also by how much they differ: metres, the first minus the second, in the axes of `world`.
LOOKS_DIFFER = pa.field("looks_differ", _floats(NUM_LANDMARKS, 3))
PAIRS = pa.schema(
    [
        ("sequence", pa.string()),
        ("camera", pa.string()),
        ("frame", pa.int32()),
        ("timestamp_us", pa.int64()),
        ("corrupted", _floats(NUM_JOINTS, 3)),
        ("ground_truth", _floats(NUM_JOINTS, 3)),
        ("visibility", _floats(NUM_JOINTS)),
        ("image_points", _floats(NUM_JOINTS, 2)),
        ("view_angle", pa.float32()),
        ("azimuth", pa.float32()),
        ("clip", pa.int32()),  # as in the observations
        ("pitch", pa.float32()),  # degrees that the line of sight looks down; NaN where it is not known
    ]
)
# How a frame of a pair may have been seen: through MediaPipe's filters, as everybody has it (the columns of PAIRS); or, where
# it was filmed straight into the network (`rayjobs.film`), by one look without filters, or by two, whose mean it is. What the
# two looks differ by is twice `raw` minus `two_looks`.
Seen = Literal["mediapipe", "raw", "two_looks"]
SEEN: tuple[Seen, ...] = get_args(Seen)
# Columns of PAIRS that depend on it -> in the other ways their names.
_AS_SEEN = {"corrupted": "{}", "visibility": "{}_visibility", "image_points": "{}_points"}
REFINED = pa.schema(
    [
        ("video", pa.string()),
        ("sequence", pa.string()),
        ("camera", pa.string()),
        ("frame", pa.int32()),
        ("timestamp_us", pa.int64()),
        ("pose", _floats(NUM_JOINTS, 3)),  # metres, virtual camera frame, hips' midpoint at the origin
        ("confidence", _floats(NUM_JOINTS)),  # probability that the joint's depth is within 5 cm of the truth
        ("view_angle", pa.float32()),
        ("azimuth", pa.float32()),
        ("clip", pa.int32()),  # number of the scene; bones are of one length within it
        ("person", pa.int32()),  # as in the observations
    ]
)
# What one row of a fixed-size list column is, for reading it back as an array.
SHAPES = {
    "world": (NUM_LANDMARKS, 3),
    "image": (NUM_LANDMARKS, 2),
    "presence": (NUM_LANDMARKS,),
    "looks_differ": (NUM_LANDMARKS, 3),
    "corrupted": (NUM_JOINTS, 3),
    "ground_truth": (NUM_JOINTS, 3),
    "pose": (NUM_JOINTS, 3),
    "image_points": (NUM_JOINTS, 2),
}
_DIGESTS = 1 << 256
NPZ_KEYS = ("corrupted", "ground_truth", "view_angle", "visibility")


def table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    """Columns (arrays whose first axis is the rows; lists of strings) as a table; those of `_LATER` may be left out."""
    arrays = []
    rows = len(next(iter(columns.values())))
    for field in schema:
        later = {field.name: [_LATER[field.name]] * rows} if field.name in _LATER else {}
        values = (later | columns)[field.name]
        if pa.types.is_fixed_size_list(field.type):
            flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), field.type.list_size))
        else:
            arrays.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def column(rows: pa.Table, name: str) -> np.ndarray:
    """A column as an array; a fixed-size list column as (rows, …) in its own shape."""
    chunked = rows.column(name).combine_chunks()
    if not pa.types.is_fixed_size_list(chunked.type):
        return chunked.to_numpy(zero_copy_only=False)
    size = chunked.type.list_size
    flat = chunked.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(chunked), *SHAPES.get(name, (size,)))


def by_person(rows: pa.Table) -> dict[int, pa.Table]:
    """Rows of several people, apart by their number; each is as a table of one person is."""
    person = column(rows, "person")
    return {int(number): rows.filter(person == number) for number in np.unique(person)}


def write_atomically(rows: pa.Table, path: str | Path, metadata: dict[str, object]) -> None:
    """Writes one Parquet file (path or URI) whole or not at all: a killed writer leaves nothing under the final name."""
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    rows = rows.replace_schema_metadata({**text, "schema_version": str(SCHEMA_VERSION)})
    with files.written_whole(path) as part:
        pq.write_table(rows, part, compression="zstd")


def read_metadata(path: str | Path) -> dict[str, str]:
    """What `write_atomically` was given as metadata, as text; of another Parquet file whatever its schema carries.

    Raises:
        OSError, pa.ArrowException: it is missing or damaged.
    """
    filesystem, place = files.resolve(path)
    metadata = pq.read_schema(place, filesystem=filesystem).metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}


def read_table(path: str | Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a Parquet file (path or URI) of that schema.

    Raises:
        UserError: it is missing, damaged, or holds something else.
    """
    try:
        filesystem, place = files.resolve(path)
        rows = pq.ParquetFile(place, filesystem=filesystem).read(columns=list(columns) if columns else schema.names)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (pa.ArrowException, OSError) as error:
        if not str(path).endswith(".parquet"):
            raise UserError(f"{path} is not a Parquet file: give one that this project wrote, .parquet") from None
        raise UserError(f"{path} is not a complete Parquet file ({error}): run the step that writes it again") from None
    wanted = list(columns or schema.names)
    for name in wanted:
        if name in _LATER and name not in rows.column_names:
            kind = schema.field(name).type
            rows = rows.append_column(schema.field(name), pa.array([_LATER[name]] * len(rows), kind))
    missing = [n for n in wanted if n not in rows.column_names]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: was it written by another version?")
    return rows


def beside(path: str | Path, fields: Iterable[pa.Field]) -> pa.Table:
    """Those columns of these that a Parquet file (path or URI) has beside its schema's.

    Raises:
        OSError, pa.ArrowException: it is missing or damaged.
    """
    filesystem, place = files.resolve(path)
    file = pq.ParquetFile(place, filesystem=filesystem)
    names = [field.name for field in fields if field.name in file.schema_arrow.names]
    return file.read(columns=names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Pairs in memory: arrays that share their first axis, ordered by sequence, camera and frame."""

    sequence: np.ndarray  # (N,) str
    camera: np.ndarray  # (N,) str
    frame: np.ndarray  # (N,) int32
    timestamp_us: np.ndarray  # (N,) int64
    corrupted: np.ndarray  # (N, 17, 3) m, what MediaPipe saw
    ground_truth: np.ndarray  # (N, 17, 3) m
    visibility: np.ndarray  # (N, 17) 0 … 1
    image_points: np.ndarray  # (N, 17, 2) crop-normalised
    view_angle: np.ndarray  # (N,) degrees, folded, of the observed pose
    azimuth: np.ndarray  # (N,) degrees, signed, of the observed pose
    clip: np.ndarray | None = None  # (N,) int32 number of the scene within its video; None: each video is one
    pitch: np.ndarray | None = None  # (N,) degrees that the line of sight looks down; NaN or None: not known

    def __post_init__(self) -> None:
        if self.clip is None:
            object.__setattr__(self, "clip", np.zeros(len(self.frame), dtype=np.int32))
        if self.pitch is None:
            object.__setattr__(self, "pitch", np.full(len(self.frame), np.nan, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: np.ndarray | slice) -> "Pairs":
        """The pairs at these indices (or where this mask is true)."""
        return Pairs(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def turned_anew(self) -> "Pairs":
        """With the view angle and azimuth of the observed poses as they are."""
        from refiner.geometry import azimuth, view_angle

        azimuths = azimuth(self.corrupted).astype(np.float32)
        return replace(self, azimuth=azimuths, view_angle=view_angle(azimuths))

    def to_table(self) -> pa.Table:
        return table(PAIRS, {f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_table(cls, rows: pa.Table) -> "Pairs":
        return cls(**{f.name: column(rows, f.name) for f in fields(cls)})

    @classmethod
    def concatenate(cls, parts: Sequence["Pairs"]) -> "Pairs":
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def clip_starts(self) -> np.ndarray:
        """Indices at which another sequence, camera or scene begins; the first is 0."""
        changed = (self.sequence[1:] != self.sequence[:-1]) | (self.camera[1:] != self.camera[:-1])
        assert self.clip is not None  # see __post_init__
        changed |= self.clip[1:] != self.clip[:-1]
        return np.concatenate([[0], np.flatnonzero(changed) + 1]) if len(self) else np.zeros(0, dtype=int)


def read_footer(path: str | Path) -> pq.FileMetaData:
    """Of a Parquet file (path or URI): its rows and columns.

    Raises:
        OSError, pa.ArrowException: it is missing or damaged.
    """
    filesystem, place = files.resolve(path)
    return pq.read_metadata(place, filesystem=filesystem)


def files_of_split(root: str | Path, split: str) -> list[str]:
    """The Parquet files of one split (paths or URIs), sorted; none where it is empty."""
    return [file.where for file in files.find(files.join(root, f"split={split}"), {".parquet"})]


def pair_files(root: str | Path, split: str) -> list[str]:
    """`files_of_split`, of which there must be some.

    Raises:
        UserError: there are none.
    """
    paths = files_of_split(root, split)
    if not paths:
        raise UserError(
            f"there are no pairs of the split '{split}' in {root}: run 'python -m rayjobs.pair' to make them"
        )
    return paths


def seen_otherwise(pairs: Mapping[Seen, Pairs]) -> pa.Table:
    """The same frames in every way that they were seen, as one table: PAIRS and the other ways' columns."""
    every_way = pairs["mediapipe"].to_table()
    for seen in SEEN[1:]:
        for name, called in _AS_SEEN.items():
            field = PAIRS.field(name)
            values = table(pa.schema([field]), {name: getattr(pairs[seen], name)}).column(name)
            every_way = every_way.append_column(field.with_name(called.format(seen)), values)
    return every_way


def read_pair_table(path: str | Path, columns: Sequence[str] | None = None, seen: Seen = "mediapipe") -> pa.Table:
    """Reads a file of pairs, as they were seen in that way.

    Raises:
        UserError: it is missing, damaged, or its frames were not seen in that way.
    """
    wanted = list(columns or PAIRS.names)
    if seen == "mediapipe":
        return read_table(path, PAIRS, wanted)
    stored = [_AS_SEEN[name].format(seen) if name in _AS_SEEN else name for name in wanted]
    if seen not in pq.read_schema(path).names:
        raise UserError(
            f"{path} does not say how '{seen}' saw its frames: only pairs made by 'python -m rayjobs.film' do"
        )
    return read_table(path, PAIRS, stored).rename_columns(wanted)


def read_pairs(root: str | Path, split: str, seen: Seen = "mediapipe") -> Pairs:
    """All pairs of one split, ordered by sequence, camera and frame."""
    return read_pair_files(pair_files(root, split), seen)


def read_pair_files(paths: Sequence[str | Path], seen: Seen = "mediapipe") -> Pairs:
    """All pairs of these files, ordered by sequence, camera and frame."""
    rows = pa.concat_tables([read_pair_table(path, seen=seen) for path in paths])
    rows = rows.sort_by([("sequence", "ascending"), ("camera", "ascending"), ("frame", "ascending")])
    return Pairs.from_table(rows) if seen == "mediapipe" else Pairs.from_table(rows).turned_anew()


def content_digest(pairs: Pairs, split: str) -> int:
    """A number for what these pairs hold. Digests of parts add up to that of the whole, however it is cut and ordered."""
    numbers = np.concatenate(
        [
            np.ascontiguousarray(getattr(pairs, name)).reshape(len(pairs), -1).view(np.uint8).reshape(len(pairs), -1)
            for name in ("frame", "corrupted", "ground_truth", "visibility")
        ],
        axis=1,
    )
    total = 0
    for sequence, camera, row in zip(pairs.sequence, pairs.camera, numbers, strict=True):
        name = f"{split}/{sequence}/{camera}/".encode()
        total += int.from_bytes(hashlib.blake2b(name + row.tobytes(), digest_size=32).digest(), "big")
    return total % _DIGESTS


def fingerprint_of(digests: Iterable[int]) -> str:
    """The fingerprint of a dataset from the digests of its parts."""
    return f"{sum(digests) % _DIGESTS:064x}"


def fingerprint(root: str | Path, splits: Sequence[str]) -> str:
    """Of the pairs' own content: the same pairs give the same fingerprint, however the files are cut."""
    return fingerprint_of(
        content_digest(Pairs.from_table(read_table(path, PAIRS)), split)
        for split in splits
        for path in files_of_split(root, split)
    )


def export_npz(pairs: Pairs, path: str | Path) -> None:
    """Writes the published NPZ format: `corrupted, ground_truth, view_angle, visibility`."""
    np.savez_compressed(path, **{key: getattr(pairs, key) for key in NPZ_KEYS})


def import_npz(path: str | Path) -> Pairs:
    """Reads the published NPZ format. What it does not hold is derived (azimuth) or left empty (names, image points are NaN).

    Raises:
        UserError: a key is missing, or a shape is not what it should be.
    """
    from refiner.geometry import azimuth, view_angle

    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key].astype(np.float32) for key in NPZ_KEYS}
    except KeyError as error:
        raise UserError(f"{path} lacks {error}: an NPZ of pairs holds {', '.join(NPZ_KEYS)}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not an NPZ file of plain arrays ({error})") from None
    rows = len(arrays["corrupted"])
    expected = {
        "corrupted": (rows, NUM_JOINTS, 3),
        "ground_truth": (rows, NUM_JOINTS, 3),
        "view_angle": (rows,),
        "visibility": (rows, NUM_JOINTS),
    }
    for key, shape in expected.items():
        if arrays[key].shape != shape:
            raise UserError(f"{path}: '{key}' is {arrays[key].shape}, expected {shape}")
    azimuths = azimuth(arrays["corrupted"]).astype(np.float32)
    return Pairs(
        sequence=np.full(rows, Path(path).stem, dtype=object),
        camera=np.full(rows, "", dtype=object),
        frame=np.arange(rows, dtype=np.int32),
        timestamp_us=np.zeros(rows, dtype=np.int64),
        corrupted=arrays["corrupted"],
        ground_truth=arrays["ground_truth"],
        visibility=arrays["visibility"],
        image_points=np.full((rows, NUM_JOINTS, 2), np.nan, dtype=np.float32),
        view_angle=view_angle(azimuths),
        azimuth=azimuths,
    )
