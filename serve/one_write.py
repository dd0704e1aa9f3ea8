"""An answer's head and body in one write.

uvicorn writes them one after the other, and each write is a system call here and a wake-up of HAProxy there: of a single pose's
answer, a twentieth of all that it costs.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = b"HTTP/1.1 "
INTERIM = b"HTTP/1.1 1"  # 100 Continue: the client waits for it
JOINED_BYTES = 65_536  # of a body: copying more takes longer than a second write


class WithHead:
    """A transport that holds an answer's head until its body's first bytes come, or the event loop's turn ends. Else as the one
    that it stands for.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport, self._loop, self._head = transport, loop, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """What the server writes."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) > JOINED_BYTES:
                self.transport.write(head)
            else:
                data = head + data
        elif data.startswith(HEAD) and not data.startswith(INTERIM):
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self.transport.write(data)

    def flush(self) -> None:
        """Writes a head whose body did not come."""
        if self._head:
            head, self._head = self._head, b""
            self.transport.write(head)

    def close(self) -> None:
        self.flush()
        self.transport.close()


class OneWrite(HttpToolsProtocol):
    """For uvicorn's `Config(http=…)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, WithHead(transport, self.loop))

    def handle_websocket_upgrade(self) -> None:
        """A stream writes for itself."""
        self.transport = cast(WithHead, self.transport).transport
        super().handle_websocket_upgrade()
