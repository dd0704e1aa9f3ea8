"""Poses as JSON: `{"poses": [[[x, y, z], …], …], "visibility": …, "image_points": …, "sequence": …, "fps": …}`."""

import numpy as np
import orjson

from refiner import UserError
from serve.codec.messages import (
    COORDINATES,
    JSON,
    KEYS,
    RefineRequest,
    RefineResponse,
    boolean,
    frame_rate,
    numbers,
    shown,
)

ROWS = 256  # of an array that are written at a time: about a millisecond


class JsonCodec:
    media_type = JSON

    def decode(self, body: bytes | memoryview) -> RefineRequest:
        """
        Raises:
            UserError: it is not a JSON object, or holds something else than the contract's keys, or ragged lists.
        """
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UserError(f"the body is not JSON: {error}") from None
        if not isinstance(content, dict) or content.get("poses") is None:
            raise UserError(
                'the body must be an object with "poses", a list of N × 17 × 3 (or 33 × 3) numbers in metres'
            )
        if unknown := content.keys() - set(KEYS):
            raise UserError(f'the body has an unknown key "{shown(min(unknown))}": send {", ".join(KEYS)}')
        arrays = {
            name: numbers(name, content[name])
            for name in (*COORDINATES, "bone_lengths")
            if content.get(name) is not None
        }
        return RefineRequest(
            **arrays,
            sequence=boolean("sequence", content.get("sequence"), False),
            keep_bones=boolean("keep_bones", content.get("keep_bones"), True),
            fps=frame_rate(content.get("fps")),
        )

    def encode(self, response: RefineResponse, **columns: np.ndarray) -> tuple[bytes, dict[str, str]]:
        """`columns` are further arrays of N rows that go beside."""
        parts = [b'"%b":%b' % (name.encode(), _listed(array)) for name, array in {**columns, **response.arrays}.items()]
        if response.bone_lengths is not None:
            parts.append(b'"bone_lengths":%b' % _listed(response.bone_lengths))
        if response.notes is not None:
            parts.append(b'"notes":%b' % orjson.dumps(list(response.notes)))
        parts.append(b'"model":%b' % orjson.dumps(dict(response.model)))
        return b"{%b}" % b",".join(parts), {"content-type": JSON}

    def encode_request(self, request: RefineRequest) -> bytes:
        content = {name: value for name in KEYS if (value := getattr(request, name)) is not None}
        for name, value in content.items():
            if isinstance(value, np.ndarray):
                content[name] = np.ascontiguousarray(value)
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

    def decode_response(self, body: bytes) -> RefineResponse:
        content = orjson.loads(body)
        lengths = content.get("bone_lengths")
        return RefineResponse(
            poses=np.asarray(content["refined"], dtype=np.float32),
            confidence=np.asarray(content["confidence"], dtype=np.float32),
            view_angle=np.asarray(content["view_angle"], dtype=np.float32),
            model=content["model"],
            bone_lengths=None if lengths is None else np.asarray(lengths, dtype=np.float32),
            notes=content.get("notes"),
        )


def _listed(array: np.ndarray) -> bytes:
    """As JSON's lists; a piece at a time, for others get no turn while orjson is at work."""
    pieces = (
        orjson.dumps(np.ascontiguousarray(array[start : start + ROWS]), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        for start in range(0, len(array), ROWS)
    )
    return b"[%b]" % b",".join(pieces)
