"""A dataset is rendered once, on the cluster, and only what is missing is rendered again."""

import dataclasses
import functools
import hashlib
from pathlib import Path

import pytest
import ray

from rayjobs import studio
from refiner import UserError, files
from refiner.data.aistpp import CAMERAS, SPLITS, Dataset
from tests.connection import connection

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def connected(cluster):
    with connection(cluster):
        yield


@pytest.fixture(scope="module")
def rendered(connected, tmp_path_factory) -> tuple[studio.Options, studio.Summary]:
    out = tmp_path_factory.mktemp("studio") / "dataset"
    options = studio.Options(out=str(out), sequences=3, seconds=0.2, fps=10, size=(192, 108))
    return options, studio.run(options)


def contents(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_every_sequence_has_nine_videos_and_its_truth(rendered):
    options, summary = rendered
    data = Dataset(options.out)
    assert (summary.videos, summary.rendered, summary.frames) == (27, 27, 54)
    assert summary.sequences == {split: 1 for split in SPLITS}
    assert len(list(data.videos.glob("*.mp4"))) == 27
    for sequence in data.sequences:
        assert tuple(data.cameras(sequence)) == CAMERAS
        assert data.keypoints3d(sequence).shape == (12, 17, 3)
    assert not list(Path(options.out).rglob(".*"))


def test_a_second_run_renders_nothing_and_a_lost_video_comes_back_as_it_was(rendered):
    options, _ = rendered
    before = contents(Path(options.out))
    again = studio.run(options)
    assert (again.rendered, again.frames) == (0, 0)
    next(Dataset(options.out).videos.glob("*c04*")).unlink()
    assert studio.run(options).rendered == 1
    assert contents(Path(options.out)) == before


def test_splits_are_rendered_one_by_one_and_together_are_the_whole(rendered, tmp_path):
    options, _ = rendered
    for split in SPLITS:
        summary = studio.run(dataclasses.replace(options, out=str(tmp_path / "parts"), splits=(split,)))
        assert summary.rendered == 9 and sum(summary.sequences.values()) == summary.sequences[split] == 1
    assert contents(tmp_path / "parts") == contents(Path(options.out))


def test_other_options_into_the_same_folder_are_refused(rendered):
    options, _ = rendered
    with pytest.raises(UserError, match="another --out"):
        studio.run(studio.Options(out=options.out, sequences=3, seconds=0.4, fps=10, size=(192, 108)))


def test_wrong_folders_end_the_run_before_anything_is_written(tmp_path):
    for wrong in ({"settings": str(tmp_path)}, {"motions": str(tmp_path)}):
        with pytest.raises(UserError, match=str(tmp_path)):
            studio.run(studio.Options(out=str(tmp_path / "out"), **wrong))
        assert not (tmp_path / "out").exists()


def test_a_dataset_in_a_store_is_the_one_on_disk_and_goes_on_where_it_was(rendered, server, monkeypatch):
    options, summary = rendered
    for name, value in {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    keys = {"runtime_env": {"env_vars": {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}}}
    monkeypatch.setattr("rayjobs.tasks.ray.remote", functools.partial(ray.remote, **keys))
    host = server.removeprefix("http://")
    far = dataclasses.replace(options, out=f"s3://archive/studio?endpoint_override={host}&scheme=http")
    made = studio.run(far)
    assert (made.videos, made.rendered, made.frames) == (27, summary.rendered, summary.frames)
    here = contents(Path(options.out))
    assert {n: digest(file.where) for n, file in files.below(far.out).items()} == here
    lost = next(name for name in here if name.endswith(".mp4"))
    files.delete(files.join(far.out, *lost.split("/")))
    assert studio.run(far).rendered == 1
    assert digest(files.join(far.out, *lost.split("/"))) == here[lost]
    with pytest.raises(UserError, match="made with seconds"):
        studio.run(dataclasses.replace(far, seconds=0.4))


def digest(where: str) -> str:
    with files.fetched(where) as path:
        return hashlib.sha256(path.read_bytes()).hexdigest()
