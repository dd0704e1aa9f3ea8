"""An estimator is chosen by its name, and a file of observations says which one made it."""

import json
from pathlib import Path

import numpy as np
import pytest

from refiner import UserError, estimators
from refiner.data import records, video
from refiner.estimators.base import EstimatorInfo, Observation
from refiner.estimators.observe import is_done, observe


class Brightest:
    """Sees one person, where the picture is brightest; nobody in a dark one."""

    reads_rgb = True

    def __init__(self, model: str) -> None:
        self.model = Path(model)

    @property
    def info(self) -> EstimatorInfo:
        return EstimatorInfo("brightest", "1", self.model.read_text(), looks=2)

    def open(self) -> "Brightest":
        return self

    def __enter__(self) -> "Brightest":
        return self

    def __exit__(self, *error: object) -> None: ...

    def estimate(self, frame: video.Frame) -> Observation | None:
        light = frame.rgb.sum(-1)
        if light.max() < 60:
            return None
        y, x = np.unravel_index(light.argmax(), light.shape)
        return Observation(np.zeros((33, 3)), np.full((33, 2), (x, y)), np.ones(33), np.ones(33), np.zeros((33, 3)))


def test_the_next_estimator_is_one_class_and_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(estimators.ESTIMATORS, "brightest", Brightest)
    model = tmp_path / "model"
    model.write_text("abc")
    with video.VideoWriter(tmp_path / "a.mp4", (64, 48), 30) as writer:
        for spot in (None, 8, 40):
            picture = np.zeros((48, 64, 3), dtype=np.uint8)
            if spot is not None:
                picture[16:24, spot : spot + 8] = 255
            writer.write(picture)
    out = tmp_path / "a.parquet"
    counts = observe(video=str(tmp_path / "a.mp4"), out=str(out), model=str(model), estimator="brightest")
    assert (counts["frames"], counts["detected"]) == (3, 2)
    seen = records.read_table(out, records.OBSERVATIONS)
    assert records.column(seen, "detected").tolist() == [False, True, True]
    x = records.column(seen, "image")[1:, 0, 0]
    assert 6 <= x[0] <= 16 and 38 <= x[1] <= 48
    made_by = EstimatorInfo.of(json.loads(records.read_metadata(out)["estimator"]))
    assert made_by == EstimatorInfo("brightest", "1", "abc", people=1, looks=2)
    assert is_done(out, made_by, 1)
    model.write_text("another model")
    assert not is_done(out, Brightest(str(model)).info, 1)


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(UserError, match="there is no estimator 'kinect': choose mediapipe"):
        estimators.named("kinect")
