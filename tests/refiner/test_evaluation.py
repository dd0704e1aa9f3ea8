"""The report: what it says, how wide it is, and that its pictures are pictures."""

import cv2
import numpy as np
import pytest

from refiner import baselines, evaluation, metrics, visualize
from refiner.inference import Refinement


@pytest.fixture(scope="module")
def measured(make_pairs):
    train, test = make_pairs(20, seed=1), make_pairs(8, cameras=4, seed=3, first=200)
    methods = {name: method(test) for name, method in baselines.fit_all(train).items()}
    better = test.corrupted + 0.5 * (test.ground_truth - test.corrupted)
    better[:, 9, 2] += 0.3  # the left wrist gets worse
    error = metrics.depth_error(better, test.ground_truth)
    answer = Refinement(
        poses=better, confidence=np.exp(-error / 0.05), view_angle=test.view_angle, azimuth=test.azimuth
    )
    return evaluation.evaluate(answer, methods, test), answer, methods, test


def test_it_names_the_joint_that_got_worse_and_no_other(measured):
    found = measured[0]
    assert [w for w in found.worse if w.startswith("joint")] == ["joint left_wrist"]
    assert found.differences["mediapipe"][0] == pytest.approx(
        found.methods["refined"]["depth_cm"] - found.methods["mediapipe"]["depth_cm"], abs=1e-3
    )


def test_the_interval_holds_the_figure(measured):
    for row in measured[0].methods.values():
        assert row["depth_low_cm"] < row["depth_cm"] < row["depth_high_cm"]


def test_the_table_fits_80_columns_and_has_every_method(measured):
    lines = evaluation.table(measured[0]).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 1 + len(measured[0].methods)


def test_the_markdown_has_every_slice(measured):
    text = evaluation.markdown(measured[0], "Title")
    for heading in (
        "# Title",
        "by joint",
        "by view angle",
        "by azimuth",
        "by camera",
        "by genre",
        "by visibility",
        "ECE",
    ):
        assert heading in text
    assert "Worse than MediaPipe in: joint left wrist" in text


def test_its_pictures_are_pictures(measured, tmp_path):
    _, answer, methods, test = measured
    evaluation.plots(answer, methods, test, tmp_path)
    visualize.loss_curve(
        [{"epoch": e, "train/depth": 8 - e, "val/depth_cm": 9 - e} for e in range(3)], tmp_path / "loss.png"
    )
    image = np.full((200, 300, 3), 200, np.uint8)
    points = test.corrupted[0, :, :2] * 60 + [150, 80]
    visualize.skeletons(
        image, points, test.corrupted[0], answer.poses[0], tmp_path / "skeletons.png", test.ground_truth[0]
    )
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for file in files:
        pixels = cv2.imread(str(file))
        assert pixels.shape[1] > 700 and pixels.std() > 5
