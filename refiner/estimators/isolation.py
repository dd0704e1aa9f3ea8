"""Calls a function in a child process that may die or hang without taking the caller along.

Video decoders and MediaPipe are native code: a damaged file can end the process, or never return. The child is started
once and called many times, so isolation costs a start per process and nothing per frame. It reads requests from stdin
and answers on stdout, one JSON object per line each way, every answer with the number of its request; it ends with its
parent.

    python -m refiner.estimators.isolation package.module:function    # the child's side
"""

import contextlib
import faulthandler
import functools
import importlib
import json
import os
import queue
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from refiner.errors import UserError

START_S = 300  # for a child to import what it needs: slow on a busy machine with a cold disk, and no fault of a call
TRACE_S = 15  # for a child that is given up to write where it was: it takes long only on a busy machine
PROGRESS_EVERY_S = 0.5  # a child that works says so this often
TRACE_CHARACTERS = 8000  # kept of what a child that died had written
LEAVING_S = 0.1  # how soon it is seen that whoever asked has left
BOUNDED_FILES = 256  # file descriptors of a child whose memory is bounded: a video, a model and libraries take some 40


class ChildError(Exception):
    """The function raised, or its process died or stalled."""

    def __init__(self, reason: str, trace: str) -> None:
        super().__init__(reason)
        self.reason = reason  # one line
        self.trace = trace  # the child's traceback, or what it last wrote to stderr


class ChildKilled(ChildError):
    """Somebody else ended its process, as the kernel does where memory is short: no fault of what it worked on."""


class Abandoned(Exception):
    """Whoever asked has left, so the call was ended in the middle and its process killed."""


class Isolated:
    """A function in a child process. Calls from several threads wait for each other: one child does one thing at a time.

    with Isolated("refiner.estimators.observe:observe", stall_s=120) as observe:
        observe(lambda progress: None, video="clip.mp4", out="clip.parquet", model="pose.task", stride=1)
    """

    def __init__(
        self,
        function: str,
        *,
        stall_s: float,
        calls_per_process: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Args:
        function: "module:name" of a function that takes keyword arguments (JSON values) and `on_progress(number)`,
            and returns a JSON value.
        stall_s: a call that makes no progress for so long is given up, and its process killed.
        calls_per_process: start a fresh process after so many calls; None keeps it.
        memory_bytes: that the child may allocate, kept by the kernel (RLIMIT_DATA: what is written to, unlike
            RLIMIT_AS, which would count the gigabyte of libraries and reserved addresses that MediaPipe maps).
        """
        self._function, self._stall_s, self._calls_per_process = function, stall_s, calls_per_process
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._calls = self._number = 0
        self._one_call = threading.RLock()

    def __call__(
        self, on_progress: Callable[[int], None], left: threading.Event | None = None, /, **arguments: Any
    ) -> Any:
        """Calls the function.

        Args:
            on_progress: told what the function tells.
            left: set, from another thread, when nobody waits for the answer any more.
            **arguments: of the function.

        Raises:
            UserError: the function raised it.
            ChildError: it raised something else, died, was killed (`ChildKilled`), or stalled. The next call starts a fresh
                process.
            Abandoned: `left` was set. The next call starts a fresh process, too.
        """
        while not self._one_call.acquire(timeout=LEAVING_S):
            if left is not None and left.is_set():
                raise Abandoned
        try:
            killed_idle = self._process is not None and self._process.poll() is not None
            if killed_idle or self._calls == self._calls_per_process:
                self.close()
            if self._process is None:
                self._start(left)
            self._number += 1
            self._calls += 1
            self._stderr.seek(0)
            self._stderr.truncate()
            answer = self._asked(on_progress, left, arguments)
        except BaseException:
            # Whatever ended the wait (an interrupt, an error of on_progress), the child may still be at work: its answer
            # must not become the next call's.
            self.close()
            raise
        finally:
            self._one_call.release()
        if "result" in answer:
            return answer["result"]
        if answer["user"]:
            raise UserError(answer["error"])
        raise ChildError(answer["error"], answer["trace"])

    def _asked(
        self, on_progress: Callable[[int], None], left: threading.Event | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """The child's last word on one request."""
        request = {"request": self._number, "arguments": arguments}
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        while True:
            answer = self._answer(self._stall_s, left)
            if answer["request"] != self._number:
                continue
            if "progress" not in answer:
                return answer
            on_progress(answer["progress"])

    def _start(self, left: threading.Event | None) -> None:
        # a file, not a pipe, which a chatty child would fill; appended to, so that emptying it between calls works
        self._stderr = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 (lives as long as the child)
        process = subprocess.Popen(
            [sys.executable, "-m", "refiner.estimators.isolation", self._function, str(self._memory_bytes or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdin is not None and process.stdout is not None  # pipes, as asked for
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        self._received, self._calls = b"", 0
        self._answer(START_S, left)

    def _answer(self, within_s: float, left: threading.Event | None) -> dict[str, Any]:
        """The child's next line; a child that ends or stalls, or nobody who waits for it, raises."""
        deadline = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if left is not None and left.is_set():
                    raise Abandoned
                wait_s = deadline - time.monotonic()
                if wait_s <= 0:
                    raise self._stalled(within_s)
                if not selector.select(wait_s if left is None else min(wait_s, LEAVING_S)):
                    continue
                received = self._stdout.read()
                if received == b"":
                    raise self._died()
                self._received += received or b""
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _stalled(self, within_s: float) -> ChildError:
        assert self._process is not None
        self._process.send_signal(signal.SIGABRT)  # faulthandler writes where every thread was
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TRACE_S)
        error = ChildError(f"no progress for {within_s:g} s", self._trace())
        self.close()
        return error

    def _died(self) -> ChildError:
        assert self._process is not None
        code = self._process.wait()
        kind, how = ChildError, f"exit status {code}"
        if code == -signal.SIGKILL:
            kind, how = ChildKilled, "SIGKILL, perhaps for want of memory"
        elif code < 0:
            how = signal.Signals(-code).name
        error = kind(f"the process died ({how})", self._trace())
        self.close()
        return error

    def _trace(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-TRACE_CHARACTERS:]

    @property
    def pid(self) -> int | None:
        """Of the child; None where there is none yet, or none any more."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """Ends the child, after the call under way; a next call starts another."""
        with self._one_call:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                for stream in (self._stdin, self._stdout, self._stderr):
                    with contextlib.suppress(OSError):  # what was never delivered to a dead child
                        stream.close()
                self._process = None

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# --- the child's side -------------------------------------------------------------------------------------------------


def _serve(function: Callable[..., Any], requests: "queue.SimpleQueue[str]", answers: TextIO) -> None:
    def say(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    say(ready=True)
    while True:
        asked = json.loads(requests.get())
        answer = functools.partial(say, request=asked["request"])
        last, reached = time.monotonic(), None

        def on_progress(number: int, answer: Callable[..., None] = answer) -> None:
            nonlocal last, reached
            reached = number
            if time.monotonic() - last >= PROGRESS_EVERY_S:
                last = time.monotonic()
                answer(progress=number)

        try:
            result = function(on_progress=on_progress, **asked["arguments"])
            if reached is not None:
                answer(progress=reached)  # the last one may have come too soon after another
            answer(result=result)
        except UserError as error:
            answer(error=str(error), user=True)
        except BaseException as error:  # whatever it is, SystemExit included, it costs this call only
            answer(error=f"{type(error).__name__}: {error}", user=False, trace=traceback.format_exc())


def _read_requests(requests: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # the parent is gone, in whatever this process is busy


def main() -> None:
    """The child: calls the function that its arguments name, as `Isolated` asks for it on stdin, until that ends."""
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the function prints is no answer
    if memory := int(sys.argv[2]):
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_NOFILE, (BOUNDED_FILES, BOUNDED_FILES))
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    _serve(function, requests, answers)


if __name__ == "__main__":
    main()
