"""Stamps as files have them -> one rising clock; promises of headers -> whole, incomplete or truncated."""

import itertools
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refiner import UserError
from refiner.data.clock import Promise, Seen, frame_rate, missing, rising

STEP = Fraction(1, 25)


def ticks(*stamps_ms: float | None) -> tuple[list[int], list[int]]:
    """(milliseconds, numbers of the pictures with which another take begins) of pictures 40 ms apart."""
    stamped = [(i, None if ms is None else Fraction(ms) / 1000) for i, ms in enumerate(stamps_ms)]
    clocked = list(rising(stamped, STEP))
    assert [item for item, *_ in clocked] == list(range(len(stamped)))
    return [us // 1000 for _, us, _ in clocked], [item for item, _, joined in clocked if joined]


@pytest.mark.parametrize(
    ("stamps", "times", "takes"),
    [
        ([0, 40, 80, 120], [0, 40, 80, 120], []),
        ([5000, 5040, 5080], [0, 40, 80], []),  # starts late
        ([-80, -40, 0], [0, 40, 80], []),
        ([0, 40, 90, 100, 250, 600], [0, 40, 90, 100, 250, 600], []),  # uneven, and so it stays
        ([0, 40, 600_040, 600_080], [0, 40, 600_040, 600_080], []),  # a pause of ten minutes
        ([540, 580, 620, 540, 580, 620], [0, 40, 80, 120, 160, 200], [3]),  # joined with cat
        ([0, 40, 80, 120, 160, 0, 40, 80, 120, 160, 0, 40], [i * 40 for i in range(12)], [5, 10]),
        ([0, 40, 9e7, 9e7 + 40], [0, 40, 80, 120], [2]),  # reconnected to another clock
        ([0, 40, 80, 80, 80, 80], [0, 40, 80, 120, 160, 200], []),  # stands still
        ([0, 0, 0, 120, 120, 120], [0, 40, 80, 120, 160, 200], []),  # rounded to the same
        ([0, 0, 66, 66, 133, 133, 200], [0, 33, 66, 99, 133, 166, 200], []),
        ([0, 40, 80, 40, 160, 200], [0, 40, 80, 120, 160, 200], []),  # one wrong, backwards
        ([0, 40, 7200_000, 120, 160], [0, 40, 80, 120, 160], []),  # one wrong, forwards
        ([0, 40, 5000, 120, 160], [0, 40, 80, 120, 160], []),
        ([None, None, None], [0, 40, 80], []),  # a raw stream has none
        ([0, None, 80], [0, 40, 80], []),
        ([0], [0], []), ([], [], []),
    ],
)  # fmt: skip
def test_time_goes_on_as_it_was(stamps, times, takes):
    assert ticks(*stamps) == (times, takes)


@given(st.lists(st.one_of(st.none(), st.integers(-(10**15), 10**15)), max_size=60))
def test_whatever_the_stamps_are_time_rises_and_no_picture_is_lost(stamps):
    clocked = list(rising(((i, None if s is None else Fraction(s, 90_000)) for i, s in enumerate(stamps)), STEP))
    assert [item for item, *_ in clocked] == list(range(len(stamps)))
    times = [us for _, us, _ in clocked]
    assert all(a < b for a, b in itertools.pairwise(times)) and (not times or times[0] == 0)
    # never an hour between two pictures
    assert all(b - a <= 3600_000_001 for a, b in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("format_name", "promise", "seen", "says"),
    [
        ("mov,mp4", Promise(0, 1.2, None, 30), Seen(30, 1.2, 30), None),
        ("mov,mp4", Promise(5, 1.2, None, 30), Seen(30, 1.2, 30), None),  # an edit list's late start
        ("mov,mp4", Promise(0, 1.2, None, 30), Seen(29, 1.16, 30), None),  # one picture less: muxers round
        ("mov,mp4", Promise(0, 1.2, None, 30), Seen(20, 0.8, 20), "truncated: its header promises 30 frames"),
        ("mov,mp4", Promise(0, 1.2, None, 30), Seen(30, 1.2, 30, beyond_end=1), "truncated"),
        ("matroska,webm", Promise(5, None, 6.2), Seen(30, 1.2, 30), None),  # starts late
        ("matroska,webm", Promise(5, None, 6.2), Seen(10, 0.4, 10), "truncated: its header promises 1.20 s"),
        ("matroska,webm", Promise(5, None, 1.2), Seen(30, 1.2, 30), None),  # the length without the start
        ("matroska,webm", Promise(), Seen(30, 1.2, 30), None),  # a live recording: no promise
        ("mpegts", Promise(0, 3.0), Seen(30, 1.2, 30), None),  # FFmpeg's estimate is no promise
        (
            "mpegts",
            Promise(0, 3.0),
            Seen(30, 1.2, 31, beyond_end=1, damaged=12),
            "1 of its 31 packets are damaged .* 12 of",
        ),
        ("mov,mp4", Promise(0, 1.2, None, 30), Seen(29, 1.2, 30, undecodable=1, damaged=4), "1 of its 30 packets"),
        ("mpegts", Promise(), Seen(3, 1.2, 30, undecodable=20), "is damaged: 20 of its 30"),
        ("mpegts", Promise(), Seen(), "no picture"),
    ],
)
def test_what_is_missing_is_said_and_a_lost_tail_is_a_failure(format_name, promise, seen, says):
    try:
        note = missing("clip.ts", format_name, promise, seen)
    except UserError as error:
        assert says and ("truncated" in says or "damaged:" in says or "no picture" in says)
        note = str(error)
    else:
        assert not says or "truncated" not in says
    assert (note is None) == (says is None)
    if says:
        assert re.search(says, note)


@pytest.mark.parametrize(
    ("stamps_ms", "header", "rate", "says"),
    [
        ([1000 * n / 30 for n in range(60)], 30.0, 30.0, None),
        ([1001 * n // 30 for n in range(60)], 30000 / 1001, 30000 / 1001, None),  # rounded to milliseconds
        ([n * 1000 // 240 for n in range(100)], 30.0, 240, "header says 30 frames/s, its frames come at 240"),
        ([33 * n + (600_000 if n > 20 else 0) for n in range(60)], 30.0, 30, None),  # a pause is no frame rate
        ([33 * n for n in range(60) if n % 25], 29.0, 30, "header says"),  # some were dropped
        ([66 * n for n in range(15)] + [990 + 17 * n for n in range(15)], 25.0, 59, "unevenly apart (17 to 66 ms)"),
        ([0], 24.0, 24, None),
        ([40 * n for n in range(20)], 0.0, 25, None),
    ],
)  # fmt: skip
def test_the_frame_rate_is_that_of_the_frames_where_the_header_says_another(stamps_ms, header, rate, says):
    stamps = np.round(1000 * np.array(stamps_ms)).astype(np.int64)
    shown, note = frame_rate(stamps, header)
    assert shown == pytest.approx(rate, rel=0.012)
    assert note is None if says is None else says in (note or "")
    strided, _ = frame_rate(stamps[::3], header, stride=3)
    assert len(stamps) < 3 or note or strided == pytest.approx(rate, rel=0.03)
