"""What goes wrong around `refiner video`: interruptions, files in the making, folders that refuse, sound alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from refiner.data import records, video
from tests.disks import small_disk
from tests.processes import heed_interrupts
from tests.refiner.cli.test_video import called, refiner
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """a.mp4, b.mp4, c.mp4: a rendered dancer, half a second each."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clips")
    (take, *_) = plan(Spec(sequences=1, seconds=0.5, fps=20, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    content = take.video(root, "c01").read_bytes()
    folder = root / "all"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.mp4").write_bytes(content)
    return folder


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done_and_resume_goes_on(clips, tmp_path_factory, tmp_path):
    names, many = "abcdefgh", tmp_path_factory.mktemp("many")  # more than are done by the time of the interrupt
    for name in names:
        shutil.copy(clips / "a.mp4", many / f"{name}.mp4")
    command = [
        sys.executable,
        "-m",
        "refiner.cli",
        "video",
        str(many),
        "--to",
        "bvh",
        "--overlay",
        "--out",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    wait_for(lambda: (tmp_path / "a.refined.parquet").exists())
    os.killpg(running.pid, signal.SIGINT)  # as a terminal's Ctrl-C does: to the child, too
    _, said = running.communicate()
    assert running.returncode == 130 and "--resume" in said and "Traceback" not in said
    done = {path.name for path in tmp_path.iterdir()}
    assert {"a.refined.parquet", "a.bvh", "a.overlay.mp4"} <= done and not [n for n in done if n.startswith(".")]
    assert all(f"{name}.bvh" in done for name in names if f"{name}.refined.parquet" in done)
    before = (tmp_path / "a.bvh").stat().st_mtime_ns
    resumed = refiner("video", many, "--to", "bvh", "--overlay", "--out", tmp_path, "--resume", "--json")
    outcomes = [json.loads(line) for line in resumed.stdout.splitlines()]
    assert resumed.returncode == 0 and len(outcomes) == len(names) and outcomes[0]["skipped"]
    assert (tmp_path / "a.bvh").stat().st_mtime_ns == before
    assert {f"{name}.refined.parquet" for name in names} <= {path.name for path in tmp_path.iterdir()}


def test_a_video_that_is_still_being_copied_is_one_sentence_and_the_next_goes_on(clips, tmp_path):
    whole = (clips / "a.mp4").read_bytes()
    (tmp_path / "begun.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "whole.mp4").write_bytes(whole)
    done = called("video", tmp_path, "--json")
    begun, good = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1 and begun["report"] is None and good["report"]["with_person"] == 10
    assert "still being written" in begun["error"] or "cut off" in begun["error"]


def test_a_video_that_grows_while_it_is_read_is_refused(clips, tmp_path):
    """A transport stream can be read at any time: what has arrived so far is not a complete video."""
    path = tmp_path / "live.ts"
    with av.open(str(path), "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=Fraction(20))
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number, frame in enumerate(video.frames(clips / "a.mp4")):
            picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 20)
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    content, stop = path.read_bytes(), threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.wait(0.02):
                file.write(content[:188])
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        done = called("video", path, "--json")
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 1 and "is still being written" in json.loads(done.stdout)["error"]
    assert [p.name for p in tmp_path.iterdir()] == ["live.ts"]


def test_a_folder_that_cannot_be_written_to_is_one_sentence(clips, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        done = called("video", clips / "a.mp4", "--out", out, "--json")
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 1 and "cannot be written to" in error and "another --out" in error, error


def test_a_full_disk_is_one_sentence_and_leaves_nothing(clips, tmp_path):
    with small_disk(tmp_path / "disk", "20k") as out:
        done = called("video", clips / "a.mp4", "--out", out, "--overlay", "--json")
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 1 and "no space left on device" in error and error.endswith("make room"), error
        assert list(out.iterdir()) == []


def test_sound_without_pictures_is_one_sentence(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=44_100)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44_100
        for number in range(20):
            frame.pts = 1024 * number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    done = called("video", tmp_path / "song.mp4", "--json")
    assert done.returncode == 1 and "has no pictures (it holds audio)" in json.loads(done.stdout)["error"]


def tagged(source: Path, path: Path, **metadata: str) -> Path:
    """The same video with something said in its metadata."""
    with av.open(str(source)) as video, av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as output:
        output.metadata.update(metadata)
        stream = video.streams.video[0]
        target = output.add_stream_from_template(stream)
        for packet in video.demux(stream):
            if packet.dts is not None:
                packet.stream = target
                output.mux(packet)
    return path


IPHONE = "com.apple.quicktime.camera.focal_length.35mm_equivalent"


@pytest.mark.parametrize(
    ("key", "value", "fov"),
    [
        (IPHONE, "26", 69.4),
        ("FocalLengthIn35mmFilm", "50/2", 71.5),
        ("focal_length", "26", None),
        (IPHONE, "none", None),
    ],
)
def test_the_lens_is_what_the_file_says(key, value, fov, clips, tmp_path):
    path = tagged(clips / "a.mp4", tmp_path / "phone.mov", **{key: value})
    assert video.probe(path).fov == (None if fov is None else pytest.approx(fov, abs=0.1))


@pytest.mark.slow
def test_a_result_says_which_lens_was_taken(clips, tmp_path):
    path = tagged(clips / "a.mp4", tmp_path / "phone.mov", **{IPHONE: "18"})
    for fov, more in ((90, ()), (50, ("--fov", 50))):
        out = tmp_path / str(fov)
        done = called("video", path, "--out", out, "--json", *more)
        notes = json.loads(done.stdout)["report"]["notes"]
        assert any("the lens sees 90°" in note for note in notes) == (fov == 90)
        assert json.loads(records.read_metadata(out / "phone.refined.parquet")["fov"]) == pytest.approx(fov, abs=0.1)


def test_two_videos_of_one_name_do_not_share_a_file(clips, tmp_path):
    """Neither in one run nor by --resume in another."""
    from refiner.cli.video import Options, _made_before, _settings, result_of

    shutil.copy(clips / "a.mp4", tmp_path / "joey.mp4")
    (tmp_path / "joey.avi").write_bytes(b"")
    done = called("video", tmp_path, "--out", tmp_path / "out", "--json")
    avi, mp4 = (json.loads(line) for line in done.stdout.splitlines())
    assert "is empty" in avi["error"] and "would become the same files as" in mp4["error"] and done.returncode == 1
    assert called("video", tmp_path / "joey.mp4", "--json").returncode == 0
    options = Options(videos=("x",))
    result = result_of(tmp_path / "joey.mp4", options)
    assert _made_before(result, tmp_path / "joey.mp4", _settings(options)) == [result]
    assert _made_before(result, tmp_path / "joey.avi", _settings(options)) == []


def test_what_it_wrote_is_no_video_to_refine(tmp_path):
    from refiner.cli.video import find

    for name in ("a.mp4", "a.overlay.mp4", ".hidden.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    for named in (str(tmp_path), str(tmp_path / "*.mp4")):
        assert [p.name for p in find((named,))] == ["a.mp4"]
    assert find((str(tmp_path / "a.overlay.mp4"),))  # who names it means it


NAMES = {
    "long": "long" * 62 + "x.mp4",
    "three bytes a letter": "長" * 83 + ".mp4",
    "not UTF-8": b"clip\xff.mp4",
    "for a shell": "a b'c\"$(d).mp4",
    "an option": "-a.mp4",
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_of_any_kind_becomes_files(clips, tmp_path, kind):
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(NAMES[kind]))))
    shutil.copy(clips / "a.mp4", path)
    done = called("video", path, "--to", "bvh", "csv", "--overlay", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert len(names) == 4 and len({name.split(".")[0] for name in names}) == 1
    assert json.loads(records.read_metadata(tmp_path / "out" / next(n for n in names if "refined" in n))["fps"])
