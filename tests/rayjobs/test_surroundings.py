"""`rayjobs.extract` as one types it, where the machine refuses something: it works, or says it in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.disks import small_disk

pytestmark = pytest.mark.cluster


def extract(cases: Path, folder: Path, out: Path, **env: str) -> subprocess.CompletedProcess:
    videos = folder / "videos"
    videos.mkdir()
    (videos / "plain.mp4").write_bytes((cases / "plain.mp4").read_bytes())
    ray = {name for name in os.environ if name.startswith("RAY_")}  # a Ray of its own
    return subprocess.run(
        [sys.executable, "-m", "rayjobs.extract", "--videos", str(videos), "--out", str(out), "--actors", "1"],
        capture_output=True, text=True, env={**{k: v for k, v in os.environ.items() if k not in ray}, **env},
    )  # fmt: skip


def test_a_folder_that_cannot_be_written_to_is_one_sentence(cases, tmp_path):
    for number, out in enumerate((Path("/proc/nowhere"), tmp_path / "file" / "below")):
        (tmp_path / "file").touch()
        (tmp_path / str(number)).mkdir()
        ended = extract(cases, tmp_path / str(number), out)
        assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
        assert "cannot be written to" in ended.stderr.splitlines()[-1]


def test_a_full_disk_is_one_sentence(cases, tmp_path):
    with small_disk(tmp_path / "disk", "8k") as out:
        ended = extract(cases, tmp_path, out)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    assert "none of the 1 videos could be observed" in ended.stderr.splitlines()[-1]
    assert "no space left on device" in ended.stderr.lower()


def test_a_home_that_cannot_be_written_to_is_no_trouble(cases, tmp_path):
    cache = {} if (named := os.environ.get("POSE_DEPTH_REFINER_CACHE")) is None else {"POSE_DEPTH_REFINER_CACHE": named}
    cache = cache or {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
    ended = extract(cases, tmp_path, tmp_path / "out", HOME="/proc", **cache)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["frames"] == 30
