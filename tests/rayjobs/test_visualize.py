"""Looking at pairs: the sheet shows the worst, the best and others, the recording the worst clips."""

import numpy as np
import pytest

from rayjobs import visualize
from refiner import DepthRefiner, UserError, registry
from refiner.data import records, video
from refiner.evaluation.atlas import Atlas
from refiner.evaluation.compare import MEDIAPIPE, REFINED
from refiner.evaluation.plots import error_atlas
from refiner.inference.depth_refiner import SHIPPED


@pytest.fixture
def pairs(tmp_path, make_pairs):
    """Three held-out sequences, two cameras each; the second of one is far off."""
    root, made = tmp_path / "pairs", make_pairs(3, frames=12)
    for sequence in np.unique(made.sequence):
        part = made.take(made.sequence == sequence)
        if sequence == made.sequence[0]:
            part.corrupted[part.camera == "c02", :, 2] *= -1
        records.write_atomically(part.to_table(), root / "split=test" / f"{sequence}.parquet", {})
    return root


def options(pairs, tmp_path, **more) -> visualize.Options:
    return visualize.Options(pairs=str(pairs), model=str(SHIPPED), out=str(tmp_path / "out"), count=2, **more)


def test_the_worst_and_the_best_are_chosen_each_from_a_clip_of_its_own(pairs, tmp_path):
    refiner = DepthRefiner(SHIPPED)
    chosen, worst, clips, count = visualize.select(options(pairs, tmp_path), refiner)
    assert (clips, count) == (6, 72) and [why for why, *_ in chosen] == ["worst"] * 2 + ["best"] * 2 + ["random"] * 2
    every = list(visualize.clips_of(pairs, "test", refiner))
    errors = np.concatenate([clip.error for clip in every])
    (_, first, row), *_ = chosen
    assert first.error[row] == errors.max() and first.name.split("_")[2] == "c02"
    (_, best, row) = chosen[2]
    assert best.error[row] == errors.min()
    assert worst[0].error.mean() == max(clip.error.mean() for clip in every)
    assert len({clip.name for why, clip, _ in chosen if why == "worst"}) == 2


@pytest.mark.slow
def test_sheet_and_recording_are_written_and_the_worst_clip_is_named(pairs, tmp_path):
    pytest.importorskip("rerun")
    summary = visualize.run(options(pairs, tmp_path))
    assert summary.files == [str(tmp_path / "out" / name) for name in (visualize.SHEET, visualize.RECORDING)]
    assert (tmp_path / "out" / visualize.RECORDING).stat().st_size > 10_000
    name, error = next(iter(summary.worst_clips.items()))
    assert "_c02_" in name and error > 10 and summary.run == ""
    import cv2

    sheet = cv2.imread(str(tmp_path / "out" / visualize.SHEET))
    assert sheet.shape[0] > 6 * 300 and sheet.std() > 10


def test_frames_come_from_the_video_they_were_seen_in(tmp_path):
    with video.VideoWriter(tmp_path / "videos" / "clip.mp4", (64, 48), 30) as writer:
        for level in (20, 120, 220):
            writer.write(np.full((48, 64, 3), level, np.uint8))
    image = np.zeros((3, 33, 2)) + np.arange(3)[:, None, None]
    columns = {"video": ["clip"] * 3, "sequence": ["clip"] * 3, "camera": [""] * 3, "frame": [0, 1, 2],
               "timestamp_us": [0, 1, 2], "detected": [True] * 3, "world": np.zeros((3, 33, 3)), "image": image,
               "visibility": np.ones((3, 33)), "presence": np.ones((3, 33))}  # fmt: skip
    seen = tmp_path / "observations"
    records.write_atomically(records.table(records.OBSERVATIONS, columns), seen / "clip.parquet", {})
    picture, points = visualize.frame_of(tmp_path / "videos", seen, "clip", 2)
    assert abs(picture.mean() - 220) < 5 and (points == 2).all()
    with pytest.raises(UserError, match="no frame 7"):
        visualize.frame_of(tmp_path / "videos", seen, "clip", 7)
    with pytest.raises(UserError, match="go together"):
        visualize.Options(pairs="x", videos="y")


def test_an_atlas_adds_up_and_says_where_the_errors_are(make_pairs, tmp_path):
    pairs = make_pairs(4, frames=30)
    wrong = pairs.ground_truth.copy()
    wrong[:, 9, 2] += 0.1  # the left wrist, in one camera
    wrong[pairs.camera == "c01", 9, 2] = pairs.ground_truth[pairs.camera == "c01", 9, 2]
    methods = {MEDIAPIPE: pairs.corrupted, REFINED: wrong}
    whole = Atlas.of(pairs, methods)
    half = np.arange(len(pairs)) < 90  # cuts a clip in two
    parts = [Atlas.of(pairs.take(rows), {n: p[rows] for n, p in methods.items()}) for rows in (half, ~half)]
    added = Atlas.of_arrays((parts[0] + parts[1]).to_arrays())
    for name in ("counts", "sums", "clip_sums", "frames"):
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name), atol=1e-3)
    assert whole.counts.sum() == len(pairs) * 17
    means = whole.means(REFINED)
    assert np.nanmax(np.delete(means, 9, axis=0)) < 1e-3 and 1 < np.nanmean(means[9]) < 10
    assert {camera for _, camera, _ in whole.worst_clips(REFINED, 4)} == {"c02"}
    assert error_atlas(whole, tmp_path / "atlas.png").stat().st_size > 10_000


@pytest.mark.cluster
def test_they_go_into_the_run_of_a_registered_model(cluster, pairs, register_model):
    from mlflow import MlflowClient

    version = register_model(seed=4, scale=0.05)
    summary = visualize.run(
        visualize.Options(pairs=str(pairs), model=f"models:/{registry.NAME}/{version}", count=1, recording=False)
    )
    files = MlflowClient(registry.tracking_uri()).list_artifacts(summary.run, "visualize/test")
    assert [file.path for file in files] == summary.files == [f"visualize/test/{visualize.SHEET}"]
