"""Videos that went wrong once, all in one folder, under names that went wrong, through extraction and refinement in one run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rayjobs import extract, refine
from refiner.data import records

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def run(cases, cluster, tmp_path_factory) -> tuple[Path, extract.Summary, refine.Summary]:
    """Folder of the observations and of what became of them."""
    folder = tmp_path_factory.mktemp("cases")
    videos = folder / "videos"
    shutil.copytree(cases, videos)
    plain = (cases / "plain.mp4").read_bytes()
    (videos / ("long" * 62 + "x.mp4")).write_bytes(plain)
    (videos / ("fail" * 62 + "x.mp4")).write_bytes(plain[:9000])
    Path(os.fsdecode(os.fsencode(videos) + b"/clip\xff.mp4")).write_bytes(plain)
    (videos / "._plain.mp4").write_bytes(b"resource fork")
    (videos / "script.mp4").write_text("ffconcat version 1.0\nfile plain.mp4\n")
    extracted = extract.run(extract.Options(videos=str(videos), out=str(folder / "seen"), actors=2))
    refined = refine.run(
        refine.Options(observations=str(folder / "seen"), out=str(folder / "refined"), model="refiner/weights/studio")
    )
    return folder, extracted, refined


def world(folder: Path, name: str) -> np.ndarray:
    return records.column(records.read_table(folder / f"seen/{name}.parquet", records.OBSERVATIONS), "world")


@pytest.mark.timeout(1200)
def test_each_is_observed_or_fails_with_its_reason(run):
    folder, extracted, refined = run
    assert {Path(video).stem[:4] for video in extracted.failures} == {"fail", "scri"}
    assert extracted.videos == 11 and extracted.extracted == 9 == refined.refined and not refined.failures
    failed = [json.loads(p.read_text()) for p in (folder / "seen/failures").iterdir()]
    assert len(failed) == 2 and all(f["reason"] and "\n" not in f["reason"] for f in failed)
    names = {p.stem for p in (folder / "refined").glob("*.parquet")}
    assert "clip\\xff" in names and {p.stem for p in (folder / "seen").glob("*.parquet")} == names


def test_pictures_are_as_players_show_them(run):
    folder = run[0]
    plain = world(folder, "plain")
    for name in ("flip_h", "sar_4_3", "two_streams_default2", "late_start", "clip\\xff"):
        assert json.loads(records.read_metadata(folder / f"seen/{name}.parquet")["size"]) == [640, 1138]
        assert np.linalg.norm(world(folder, name) - plain, axis=-1).mean() < 0.015, name
    notes = records.read_metadata(folder / "seen/two_streams_default2.parquet")["notes"]
    assert "2 videos" in notes


def test_time_goes_on_and_clips_end_where_scenes_end(run):
    folder = run[0]
    joined = records.read_table(folder / "seen/cat_ps.parquet", records.OBSERVATIONS)
    assert np.diff(records.column(joined, "timestamp_us")).tolist() == [40_000] * 59
    assert records.column(joined, "clip").tolist() == [0] * 30 + [1] * 30
    assert np.linalg.norm(np.diff(world(folder, "cat_ps")[30:], axis=0), axis=-1).mean() > 0.001  # it moves
    cut = records.read_table(folder / "refined/cut.parquet", records.REFINED)
    assert records.column(cut, "clip").tolist() == [0] * 20 + [1] * 20
