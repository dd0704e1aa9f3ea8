"""Large bodies of JSON into arrays, in a process of its own.

A JSON parser keeps Python's lock for as long as it works: 30 MB would stop every other request for seconds, and become a
gigabyte of lists. So large ones are decoded by a child process that makes way for the replica, whose memory the kernel
bounds, and that looks at a body's shape before it builds anything.
"""

import dataclasses
import mmap
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from refiner import UserError
from refiner.estimators.isolation import ChildError, ChildKilled, Isolated
from refiner.skeleton import NUM_LANDMARKS
from serve.bodies import Body
from serve.codec.inference import InferenceCodec, Wanted
from serve.codec.json import JsonCodec
from serve.codec.messages import COORDINATES, RefineRequest

STALL_S = 60.0  # the largest body takes 2 s on a quiet core
MEMORY_BYTES = 1_000_000_000  # the largest body takes 350 MB
NICENESS = 10
# Beside poses a body has a few keys, strings and numbers.
SPARE = 1_000
BLOCK = 1 << 20  # bytes that are counted at a time


class Decoder:
    """The child, one body at a time. Starts when the first large body comes."""

    def __init__(self, max_poses: int) -> None:
        """Args:
        max_poses: that a request may have.
        """
        self._max_poses = max_poses
        self._child = Isolated("serve.decoding:decode_file", stall_s=STALL_S, memory_bytes=MEMORY_BYTES)

    def decode(self, codec: JsonCodec | InferenceCodec, body: Body, left: threading.Event) -> RefineRequest:
        """As `codec.decode`.

        Raises:
            UserError: as there; or it is larger than any request with so many poses.
            HTTPException: 503, the child was killed.
            Abandoned: `left` was set.
        """
        with tempfile.TemporaryDirectory(prefix="body-") as scratch:
            path = body.as_file(Path(scratch))
            header_length = codec.header_length if isinstance(codec, InferenceCodec) else None
            try:
                said = self._child(
                    lambda progress: None,
                    left,
                    path=path,
                    scratch=scratch,
                    inference=isinstance(codec, InferenceCodec),
                    header_length=header_length,
                    max_poses=self._max_poses,
                )
            except ChildKilled:
                raise HTTPException(503, "the body could not be decoded now: send it again in a second") from None
            except ChildError as error:
                raise UserError(f"the body cannot be decoded: {error.reason}") from None
            arrays = {name: np.load(Path(scratch, f"{name}.npy"), allow_pickle=False) for name in said["arrays"]}
        if isinstance(codec, InferenceCodec):
            codec.wanted = Wanted(**said["wanted"])
        return RefineRequest(**arrays, **said["options"])

    def close(self) -> None:
        self._child.close()


def decode_file(
    *,
    path: str,
    scratch: str,
    inference: bool,
    header_length: str | None,
    max_poses: int,
    on_progress: Callable[[int], None],
) -> dict[str, Any]:
    """The child's part: arrays are written into `scratch`.

    Raises:
        UserError: the body is not in its form, or is larger than it can be.
    """
    make_way()
    inference_codec = InferenceCodec(header_length) if inference else None
    codec = inference_codec or JsonCodec()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        with memoryview(content) as view:
            check_shape(view[: inference_codec.json_length(view)] if inference_codec else view, max_poses)
            request = codec.decode(view)
        fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
        arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        for name, array in arrays.items():
            np.save(Path(scratch, f"{name}.npy"), array, allow_pickle=False)
        options = {name: value for name, value in fields.items() if not isinstance(value, np.ndarray)}
        wanted = dataclasses.asdict(inference_codec.wanted) if inference_codec else None
        del request, fields
        names = list(arrays)
        arrays.clear()  # they may lie in the map
    return {"arrays": names, "options": options, "wanted": wanted}


def make_way() -> None:
    """Lets the replica go first, from a process that works for it."""
    if os.nice(0) < NICENESS:
        os.nice(NICENESS - os.nice(0))


def check_shape(content: memoryview, max_poses: int) -> None:
    """Counts what JSON is made of, before anything is built of it: each list, string and number of it takes ten times what
    it takes here.

    Raises:
        UserError: there is more of something than the largest request has.
    """
    counts = np.zeros(256, np.int64)
    for start in range(0, len(content), BLOCK):
        counts += np.bincount(np.frombuffer(content[start : start + BLOCK], np.uint8), minlength=256)
    joints = max_poses * NUM_LANDMARKS
    most = {
        ord(","): joints * sum(COORDINATES.values()),
        ord("["): (len(COORDINATES) - 1) * joints + len(COORDINATES) * max_poses,
        ord("{"): 0,
        ord('"'): 0,
        ord(":"): 0,
    }
    for character, number in most.items():
        if counts[character] > number + SPARE:
            raise UserError(
                f'the body has {counts[character]:,} "{chr(character)}", more than {max_poses:,} poses take: send the clip in '
                "parts"
            )
