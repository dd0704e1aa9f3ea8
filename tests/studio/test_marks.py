"""Where joints are marked is measured again: views that see the marks themselves put them where they are."""

import numpy as np
import pytest

from refiner import UserError
from refiner.data import records
from refiner.skeleton import FROM_MEDIAPIPE, NUM_LANDMARKS
from studio.dataset import Take, marks, plan, record
from tests.studio.specs import spec

FRAMES = 5


def observe_the_marks(take: Take, folder) -> None:
    turned, placed = take.bones(np.arange(FRAMES) / take.spec.fps)
    marked = take.dancer.marked(turned, placed)
    for name, camera in take.cameras.items():
        image = np.zeros((FRAMES, NUM_LANDMARKS, 2), np.float32)
        image[:, FROM_MEDIAPIPE] = camera.project(marked)
        ones = np.ones((FRAMES, NUM_LANDMARKS), np.float32)
        video = str(take.name.with_camera(name))
        columns = {
            "video": [video] * FRAMES, "sequence": [str(take.name)] * FRAMES, "camera": [name] * FRAMES,
            "frame": np.arange(FRAMES), "timestamp_us": np.arange(FRAMES) * 100_000, "detected": np.ones(FRAMES, bool),
            "world": np.zeros((FRAMES, NUM_LANDMARKS, 3), np.float32), "image": image, "visibility": ones,
            "presence": ones, "clip": np.zeros(FRAMES, np.int32),
        }  # fmt: skip
        table = records.table(records.OBSERVATIONS, columns)
        records.write_atomically(table, folder / f"{video}.parquet", {"size": list(camera.size)})


@pytest.mark.slow
def test_what_is_seen_is_what_is_marked(tmp_path):
    dataset, observations = tmp_path / "dataset", tmp_path / "observations"
    dataset.mkdir()
    observations.mkdir()
    options = marks.Options(dataset=str(dataset), observations=str(observations))
    with pytest.raises(UserError, match=r"no dataset of 'rayjobs\.studio'"):
        marks.run(options)
    record(dataset, spec())
    with pytest.raises(UserError, match="from all nine cameras"):
        marks.run(options)
    for take in plan(spec()):
        observe_the_marks(take, observations)
    for name, mark in marks.run(options).items():
        np.testing.assert_allclose(mark["seen_cm"], mark["marked_cm"], atol=0.05, err_msg=name)
        assert max(mark["spread_cm"]) < 0.05
