"""What travels over /v1/stream. A frame's landmarks come as JSON (text) or as float32 (binary); the answer has the same form.

JSON:    {"pose": [[x, y, z], …], "visibility": […]?, "image_points": [[x, y], …]?, "timestamp_us": 0?}
      -> {"frame", "timestamp_us", "dropped", "refined", "confidence", "view_angle"}
binary:  "POSE", uint16 joints (17 or 33), uint16 fields (1: visibility, 2: image points), uint64 timestamp_us, then float32
         joints × 3 metres, joints visibilities, joints × 2 pixels
      -> "REFD", uint32 frame, uint64 timestamp_us, uint32 dropped, float32 view angle, float32 17 × 3, float32 17

All little-endian. A JPEG or WebP is a binary message as it is. What cannot be answered gets {"frame", "error"}.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from refiner import UserError
from refiner.skeleton import NUM_JOINTS, NUM_LANDMARKS
from serve.codec.messages import numbers, shown

MAGIC, ANSWER_MAGIC = b"POSE", b"REFD"
HAS_VISIBILITY, HAS_IMAGE_POINTS = 1, 2
KEYS = ("pose", "visibility", "image_points", "timestamp_us")
LATEST_US = 1 << 53  # what JSON's numbers hold exactly
_HEAD: list[Any] = [("magic", "S4"), ("joints", "<u2"), ("fields", "<u2"), ("timestamp_us", "<u8")]
HEAD_BYTES = 16


def frame_type(joints: int, fields: int) -> np.dtype:
    """Of a binary frame."""
    rest: list[Any] = [("pose", "<f4", (joints, 3))]
    if fields & HAS_VISIBILITY:
        rest.append(("visibility", "<f4", (joints,)))
    if fields & HAS_IMAGE_POINTS:
        rest.append(("image_points", "<f4", (joints, 2)))
    return np.dtype(_HEAD + rest)


FRAME_TYPES = {
    (joints, fields): frame_type(joints, fields) for joints in (NUM_JOINTS, NUM_LANDMARKS) for fields in range(4)
}
ANSWER_TYPE = np.dtype(
    [
        ("magic", "S4"), ("frame", "<u4"), ("timestamp_us", "<u8"), ("dropped", "<u4"), ("view_angle", "<f4"),
        ("refined", "<f4", (NUM_JOINTS, 3)), ("confidence", "<f4", (NUM_JOINTS,)),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """One frame as a client's MediaPipe, or the server's, sees it."""

    pose: np.ndarray  # (17 or 33, 3) m
    visibility: np.ndarray | None = None  # (17 or 33,)
    image_points: np.ndarray | None = None  # (17 or 33, 2) pixels
    timestamp_us: int | None = None  # of the client's clock; None is when it came

    @property
    def shapes(self) -> tuple[int, bool, bool]:
        """What must be alike in frames that are refined together."""
        return len(self.pose), self.visibility is None, self.image_points is None


def is_picture(message: str | bytes) -> bool:
    """Whether a message is a JPEG or a WebP, by its first bytes."""
    return isinstance(message, bytes) and (
        message[:3] == b"\xff\xd8\xff" or (message[:4] == b"RIFF" and message[8:12] == b"WEBP")
    )


def decode(message: str | bytes) -> Landmarks:
    """
    Raises:
        UserError: it is not a frame in either form.
    """
    return _from_json(message) if isinstance(message, str) else _from_bytes(message)


def _from_json(text: str) -> Landmarks:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"the message is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("pose") is None:
        raise UserError('the message must be an object with "pose", a list of 17 × 3 or 33 × 3 numbers in metres')
    if unknown := content.keys() - set(KEYS):
        raise UserError(f'the message has an unknown key "{shown(min(unknown))}": send {", ".join(KEYS)}')
    pose, visibility, image_points = (
        None if content.get(name) is None else numbers(name, content[name]) for name in KEYS[:3]
    )
    assert pose is not None
    if pose.ndim != 2 or pose.shape[0] not in (NUM_JOINTS, NUM_LANDMARKS) or pose.shape[1] != 3:
        raise UserError(f'"pose" has the shape {"×".join(map(str, pose.shape))}: send 17 × 3 or 33 × 3 numbers')
    for name, array, shape in (
        ("visibility", visibility, pose.shape[:1]),
        ("image_points", image_points, (len(pose), 2)),
    ):
        if array is not None and array.shape != shape:
            raise UserError(
                f'"{name}" has the shape {"×".join(map(str, array.shape))}: send {"×".join(map(str, shape))}'
            )
    time = content.get("timestamp_us")
    if time is not None and (isinstance(time, bool) or not isinstance(time, int) or not 0 <= time < LATEST_US):
        raise UserError('"timestamp_us" must be a whole number of microseconds from 0 on')
    return Landmarks(pose, visibility, image_points, time)


def _from_bytes(message: bytes) -> Landmarks:
    if message[:4] != MAGIC or len(message) < HEAD_BYTES:
        raise UserError('the binary message is not a JPEG or WebP picture, nor does it begin with "POSE"')
    joints, fields = int.from_bytes(message[4:6], "little"), int.from_bytes(message[6:8], "little")
    kind = FRAME_TYPES.get((joints, fields))
    if kind is None:
        raise UserError(f"the binary message has {joints} joints and fields {fields}: send 17 or 33, and 0 to 3")
    if len(message) != kind.itemsize:
        raise UserError(
            f"the binary message has {len(message)} bytes: {joints} joints with fields {fields} take {kind.itemsize}"
        )
    row = np.frombuffer(message, kind)[0]
    return Landmarks(
        row["pose"],
        row["visibility"] if fields & HAS_VISIBILITY else None,
        row["image_points"] if fields & HAS_IMAGE_POINTS else None,
        int.from_bytes(message[8:16], "little"),
    )


def encode(landmarks: Landmarks) -> bytes:
    """A client's frame, binary. Without a timestamp it is 0, which no second frame may have: give one."""
    fields = (landmarks.visibility is not None) * HAS_VISIBILITY + (
        landmarks.image_points is not None
    ) * HAS_IMAGE_POINTS
    row = np.zeros(1, FRAME_TYPES[len(landmarks.pose), fields])
    row["magic"], row["joints"], row["fields"] = MAGIC, len(landmarks.pose), fields
    row["timestamp_us"], row["pose"] = landmarks.timestamp_us or 0, landmarks.pose
    if landmarks.visibility is not None:
        row["visibility"] = landmarks.visibility
    if landmarks.image_points is not None:
        row["image_points"] = landmarks.image_points
    return row.tobytes()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answer:
    """One refined frame."""

    frame: int  # number of the message that it answers, from 0
    timestamp_us: int
    dropped: int  # frames of this stream so far that were overtaken by newer ones
    refined: np.ndarray  # (17, 3) m
    confidence: np.ndarray  # (17,)
    view_angle: float

    def as_bytes(self) -> bytes:
        row = np.zeros(1, ANSWER_TYPE)
        row["magic"] = ANSWER_MAGIC
        for name in ("frame", "timestamp_us", "dropped", "view_angle", "refined", "confidence"):
            row[name] = getattr(self, name)
        return row.tobytes()

    def as_json(self, seen: Landmarks | None = None) -> str:
        """`seen` is what MediaPipe saw in the client's picture, which goes beside."""
        content = {
            "frame": self.frame, "timestamp_us": self.timestamp_us, "dropped": self.dropped, "refined": self.refined,
            "confidence": self.confidence, "view_angle": self.view_angle,
        }  # fmt: skip
        if seen is not None:
            content |= {"pose": seen.pose, "visibility": seen.visibility, "image_points": seen.image_points}
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode()

    @classmethod
    def of(cls, message: bytes) -> "Answer":
        """A binary answer."""
        row = np.frombuffer(message, ANSWER_TYPE)[0]
        return cls(
            frame=int(row["frame"]), timestamp_us=int(row["timestamp_us"]), dropped=int(row["dropped"]),
            refined=row["refined"], confidence=row["confidence"], view_angle=float(row["view_angle"]),
        )  # fmt: skip


def nobody(frame: int, dropped: int) -> str:
    """The answer to a picture in which MediaPipe finds nobody."""
    return orjson.dumps({"frame": frame, "dropped": dropped, "refined": None}).decode()


def refusal(frame: int, sentence: str) -> str:
    """The answer to a message that makes no sense."""
    return orjson.dumps({"frame": frame, "error": sentence}).decode()


def about(model: dict[str, str], smooth: bool) -> str:
    """What a stream begins with, and what comes again when another version of the model answers."""
    return orjson.dumps({"model": model, "smooth": smooth}).decode()
