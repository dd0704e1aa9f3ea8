"""Over whole clips the two estimators are equally far from the truth, and find the same people."""

import numpy as np
import pytest

from benchmarks import estimators
from refiner.estimators.base import EstimatorInfo


@pytest.mark.cluster  # renders, and looks at every frame by either
def test_blazepose_with_mediapipes_filters_is_as_near_to_the_truth(studio_dataset, studio_observations, tmp_path):
    (tmp_path / "mediapipe").mkdir()
    (tmp_path / "mediapipe/observations").symlink_to(studio_observations)  # MediaPipe's, which are used as they are
    options = estimators.Options(
        dataset=str(studio_dataset.root), work=str(tmp_path), ways=("mediapipe", "blazepose"), processes=2
    )
    figures = estimators.run(options)
    row = figures["blazepose"]
    assert abs(row["found"] - figures["mediapipe"]["found"]) <= 0.005
    for key in ("depth", "mpjpe"):
        low, high = row[f"{key}_interval"]
        print(f"{key}: {row[f'{key}_share']:+.2%} ({low:+.2%} … {high:+.2%})")
        # the tracking loop is chaotic: what a few short clips cannot tell apart from half a percent is equal
        assert low <= estimators.PARITY and high >= -estimators.PARITY
        assert abs(row[f"{key}_share"]) < 0.03


def test_only_frames_that_all_have_are_compared(make_pairs):
    pairs = make_pairs(sequences=1, cameras=2, frames=60)
    one, other = pairs.take(np.arange(0, 90)), pairs.take(np.arange(30, 120))
    same = estimators.same_rows({"mediapipe": one, "blazepose": other})
    assert len(same["mediapipe"]) == len(same["blazepose"]) == 60
    assert np.array_equal(same["mediapipe"].corrupted, same["blazepose"].corrupted)


def test_every_way_is_one_that_the_estimators_have():
    infos = set()
    for way in estimators.WAYS.values():
        options = {name: value for name, value in way.items() if name != "estimator"}
        infos.add(estimators.named(way["estimator"], **options).info)
    assert len(infos) == len(estimators.WAYS) and EstimatorInfo().smoothing == "mediapipe"
