"""The dataset's names, annotations and faults, on real files where they are there and on hostile ones always."""

import os
import pickle

import numpy as np
import pytest

from refiner import UserError
from refiner.data import aistpp
from refiner.geometry import Camera, rotation_matrix


def test_all_real_names_parse_and_print_back(request):
    root = request.getfixturevalue("aistpp")
    names = (root / "video_list.txt").read_text().split()
    assert len(names) == aistpp.NUM_VIDEOS
    parsed = [aistpp.Name.parse(f"somewhere/{name}.mp4") for name in names]
    assert [str(p) for p in parsed] == names
    assert {p.sequence for p in parsed} == set(aistpp.Dataset(root).mapping)
    assert {p.genre for p in parsed} == set(aistpp.GENRES) and {p.camera for p in parsed} == set(aistpp.CAMERAS)


@pytest.mark.parametrize("name", ["cam01.mp4", "gBR_sBM_c1_d04_mBR0_ch01", "gBR_sBM_c01_d04_mBR0_ch01_extra", ""])
def test_another_name_is_refused_with_the_form_it_should_have(name):
    with pytest.raises(UserError, match="expected the form gBR_sBM_c01"):
        aistpp.Name.parse(name)


def test_every_real_annotation_reads(request):
    dataset = aistpp.Dataset(request.getfixturevalue("aistpp"))
    assert len(dataset.mapping) == aistpp.NUM_SEQUENCES and len(dataset.ignored) == 45
    for sequence in dataset.mapping:
        cameras = dataset.cameras(sequence)
        assert tuple(cameras) == aistpp.CAMERAS
        for camera in cameras.values():  # metres: every camera stands 3 to 8 m from the stage, above its floor
            assert 3 < np.linalg.norm(camera.position) < 8 and 0 < camera.position[1] < 3
    for sequence in dataset.sequences:
        truth = dataset.keypoints3d(sequence)
        image, timestamps = dataset.keypoints2d(sequence)
        assert truth.shape[0] == image.shape[1] == len(timestamps)
        assert np.abs(aistpp.timestamps_us(len(truth)) - timestamps).max() <= 1
        assert np.nanmax(np.abs(truth)) < 5  # metres


def test_cameras_survive_being_written(rng):
    camera = Camera(
        "c01",
        (1920, 1080),
        np.diag([1400.0, 1400, 1]),
        rng.normal(0, 0.1, 5),
        rotation_matrix([3.1, 0.1, 0.2]),
        rng.normal(0, 1, 3),
    )
    (read,) = aistpp.read_cameras(aistpp.write_cameras([camera]), "here")
    for field in ("matrix", "distortion", "rotation", "translation"):
        assert np.allclose(getattr(read, field), getattr(camera, field), atol=1e-9)


class Exploit:
    def __reduce__(self):
        return os.system, ("touch owned",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_runs_nothing(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for i, content in enumerate(
        [Exploit(), {"keypoints3d_optim": Exploit()}, {"keypoints3d_optim": np.array([Exploit()])}]
    ):
        path = tmp_path / f"{i}.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(UserError, match="refused"):
            aistpp.read_pickle(path, ("keypoints3d_optim",))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_protocol_are_admitted(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    points = np.arange(51.0).reshape(1, 17, 3)
    path.write_bytes(pickle.dumps({"keypoints3d_optim": points, "loss": np.float64(2.5)}, protocol=protocol))
    read = aistpp.read_pickle(path, ("keypoints3d_optim",))
    assert np.array_equal(read["keypoints3d_optim"], points) and read["loss"] == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"keypoints3d": np.zeros((2, 17, 3))})[:-20], "damaged"),
        (b"", "damaged"),
        (b"<html>404</html>", "damaged|refused"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({"other": np.zeros(3)}), "lacks keypoints3d_optim or keypoints3d: it has other"),
        (pickle.dumps({"keypoints3d": "text"}), "not an array of numbers"),
        (pickle.dumps({"keypoints3d": np.zeros((2, 18, 3))}), r"shape \(2, 18, 3\), expected \(frames, 17, 3\)"),
    ],
)
def test_a_damaged_annotation_is_named_with_its_fault(tmp_path, content, message):
    dataset = aistpp.Dataset(tmp_path)
    path = tmp_path / "annotations/keypoints3d/x.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        dataset.keypoints3d("x")
    assert str(path) in str(caught.value)


def test_what_is_missing_is_named_with_the_command_that_brings_it(tmp_path):
    dataset = aistpp.Dataset(tmp_path)
    for read in (lambda: dataset.mapping, lambda: dataset.split("val"), lambda: dataset.keypoints3d("x")):
        with pytest.raises(UserError, match=r"rayjobs\.download --annotations"):
            read()


def test_a_sequence_that_the_mapping_lacks_is_named(tmp_path):
    (tmp_path / "annotations/cameras").mkdir(parents=True)
    (tmp_path / "annotations/cameras/mapping.txt").write_text("gBR_sBM_cAll_d04_mBR0_ch01 setting1\n")
    with pytest.raises(UserError, match="gBR_sBM_cAll_d04_mBR0_ch02 is not in"):
        aistpp.Dataset(tmp_path).cameras("gBR_sBM_cAll_d04_mBR0_ch02")
