"""All streams of a replica: what has come of each by now is refined together, through the batcher of short requests.

Nobody waits for a batch to fill. While one is computed, newer frames take the places of those that still wait.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, time
from typing import Protocol

import numpy as np
from starlette.exceptions import HTTPException

from refiner import UserError
from refiner.causal import LiveSmoother
from refiner.inference.depth_refiner import Refinement
from refiner.inference.validation import validate_poses
from refiner.skeleton import to_coco
from serve.batching import Batcher
from serve.live import Served
from serve.metrics import Metrics, Statistics
from serve.problems import DEFECT
from serve.stream.messages import Answer, Landmarks, decode

logger = logging.getLogger("ray.serve")

ROUTE = "/v1/stream"
# Frames that are refined together at most: 10 ms of a core, for which those that come meanwhile wait.
TOGETHER = 32
# Of each stream one frame in so many enters the window that drift is judged by: a person who moves for an hour is one person.
WATCHED = 30
# Frames of a stream between two looks whether these are world landmarks at all.
RECOGNISED = 300


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A frame that is being answered."""

    frame: int  # number of the message
    content: str | bytes | Landmarks
    came_us: int  # since its stream began


class Member(Protocol):
    """One stream, as the hub sees it."""

    row: int
    smooth: bool
    gone: bool
    last_us: int  # timestamp of the last frame that was answered
    answered: int

    def take(self) -> Taken: ...

    def refuse(self, frame: int, sentence: str) -> None: ...

    def answer(self, refined: Answer, taken: Taken, landmarks: Landmarks, served: Served) -> int:
        """Returns the bytes that are sent."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    member: Member
    taken: Taken
    landmarks: Landmarks
    timestamp_us: int


class Hub:
    """Belongs to one event loop."""

    def __init__(
        self,
        batcher: Batcher,
        current: Callable[[], Served],
        metrics: Metrics,
        statistics: Statistics,
        *,
        max_streams: int,
    ) -> None:
        self._batcher, self.current, self._metrics, self._statistics = batcher, current, metrics, statistics
        self._smoother = LiveSmoother(max_streams)
        self._free = list(range(max_streams))
        self._ready: deque[Member] = deque()
        self._work: asyncio.Task[None] | None = None
        self.members: set[Member] = set()

    def join(self, member: Member) -> None:
        """
        Raises:
            HTTPException: 429, there are as many streams as a replica takes.
        """
        if not self._free:
            raise HTTPException(429, "this endpoint has as many streams as it takes: try again in a second")
        member.row = self._free.pop()
        self._smoother.begin(member.row)
        self.members.add(member)

    def leave(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
            self._free.append(member.row)

    def offer(self, member: Member) -> None:
        """It has a frame that wants an answer, and none under way."""
        self._ready.append(member)
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._answer_all())

    async def _answer_all(self) -> None:
        while self._ready:
            batch = [self._ready.popleft() for _ in range(min(len(self._ready), TOGETHER))]
            asked = [one for member in batch if not member.gone and (one := self._asked(member)) is not None]
            alike: dict[tuple[int, bool, bool], list[_Asked]] = {}
            for one in asked:
                alike.setdefault(one.landmarks.shapes, []).append(one)
            for group in alike.values():
                try:
                    await self._refine(group)
                except Exception:
                    logger.exception("frames of %d streams failed", len(group))
                    for one in group:
                        one.member.refuse(one.taken.frame, DEFECT)

    @staticmethod
    def _asked(member: Member) -> _Asked | None:
        """A member's frame; None where it was refused."""
        taken = member.take()
        try:
            landmarks = taken.content if isinstance(taken.content, Landmarks) else decode(taken.content)
            timestamp_us = taken.came_us if landmarks.timestamp_us is None else landmarks.timestamp_us
            if timestamp_us <= member.last_us:
                raise UserError(
                    f"timestamp_us is {timestamp_us} after {member.last_us}: it must rise from frame to frame"
                )
        except UserError as error:
            member.refuse(taken.frame, str(error))
            return None
        except Exception:  # the others in this batch go on
            logger.exception("a frame could not be decoded")
            member.refuse(taken.frame, DEFECT)
            return None
        return _Asked(member, taken, landmarks, timestamp_us)

    async def _refine(self, group: list[_Asked]) -> None:
        """Answers frames whose arrays fit together."""
        group = self._valid(group)
        if not group:
            return
        start, served = perf_counter(), self.current()
        poses, visibility, image_points = _stacked(group)
        try:
            refinement = await self._batcher.predict(served, poses, visibility, image_points, checked=True)
        except Exception as error:
            if len(group) == 1:
                return _refuse(group[0], error)
            for one in group:  # one of them is to blame: each by itself
                await self._refine([one])
            return
        refined = self._smoothed(group, refinement)
        sent = 0
        for i, one in enumerate(group):
            if one.member.gone:
                continue
            answer = Answer(
                frame=one.taken.frame, timestamp_us=one.timestamp_us, dropped=0, refined=refined[i],
                confidence=refinement.confidence[i], view_angle=float(refinement.view_angle[i]),
            )  # fmt: skip
            sent += one.member.answer(answer, one.taken, one.landmarks, served)
        stages = {"decode": 0.0, "refine": perf_counter() - start, "encode": 0.0}
        self._metrics.refined(ROUTE, refinement, stages, sent)
        self._statistics.succeeded(served.model["version"], len(group), stages, time())
        watched = [i for i, one in enumerate(group) if one.member.answered % WATCHED == 0]
        if watched:
            self._metrics.window.add(poses[watched], None if visibility is None else visibility[watched])

    def _valid(self, group: list[_Asked]) -> list[_Asked]:
        """Those that make sense; the others are told why they do not. Whether something is a pose at all is asked of each
        stream by itself, now and then: what one client sent must not decide about another.
        """
        unknown = [one for one in group if one.member.answered % RECOGNISED == 0]
        wrong = {id(one) for one in unknown if not _is_valid(one)}
        rest = [one for one in group if id(one) not in wrong]
        if not rest:
            return rest
        try:
            poses, visibility, _ = _stacked(rest)
            validate_poses(poses, visibility, recognise=False)
        except UserError:
            rest = [one for one in rest if _is_valid(one, recognise=False)]
        return rest

    def _smoothed(self, group: list[_Asked], refinement: Refinement) -> np.ndarray:
        """(N, 17, 3) m; of those streams that want it."""
        chosen = np.array(
            [i for i, one in enumerate(group) if one.member.smooth and not one.member.gone], dtype=np.intp
        )
        refined = refinement.poses.copy()
        if len(chosen):
            rows = np.array([group[i].member.row for i in chosen])
            seconds = np.array([group[i].timestamp_us * 1e-6 for i in chosen])
            keep_bones = self.current().refiner.model.config.constant_bones
            refined[chosen] = self._smoother(rows, refined[chosen], seconds, keep_bones)
        return refined


def _refuse(one: _Asked, error: Exception) -> None:
    if not isinstance(error, UserError):
        logger.error("a frame failed", exc_info=error)
    one.member.refuse(one.taken.frame, str(error) if isinstance(error, UserError) else DEFECT)


def _stacked(group: list[_Asked]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """(N, 17, 3), (N, 17), (N, 17, 2): what the refiner looks at."""
    poses, visibility, image_points = (
        None if getattr(group[0].landmarks, name) is None else np.stack([getattr(one.landmarks, name) for one in group])
        for name in ("pose", "visibility", "image_points")
    )
    assert poses is not None
    return (
        to_coco(poses),
        None if visibility is None else to_coco(visibility[..., None])[..., 0],
        None if image_points is None else to_coco(image_points),
    )


def _is_valid(one: _Asked, recognise: bool = True) -> bool:
    poses, visibility, _ = _stacked([one])
    try:
        validate_poses(poses, visibility, recognise=recognise)
    except UserError as error:
        one.member.refuse(one.taken.frame, str(error))
        return False
    return True
