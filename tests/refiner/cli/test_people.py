"""`refiner video --people 2`, as one types it, on two rendered dancers."""

import json
from pathlib import Path

import numpy as np
import pytest

from refiner.cli import compare
from refiner.data import records, video
from refiner.formats import FORMATS
from refiner.skeleton import hips_midpoint
from tests.refiner.cli.test_video import refiner

pytestmark = pytest.mark.slow
COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """duo.mp4: two dancers beside each other, twelve frames."""
    pytest.importorskip("ai_edge_litert")
    from studio.dataset import Ensemble

    path = tmp_path_factory.mktemp("clip") / "duo.mp4"
    Ensemble(2, "apart", COUNT / 15, fps=15, seed=3, size=(960, 540)).film(path)
    return path


@pytest.fixture(scope="module")
def out(clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    arguments = ("--people", 2, "--height", 1.7, 1.8, "--overlay", "--out", folder)
    done = refiner("video", clip, "--to", *FORMATS, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "people" in done.stdout.splitlines()[0] and not list(folder.glob(".*"))
    return folder


def test_each_person_is_in_every_file(out):
    names = {"duo.refined.parquet", "duo.overlay.mp4", "duo.json", "duo.csv", "duo.npz", "duo.glb"}
    names |= {f"duo.person{n}.{ending}" for n in (0, 1) for ending in ("bvh", "trc", "c3d")}
    assert {path.name for path in out.iterdir()} == names
    table = records.read_table(out / "duo.refined.parquet", records.REFINED)
    assert records.column(table, "person").tolist() == [0] * COUNT + [1] * COUNT
    with np.load(out / "duo.npz") as arrays:
        rooms = [arrays["poses"][arrays["person"] == n] for n in (0, 1)]
    apart = hips_midpoint(rooms[1])[:, 0] - hips_midpoint(rooms[0])[:, 0]
    assert (apart[:, 0] > 0.7).all() and (apart[:, 0] < 3).all()  # person 0 is the left one; they are 1.5 m apart
    assert all(0 < ankles.min() < 0.3 for ankles in (pose[:, 15:, 1] for pose in rooms))
    assert video.probe(out / "duo.overlay.mp4").frames == COUNT


def test_resume_knows_the_files_of_all_people(out, clip):
    again = ("--to", *FORMATS, "--people", 2, "--height", 1.7, 1.8, "--overlay", "--out", out, "--resume", "--json")
    assert json.loads(refiner("video", clip, *again).stdout)["skipped"]
    (out / "duo.person1.trc").unlink()
    report = json.loads(refiner("video", clip, *again).stdout)["report"]
    assert report["people"] == 2 and report["with_person"] == COUNT and (out / "duo.person1.trc").exists()


def test_people_are_compared_each_with_the_same_one(out, capsys):
    path = out / "duo.refined.parquet"
    assert compare.run(compare.Options(a=path, b=path)) == 0
    assert f"{2 * COUNT} frames of 2 people in common" in capsys.readouterr().out
    moments, _ = compare.read(path)
    assert moments[0] == (0, 0) and moments[-1] == (1, COUNT - 1)


def test_a_view_of_two_is_recorded(out, tmp_path):
    pytest.importorskip("rerun")
    done = refiner("view", out / "duo.refined.parquet", "--save", tmp_path / "duo.rrd")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "duo.rrd").read_bytes()
    assert b"person1/refined" in content and b"person1/mediapipe" in content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--people", 0), "give 1 to 16"),
        (("--height", 1.7, 1.8), "--height names 2 people"),
        (("--people", 2, "--estimator", "mediapipe"), "take --estimator blazepose"),
    ],
)  # fmt: skip
def test_a_mistake_about_people_is_one_sentence(clip, arguments, said, tmp_path):
    done = refiner("video", clip, *arguments, "--out", tmp_path)
    assert done.returncode == 2 and said in (done.stderr + done.stdout).replace("\n", " ")
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
