"""Calls the endpoint from Python. Needs neither Ray nor torch.

    with Client("http://127.0.0.1:8000") as client:
        refined = client.refine(poses, visibility, sequence=True).poses

`AsyncClient` is the same with `async with` and `await`. Refining changes nothing on the server, so a request that got no
answer, or "too busy", is simply sent again, later each time.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

import httpx
import numpy as np

from refiner import UserError, temporal
from refiner.data.clips import of_poses
from serve.codec import ArrowCodec, JsonCodec, RefineRequest, RefineResponse

# Longer clips are sent in parts: small enough to be answered in seconds, large enough that HTTP costs nothing.
PART_POSES = 2048
# What a part of a sequence shares with the next, to each side: more than any model looks around or smooths over.
OVERLAP_S = 1.0
DEFAULT_FPS = 30.0  # the endpoint's
# 500 is what a proxy makes of a replica that was killed in mid-request.
WORTH_A_RETRY = (429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often, and how long after each other, a request is sent again."""

    attempts: int = 10  # over about 20 s, which a replica needs to be replaced
    first_s: float = 0.1
    longest_s: float = 5.0

    def pause(self, attempt: int, asked_s: float, chance: random.Random) -> float:
        """Seconds to wait after the failed attempt number 0, 1, …: doubling, with jitter, so that clients do not return as
        one crowd; never less than the server asked for.
        """
        return max(asked_s, chance.uniform(0.5, 1) * min(self.longest_s, self.first_s * 2**attempt))


class ClientOptions(TypedDict, total=False):
    token: str | None
    """Bearer token, where the endpoint wants one."""
    transport: Literal["arrow", "json"]
    """How poses travel; Arrow, the default, is binary and several times quicker for clips."""
    timeout_s: float
    """For one attempt; 60."""
    retries: Retries
    seed: int
    """Of the jitter in the pauses between attempts."""


class _Calls:
    """What both clients share: which requests to send, and what their answers mean."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        self.url = url.rstrip("/")
        self.retries = options.get("retries", Retries())
        self._chance = random.Random(options.get("seed"))
        self._codec = JsonCodec() if options.get("transport") == "json" else ArrowCodec()
        token = options.get("token")
        self._options = {
            "base_url": self.url,
            "timeout": options.get("timeout_s", 60.0),
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
        }

    def _body(self, request: RefineRequest) -> tuple[bytes, dict[str, str]]:
        return self._codec.encode_request(request), {"Content-Type": self._codec.media_type}

    def _answer(self, response: httpx.Response) -> RefineResponse:
        return self._codec.decode_response(response.content)

    def _pause(self, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float:
        """Seconds until the next attempt.

        Raises:
            UserError: none makes sense any more.
        """
        failed = isinstance(outcome, httpx.TransportError)
        if not failed and outcome.status_code not in WORTH_A_RETRY:
            raise UserError(_detail(outcome))
        if attempt + 1 == self.retries.attempts:
            reason = f"{type(outcome).__name__}: {outcome}" if failed else _detail(outcome)
            raise UserError(f"{self.url} gave no answer in {self.retries.attempts} attempts: {reason}")
        asked = "" if failed else outcome.headers.get("retry-after", "")
        return self.retries.pause(attempt, float(asked) if asked.isdecimal() else 0, self._chance)


def _detail(response: httpx.Response) -> str:
    try:
        return response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200].strip()}"


def parts(request: RefineRequest) -> Iterator[tuple[RefineRequest, slice]]:
    """Cuts a clip into requests, each with the slice of its answer that belongs to the whole.

    What is of the whole clip, the lengths of its bones, no part can know: parts leave the bones alone, and `joined` gives
    them their lengths.
    """
    total = len(request.poses)
    if total <= PART_POSES:
        yield request, slice(0, total)
        return
    margin = math.ceil(OVERLAP_S * (request.fps or DEFAULT_FPS)) if request.sequence else 0
    for start in range(0, total, PART_POSES):
        end = min(start + PART_POSES, total)
        first, last = max(0, start - margin), min(total, end + margin)
        rows = {
            name: array[first:last]
            for name in ("poses", "visibility", "image_points")
            if (array := getattr(request, name)) is not None
        }
        yield replace(request, **rows, keep_bones=False), slice(start - first, end - first)


def joined(whole: RefineRequest, answers: list[RefineResponse], kept: list[slice]) -> RefineResponse:
    """The answers' rows that `parts` wants kept, in one, with what only the whole knows.

    Raises:
        UserError: the model was changed in between.
    """
    if len(answers) == 1:
        return answers[0]
    versions = {answer.model["version"] for answer in answers}
    if len(versions) > 1:
        raise UserError(f"the model changed (versions {', '.join(sorted(versions))}) in mid-clip: send the clip again")
    poses, confidence, view_angle = (
        np.concatenate([getattr(answer, name)[rows] for answer, rows in zip(answers, kept, strict=True)])
        for name in ("poses", "confidence", "view_angle")
    )
    lengths = None
    if answers[0].bone_lengths is not None:
        # as `DepthRefiner.predict` does it, which looks for scenes in what it was given
        scenes = of_poses(whole.poses, np.arange(len(poses)) / (whole.fps or DEFAULT_FPS))
        lengths = temporal.bone_lengths(poses)
        poses = temporal.with_bone_lengths(poses, temporal.clip_bone_lengths(poses, scenes))
    return RefineResponse(
        poses=poses, confidence=confidence, view_angle=view_angle, model=answers[0].model, bone_lengths=lengths
    )


def _request(
    poses: np.ndarray,
    visibility: np.ndarray | None,
    image_points: np.ndarray | None,
    sequence: bool,
    fps: float | None,
) -> RefineRequest:
    arrays: dict[str, Any] = {
        name: np.asarray(array, dtype=np.float32)
        for name, array in (("poses", poses), ("visibility", visibility), ("image_points", image_points))
        if array is not None
    }
    if arrays["poses"].ndim == 2:
        arrays = {name: array[None] for name, array in arrays.items()}
    if arrays["poses"].ndim != 3 or not len(arrays["poses"]):
        raise UserError(
            f"poses have the shape {arrays['poses'].shape}: expected (N, 17, 3) or (N, 33, 3), N at least 1"
        )
    return RefineRequest(**arrays, sequence=sequence, fps=None if fps is None else temporal.check_fps(fps))


class Client(_Calls):
    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, **options)
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def refine(
        self,
        poses: np.ndarray,
        visibility: np.ndarray | None = None,
        *,
        image_points: np.ndarray | None = None,
        sequence: bool = False,
        fps: float | None = None,
        progress: bool = False,
    ) -> RefineResponse:
        """Corrects poses over HTTP.

        Args:
            poses: (N, 17 or 33, 3) m, MediaPipe's world landmarks; or one pose, (17 or 33, 3).
            visibility: (N, 17 or 33), 0 … 1.
            image_points: (N, 17 or 33, 2) pixels, for models that look at them.
            sequence: the poses are successive frames of one clip.
            fps: of that clip.
            progress: draw a progress bar on stderr.

        Returns:
            N refined poses with their confidence, view angles, and the model that made them.

        Raises:
            UserError: the endpoint refuses them (its sentence says why), or gives no answer.
        """
        answers, kept = [], []
        whole = _request(poses, visibility, image_points, sequence, fps)
        with _progress(progress, len(whole.poses)) as advance:
            for part, rows in parts(whole):
                answers.append(self._send(part))
                kept.append(rows)
                advance(rows.stop - rows.start)
        return joined(whole, answers, kept)

    def info(self) -> dict[str, Any]:
        """Which model answers, where it comes from, on what device."""
        return self._exchange("GET", "/info").json()

    def _send(self, part: RefineRequest) -> RefineResponse:
        body, headers = self._body(part)
        return self._answer(self._exchange("POST", "/v1/refine", content=body, headers=headers))

    def _exchange(self, method: str, path: str, **content: Any) -> httpx.Response:
        for attempt in range(self.retries.attempts):
            try:
                outcome = self._http.request(method, path, **content)
                if outcome.is_success:
                    return outcome
            except httpx.TransportError as error:
                outcome = error
            time.sleep(self._pause(attempt, outcome))
        raise AssertionError("the last attempt raises")


class AsyncClient(_Calls):
    """`Client` for asyncio; the parts of a long clip are under way together, `concurrency` of them at a time."""

    concurrency = 4

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, **options)
        self._http = httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def refine(
        self,
        poses: np.ndarray,
        visibility: np.ndarray | None = None,
        *,
        image_points: np.ndarray | None = None,
        sequence: bool = False,
        fps: float | None = None,
        progress: bool = False,
    ) -> RefineResponse:
        """As `Client.refine`."""
        whole = _request(poses, visibility, image_points, sequence, fps)
        limit = asyncio.Semaphore(self.concurrency)
        with _progress(progress, len(whole.poses)) as advance:

            async def send(part: RefineRequest, rows: slice) -> RefineResponse:
                async with limit:
                    answer = await self._send(part)
                advance(rows.stop - rows.start)
                return answer

            cut = list(parts(whole))
            answers = await asyncio.gather(*(send(part, rows) for part, rows in cut))
        return joined(whole, answers, [rows for _, rows in cut])

    async def info(self) -> dict[str, Any]:
        """As `Client.info`."""
        return (await self._exchange("GET", "/info")).json()

    async def _send(self, part: RefineRequest) -> RefineResponse:
        body, headers = self._body(part)
        return self._answer(await self._exchange("POST", "/v1/refine", content=body, headers=headers))

    async def _exchange(self, method: str, path: str, **content: Any) -> httpx.Response:
        for attempt in range(self.retries.attempts):
            try:
                outcome = await self._http.request(method, path, **content)
                if outcome.is_success:
                    return outcome
            except httpx.TransportError as error:
                outcome = error
            await asyncio.sleep(self._pause(attempt, outcome))
        raise AssertionError("the last attempt raises")


@contextmanager
def _progress(shown: bool, total: int) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda poses: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("refining", total=total)
        yield lambda poses: bar.advance(task, poses)
