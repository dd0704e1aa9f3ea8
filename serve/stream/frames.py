"""A WebSocket's frames, below the messages: taken in small helpings, and not more of them than anybody needs.

uvicorn works through all that came at once. 256 kB of pings are forty thousand frames, for which every other request of the
replica would wait; and pings, pieces of messages and what comes after the end never reach the application, which counts
messages.
"""

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Request, Response

from serve.problems import problem

# Bytes that are looked at in one turn of the event loop: few where they hold many frames, which take 30 µs each, else up to all
# that a read brings.
LEAST_HELPING, LARGEST_HELPING, MANY_FRAMES = 512, 262_144, 16
# Frames beside messages that a client may send: so many at once, and so many a second from then on. Clients ping now and then,
# and cut pictures into pieces of some 16 kB, which are counted only if they are smaller than this.
FRAMES_AT_ONCE, FRAMES_PER_S, PIECE_BYTES = 200.0, 50.0, 1_024
POLICY = 1008
KEPT = ("Upgrade", "Allow")  # of the headers that a refused opening is answered with
SENTENCE = "too many pings and pieces of messages came: send messages whole"


class BoundedFrames(WebSocketsSansIOProtocol):
    """For uvicorn's `Config(ws=…)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left, self._at, self._looking = b"", 0, False  # what came and was not looked at yet
        self._helping, self._seen = LEAST_HELPING, 0
        self._credit, self._counted = FRAMES_AT_ONCE, self.loop.time()

    def data_received(self, data: bytes) -> None:
        """What the connection brought: some of it now, the rest in turns in which others have theirs."""
        self._left, self._at = self._left[self._at :] + data, 0
        if not self._looking:
            self._look()

    def _look(self) -> None:
        self._looking = False
        if self.transport.is_closing():
            self._left = b""
            return
        self._seen = 0
        helping = self._left[self._at : self._at + self._helping]
        self._at += len(helping)
        super().data_received(helping)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            return self._refuse(400, {})  # of its own uvicorn would say nothing, and wait
        self._helping = LEAST_HELPING if self._seen > MANY_FRAMES else min(2 * self._helping, LARGEST_HELPING)
        if self._at < len(self._left):
            self._looking = True
            self.transport.pause_reading()
            self.loop.call_soon(self._look)
        else:
            self._left, self._at = b"", 0
            if not self.read_paused:
                self.transport.resume_reading()

    async def receive(self) -> Any:
        """ASGI's. It lets the connection bring more, which must wait while there is some."""
        message = await super().receive()
        if self._looking:
            self.transport.pause_reading()
        return message

    def handle_connect(self, event: Request) -> None:
        answer = self.conn.accept(event)
        if answer.status_code == 101:
            super().handle_connect(event)
        else:
            self._refuse(answer.status_code, {name: answer.headers[name] for name in KEPT if name in answer.headers})

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        """Of what cannot become a stream."""
        self._left, self._at = b"", 0
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        refusal = problem(status, f"the WebSocket cannot be opened: {self.conn.handshake_exc}", headers)
        answer = Response(
            status, HTTPStatus(status).phrase, Headers({**refusal.headers, "Connection": "close"}), bytes(refusal.body)
        )
        self.transport.write(answer.serialize())
        self.transport.close()

    def handle_text(self, event: Frame) -> None:
        self._count(beside=self.close_sent)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        self._count(beside=self.close_sent)
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        self._count(beside=self.close_sent or len(event.data) < PIECE_BYTES)
        super().handle_cont(event)

    def handle_ping(self) -> None:
        self._count(beside=True)
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self._count(beside=True)
        super().handle_pong(event)

    def _count(self, *, beside: bool) -> None:
        """A frame, and whether it is one beside messages."""
        self._seen += 1
        if not beside or self.transport.is_closing():
            return
        now = self.loop.time()
        self._credit = min(FRAMES_AT_ONCE, self._credit + (now - self._counted) * FRAMES_PER_S) - 1
        self._counted = now
        if self._credit >= 0:
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": POLICY, "reason": SENTENCE})
        if not self.close_sent:
            self.conn.send_close(POLICY, SENTENCE)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.transport.close()
