"""A profile of pairs says what is in them, whether they are taken whole or in parts, and becomes a page of plots."""

import time

import numpy as np
import pytest

from refiner.data.profile import PairProfile
from refiner.evaluation import plots


@pytest.fixture
def pairs(make_pairs):
    return make_pairs(12, frames=48, cameras=9, dancers=5)


def test_a_profile_holds_the_errors_and_who_was_filmed(pairs):
    error = np.abs(pairs.corrupted - pairs.ground_truth)[..., 2]
    profile = PairProfile.of(pairs)
    assert profile.pairs == len(pairs) == 12 * 9 * 48
    assert np.allclose(profile.joint, error.sum(0), rtol=1e-5)
    assert profile.azimuth.sum(0) == pytest.approx((error.mean(1).sum(), len(pairs)), rel=1e-5)
    assert profile.visibility.sum(0) == pytest.approx((error.sum(), error.size), rel=1e-5)
    bright = pairs.visibility >= 0.9  # the last of ten bins
    assert profile.visibility[-1] == pytest.approx((error[bright].sum(), bright.sum()), rel=1e-5)
    # five dancers took turns in twelve sequences
    assert profile.coverage["d01", "c04"] == 3 * 48 and profile.coverage["d05", "c09"] == 2 * 48
    assert len(profile.coverage) == 5 * 9 and profile.coverage.total() == len(pairs)


def test_profiles_of_parts_add_up_to_that_of_the_whole(pairs):
    whole, part = PairProfile.of(pairs), np.arange(len(pairs)) % 3 == 0
    added = PairProfile.of(pairs.take(part)) + PairProfile.of(pairs.take(~part))
    assert (added.pairs, added.coverage) == (whole.pairs, whole.coverage)
    for name in ("joint", "azimuth", "visibility"):
        assert np.allclose(getattr(added, name), getattr(whole, name))


def test_the_page_of_plots_is_quickly_drawn(pairs, tmp_path):
    plots.pairs_page(PairProfile.of(pairs), tmp_path / "warm.png")  # fonts and imports
    started = time.process_time()
    path = plots.pairs_page(PairProfile.of(pairs), tmp_path / "plots.png")
    assert time.process_time() - started < 2
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000
