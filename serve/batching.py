"""Short requests are answered together: what has come while one batch was computed is the next batch.

A call of the network costs several times what the arithmetic of one pose does, and so does a turn of the event loop. Nobody
waits for a batch to fill, so a request that comes alone is answered at once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refiner.inference.depth_refiner import Refinement
from refiner.inference.validation import plain, validate_poses
from serve.live import Served

ROWS = ("poses", "confidence", "view_angle", "azimuth")  # of a Refinement: what has a row for each pose


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    served: Served
    poses: np.ndarray  # (n, 17 or 33, 3)
    visibility: np.ndarray | None
    image_points: np.ndarray | None
    answer: asyncio.Future
    checked: bool

    def goes_with(self, other: "_Request") -> bool:
        """Whether one version is to answer both, and their arrays fit together."""
        shapes, others = self._shapes(), other._shapes()
        return shapes is not None and shapes == others and self.served is other.served

    def _shapes(self) -> list[tuple[int, ...]] | None:
        """Of one row of each array; None where they have not one row for each pose, which is for the refiner to refuse."""
        given = [self.poses, *(a for a in (self.visibility, self.image_points) if a is not None)]
        if len({len(a) for a in given}) > 1:
            return None
        return [() if a is None else a.shape[1:] for a in (self.poses, self.visibility, self.image_points)]


class Batcher:
    """Belongs to one event loop, and computes on it: a thread's hand-over would cost as much as the network."""

    def __init__(self, max_poses: int, on_batch: Callable[[int], None] = lambda poses: None) -> None:
        """
        Args:
            max_poses: of a batch, unless a single request has more.
            on_batch: told how many poses were computed together.
        """
        self._max_poses, self._on_batch = max_poses, on_batch
        self._waiting: list[_Request] = []

    async def predict(
        self,
        served: Served,
        poses: np.ndarray,
        visibility: np.ndarray | None = None,
        image_points: np.ndarray | None = None,
        *,
        checked: bool = False,
    ) -> Refinement:
        """As `DepthRefiner.predict` and with its errors, of poses that each stand for themselves. A request that is refused
        does not harm those beside it.

        Args:
            served: the model.
            poses: as there.
            visibility: as there.
            image_points: as there.
            checked: they went through `validate_poses`.
        """
        loop = asyncio.get_running_loop()
        request = _Request(served, poses, visibility, image_points, loop.create_future(), checked)
        self._waiting.append(request)
        if len(self._waiting) == 1:
            # after what else is ready now: other requests, which Serve then counts, to scale and to refuse by
            loop.call_soon(self._turn, loop)
        return await request.answer

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers the first that waits, and what goes with it."""
        batch, rest, poses = [], [], 0
        for request in self._waiting:
            fits = not batch or (request.goes_with(batch[0]) and poses + len(request.poses) <= self._max_poses)
            (batch if fits else rest).append(request)
            poses += len(request.poses) if fits else 0
        self._waiting = rest
        if rest:
            loop.call_soon(self._turn, loop)
        self._answer(batch)

    def _answer(self, batch: list[_Request]) -> None:
        try:
            refined = _refined(batch)
        except Exception as error:
            if len(batch) > 1:  # one of them is to blame: each by itself
                for request in batch:
                    self._answer([request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        self._on_batch(sum(len(part.poses) for part in refined))
        for request, part in zip(batch, refined, strict=True):
            if not request.answer.done():  # whoever asked may have left
                request.answer.set_result(part)


def _refined(batch: list[_Request]) -> list[Refinement]:
    """What each of these requests gets, from one call of the network.

    Raises:
        UserError: one of them makes no sense.
    """
    refiner = batch[0].served.refiner
    if len(batch) == 1:
        (request,) = batch
        known = not request.checked
        return [refiner.predict(request.poses, request.visibility, image_points=request.image_points, recognise=known)]
    poses = np.concatenate([request.poses for request in batch])
    visibility, image_points = (
        None if getattr(batch[0], name) is None else np.concatenate([getattr(request, name) for request in batch])
        for name in ("visibility", "image_points")
    )
    _check(batch, poses, visibility)
    whole = refiner.predict(poses, visibility, image_points=image_points, recognise=False)
    ends = np.cumsum([len(request.poses) for request in batch])
    return [
        Refinement(**{name: getattr(whole, name)[end - len(request.poses) : end] for name in ROWS})
        for request, end in zip(batch, ends, strict=True)
    ]


def _check(batch: list[_Request], poses: np.ndarray, visibility: np.ndarray | None) -> None:
    """Each request by itself: what one client sent must not decide about another. Most are single poses that one look at all
    of them finds right.

    Args:
        batch: requests.
        poses: of all of them.
        visibility: of all of them.

    Raises:
        UserError: one of them makes no sense.
    """
    right = None if all(request.checked for request in batch) else plain(poses, visibility)
    first = 0
    for request in batch:
        known = request.checked or (right is not None and len(request.poses) == 1 and right[first])
        first += len(request.poses)
        if not known:
            validate_poses(request.poses, request.visibility)
