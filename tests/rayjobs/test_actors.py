"""What travels between actors and their job: plain values there and back, and nothing that needs pickle."""

import pickle

import numpy as np
import pytest

from rayjobs.actors import evenly, packed, unpacked
from refiner.data.checks import Gist
from refiner.evaluation.baselines import Moments, fit_all
from refiner.evaluation.tally import Tally


def test_values_come_back_as_they_were():
    values = {"frames": 3, "seconds": 0.5, "text": "süß – ok", "empty": "", "sums": np.arange(6.0).reshape(2, 3)}
    back = unpacked(packed(values))
    assert {n: v for n, v in back.items() if n != "sums"} == {n: v for n, v in values.items() if n != "sums"}
    np.testing.assert_array_equal(back["sums"], values["sums"])
    assert unpacked(packed({})) == {}


def test_nothing_that_needs_pickle_is_sent_or_taken():
    with pytest.raises(ValueError, match="strange: neither numbers nor text"):
        packed({"strange": {"a": object()}})
    for content in (pickle.dumps({"frames": 3}), b""):
        with pytest.raises((ValueError, EOFError)):
            unpacked(content)


def test_the_sums_of_an_evaluation_come_back_as_they_were(make_pairs):
    pairs, test = make_pairs(3, frames=8), make_pairs(2, frames=8, seed=4, first=50)
    poses = {name: method(test) for name, method in fit_all(pairs).items()}
    for confidence in ({}, {"ridge": np.full((len(test), 17), 0.4)}):
        tally = Tally.of(test, poses, confidence)
        back = Tally.of_arrays(unpacked(packed(tally.to_arrays())))
        assert (back.sequences, back.methods, back.cells) == (tally.sequences, tally.methods, tally.cells)
        for name in ("pairs", "weights", "sums"):
            np.testing.assert_array_equal(getattr(back, name), getattr(tally, name))
        assert list(back.confidence) == list(tally.confidence)
        for name, counts in tally.confidence.items():
            np.testing.assert_array_equal(back.confidence[name].by_confidence, counts.by_confidence)
            np.testing.assert_array_equal(back.confidence[name].by_error, counts.by_error)
    moments = Moments.of(pairs)
    again = Moments.of_arrays(unpacked(packed(moments.to_arrays())))
    for name, method in moments.fit().items():
        np.testing.assert_array_equal(again.fit()[name](test), method(test))
    gist = Gist.of(test, "test")
    Gist(**unpacked(packed(gist.to_arrays()))).check("test")


def test_even_portions_hold_all_rows_in_their_order():
    for count, actors in ((1, 2), (16, 2), (17, 2), (1000, 3)):
        rows = [{"number": number} for number in range(count)]
        portions = list(evenly(rows, actors))
        assert [row for portion in portions for row in portion] == rows
        assert len(portions) == min(count, 8 * actors) and max(map(len, portions)) - min(map(len, portions)) <= 1
