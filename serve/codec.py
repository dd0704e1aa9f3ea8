"""Poses over HTTP: bodies as JSON and as Arrow IPC streams, into arrays and back. Used by the endpoint and by its client.

Here only the form is decided; whether the poses make sense is `depth_refiner.validate_poses`' business. No pickle
anywhere: both formats can carry data only.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
from flatbuffers.table import Table

from refiner import UserError

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineRequest:
    poses: np.ndarray  # (N, 17 or 33, 3) m, virtual camera frame; one pose may come without the first axis
    visibility: np.ndarray | None = None  # (N, 17 or 33) 0 … 1
    image_points: np.ndarray | None = None  # (N, 17 or 33, 2) pixels
    sequence: bool = False  # the poses are consecutive frames of one clip
    fps: float | None = None  # of that clip; None is the refiner's default


# Decompressed Arrow streams: twice what the largest body may have, and more than 16,384 poses of anything take.
EXPANDED_BYTES = 64_000_000
# Numbers that a joint has in each array.
COORDINATES = {"poses": 3, "visibility": 1, "image_points": 2}
KEYS = tuple(field.name for field in dataclasses.fields(RefineRequest))


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineResponse:
    """Refined poses and who refined them."""

    poses: np.ndarray  # (N, 17, 3) float32, m, virtual camera frame; "refined" on the wire
    confidence: np.ndarray  # (N, 17) float32, probability that the joint's depth is within 5 cm
    view_angle: np.ndarray  # (N,) float32, degrees, 0 frontal – 90 profile
    model: Mapping[str, str]  # {"name", "version"}


def decode_json(body: bytes) -> RefineRequest:
    """
    Raises:
        UserError: it is no JSON object, or holds something else than the contract's keys, or ragged lists.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UserError(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("poses") is None:
        raise UserError('the body is to be an object with "poses", a list of N × 17 × 3 (or 33 × 3) numbers in metres')
    if unknown := content.keys() - set(KEYS):
        raise UserError(f'the body has "{min(unknown)}": known are {", ".join(KEYS)}')
    sequence, fps = content.get("sequence", False), content.get("fps")
    if not isinstance(sequence, bool):
        raise UserError('"sequence" is to be true or false')
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float)):
        raise UserError('"fps" is to be a number')
    arrays = {
        name: _array(name, content[name])
        for name in ("poses", "visibility", "image_points")
        if content.get(name) is not None
    }
    return RefineRequest(**arrays, sequence=sequence, fps=fps)


def encode_json(response: RefineResponse, **columns: np.ndarray) -> bytes:
    """`columns` are further arrays of N rows that go beside."""
    return orjson.dumps(
        {
            **{name: np.ascontiguousarray(column) for name, column in columns.items()},
            "refined": np.ascontiguousarray(response.poses),
            "confidence": np.ascontiguousarray(response.confidence),
            "view_angle": np.ascontiguousarray(response.view_angle),
            "model": response.model,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def encode_json_request(request: RefineRequest) -> bytes:
    content = {name: value for name in KEYS if (value := getattr(request, name)) is not None}
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            content[name] = np.ascontiguousarray(value)
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def decode_json_response(body: bytes) -> RefineResponse:
    content = orjson.loads(body)
    return RefineResponse(
        poses=np.asarray(content["refined"], dtype=np.float32),
        confidence=np.asarray(content["confidence"], dtype=np.float32),
        view_angle=np.asarray(content["view_angle"], dtype=np.float32),
        model=content["model"],
    )


def decode_arrow(body: bytes) -> RefineRequest:
    """
    Columns of fixed-size lists of floats, one row a pose: `poses` (51 or 99 numbers), and if wanted `visibility` (17 or
    33) and `image_points` (34 or 66); schema metadata `sequence` = "true" for a clip, and its `fps`.

    Raises:
        UserError: it is no Arrow IPC stream, or does not hold that.
    """
    data = _read_stream(body)
    if "poses" not in data.column_names:
        raise UserError('the Arrow stream has no column "poses" (fixed-size lists of 51 or 99 floats)')
    if unknown := set(data.column_names) - set(COORDINATES):
        raise UserError(f'the Arrow stream has a column "{min(unknown)}": known are {", ".join(COORDINATES)}')
    metadata = data.schema.metadata or {}
    try:
        fps = float(metadata[b"fps"]) if b"fps" in metadata else None
    except ValueError:
        raise UserError('"fps" in the metadata of the Arrow stream is to be a number') from None
    arrays = {name: _points(name, _column(data, name)) for name in data.column_names}
    return RefineRequest(**arrays, sequence=metadata.get(b"sequence") == b"true", fps=fps)


def encode_arrow(response: RefineResponse, **columns: np.ndarray) -> bytes:
    """`columns` are further arrays of N rows that go beside."""
    arrays = {"refined": response.poses, "confidence": response.confidence, "view_angle": response.view_angle}
    return _write_stream(
        {**columns, **arrays}, {"model_name": response.model["name"], "model_version": response.model["version"]}
    )


def encode_arrow_request(request: RefineRequest) -> bytes:
    columns = {name: value for name in COORDINATES if (value := getattr(request, name)) is not None}
    metadata = {"sequence": "true" if request.sequence else "false"}
    if request.fps is not None:
        metadata["fps"] = repr(request.fps)
    return _write_stream(columns, metadata)


def decode_arrow_response(body: bytes) -> RefineResponse:
    data = _read_stream(body)
    metadata = data.schema.metadata
    return RefineResponse(
        poses=_column(data, "refined").reshape(data.num_rows, -1, 3),
        confidence=_column(data, "confidence"),
        view_angle=data.column("view_angle").to_numpy(),
        model={"name": metadata[b"model_name"].decode(), "version": metadata[b"model_version"].decode()},
    )


def _array(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f'"{name}" is to be lists of numbers, all of the same length') from None


def _points(name: str, rows: np.ndarray) -> np.ndarray:
    """(N, joints · coordinates) -> (N, joints, coordinates), or (N, joints) where a joint has one number only."""
    coordinates = COORDINATES[name]
    if rows.shape[1] % coordinates:
        raise UserError(f'the lists of "{name}" have {rows.shape[1]} numbers: {coordinates} for each joint are wanted')
    return rows.reshape(len(rows), rows.shape[1] // coordinates, coordinates) if coordinates > 1 else rows


def _read_stream(body: bytes) -> pa.Table:
    try:
        expanded = sum(_expanded_bytes(message) for message in pa.ipc.MessageReader.open_stream(body))
        if expanded > EXPANDED_BYTES:
            raise UserError(
                f"the Arrow stream would decompress to {expanded:,} bytes, more than the {EXPANDED_BYTES:,} that are taken: "
                "send the clip in parts"
            )
        with pa.ipc.open_stream(body) as reader:
            data = reader.read_all()
        data.validate(full=True)  # offsets and lengths are a stranger's
        str(data.schema)  # and so are the names, which need not be UTF-8
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise UserError(f"the body is no Arrow IPC stream: {str(error).splitlines()[0]}") from None
    return data


def _expanded_bytes(message: pa.ipc.Message) -> int:
    """Bytes that reading a message would take beyond its body: those of its compressed buffers, as they claim.

    pyarrow has no limit for it, so the message's flatbuffer is looked into; pyarrow has verified it. Field 2 of a Message
    is its header; fields 2 and 3 of a RecordBatch are its buffers (offset and length, int64 each) and their compression.
    https://github.com/apache/arrow/blob/main/format/Message.fbs
    """
    if message.type == "schema":
        return 0
    if message.type != "record batch":
        raise UserError(f"the Arrow stream has a {message.type}: plain columns of floats are taken")
    content = bytes(message.metadata)
    root = Table(content, int.from_bytes(content[:4], "little"))
    batch = Table(content, 0)
    root.Union(batch, root.Offset(4 + 2 * 2))
    buffers, compression = batch.Offset(4 + 2 * 2), batch.Offset(4 + 2 * 3)
    if not compression or not buffers:
        return 0
    where = np.frombuffer(content, "<i8", 2 * batch.VectorLen(buffers), batch.Vector(buffers)).reshape(-1, 2)
    body = message.body or b""
    # a compressed buffer starts with the length that it is to have; −1 says that it is not compressed after all
    lengths = (int.from_bytes(body[at : at + 8], "little", signed=True) for at, length in where.tolist() if length >= 8)
    return sum(length for length in lengths if length > 0)


def _column(data: pa.Table, name: str) -> np.ndarray:
    """A column of fixed-size lists (nested or not) of floats as (rows, numbers a row) float32."""
    column = data.column(name).combine_chunks()
    values, numbers = column, 1
    while pa.types.is_fixed_size_list(values.type):
        numbers *= values.type.list_size
        if values.null_count:
            break
        values = values.flatten()
    if values is column or not pa.types.is_floating(values.type) or values.null_count:
        raise UserError(f'the column "{name}" is to be fixed-size lists of floats without nulls, not {column.type}')
    return values.to_numpy().astype(np.float32, copy=False).reshape(len(column), numbers)


def _write_stream(columns: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    arrays = {}
    for name, values in columns.items():
        kind = np.float32 if values.dtype.kind == "f" else values.dtype
        flat = pa.array(np.ascontiguousarray(values, dtype=kind).reshape(-1))
        size = int(np.prod(values.shape[1:]))
        arrays[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    data = pa.table(arrays).replace_schema_metadata(dict(metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)
    return sink.getvalue().to_pybytes()
