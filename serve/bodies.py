"""Bodies of requests: read within a size, a pace and a budget, and kept on disk where they are large.

A stranger decides how large a body is and how slowly it comes. So nothing here waits longer than `Clock` says, what a
process holds for all its requests together is bounded (`Disk`), memory has small bodies only, and the event loop never
waits for a disk.
"""

import asyncio
import contextlib
import mmap
import os
import tempfile
import zlib
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from refiner import UserError
from serve.limits import Clock, Disk, Pace, within

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Uploads travel to where they are decoded in pieces of this size.
PIECE_BYTES = 8_000_000
# A body of up to so many bytes stays in memory and is decoded on the event loop, in two milliseconds at most.
SMALL_BYTES = 65_536
# Of a larger one so many bytes wait in memory to be written together: each time costs the event loop a hand-over.
UNWRITTEN_BYTES = 131_072
# Where thousands come at once they share so much memory, but each may keep what HAProxy sends on as one piece.
ALL_UNWRITTEN_BYTES, PIECE_OF_HAPROXY = 67_108_864, 16_384
# Parts of a form, each of which costs 3 µs, among which its file is looked for.
MOST_PARTS = 1_000
# Digits of a length that are read as a number.
LENGTH_DIGITS = 15


class Body:
    """A whole body, in memory or in a file without a name. To be closed."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk, self._charged = disk, 0
        self._unwritten = bytearray()
        self._file: BinaryIO | None = None
        self.size = 0

    @classmethod
    def of(cls, content: bytes) -> "Body":
        body = cls()
        body._unwritten, body.size = bytearray(content), len(content)
        return body

    @property
    def is_small(self) -> bool:
        return self.size <= SMALL_BYTES

    def to_write(self, at_once: int = 1) -> bool:
        """Whether `write` is due, before more is appended.

        Args:
            at_once: number of bodies that are coming.
        """
        share = max(ALL_UNWRITTEN_BYTES // at_once, PIECE_OF_HAPROXY)
        return len(self._unwritten) > min(UNWRITTEN_BYTES, share)

    def append(self, chunk: bytes) -> None:
        """
        Raises:
            HTTPException: the budget does not allow it.
        """
        self.size += len(chunk)
        if self._disk is not None and self.size > SMALL_BYTES:  # small ones always have room
            self._disk.take(self.size - self._charged)
            self._charged = self.size
        self._unwritten += chunk

    def write(self) -> None:
        """Puts what is in memory into the file. Waits for the disk: not for the event loop."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the body)
        rest = memoryview(self._unwritten)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._unwritten = bytearray()

    def whole(self) -> bool:
        """Whether it lies in one place; where it does not, `write` is due."""
        return self._file is None or not self._unwritten

    def content(self) -> bytes | memoryview:
        """All of it; of a file as a map of it, which lives on when the body is closed."""
        if self._file is None:
            return bytes(self._unwritten)
        return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))

    def chunks(self, size: int) -> Iterator[bytes]:
        if self._file is None:
            yield bytes(self._unwritten)
            return
        self._file.seek(0)
        while chunk := self._file.read(size):
            yield chunk

    def as_file(self, folder: Path) -> str:
        """Where another process of this user finds it: where it lies, or, without /proc, as a copy in the folder. Waits for the
        disk.
        """
        if self._file is None:
            self.write()
        assert self._file is not None  # it was written
        path = Path(f"/proc/{os.getpid()}/fd/{self._file.fileno()}")
        if not path.exists():
            path = folder / "body"
            path.write_bytes(self.content())
        return str(path)

    def close(self) -> None:
        if self._file is not None:
            if self._disk is not None:
                self._disk.thread.submit(self._file.close)  # after what it still writes
            else:
                self._file.close()
        if self._disk is not None:
            self._disk.give_back(self._charged)
            self._charged = 0


def declared_length(headers: Mapping[str, str]) -> int | None:
    """
    Raises:
        HTTPException: 400, Content-Length is not a number; 413, it is too large.
    """
    length = headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(400, "Content-Length is not a number")
    if len(length) > LENGTH_DIGITS:
        raise HTTPException(413, "Content-Length is too large")
    return int(length)


def too_large(limit: int) -> HTTPException:
    """The refusal of a body of more than `limit` bytes."""
    return HTTPException(413, f"the body has more than {limit:,} bytes: send the clip in parts")


class ClientLeft(Exception):
    """The connection closed before the body was whole."""


async def read(receive: Receive, declared: int | None, limit: int, pace: Pace, disk: Disk) -> Body:
    """A request's body, whole.

    Args:
        receive: ASGI's.
        declared: its length, where the client says it.
        limit: bytes that are taken.
        pace: that the client must keep.
        disk: of the process.

    Raises:
        HTTPException: 413, 408, or 429.
        ClientLeft: it did.
    """
    if declared is not None and declared > limit:
        raise too_large(limit)
    loop = asyncio.get_running_loop()
    clock = Clock(pace, loop.time())
    body = Body(disk)
    disk.coming += 1
    try:
        while True:
            message: Message = await within(clock.until, cast(Coroutine, receive()))
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            if body.size + len(chunk) > limit:
                raise too_large(limit)
            if chunk:
                body.append(chunk)
            more = message.get("more_body", False)
            if body.to_write(disk.coming) or not (more or body.whole()):
                before = loop.time()
                await loop.run_in_executor(disk.thread, body.write)
                clock.until += loop.time() - before  # the disk's time, not the client's
            if more:
                clock.moved(len(chunk), loop.time())
            if not more:
                return body
    except TimeoutError:
        body.close()
        raise HTTPException(
            408, f"the body came more slowly than {pace.bytes_per_s:g} bytes a second", {"Connection": "close"}
        ) from None
    except BaseException:
        body.close()
        raise
    finally:
        disk.coming -= 1


def video_in(body: Body, content_type: str) -> Iterator[bytes]:
    """An upload's file in pieces: the body itself, or the first file in a form (`curl -F video=@clip.mp4`), behind which
    nothing is looked at. A form's 8 MB can take a second: for a thread.

    Raises:
        UserError: the form is damaged, has no file, or is all fields.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        yield from body.chunks(PIECE_BYTES)
        return
    if not options.get(b"boundary"):
        raise UserError('the form has no boundary in its Content-Type: send it as "curl -F video=@clip.mp4" does')
    damaged = UserError("the form is damaged or not complete: its parts do not end as they begin")
    upload = _FileInForm()
    try:
        parser = MultipartParser(options[b"boundary"], upload.callbacks)
        for chunk in body.chunks(PIECE_BYTES):
            with contextlib.suppress(_FileEnds):
                parser.write(chunk)
            yield upload.taken()
            if upload.ended:
                return
    except FormParserError:
        raise damaged from None
    if upload.seen:
        raise damaged
    raise UserError('the form has no file: send one as "curl -F video=@clip.mp4" does')


class _FileEnds(Exception):
    """Of a form no more is needed."""


class _FileInForm:
    """Keeps of a form the content of its first file."""

    def __init__(self) -> None:
        self.seen = self.ended = False
        self._parts = 0
        self._header, self._value = b"", b""
        self._content = bytearray()
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._part,
            "on_header_field": self._field,
            "on_header_value": self._add,
            "on_header_end": self._end_of_header,
            "on_part_data": self._data,
            "on_part_end": self._end_of_part,
        }

    def taken(self) -> bytes:
        """What came since it was last asked for."""
        content = bytes(self._content)
        self._content.clear()
        return content

    def _part(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise UserError(f"the form has no file in its first {MOST_PARTS:,} parts: send the file first")

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_of_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self.seen = b"filename" in options
        self._header, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self.seen:
            self._content += data[start:end]

    def _end_of_part(self) -> None:
        self.ended = self.seen
        if self.ended:
            raise _FileEnds


# zlib's window bits for each Content-Encoding; "deflate" means zlib's format.
ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def codings(encoding: str) -> list[str]:
    """What a Content-Encoding names; nothing where the body lies as it is."""
    return [name for name in (part.strip().lower() for part in encoding.split(",")) if name not in ("", "identity")]


def inflated(body: Body, encoding: str, limit: int, disk: Disk) -> Body:
    """A body as it was before it was compressed. Takes long: for a thread.

    Raises:
        HTTPException: 415, in a way that is not known; 413, it becomes larger than `limit`; 429.
        UserError: it is damaged.
    """
    names = codings(encoding)
    if len(names) != 1 or names[0] not in ENCODINGS:
        raise HTTPException(
            415,
            f"Content-Encoding is {encoding[:100]}: gzip and deflate are accepted",
            {"Accept-Encoding": "gzip, deflate"},
        )
    plain = Body(disk)
    try:
        decoder = zlib.decompressobj(ENCODINGS[names[0]])
        for chunk in body.chunks(SMALL_BYTES):
            while chunk and not decoder.eof:
                piece = decoder.decompress(chunk, SMALL_BYTES)
                if plain.size + len(piece) > limit:
                    raise too_large(limit)
                plain.append(piece)
                chunk = decoder.unconsumed_tail
                if plain.to_write():
                    plain.write()
        if not decoder.eof or decoder.unused_data:
            raise UserError(f"the body is not complete {names[0]} data")
        if not plain.whole():
            plain.write()
    except zlib.error:
        plain.close()
        raise UserError(f"the body is not {names[0]} data, which its Content-Encoding says") from None
    except BaseException:
        plain.close()
        raise
    return plain
