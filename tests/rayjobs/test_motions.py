"""Recordings become a folder that the studio takes; nobody is in two splits, and what is broken costs only itself."""

import json
import math
import re
from pathlib import Path

import pytest

from rayjobs import motions
from refiner import UserError
from refiner.data.aistpp import FPS, SPLITS, Dataset, Name
from studio.dataset import Spec, plan

_LEG = [("{}UpLeg", 9, 0), ("{}Leg", 0, -42), ("{}Foot", 0, -40)]
_ARM = [("{}Arm", 16, 12), ("{}ForeArm", 26, 0), ("{}Hand", 24, 0)]


def walking(frames: int) -> str:
    """A BVH file, in centimetres at 30 Hz, of somebody who lifts one knee after the other."""
    text, channels = "HIERARCHY\nROOT Hips {\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\n", 3
    columns = [lambda t: 0.0, lambda t: 90.0, lambda t: 2.0 * t]
    for side, sign in (("Left", 1), ("Right", -1)):
        for i, (name, x, y) in enumerate(_LEG):
            text += f"JOINT {name.format(side)} {{\nOFFSET {sign * x} {y} 0\nCHANNELS 1 Xrotation\n"
            swing = (-30, 60, 0)[i]  # the thigh forwards, the shank back
            columns.append(lambda t, swing=swing, sign=sign: swing * max(0.0, sign * math.sin(t / 5)))
        text += "End Site {\nOFFSET 0 0 15\n}\n" + "}\n" * 3
    text += "JOINT Spine {\nOFFSET 0 40 0\nCHANNELS 1 Yrotation\n"
    columns.append(lambda t: 5 * math.sin(t / 9))
    for side, sign in (("Left", 1), ("Right", -1)):
        for name, x, y in _ARM:
            text += f"JOINT {name.format(side)} {{\nOFFSET {sign * x} {y} 0\nCHANNELS 1 Zrotation\n"
            columns.append(lambda t, sign=sign: -20.0 * sign)
        text += "End Site {\nOFFSET 5 0 0\n}\n" + "}\n" * 3
    text += "JOINT Head {\nOFFSET 0 22 0\nCHANNELS 1 Yrotation\nEnd Site {\nOFFSET 0 18 0\n}\n}\n}\n}\n"
    columns.append(lambda t: 0.0)
    rows = [" ".join(f"{column(t):.4f}" for column in columns) for t in range(frames)]
    assert len(columns) == channels + 2 * 3 + 1 + 2 * 3 + 1
    return text + f"MOTION\nFrames: {frames}\nFrame Time: {1 / 30:.6f}\n" + "\n".join(rows)


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Four recordings of three actors, and one that is cut off."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, frames in (("run_subject1", 90), ("walk_subject1", 75), ("walk_subject2", 120), ("05_01", 60)):
        (folder / f"{name}.bvh").write_text(walking(frames))
    (folder / "jump_subject3.BVH").write_text(walking(50)[:900])
    return folder


def test_recordings_become_a_folder_that_drives_the_studio(recordings, tmp_path):
    out = tmp_path / "out"
    summary = motions.run(motions.Options(source=(str(recordings),), out=str(out)))
    assert sum(summary.sequences.values()) == 4 and len(summary.refused) == 1
    assert re.search("jump_subject3.BVH is (damaged|not a BVH)", summary.refused[0])
    entries = json.loads((out / motions.MANIFEST).read_text())
    data = Dataset(out)
    for entry in entries:
        poses = data.keypoints3d(entry["sequence"])
        assert len(poses) / FPS == pytest.approx(entry["seconds"], abs=0.01)
        assert entry["sequence"] in data.split(entry["split"]) and Name.parse(entry["sequence"])
    by_actor = {}
    for entry in entries:
        by_actor.setdefault(Name.parse(entry["sequence"]).dancer, set()).add(entry["split"])
    assert len(by_actor) == 3 and set.union(*by_actor.values()) == set(SPLITS)
    assert all(len(splits) == 1 for splits in by_actor.values())
    takes = plan(Spec(sequences=10, seconds=1, fps=10, seed=0, size=(640, 360), motions=str(out), real_share=1.0))
    of_sequence = {entry["sequence"]: entry["split"] for entry in entries}
    assert all(of_sequence[take.source.sequence] == take.split for take in takes)


def test_recordings_are_held_out_by_name_and_a_second_run_replaces_the_first(recordings, tmp_path):
    options = {"source": (str(recordings),), "out": str(tmp_path / "out")}
    motions.run(motions.Options(**options))
    summary = motions.run(motions.Options(**options, test=("*/walk_subject2",), val=("*/05_01",)))
    assert summary.sequences == {"train": 2, "val": 1, "test": 1}
    assert len(Dataset(tmp_path / "out").sequences) == 4
    with pytest.raises(UserError, match="--test dive matches none of the recordings"):
        motions.run(motions.Options(**options, test=("dive",)))
    with pytest.raises(UserError, match="both --val and --test"):
        motions.run(motions.Options(**options, test=("*",), val=("*/05_01",)))


def splits_of(recordings: Path, tmp_path: Path, **options) -> dict[str, str]:
    """Recording -> split."""
    motions.run(motions.Options(source=(str(recordings),), out=str(tmp_path / "out"), **options))
    entries = json.loads((tmp_path / "out" / motions.MANIFEST).read_text())
    return {entry["source"].removeprefix("recordings/"): entry["split"] for entry in entries}


def test_who_is_held_out_is_held_out_with_all_that_they_do(recordings, tmp_path):
    splits = splits_of(recordings, tmp_path, test=("*/walk_subject1",))
    assert splits == {"run_subject1": "test", "walk_subject1": "test", "walk_subject2": "train", "05_01": "train"}
    with pytest.raises(UserError, match="both --val and --test, or its actor is"):
        splits_of(recordings, tmp_path, test=("*/walk_subject1",), val=("*/run_subject1",))


def test_what_belongs_together_is_in_one_split_whoever_moves(recordings, tmp_path):
    """Also where groups share a member."""
    couple = ("*/*_subject[12]",)
    splits = splits_of(recordings, tmp_path, together=couple, test=("*/walk_subject2",))
    assert splits == {"run_subject1": "test", "walk_subject1": "test", "walk_subject2": "test", "05_01": "train"}
    splits = splits_of(
        recordings, tmp_path, together=("*/[rw]*_subject1", "*/walk_subject*", "*/05_01"), val=("*/run*",)
    )
    assert splits == {"run_subject1": "val", "walk_subject1": "val", "walk_subject2": "val", "05_01": "train"}
    with pytest.raises(UserError, match="--together polka matches none of the recordings"):
        splits_of(recordings, tmp_path, together=("polka",))


def test_a_folder_of_aistpp_keeps_its_names(recordings, tmp_path):
    first, second = (str(tmp_path / name) for name in ("first", "second"))
    motions.run(motions.Options(source=(str(recordings),), out=first))
    motions.run(motions.Options(source=(first,), out=second))
    assert Dataset(Path(first)).sequences == Dataset(Path(second)).sequences
    with pytest.raises(UserError, match="two of the motions are called gMC_"):
        motions.run(motions.Options(source=(first, first), out=second))


def test_wrong_sources_and_foreign_folders_are_refused(recordings, tmp_path):
    with pytest.raises(UserError, match=r"no motion in .*nowhere"):
        motions.run(motions.Options(source=(str(tmp_path / "nowhere"),), out=str(tmp_path / "out")))
    with pytest.raises(UserError, match="none of 1 recordings"):
        motions.run(motions.Options(source=(str(recordings / "jump_subject3.BVH"),), out=str(tmp_path / "out")))
    (tmp_path / "other/annotations").mkdir(parents=True)
    with pytest.raises(UserError, match="did not make"):
        motions.run(motions.Options(source=(str(recordings),), out=str(tmp_path / "other")))
