"""Bodies of requests, read within limits."""

from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request

# Uploads travel to where they are decoded in pieces of this size.
PIECE_BYTES = 8_000_000


async def chunks_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes, if it has at most `limit` bytes.

    Raises:
        HTTPException: 413.
    """
    too_large = HTTPException(413, f"the body has more than {limit:,} bytes: send the clip in parts")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        yield chunk


async def pieces_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The same, in larger pieces."""
    buffer = bytearray()
    async for chunk in chunks_of(request, limit):
        buffer += chunk
        if len(buffer) >= PIECE_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


async def read_body(request: Request, limit: int) -> bytes:
    chunks = [chunk async for chunk in chunks_of(request, limit)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
