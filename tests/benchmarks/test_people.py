"""The count of misses and switches, on people who are followed in known ways."""

import numpy as np

from benchmarks.people import LASTING, score

F = 60
SHAPE = np.stack([np.linspace(0, 60, 17), np.linspace(0, 200, 17)], axis=-1)
TRUTH = np.stack([np.stack([SHAPE + np.array([x, 0])] * F) for x in (100.0, 500.0)])  # (2, F, 17, 2)
ALL = np.ones((2, F), dtype=bool)


def followed(numbers: list[list[int]]) -> list[list[np.ndarray | None]]:
    """Of each number its joints, where dancers are given these numbers frame by frame; −1: nobody's."""
    people = [[None] * F for _ in range(max(map(max, numbers)) + 1)]
    for dancer, given in enumerate(numbers):
        for frame, number in enumerate(given):
            if number >= 0:
                people[number][frame] = TRUTH[dancer, frame]
    return people


def test_who_is_followed_as_they_are_is_never_missed_and_never_switched():
    assert score(TRUTH, ALL, followed([[0] * F, [1] * F])) == (0, 0, 0)


def test_a_swap_is_a_switch_for_each_and_lasts_unless_it_is_undone():
    swapped = followed([[0] * 30 + [1] * 30, [1] * 30 + [0] * 30])
    assert score(TRUTH, ALL, swapped) == (0, 2, 2)
    blink = LASTING - 5
    undone = followed([[0] * 30 + [1] * blink + [0] * (30 - blink), [1] * 30 + [0] * blink + [1] * (30 - blink)])
    assert score(TRUTH, ALL, undone) == (0, 4, 0)


def test_who_is_not_found_is_missed_only_where_they_could_be_seen():
    seen = followed([[0] * F, [1] * 40 + [-1] * 20])
    assert score(TRUTH, ALL, seen) == (20, 0, 0)
    countable = ALL.copy()
    countable[1, 45:] = False
    assert score(TRUTH, countable, seen) == (5, 0, 0)


def test_who_comes_back_as_somebody_else_is_a_switch():
    assert score(TRUTH, ALL, followed([[0] * F, [1] * 20 + [-1] * 20 + [2] * 20])) == (20, 1, 1)
