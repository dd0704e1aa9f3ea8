"""What a client may take of a replica: time for each step (`Pace`, `Clock`), and bytes of all requests together (`Budget`)."""

import asyncio
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

T = TypeVar("T")

PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How slowly a client may send or take."""

    patience_s: float = PATIENCE_S  # in which nothing need move
    bytes_per_s: float = 20_000.0  # that it must keep to, on average; GPRS has it


class Clock:
    """When a client's time is up. Each byte gains it some, but never more than the patience ahead: who sent 100 MB at once may
    not hold them for an hour.
    """

    def __init__(self, pace: Pace, now: float) -> None:
        """Args:
        pace: that it must keep.
        now: seconds, of the event loop's clock.
        """
        self._pace = pace
        self.until = now + pace.patience_s

    def moved(self, size: int, now: float) -> None:
        """So many bytes were sent or taken."""
        self.until = min(self.until + size / self._pace.bytes_per_s, now + self._pace.patience_s)


async def within(until: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns. One that need not wait, as most reads of a body and writes of an answer need not, costs neither
    a timer nor a turn of the event loop.

    Args:
        until: when its time is up, by the event loop's clock.
        coroutine: not begun.

    Raises:
        TimeoutError: it waited for longer.
    """
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    async with asyncio.timeout_at(until):
        return await _rest(coroutine, waited_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], waited_for: object) -> Generator[object, Any, T]:
    """Of a coroutine that has begun to wait (PEP 380, which has no form for one that has)."""
    while True:
        try:
            value = yield waited_for
        except BaseException as error:
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, value)
        try:
            waited_for = step()
        except StopIteration as end:
            return end.value


class Budget:
    """Bytes that the requests of a process hold together."""

    def __init__(self, most: int, patience_s: float = PATIENCE_S) -> None:
        """Args:
        most: bytes.
        patience_s: how long an answer may wait for its client where others need its room.
        """
        self.most, self.held = most, 0
        self._patience_s = patience_s
        self._waiting: dict[object, tuple[float, int, Callable[[], None]]] = {}  # since when, bytes, what gives them up
        self._one_at_a_time = threading.RLock()

    def take(self, size: int) -> None:
        """
        Raises:
            HTTPException: 413, more than there ever is; 429, more than there is now.
        """
        if size > self.most:
            raise HTTPException(413, f"the request takes more than {self.most:,} bytes: send the clip in parts")
        with self._one_at_a_time:
            if self.held + size > self.most:
                self._make_room(self.held + size - self.most)
            if self.held + size > self.most:
                raise HTTPException(429, "too many large requests are under way: send this one again in a second")
            self.held += size

    def give_back(self, size: int) -> None:
        with self._one_at_a_time:
            self.held -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Raises: as `take`."""
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)

    @contextmanager
    def waiting(self, size: int, give_up: Callable[[], None]) -> Iterator[None]:
        """An answer that waits for its client. It is there, so it counts, but slow readers are not to take the room of all
        others: who wants it ends what has waited longest, by `give_up`.
        """
        ticket = object()
        with self._one_at_a_time:
            self.held += size
            self._waiting[ticket] = monotonic(), size, give_up
        try:
            yield
        finally:
            with self._one_at_a_time:
                if self._waiting.pop(ticket, None) is not None:
                    self.held -= size

    def _make_room(self, missing: int) -> None:
        for ticket, (since, size, give_up) in list(self._waiting.items()):  # the oldest first
            if missing <= 0 or monotonic() - since < self._patience_s:
                return
            del self._waiting[ticket]
            self.held -= size
            missing -= size
            give_up()


class Disk(Budget):
    """Where large bodies lie. What takes long there, writing and freeing megabytes, one thread does for all of them, in order:
    where the disk is slow, uploads wait, and nothing else.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.coming = 0  # bodies that are being read; the event loop's alone
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
