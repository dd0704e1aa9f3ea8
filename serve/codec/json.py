"""Poses as JSON: `{"poses": [[[x, y, z], …], …], "visibility": …, "image_points": …, "sequence": …, "fps": …}`."""

import numpy as np
import orjson

from refiner import UserError
from serve.codec.messages import COORDINATES, JSON, KEYS, RefineRequest, RefineResponse


class JsonCodec:
    media_type = JSON

    def decode(self, body: bytes) -> RefineRequest:
        """
        Raises:
            UserError: it is no JSON object, or holds something else than the contract's keys, or ragged lists.
        """
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UserError(f"the body is not JSON: {error}") from None
        if not isinstance(content, dict) or content.get("poses") is None:
            raise UserError(
                'the body is to be an object with "poses", a list of N × 17 × 3 (or 33 × 3) numbers in metres'
            )
        if unknown := content.keys() - set(KEYS):
            raise UserError(f'the body has "{min(unknown)}": known are {", ".join(KEYS)}')
        sequence, fps = content.get("sequence", False), content.get("fps")
        if not isinstance(sequence, bool):
            raise UserError('"sequence" is to be true or false')
        if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float)):
            raise UserError('"fps" is to be a number')
        arrays = {name: _array(name, content[name]) for name in COORDINATES if content.get(name) is not None}
        return RefineRequest(**arrays, sequence=sequence, fps=fps)

    def encode(self, response: RefineResponse, **columns: np.ndarray) -> tuple[bytes, dict[str, str]]:
        """`columns` are further arrays of N rows that go beside."""
        arrays = {name: np.ascontiguousarray(array) for name, array in {**columns, **response.arrays}.items()}
        content = orjson.dumps({**arrays, "model": response.model}, option=orjson.OPT_SERIALIZE_NUMPY)
        return content, {"content-type": JSON}

    def encode_request(self, request: RefineRequest) -> bytes:
        content = {name: value for name in KEYS if (value := getattr(request, name)) is not None}
        for name, value in content.items():
            if isinstance(value, np.ndarray):
                content[name] = np.ascontiguousarray(value)
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

    def decode_response(self, body: bytes) -> RefineResponse:
        content = orjson.loads(body)
        return RefineResponse(
            poses=np.asarray(content["refined"], dtype=np.float32),
            confidence=np.asarray(content["confidence"], dtype=np.float32),
            view_angle=np.asarray(content["view_angle"], dtype=np.float32),
            model=content["model"],
        )


def _array(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f'"{name}" is to be lists of numbers, all of the same length') from None
