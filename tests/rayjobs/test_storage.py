"""Folders as people have them: long names, names in no code, links, leftovers of macOS, videos of every suffix."""

import os
import unicodedata
from pathlib import Path

import pytest

from rayjobs.storage import list_videos
from refiner import UserError, files
from refiner.data.containers import SUFFIXES


def touched(folder: Path, *names: str | bytes) -> Path:
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_every_suffix_that_people_have_is_a_video(tmp_path):
    usual = ("3gp", "gif", "vob", "mts", "wmv", "ogv", "mp4", "MOV", "mkv", "webm", "avi", "MPG", "ts", "flv", "m4v")
    touched(tmp_path, *(f"clip_{suffix}.{suffix}" for suffix in usual))
    assert len(list_videos(str(tmp_path))) == len(usual) and {f".{s.lower()}" for s in usual} <= SUFFIXES


def test_what_is_not_read_is_said_once(tmp_path, capsys):
    touched(tmp_path, "a.mp4", "._a.mp4", "sub/._b.mov", "notes.txt", "more.txt", ".DS_Store")
    assert [video.name for video in list_videos(str(tmp_path))] == ["a"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "2 × ._… of macOS" in said and "2 × .txt" in said and ".ds_store" in said.lower()


def test_linked_folders_are_entered_and_circles_have_an_end(tmp_path):
    touched(tmp_path / "elsewhere", "b.mp4")
    touched(tmp_path / "videos", "a.mp4")
    (tmp_path / "videos/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "videos", target_is_directory=True)
    (tmp_path / "videos/self").symlink_to(tmp_path / "videos", target_is_directory=True)
    (tmp_path / "videos/broken.mp4").symlink_to(tmp_path / "nowhere")
    assert [video.name for video in list_videos(str(tmp_path / "videos"))] == ["a", "b"]


@pytest.mark.parametrize(
    "names",
    [
        ("a.mp4", "a.mov"),
        ("a.mp4", "A.mp4"),
        (unicodedata.normalize("NFC", "é.mp4"), unicodedata.normalize("NFD", "é.mp4")),
    ],
)
def test_names_that_collide_here_or_elsewhere_are_named(tmp_path, names):
    with pytest.raises(UserError, match=r"the same name.*rename one") as caught:
        list_videos(str(touched(tmp_path, *names)))
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("name", ["a" * 251, "é" * 125, "\U0001f483" * 62, b"\xff" * 60, "clip"])
def test_what_is_made_of_a_file_has_a_name_that_fits(tmp_path, name):
    (video,) = list_videos(str(touched(tmp_path, os.fsencode(name) + b".mp4")))
    for suffix in (".parquet", ".json"):
        out = files.join(str(tmp_path), "out", f"{video.name}{suffix}")
        files.write_text(out, "{}")
        assert Path(out).read_text() == "{}" and len(os.fsencode(Path(out).name)) <= 255
        out.encode()
    assert files.File(out, 0).name == video.name  # a second run knows it again
    assert files.plain_name("a" * 251) != files.plain_name("a" * 250 + "b")
