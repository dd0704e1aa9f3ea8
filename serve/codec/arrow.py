"""Poses as an Arrow IPC stream: columns of fixed-size lists of floats, one row a pose.

`poses` (51 or 99 numbers), and if wanted `visibility` (17 or 33) and `image_points` (34 or 66); schema metadata
`sequence` = "true" for a clip, its `fps`, `keep_bones` and `bone_lengths`, each as JSON writes it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from flatbuffers.table import Table

from refiner import UserError
from serve.codec.messages import (
    ARROW,
    COORDINATES,
    RefineRequest,
    RefineResponse,
    boolean,
    frame_rate,
    numbers,
    shown,
)

# Decompressed Arrow streams: twice what the largest body may have, and more than 16,384 poses of anything take.
EXPANDED_BYTES = 64_000_000
# Parts of a stream: each costs a look, and whoever sends frames one by one sends fewer in a request.
MOST_MESSAGES = 4_096
OPTIONS = ("sequence", "fps", "keep_bones", "bone_lengths")


class ArrowCodec:
    media_type = ARROW

    def decode(self, body: bytes | memoryview) -> RefineRequest:
        """
        Raises:
            UserError: it is not an Arrow IPC stream, or does not hold that.
        """
        table = _read_stream(body)
        names = table.column_names
        if "poses" not in names:
            raise UserError('the Arrow stream has no column "poses" (fixed-size lists of 51 or 99 floats)')
        if unknown := set(names) - set(COORDINATES):
            raise UserError(
                f'the Arrow stream has an unknown column "{shown(min(unknown))}": send {", ".join(COORDINATES)}'
            )
        if len(set(names)) < len(names):
            raise UserError("the Arrow stream has two columns of one name")
        arrays = {name: _points(name, _column(table, name)) for name in names}
        return RefineRequest(**arrays, **_options(table.schema.metadata or {}))

    def encode(self, response: RefineResponse, **columns: np.ndarray) -> tuple[bytes, dict[str, str]]:
        """`columns` are further arrays of N rows that go beside."""
        metadata = {"model_name": response.model["name"], "model_version": response.model["version"]}
        if response.bone_lengths is not None:
            metadata["bone_lengths"] = _listed(response.bone_lengths)
        if response.notes is not None:
            metadata["notes"] = orjson.dumps(list(response.notes)).decode()
        return _write_stream({**columns, **response.arrays}, metadata), {"content-type": ARROW}

    def encode_request(self, request: RefineRequest) -> bytes:
        columns = {name: value for name in COORDINATES if (value := getattr(request, name)) is not None}
        metadata = {"sequence": _word(request.sequence), "keep_bones": _word(request.keep_bones)}
        if request.fps is not None:
            metadata["fps"] = repr(float(request.fps))
        if request.bone_lengths is not None:
            metadata["bone_lengths"] = _listed(request.bone_lengths)
        return _write_stream(columns, metadata)

    def decode_response(self, body: bytes) -> RefineResponse:
        table = _read_stream(body)
        metadata = table.schema.metadata
        lengths, notes = metadata.get(b"bone_lengths"), metadata.get(b"notes")
        return RefineResponse(
            poses=_column(table, "refined").reshape(table.num_rows, -1, 3),
            confidence=_column(table, "confidence"),
            view_angle=table.column("view_angle").to_numpy(),
            model={"name": metadata[b"model_name"].decode(), "version": metadata[b"model_version"].decode()},
            bone_lengths=np.asarray(orjson.loads(lengths), np.float32) if lengths else None,
            notes=orjson.loads(notes) if notes else None,
        )


def _word(flag: bool) -> str:
    return "true" if flag else "false"


def _listed(lengths: np.ndarray) -> str:
    return orjson.dumps(np.asarray(lengths, np.float64).tolist()).decode()


def _options(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What the schema's metadata say beside the poses: values as JSON has them.

    Raises:
        UserError: there is something else among them, or one of them makes no sense.
    """
    values = {}
    for key, text in metadata.items():
        name = key.decode(errors="replace")
        if name == "pandas" or name.startswith("ARROW:"):  # written by whoever made the table
            continue
        if name not in OPTIONS:
            raise UserError(
                f'the metadata of the Arrow stream has an unknown key "{shown(name)}": send {", ".join(OPTIONS)}'
            )
        try:
            values[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise UserError(
                f'"{name}" in the metadata of the Arrow stream is "{shown(text.decode(errors="replace"))}"'
            ) from None
    lengths = values.get("bone_lengths")
    return {
        "sequence": boolean("sequence", values.get("sequence"), False),
        "keep_bones": boolean("keep_bones", values.get("keep_bones"), True),
        "fps": frame_rate(values.get("fps")),
        "bone_lengths": None if lengths is None else numbers("bone_lengths", lengths),
    }


def _points(name: str, rows: np.ndarray) -> np.ndarray:
    """(N, joints · coordinates) -> (N, joints, coordinates), or (N, joints) where a joint has one number only."""
    coordinates = COORDINATES[name]
    if rows.shape[1] % coordinates:
        raise UserError(f'the lists of "{name}" have {rows.shape[1]} numbers: {coordinates} for each joint are wanted')
    return rows.reshape(len(rows), rows.shape[1] // coordinates, coordinates) if coordinates > 1 else rows


def _read_stream(body: bytes | memoryview) -> pa.Table:
    try:
        expanded = 0
        for number, message in enumerate(pa.ipc.MessageReader.open_stream(body)):
            if number > MOST_MESSAGES:
                raise UserError(f"the Arrow stream has more than {MOST_MESSAGES:,} batches: put more poses into each")
            expanded += _expanded_bytes(message)
        if expanded > EXPANDED_BYTES:
            raise UserError(
                f"the Arrow stream would decompress to {expanded:,} bytes, more than the {EXPANDED_BYTES:,} accepted: "
                "send the clip in parts"
            )
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        table.validate(full=True)  # offsets and lengths are a stranger's
        str(table.schema)  # and so are the names, which need not be UTF-8
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise UserError(f"the body is not an Arrow IPC stream: {str(error).splitlines()[0]}") from None
    return table


def _expanded_bytes(message: pa.ipc.Message) -> int:
    """Bytes that reading a message would take beyond its body: those of its compressed buffers, as they claim.

    pyarrow has no limit for it, so the message's flatbuffer is looked into; pyarrow has verified it. Field 2 of a Message
    is its header; fields 2 and 3 of a RecordBatch are its buffers (offset and length, int64 each) and their compression.
    https://github.com/apache/arrow/blob/main/format/Message.fbs
    """
    if message.type == "schema":
        return 0
    if message.type != "record batch":
        raise UserError(f"the Arrow stream has a {message.type}: only plain columns of floats are accepted")
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


def _column(table: pa.Table, name: str) -> np.ndarray:
    """A column of fixed-size lists (nested or not) of floats as (rows, numbers a row) float32."""
    column = table.column(name).combine_chunks()
    values, numbers = column, 1
    while pa.types.is_fixed_size_list(values.type):
        numbers *= values.type.list_size
        if values.null_count:
            break
        values = values.flatten()
    if values is column or not pa.types.is_floating(values.type) or values.null_count:
        raise UserError(f'the column "{name}" must be fixed-size lists of floats without nulls, not {column.type}')
    return values.to_numpy().astype(np.float32, copy=False).reshape(len(column), numbers)


def _write_stream(columns: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    arrays = {}
    for name, values in columns.items():
        kind = np.float32 if values.dtype.kind == "f" else values.dtype
        flat = pa.array(np.ascontiguousarray(values, dtype=kind).reshape(-1))
        size = int(np.prod(values.shape[1:]))
        arrays[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    table = pa.table(arrays).replace_schema_metadata(dict(metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
