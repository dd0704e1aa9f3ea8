"""One stream: a WebSocket whose newest frame is answered first, in order, within limits.

Reading never waits for answering: a frame that comes while another one is under way takes the place of the one that waits.
What is sent waits for the client, but not for ever; nothing piles up.
"""

import asyncio
import logging
from dataclasses import replace
from time import monotonic

from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from refiner import UserError
from serve import problems
from serve.codec.messages import shown
from serve.guard import SUBPROTOCOL
from serve.live import Served
from serve.schemas import AppArgs
from serve.stream.hub import Hub, Taken
from serve.stream.messages import Answer, Landmarks, about, is_picture, nobody, refusal
from serve.stream.pictures import Pictures, Watcher

logger = logging.getLogger("ray.serve")

# 33 landmarks with all their digits are 6 kB as JSON; pictures have a limit of their own.
LANDMARK_BYTES = 16_384
# Frames a second on average, and at once, that a client may send: each costs 50 µs even if nobody looks at it.
FRAMES_PER_S, FRAMES_AT_ONCE = 500.0, 1_000.0
# What cameras give, and frames a second of all streams together beyond which a replica reads no stream faster than that: 128
# streams of 500 frames would take all of its time, and TCP tells their clients to wait.
CAMERA_FPS, CROWDED_PER_S = 60.0, 3_000.0
# How long a client may let an answer lie.
SENDING_S = 10.0
SWEEP_S = 1.0
POLICY, TOO_LARGE, LATER = 1008, 1009, 1013  # WebSocket's close codes


class Ended(Exception):
    """This endpoint ends the stream."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


class Streams:
    """All streams of a replica."""

    def __init__(self, args: AppArgs, hub: Hub, pictures: Pictures) -> None:
        self.args, self.hub, self.pictures = args, hub, pictures
        self._sweeping: asyncio.Task[None] | None = None
        self._credit, self._counted = CROWDED_PER_S, monotonic()

    def crowded(self, now: float) -> bool:
        """Counts a frame: whether there are too many of all streams together."""
        self._credit = max(min(CROWDED_PER_S, self._credit + (now - self._counted) * CROWDED_PER_S) - 1, -1.0)
        self._counted = now
        return self._credit < 0

    async def serve(self, websocket: WebSocket) -> None:
        """One connection, from its upgrade to its end. Who may call was asked before (`serve.guard`)."""
        try:
            stream = Stream(websocket, self, smooth=_smooth(websocket.query_params.get("smooth", "true")))
            self.hub.join(stream)
        except (UserError, HTTPException) as error:
            refused = (error.status_code, error.detail) if isinstance(error, HTTPException) else (422, str(error))
            return await websocket.send_denial_response(problems.problem(*refused))
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())
        try:
            await stream.run()
        finally:
            stream.gone = True
            self.hub.leave(stream)

    async def _sweep(self) -> None:
        """Ends streams that stall. One task for all: a timer for each frame would cost as much as its decoding."""
        while self.hub.members:
            await asyncio.sleep(SWEEP_S)
            for stream in list(self.hub.members):
                assert isinstance(stream, Stream)
                stream.look(monotonic())


class Stream:
    """A member of the hub. Its state lives and dies with the connection."""

    def __init__(self, websocket: WebSocket, streams: Streams, *, smooth: bool) -> None:
        self._websocket, self._streams = websocket, streams
        self.smooth, self.row, self.gone = smooth, -1, False
        self.last_us, self.answered = -1, 0
        self._began, self._heard, self._sends_since = monotonic(), monotonic(), 0.0
        self._number, self._dropped, self._credit, self._ahead = -1, 0, FRAMES_AT_ONCE, CAMERA_FPS
        self._waiting: Taken | None = None  # the newest frame
        self._seen: Taken | None = None  # the landmarks of the picture under way
        self._busy = False  # a frame is under way
        self._version = ""
        self._watcher: Watcher | None = None
        self._watching: asyncio.Task[None] | None = None
        # what is to be sent, and whether it is a frame's answer: the next frame is turned to when that is sent
        self._outbox: asyncio.Queue[tuple[str | bytes | Ended | None, bool]] = asyncio.Queue()
        self._main: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """From the upgrade to the end."""
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in self._websocket.scope["subprotocols"] else None
        await self._websocket.accept(subprotocol)
        self._announce(self._streams.hub.current())
        reader = asyncio.create_task(self._read())
        self._main = asyncio.create_task(self._send_all())
        try:
            await self._main
        except (WebSocketDisconnect, TimeoutError):
            pass
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # not `look`, which gave up the client, but the server's end
                raise
        finally:
            self.gone = True
            reader.cancel()
            if self._watching is None:
                self._give_back()
            else:  # a task that is cancelled before its first step runs none of its own lines
                self._watching.add_done_callback(lambda watching: self._give_back())
                self._watching.cancel()

    async def _send_all(self) -> None:
        while True:
            message, is_answer = await self._outbox.get()
            if message is None:  # the client left
                return
            self._sends_since = monotonic()
            if isinstance(message, Ended):
                logger.info("a stream was ended: %s", message.sentence)
                return await self._websocket.close(
                    message.code, message.sentence[:120]
                )  # a reason has 123 bytes at most
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)
            self._sends_since = 0.0
            if is_answer:
                self._next()

    def _say(self, message: str | bytes | Ended | None, *, answers: bool = False) -> None:
        self._outbox.put_nowait((message, answers))

    def look(self, now: float) -> None:
        """Ends it where nothing moves."""
        idle_s = self._streams.args.stream_idle_s
        if self._sends_since and now - self._sends_since > SENDING_S and self._main is not None:
            logger.info("a stream was closed: its client does not read its answers")
            self._main.cancel()
        elif now - self._heard > idle_s:
            self._say(Ended(POLICY, f"no complete frame came for {idle_s:g} s: open another stream"))

    async def _read(self) -> None:
        try:
            while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
                text = message.get("text")
                self._came(message["bytes"] if text is None else text)
                if self._streams.crowded(self._heard) and self._ahead < 0:
                    await asyncio.sleep(-self._ahead / CAMERA_FPS)
        except Ended as ended:
            self._say(ended)
        else:
            self.gone = True
            self._say(None)

    def _came(self, content: str | bytes) -> None:
        """A message, whole.

        Raises:
            Ended: the client does what it may not.
        """
        now = monotonic()
        self._credit = min(FRAMES_AT_ONCE, self._credit + (now - self._heard) * FRAMES_PER_S) - 1
        self._ahead = max(min(CAMERA_FPS, self._ahead + (now - self._heard) * CAMERA_FPS) - 1, -1.0)
        if self._credit < 0:
            raise Ended(POLICY, f"more than {FRAMES_PER_S:g} frames a second came: send at most that many")
        self._heard = now
        self._number += 1
        limit = int(self._streams.args.max_picture_mb * 1e6) if is_picture(content) else LANDMARK_BYTES
        if len(content) > limit:
            raise Ended(TOO_LARGE, f"a frame of {len(content):,} bytes came: the limit is {limit:,}")
        if self._waiting is not None:
            self._dropped += 1
        self._waiting = Taken(self._number, content, int((now - self._began) * 1e6))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        """Turns to the newest frame, if there is one."""
        self._busy = self._waiting is not None
        if self._waiting is None:
            return
        content = self._waiting.content
        if isinstance(content, bytes) and is_picture(content):
            self._watching = asyncio.create_task(self._watch())
        else:
            self._streams.hub.offer(self)

    async def _watch(self) -> None:
        """The newest picture becomes landmarks, which the hub refines."""
        taken = self.take()
        try:
            if self._watcher is None:
                self._watcher = self._streams.pictures.take()
            assert isinstance(taken.content, bytes)
            seen = await self._watcher.see(taken.content, taken.came_us)
        except UserError as error:
            self.refuse(taken.frame, str(error))
        except HTTPException as error:
            self._say(Ended(LATER, error.detail))
        except Exception:
            logger.exception("a picture failed")
            self.refuse(taken.frame, problems.DEFECT)
        else:
            if seen is None:
                self._say(nobody(taken.frame, self._dropped), answers=True)
            else:
                self._seen = Taken(taken.frame, seen, taken.came_us)
                self._streams.hub.offer(self)
        self._watching = None

    def _give_back(self) -> None:
        if self._watcher is not None:
            self._streams.pictures.give_back(self._watcher)
            self._watcher = None

    def take(self) -> Taken:
        """The frame that is to be answered now: what was seen in the last picture, or the newest that came."""
        taken, self._seen = self._seen, None
        if taken is None:
            taken, self._waiting = self._waiting, None
        assert taken is not None  # it was offered
        return taken

    def refuse(self, frame: int, sentence: str) -> None:
        self._say(refusal(frame, problems.without_paths(sentence)), answers=True)

    def answer(self, refined: Answer, taken: Taken, landmarks: Landmarks, served: Served) -> int:
        """Returns the bytes that are sent."""
        if served.model["version"] != self._version:
            self._announce(served)
        self.last_us, self.answered = refined.timestamp_us, self.answered + 1
        refined = replace(refined, dropped=self._dropped)
        if isinstance(taken.content, bytes):
            message = refined.as_bytes()
        else:
            message = refined.as_json(landmarks if isinstance(taken.content, Landmarks) else None)
        self._say(message, answers=True)
        return len(message)

    def _announce(self, served: Served) -> None:
        self._version = served.model["version"]
        self._say(about(dict(served.model), self.smooth))


def _smooth(text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f'"smooth" is "{shown(text)}": send true or false')
    return text == "true"
