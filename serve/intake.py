"""What stands before Serve's queue: takes a request's body whole, then lets it in; lets it out, then delivers its answer.

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.intake:middlewares

Serve gives a request its place (max_ongoing_requests, max_queued_requests) when its first line is there, so clients that
send or read slowly would have all places for as long as they like. With that variable Serve puts these middlewares before
the queue, in replicas that answer HTTP themselves (serve/config.yaml sets it for those) and in its proxies (where the
cluster's environment has it, as cluster/kuberay/service.yaml does). Without it everything is answered as well, from
within the queue.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, cast

import uvicorn
from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import problems
from serve.bodies import Body, ClientLeft, declared_length, read
from serve.guard import Tokens, across_origins, is_file, token_of
from serve.limits import Budget, Clock, Disk, Pace, within
from serve.one_write import OneWrite
from serve.schemas import AppArgs
from serve.stream.frames import BoundedFrames

logger = logging.getLogger("ray.serve")

# Where in its scope a request's body lies, once it is there.
BODY = "pose.body"
# What must be answered however long the queue is.
BESIDE_THE_QUEUE = {"/healthz", "/v2/health/live", "/v2/health/ready", "/metrics"}
REPLAYED_BYTES = 262_144
SENT_BYTES = 65_536  # of an answer at a time: the server waits for the client between two, not within one
PATHSEND = "http.response.pathsend"
SOUGHT_IN = ".mp4"
MESSAGE_BYTES = 4_000_000  # of a WebSocket; what a stream takes is `max_picture_mb`


def body_limit(path: str, args: AppArgs) -> int:
    """Bytes that a route takes."""
    return int((args.max_video_mb if path == "/v1/refine/video" else args.max_body_mb) * 1e6)


def middlewares() -> list[Middleware]:
    """What Serve calls where it starts to answer HTTP: in a replica, which has the application, or in a proxy."""
    try:
        serve.get_replica_context()
    except RayServeException:
        # a proxy, which knows no application: replicas refuse what is too large for them
        most, memory = int(AppArgs().uploads_mb * 1e6), int(AppArgs().memory_mb * 1e6)
        return [Middleware(Intake, limit_of=lambda path: most, uploads=Disk(most), memory=Budget(memory))]
    set_up_server()
    return [Middleware(InReplica)]


def set_up_server() -> None:
    """Bounds the WebSockets' messages in the server that Serve is about to start, and lets an answer be one write: Serve has no
    option for it. 128 streams of uvicorn's 16 MB would be 2 GB. Compression is refused, too: small messages gain nothing, and a
    bomb has 1,000 times its size. Frames that are no messages have bounds of their own.
    """
    uvicorn.Config = functools.partial(
        uvicorn.Config,
        http=OneWrite,
        ws=BoundedFrames,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,
    )


class InReplica:
    """ASGI middleware: `before_the_queue` of the replica's application, which Serve makes known only after it built this."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._taken_in: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._taken_in is None:
            replica: Any = serve.get_replica_context().servable_object
            self._taken_in = before_the_queue(self.app, replica, replica.app)
        await self._taken_in(scope, receive, send)


def before_the_queue(queue: ASGIApp, endpoint: Any, application: ASGIApp) -> ASGIApp:
    """What a replica answers HTTP with.

    Args:
        queue: Serve's, with everything behind it.
        endpoint: the replica's `RefineEndpoint`.
        application: its routes.
    """
    intake = Intake(
        queue,
        limit_of=lambda path: body_limit(path, endpoint.args),
        uploads=endpoint.uploads,
        memory=endpoint.memory,
        application=application,
        tokens=endpoint.tokens,
    )
    # outside, so that pages may read refusals that come from here or from the queue, too
    return across_origins(intake, endpoint.args.cors_origins)


class Intake:
    """ASGI middleware, the outermost."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit_of: Callable[[str], int],
        uploads: Disk,
        memory: Budget,
        pace: Pace | None = None,
        application: ASGIApp | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """
        Args:
            app: Serve's queue and what is behind it.
            limit_of: most bytes of a body, by path.
            uploads: for bodies on disk.
            memory: for answers that are on their way.
            pace: that clients must keep.
            application: what is behind the queue, where it is in this process: it gets bodies as they lie on disk.
            tokens: who may send a body.
        """
        self.app, self.limit_of, self.pace = app, limit_of, pace or Pace()
        self.uploads, self.memory = uploads, memory
        self.application, self.tokens = application, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self.application is not None:
            # A stream lasts for hours: it would keep a place in the queue, in which nothing waits (`serve.stream.hub` has
            # its own limit), be ended by the request timeout, and its messages would pile up before it
            scope["headers"] = _readable(scope)
            return await self.application(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self.application is not None and scope["path"] in BESIDE_THE_QUEUE:
            return await self.application(scope, receive, send)
        scope["headers"] = _readable(scope)
        if self.application is not None and is_file(scope["path"]):
            # it costs nothing but its client's time, and is not to lie in memory for so long
            return await self.application(_whole_file(scope), receive, self._paced(send))
        headers = Headers(scope=scope)
        has_body = "content-length" in headers or "transfer-encoding" in headers
        turned_away = self.tokens is not None and self.tokens.wanted and not self.tokens.admit(token_of(scope))
        answer, body = Answer(), None
        try:
            if has_body and not turned_away:
                try:
                    limit = self.limit_of(scope["path"])
                    body = await read(receive, declared_length(headers), limit, self.pace, self.uploads)
                except ClientLeft:
                    return None
                except HTTPException as error:
                    refusal = problems.problem(error.status_code, error.detail, dict(error.headers or {}))
                    return await refusal(scope, receive, send)
                receive = self._replay(scope, receive, body)
            try:
                await self.app(scope, receive, answer.collect)
            finally:
                await self._deliver(answer, send)
        finally:
            if body is not None:
                body.close()

    def _replay(self, scope: Scope, receive: Receive, body: Body) -> Receive:
        """ASGI's receive for what is behind."""
        if self.application is not None:
            scope[BODY] = body
            messages = iter([{"type": "http.request", "body": b"", "more_body": False}])
        else:
            messages = _messages(body)

        async def replayed() -> Message:
            return next(messages, None) or await receive()

        return replayed

    async def _deliver(self, answer: "Answer", send: Send) -> None:
        """To the client, at its own pace, but not more slowly than is allowed; its place in the queue is free already."""
        messages = answer.messages()
        size = sum(len(message.get("body", b"")) for message in messages)
        loop = asyncio.get_running_loop()
        clock, sent = Clock(self.pace, loop.time()), 0
        try:
            if size <= SENT_BYTES:  # small ones always have room
                for message in messages:
                    await within(clock.until, cast(Coroutine, send(message)))
                return
            async with asyncio.timeout_at(clock.until) as limit:

                def give_up() -> None:
                    with contextlib.suppress(RuntimeError):  # it is given up already
                        limit.reschedule(loop.time())

                with self.memory.waiting(size, give_up):
                    for piece in _pieces(messages):
                        if sent:
                            clock.moved(sent, loop.time())
                            limit.reschedule(clock.until)
                        await send(piece)
                        sent = len(piece.get("body", b""))
        except TimeoutError:
            raise _too_slow(size) from None

    def _paced(self, send: Send) -> Send:
        """ASGI's send to a client that must keep the pace."""
        loop = asyncio.get_running_loop()
        clock: Clock | None = None

        async def paced(message: Message) -> None:
            nonlocal clock
            for piece in _pieces(_with_content(message)):
                clock = clock or Clock(self.pace, loop.time())  # from the first word on
                try:
                    await within(clock.until, cast(Coroutine, send(piece)))
                except TimeoutError:
                    raise _too_slow(len(piece.get("body", b""))) from None
                clock.moved(len(piece.get("body", b"")), loop.time())

        return paced


def _too_slow(size: int) -> Exception:
    logger.warning("an answer of %d bytes was abandoned: its client read it too slowly", size)
    return ConnectionAbortedError("the client reads its answer too slowly")


def _whole_file(scope: Scope) -> Scope:
    """Asks for a file's name in place of its content (ASGI's extension for it), and for parts of it only where players seek:
    Starlette fetches each piece of 64 kB by a thread, for which hundreds of slow readers take a core.
    """
    scope["extensions"] = {**scope.get("extensions", {}), PATHSEND: {}}
    if not scope["path"].endswith(SOUGHT_IN):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
    return scope


def _with_content(message: Message) -> Iterator[Message]:
    """The message, or the content of the file that it names. It lies in the system's memory: reading waits for nothing."""
    if message["type"] != PATHSEND:
        yield message
        return
    with open(message["path"], "rb") as file:
        while piece := file.read(SENT_BYTES):
            yield {"type": "http.response.body", "body": piece, "more_body": True}
    yield {"type": "http.response.body", "body": b"", "more_body": False}


def _pieces(messages: Iterable[Message]) -> Iterator[Message]:
    """The same messages with bodies that are sent at once: of a longer one the server would keep all that the client has not
    taken, and say that it is sent.
    """
    for message in messages:
        body = message.get("body", b"")
        if len(body) <= SENT_BYTES:
            yield message
            continue
        for start in range(0, len(body), SENT_BYTES):
            more = start + SENT_BYTES < len(body) or message.get("more_body", False)
            yield {"type": message["type"], "body": body[start : start + SENT_BYTES], "more_body": more}


def _readable(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Headers in ASCII: Serve reads ids as UTF-8, and is broken by one that is none."""
    return [(name, value) for name, value in scope["headers"] if name.isascii() and value.isascii()]


def _messages(body: Body) -> Iterator[Message]:
    yield from (
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in body.chunks(REPLAYED_BYTES) if chunk
    )
    yield {"type": "http.request", "body": b"", "more_body": False}


class Answer:
    """An answer as it comes from behind the queue."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def collect(self, message: Message) -> None:
        self._messages.append(message)

    def messages(self) -> list[Message]:
        """What to send. Errors that Serve itself answers with, a line of plain text, become problem documents."""
        if not self._messages:
            return []
        start = self._messages[0]
        if start["type"] == "http.response.start" and start["status"] >= 400:
            headers = Headers(raw=start["headers"])
            if headers.get("content-type", "").startswith("text/plain"):
                text = b"".join(message.get("body", b"") for message in self._messages[1:]).decode(errors="replace")
                kept = {name: headers[name] for name in ("retry-after", "x-request-id") if name in headers}
                return problems.messages(problems.problem(start["status"], text, kept))
        return self._messages
