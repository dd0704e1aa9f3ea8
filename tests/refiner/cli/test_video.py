"""`refiner video` on a rendered clip: in a process of its own, as one types it, and by `main` where it makes no difference."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refiner import UserError
from refiner.cli import compare
from refiner.cli.main import main
from refiner.cli.video import Options, _settings, find
from refiner.cli.work import stretches
from refiner.data import records, video
from refiner.estimators.isolation import Isolated
from refiner.formats import FORMATS

SIZE, FPS = (640, 360), 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """joey.mp4: a rendered dancer, two thirds of a second."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clip")
    (take, *_) = plan(Spec(sequences=1, seconds=0.67, fps=FPS, seed=4, size=SIZE))
    take.film(root, ["c01"])
    return take.video(root, "c01").rename(root / "joey.mp4")


def refiner(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "refiner.cli", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "80", **env},
    )  # fmt: skip


def called(*arguments: object) -> subprocess.CompletedProcess:
    """The same by `main` in this process, which has PyTorch already: starting another takes three seconds of a core."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def done(clip, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """The clip refined into every format, with a broken video, a picture and a text beside it."""
    folder = tmp_path_factory.mktemp("videos")
    shutil.copy(clip, folder)
    (folder / "cut off.mp4").write_bytes(clip.read_bytes()[:20_000])
    (folder / "empty.mov").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    return refiner("video", folder, "--to", *FORMATS, "--overlay", "--out", folder / "out"), folder / "out"


def test_a_video_becomes_every_file_and_a_broken_one_costs_itself(done):
    ended, out = done
    assert ended.returncode == 1, ended.stderr
    assert {p.name for p in out.iterdir()} == {
        "joey.refined.parquet", "joey.overlay.mp4", *(f"joey.{ending}" for ending in FORMATS),
    }  # fmt: skip
    assert "joey.mp4" in ended.stdout and "100%" in ended.stdout
    assert "cut off.mp4" in ended.stdout and "empty.mov is empty" in ended.stdout.replace("\n", " ")
    assert "notes.txt" not in ended.stdout and "Traceback" not in ended.stdout + ended.stderr
    assert max(len(line) for line in ended.stdout.splitlines() if not line.startswith(("  /", "failed"))) <= 80


def test_it_says_whose_landmarks_they_are(done):
    assert "landmarks by blazepose" in done[0].stdout
    estimator = json.loads(records.read_metadata(done[1] / "joey.refined.parquet")["options"])["estimator"]
    assert estimator == "blazepose"


def test_without_litert_mediapipe_looks_as_it_is(clip, monkeypatch):
    monkeypatch.setattr("refiner.estimators.is_there", lambda package: package != "ai_edge_litert")
    assert _settings(Options(videos=(str(clip),)))["estimator"] == "mediapipe"
    assert (
        _settings(Options(videos=(str(clip),), people=2))["estimator"] == "blazepose"
    )  # whose sentence names the extra


def test_the_result_says_what_it_is_and_every_frame(done):
    path = done[1] / "joey.refined.parquet"
    table = records.read_table(path, records.REFINED)
    frames = records.column(table, "frame")
    assert len(frames) == video.probe(done[1] / "joey.overlay.mp4").frames == 20
    meta = records.read_metadata(path)
    assert json.loads(meta["model"])["name"] == "pose-depth-refiner" and json.loads(meta["fps"]) == pytest.approx(FPS)
    _, poses = compare.read(path)
    assert 0.5 < np.linalg.norm(poses, axis=-1).max() < 1.5


def test_the_overlay_shows_both_skeletons_upright_beside_the_panel(done):
    from refiner.cli.overlay import rgb_of

    picture = video.read_frame(done[1] / "joey.overlay.mp4", 10).astype(int)
    assert picture.shape[0] == SIZE[1] and picture.shape[1] > SIZE[0]
    panel = picture[:, SIZE[0] :]
    for method in ("mediapipe", "refined"):
        close = np.abs(panel - rgb_of(method)).max(-1) < 60
        assert close[80:-40].sum() > 100, method


def test_what_is_there_is_left_alone_unless_one_says_otherwise(done, clip):
    _, out = done
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    refused = refiner("video", clip, "--to", "bvh", "--out", out)
    assert refused.returncode == 2 and "is there already" in refused.stderr.replace("\n", " ")
    resumed = refiner("video", clip, "--to", *FORMATS, "--overlay", "--out", out, "--resume", "--json")
    assert resumed.returncode == 0 and json.loads(resumed.stdout)["skipped"]
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before


STATUSES = {  # what the command names, its options, and what is refined besides: `joey` has been refined already
    "a good video": (["new.mp4"], [], 0, {"new"}),
    "all is there, resumed": (["joey.mp4"], ["--resume"], 0, set()),
    "all is there, written over": (["joey.mp4"], ["--force"], 0, set()),
    "a bad one among good ones": (["bad.mp4", "new.mp4"], [], 1, {"new"}),
    "all bad": (["bad.mp4"], [], 1, set()),
    "one is there, another is new": (["joey.mp4", "new.mp4"], [], 1, {"new"}),
    "one is there, another is bad": (["joey.mp4", "bad.mp4"], [], 1, set()),
    "all is there": (["joey.mp4"], [], 2, set()),
    "a bad option": (["new.mp4"], ["--fov", "400"], 2, set()),
    "options that exclude each other": (["joey.mp4", "new.mp4"], ["--resume", "--force"], 2, set()),
    "a name that matches nothing": (["new.mp4", "nowhere.mp4"], [], 2, set()),
}


@pytest.mark.parametrize(("names", "options", "status", "made"), STATUSES.values(), ids=STATUSES.keys())
def test_the_exit_status_says_whose_mistake_it_was(names, options, status, made, clip, done, tmp_path):
    """The table in docs/own-video.md, case by case."""
    for name in ("joey", "new"):
        shutil.copy(clip, tmp_path / f"{name}.mp4")
    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes()[:20_000])
    shutil.copy(done[1] / "joey.refined.parquet", tmp_path)
    ended = called("video", *(tmp_path / name for name in names), *options, "--json")
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert {path.name.split(".")[0] for path in tmp_path.glob("*.refined.parquet")} == {"joey", *made}
    if status == 2:
        assert not ended.stdout and len(ended.stderr.strip().splitlines()) == 1
    else:
        assert len(ended.stdout.splitlines()) == len(names) and not ended.stderr


def test_progress_reaches_the_last_frame(clip, tmp_path):
    told: list[int] = []
    options = _settings(Options(videos=(str(clip),)))
    with Isolated("refiner.cli.work:work", stall_s=300) as child:
        child(told.append, video=str(clip), out=str(tmp_path), options=options)
    assert told[-1] == 20 and told == sorted(told)


def test_without_refinement_poses_are_mediapipes(done, clip, tmp_path):
    ended = called("video", clip, "--no-learned-depth-refinement", "--out", tmp_path, "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)["report"]
    assert report["bone_cv"][0] == report["bone_cv"][1] and report["with_person"] == 20
    apart = called("compare", tmp_path / "joey.refined.parquet", done[1] / "joey.refined.parquet", "--json")
    assert 0.5 < json.loads(apart.stdout)["depth_cm"] < 20


def test_nobody_in_the_video_is_one_sentence(tmp_path):
    with video.VideoWriter(tmp_path / "wall.mp4", SIZE, FPS) as wall:
        for _ in range(6):
            wall.write(np.full((SIZE[1], SIZE[0], 3), 128, np.uint8))
    ended = called("video", tmp_path / "wall.mp4")
    assert (
        ended.returncode == 1
        and "shows nobody" in ended.stdout
        and [p.name for p in tmp_path.iterdir()] == ["wall.mp4"]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["video", "nowhere.mp4"], "no video matches"),
        (["video", "."], "no video matches"),
        (["video", "x.mp4", "--fov", "400"], "lens"),
        (["compare", "a.parquet", "b.parquet"], "a.parquet is missing"),
        (["view", "a.parquet"], "a.parquet is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_2(arguments, said, tmp_path):
    ended = refiner(*arguments, cwd=tmp_path)
    assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--looks", "3"], "choose 1, or 2"),
        (["--estimator", "mediapipe", "--looks", "2"], "take --estimator blazepose"),
        (["--estimator", "mediapipe", "--smoothing", "none"], "take --estimator blazepose"),
        (["--pose-model", "nowhere.task"], "no pose model 'nowhere.task'"),
        (["--model", "nowhere"], "nowhere is not a checkpoint"),
        (["--model", "models:/x"], "not a model's address"),
        (["--endpoint", "http://127.0.0.1:9"], "is --endpoint right? Without it"),
        (["--to", "fbx"], "invalid choice 'fbx'"),
        (["--people", "many"], "--people N"),
        (["--bogus"], "Unrecognized"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_command_is_status_2_and_costs_no_video(clip, arguments, said, tmp_path):
    ended = refiner("video", clip, *arguments, "--out", tmp_path / "out", "--json")
    assert ended.returncode == 2 and said in ended.stderr.replace("\n", " "), ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr and not ended.stdout and not list(tmp_path.glob("out/*"))


def test_a_format_whose_extra_is_missing_is_named_before_any_video(clip, monkeypatch, tmp_path):
    monkeypatch.setattr("refiner.extras.find_spec", lambda package: None)
    ended = called("video", clip, "--to", "glb", "--out", tmp_path)
    assert ended.returncode == 2 and "[formats]" in ended.stderr and not list(tmp_path.iterdir())


def test_help_and_info_fit_80_columns_and_say_what_to_put_in(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("video", "compare", "export", "page", "view", "info"):
        text = called(command, "--help").stdout
        assert max(map(len, text.splitlines()[1:])) <= 80, command
        assert not {"STR", "INT", "FLOAT", "PATH", "{None}"} & set(re.split(r"[\s|\[\]]+", text)), text
        assert "default: ''" not in text and "(default: )" not in text
    text = called("info").stdout
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80
    assert re.search(r"refiner video +blazepose", text) and re.search(r"formats +installed", text)


def test_nothing_that_takes_long_is_loaded_before_it_is_needed():
    heavy = ("torch", "mediapipe", "cv2", "scipy", "ray", "mlflow", "matplotlib")
    code = (
        "import sys; from refiner.cli.main import main\ntry: main(['video', 'nowhere.mp4'])\nexcept SystemExit: pass\n"
    )
    loaded = subprocess.run([sys.executable, "-c", code + "print(*sys.modules)"], capture_output=True, text=True).stdout
    assert "refiner.cli.video" in loaded.split() and not set(heavy) & set(loaded.split())


def test_info_names_versions_model_and_device(tmp_path):
    facts = json.loads(called("info", "--json").stdout)
    assert facts["packages"]["mediapipe"] and facts["model"]["parameters"] > 100_000 and facts["device"]
    assert "parameters" in called("info").stdout


def test_only_poses_about_the_hips_in_metres_are_compared(done, tmp_path):
    poses = np.array(compare.read(done[1] / "joey.refined.parquet")[1])
    whole = {"poses": poses, "frames": np.arange(len(poses))}
    wrong = {
        "joint_names": ({"joint_names": np.array(["nose"])}, "joints in the room"), "cm": ({"poses": 100 * poses}, "metres"),
        "nan": ({"poses": poses * np.nan}, "finite"), "twice": ({"frames": np.zeros(len(poses), int)}, "several poses"),
        "0-d": ({"frames": np.array(1)}, "one frame"), "text": ({"poses": poses.astype(str)}, "numbers"),
        "person": ({"person": np.zeros(1, int)}, "one person"),
    }  # fmt: skip
    for name, (change, says) in wrong.items():
        np.savez(tmp_path / f"{name}.npz", **{**whole, **change})
        with pytest.raises(UserError, match=says):
            compare.read(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "good.npz", **whole)
    content = (tmp_path / "good.npz").read_bytes()
    np.testing.assert_allclose(compare.read(tmp_path / "good.npz")[1], poses, atol=1e-6)
    for damaged in (content[: len(content) // 2], b"", content[:200] + b"\0" * 400 + content[600:]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(UserError, match="is not an NPZ file"):
            compare.read(tmp_path / "damaged.npz")


def test_a_view_is_recorded(done, tmp_path):
    pytest.importorskip("rerun")
    ended = called("view", done[1] / "joey.refined.parquet", "--save", tmp_path / "joey.rrd")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "joey.rrd").stat().st_size > 10_000 and "rerun" in ended.stdout


def test_a_view_without_a_display_and_of_another_file_is_one_sentence(done, tmp_path, monkeypatch):
    pytest.importorskip("rerun")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    ended = called("view", done[1] / "joey.refined.parquet")
    assert ended.returncode == 2 and "no display here: --save" in ended.stderr
    (tmp_path / "joey.bvh").write_text("HIERARCHY")
    ended = called("view", tmp_path / "joey.bvh")
    assert ended.returncode == 2 and "is not a Parquet file: give one" in ended.stderr


def test_paths_folders_and_patterns_name_videos_once(tmp_path):
    for name in ("b.mp4", "a.MOV", "._a.mov", "notes.txt"):
        (tmp_path / name).touch()
    named = find((str(tmp_path), str(tmp_path / "*.mp4"), str(tmp_path / "notes.txt")))
    assert [p.name for p in named] == ["a.MOV", "b.mp4", "notes.txt"]
    with pytest.raises(UserError, match="no video matches"):
        find((str(tmp_path / "*.avi"),))
    with pytest.raises(UserError, match="choose one"):
        Options(videos=("x",), resume=True, force=True)


def test_stretches_are_long_and_told_in_seconds():
    low = np.array([0, 1, 1, 1, 0, 1, 0, 1, 1], dtype=bool)
    assert stretches(low, np.arange(9) * 0.5) == [(0.5, 1.5), (3.5, 4.0)]
