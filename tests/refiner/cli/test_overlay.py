"""The overlay: what is drawn where."""

import numpy as np
import pytest

from refiner.cli.overlay import REACH_M, OverlayWriter
from refiner.data import video
from refiner.data.video import Frame

SIZE = 320, 240


def test_the_floor_is_as_far_below_the_hips_as_it_is(tmp_path):
    """Of two people one below the other, and of whom it is not known there is none."""
    path = tmp_path / "a.mp4"
    pose = np.zeros((17, 2)), np.zeros((17, 2))  # all joints at the hips
    with OverlayWriter(path, SIZE, 25, people=2) as overlay:
        for number, floors in enumerate([(0.5, 0.9), (0.5, None)]):
            frame = Frame(number, 40_000 * number, np.zeros((*SIZE[::-1], 3), np.uint8))
            overlay.write(frame, {"refined": pose}, {"refined": pose}, floors=floors)
    row, seen = SIZE[1] / 2, [frame.rgb[:, -3].mean(-1) for frame in video.frames(path)]  # the panel's right edge
    for line, expected in zip(seen, [(0.5, 0.9), (0.5,)], strict=True):
        dark = np.flatnonzero(line < 215)
        rows = [dark[(dark >= k * row) & (dark < (k + 1) * row)] for k in range(2)]
        there = [rows[k].mean() for k in range(2) if len(rows[k])]
        assert there == pytest.approx(
            [(k + 0.5) * row + m * row / 2 / REACH_M for k, m in enumerate(expected)], abs=1.5
        )
