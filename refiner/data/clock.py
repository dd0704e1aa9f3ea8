"""Every decision about time in a video: from the stamps of its pictures to one rising clock, and from what its header promises
to whether something is missing.

Stamps are what cameras, muxers and networks made of them: they start late, repeat, start again where recordings were joined
with `cat` or a stream reconnected, and now and then one is simply wrong. Whoever reads on relies on them rising.
"""

import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from refiner.errors import UserError

# A file whose last picture ends this much before what its header promises has lost its tail (seconds). Less is what
# muxers round, and edit lists and late frames shift.
TAIL_TOLERANCE_S = 0.25
# A stamp that is so far ahead (seconds) is either another clock's or, if the next one is not, wrong. A pause may last
# minutes; nobody films nothing for an hour in one file.
OUTLIER_S, OTHER_CLOCK_S = 1, 3600
# Stamps that fall back by at most so many frames are out of order or repeated; by more, they start again.
OUT_OF_ORDER = 1
# So many pictures may share a stamp that is only rounded; they are held until the next one comes.
MOST_EQUAL = 4
# More packets than this share that cannot be decoded: what is left is no recording of anything.
MOST_DAMAGE = 0.5
# Formats whose header says how long the video is. Of others (transport and program streams, Ogg, elementary streams)
# FFmpeg estimates the length from the last stamps that are there, which is no promise.
PROMISING = frozenset({"mov", "matroska", "avi", "asf", "flv", "mxf"})

# A header's frame rate that is off by less than this share from what the stamps show is the exact one of the two.
SAME_RATE = 0.02
# Frames come evenly if so many of their distances are within this share, or a clock's millisecond, of the usual one. Fewer: a
# variable frame rate.
EVENLY, USUALLY, TICK_S = 0.25, 0.9, 1.1e-3

T = TypeVar("T")


def rising(stamped: Iterable[tuple[T, Fraction | None]], step_s: Fraction) -> Iterator[tuple[T, int, bool]]:
    """Pictures with the stamps of their file -> pictures with microseconds from the first one, strictly rising.

    - The first picture is at 0, whatever its stamp is.
    - No stamp: one frame after the last.
    - One stamp that is wrong, with the next one right: between its neighbours.
    - Stamps that start again, or that leap ahead by more than an hour: recordings that were joined, or a stream that
      reconnected. It goes on one frame later. What comes from there on is another take.
    - A stamp that several pictures share, as where it was rounded: these are spread evenly up to the next one.
    - Stamps that stand still for longer: one frame later each.

    Args:
        stamped: pictures in order of presentation, with their stamps in seconds.
        step_s: a frame's distance, until the stamps themselves show one.

    Yields:
        picture, microseconds, whether another take begins with it.
    """
    steps: deque[Fraction] = deque(maxlen=25)
    offset, last, last_us = Fraction(0), None, -1
    for item, stamp, following in _with_next(_spread(stamped)):
        step = statistics.median(steps) if steps else step_s
        joined = False
        if last is None:
            now = Fraction(0)
            offset = -stamp if stamp is not None else offset
        elif stamp is None:
            now = last + step
        else:
            now = stamp + offset
            ahead = following + offset if following is not None else None
            astray = now <= last or now > last + OUTLIER_S
            if astray and ahead is not None and last < ahead < last + OUTLIER_S and not last < now < ahead:
                now = (last + ahead) / 2
            elif now <= last or now > last + OTHER_CLOCK_S:
                joined = now < last - OUT_OF_ORDER * step or now > last + OTHER_CLOCK_S
                now = last + step
                offset = now - stamp
            else:
                steps.append(now - last)
        last = now
        last_us = max(round(now * 1_000_000), last_us + 1)
        yield item, last_us, joined


def frame_rate(timestamp_us: np.ndarray, header: float, stride: int = 1) -> tuple[float, str | None]:
    """The frame rate that the frames' own times show, which need not be the header's.

    Args:
        timestamp_us: (N,) rising, of every stride-th frame.
        header: what the header says, 0 where it says nothing.
        stride: see above.

    Returns:
        Frames per second, of the frames that come in quick succession where the distances vary; and what a user should know of
        it, a sentence, or None where header and frames agree.
    """
    steps = np.diff(np.asarray(timestamp_us)) * 1e-6 / stride
    if not len(steps):
        return header, None
    usual = float(np.quantile(steps, 0.1))
    for _ in range(2):  # the mean of those near it: stamps are rounded
        usual = float(steps[(steps > usual / 2) & (steps < 1.5 * usual)].mean())
    even = (np.abs(steps - usual) < max(EVENLY * usual, TICK_S)).mean() >= USUALLY
    agree = abs(1 / usual - header) < max(SAME_RATE * header, TICK_S / usual**2 / len(steps))
    rate = header if agree else 1 / usual
    if not even:
        least, most = np.quantile(1000 * steps, (0.05, 0.95))
        return rate, (
            f"its frames are unevenly apart ({least:.0f} to {most:.0f} ms): each "
            f"keeps its own time; bvh, glb, trc and c3d, which have one frame rate, have {rate:.3g} frames/s in the same time"
        )
    if header and not agree:
        return rate, f"its header says {header:.3g} frames/s, its frames come at {rate:.3g}: their own times count"
    return rate, None


def _spread(stamped: Iterable[tuple[T, Fraction | None]]) -> Iterator[tuple[T, Fraction | None]]:
    """A few pictures in a row with one stamp, between which and the next stamp there is room: spread evenly over it."""
    equal: list[T] = []
    shared: Fraction | None = None
    for item, stamp in stamped:
        if equal and (stamp is None or stamp != shared or len(equal) == MOST_EQUAL):
            room = stamp - shared if stamp is not None and shared is not None else Fraction(0)
            step = room / len(equal) if 0 < room <= OUTLIER_S else Fraction(0)
            yield from ((one, shared if shared is None else shared + i * step) for i, one in enumerate(equal))
            equal.clear()
        equal.append(item)
        shared = stamp
    yield from ((one, shared) for one in equal)


def _with_next(stamped: Iterable[tuple[T, Fraction | None]]) -> Iterator[tuple[T, Fraction | None, Fraction | None]]:
    """Each with the next one's stamp; None after the last."""
    held: tuple[T, Fraction | None] | None = None
    for now in stamped:
        if held is not None:
            yield *held, now[1]
        held = now
    if held is not None:
        yield *held, None


@dataclass(frozen=True, slots=True)
class Promise:
    """What the header of a file says about its pictures."""

    start_s: float = 0.0  # stamp of the first one
    duration_s: float | None = None  # from the first one to the end of the last
    end_s: float | None = None  # stamp of the end of the last, where the header counts from 0, not from the first
    frames: int | None = None

    @property
    def length_s(self) -> float | None:
        """From the first picture to the end of the last; None where the header does not say."""
        if self.duration_s is not None:
            return self.duration_s
        if self.end_s is None:
            return None
        # Matroska's length includes a late start, as FFmpeg and mkvmerge write it; others write the difference
        return self.end_s - self.start_s if self.end_s > self.start_s else self.end_s


@dataclass(slots=True)
class Seen:
    """What was really in the file."""

    frames: int = 0
    end_s: float = 0.0  # of the last picture, from the first one
    packets: int = 0
    beyond_end: int = 0  # packets that reach beyond the end of the file, or that lack a part
    undecodable: int = 0  # packets
    damaged: int = 0  # pictures that were decoded from damaged or missing data


def missing(name: str, format_name: str, promise: Promise, seen: Seen) -> str | None:
    """What a file lacks, in a sentence; None where it is whole.

    Args:
        name: the file's, for errors.
        format_name: FFmpeg's name of its format.
        promise: of its header.
        seen: when its end was reached.

    Raises:
        UserError: it holds nothing, its tail is cut off, or little of it can be decoded.
    """
    if not seen.frames:
        raise UserError(f"video {name} holds no picture that can be decoded: fetch it again")
    promising = not PROMISING.isdisjoint(format_name.split(","))
    length_s = promise.length_s if promising else None
    if promising and (seen.beyond_end or (length_s and seen.end_s < length_s - TAIL_TOLERANCE_S)):
        promised = f"{promise.frames} frames" if promise.frames else f"{length_s or 0:.2f} s"
        raise UserError(
            f"video {name} is truncated: its header promises {promised}, it ends after {seen.frames} frames "
            f"({seen.end_s:.2f} s); fetch it again"
        )
    if seen.undecodable > MOST_DAMAGE * seen.packets:
        raise UserError(
            f"video {name} is damaged: {seen.undecodable} of its {seen.packets} packets cannot be decoded; fetch it again"
        )
    lost = seen.beyond_end + seen.undecodable
    if not lost and not seen.damaged:
        return None
    return (
        f"{lost} of its {seen.packets} packets are damaged or incomplete: {seen.damaged} of the {seen.frames} pictures "
        "may be wrong (they are marked), others may be missing"
    )
