"""A short run of the fuzzer: ten minutes of it are `python -m benchmarks.fuzz`."""

import pytest

from benchmarks import fuzz


@pytest.mark.timeout(900)
def test_no_bytes_stamps_or_words_end_a_run_or_change_the_number_of_frames(tmp_path):
    summary = fuzz.run(fuzz.Options(seconds=1, keep=tmp_path))
    assert set(summary.examples) == {"header", "display", "stamps", "clock", "bvh"}
    assert min(summary.examples.values()) >= fuzz.ROUND
    assert summary.outcomes["whole"] and summary.outcomes["refused"]


def test_a_video_of_which_a_frame_is_lost_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    fuzz._sample(path, "libx264")
    assert fuzz._read(path) == ("whole", "")
    whole = fuzz.video.frames
    monkeypatch.setattr(fuzz.video, "frames", lambda *args, **options: list(whole(*args, **options))[:-1])
    assert "11 frames, FFmpeg decodes 12" in fuzz._read(path)[1]
