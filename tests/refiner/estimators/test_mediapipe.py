"""The pose model is found, made and checked; its landmarks are stock MediaPipe's to the last bit."""

import ctypes
import http.server
import itertools
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from refiner import UserError
from refiner.data import video
from refiner.data.video import Frame
from refiner.estimators import mediapipe_assets
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """The bundle as it is assembled where no download is reachable."""
    path = tmp_path_factory.mktemp("model") / "pruned.task"
    path.write_bytes(mediapipe_assets.assembled())
    return path


def operators(bundle) -> int:
    from mediapipe.tasks.metadata import schema_py_generated as schema

    with zipfile.ZipFile(bundle) as content:
        assert all(i.compress_type == zipfile.ZIP_STORED for i in content.infolist())
        model = schema.ModelT.InitFromPackedBuf(content.read("pose_landmarks_detector.tflite"), 0)
    return len(model.subgraphs[0].operators)


@pytest.mark.slow
def test_landmarks_are_stock_mediapipes_to_the_last_bit(assembled, real_people, tmp_path):
    stock = tmp_path / "stock.task"
    stock.write_bytes(mediapipe_assets.assembled(segmentation=True))
    assert (operators(stock), operators(assembled)) == (332, 286)
    for name in ("cam01", "cam03"):  # 1080 and 1088 pixels wide
        frames = list(itertools.islice(video.frames(real_people / f"{name}.mp4"), 20))
        seen = []
        for model in (stock, assembled):
            with PoseEstimator(model) as pose:
                seen.append([pose.estimate(frame) for frame in frames])
        for expected, got in zip(*seen, strict=True):
            for part in ("world", "image", "visibility", "presence"):
                assert np.array_equal(getattr(expected, part), getattr(got, part))


def test_an_observation_is_metres_and_pixels_about_the_hips(assembled, real_people):
    with PoseEstimator(assembled) as pose:
        frame = next(video.frames(real_people / "cam01.mp4"))
        seen = pose.estimate(frame)
    assert seen.world.shape == (33, 3) and seen.world.dtype == np.float32
    assert np.abs(seen.world[23:25].mean(0)).max() < 0.05 and 1.2 < np.ptp(seen.world[:, 1]) < 2.2
    assert ((seen.image > 0) & (seen.image < (1080, 1920))).all()
    assert seen.visibility.min() >= 0 and seen.presence.max() <= 1


def test_nobody_in_view_is_none_and_padded_rows_are_refused(assembled):
    grey = np.full((96, 128, 3), 128, dtype=np.uint8)
    with PoseEstimator(assembled) as pose:
        assert pose.estimate(Frame(0, 0, grey)) is None
        assert pose.estimate(Frame(1, 1, grey)) is None  # within the same millisecond
        with pytest.raises(ValueError, match="padded"):
            pose.estimate(Frame(2, 40_000, grey[:, :100]))


def test_a_second_call_takes_the_cache_and_two_at_once_make_the_same(tmp_path, assembled):
    code = (
        "import sys; from refiner.estimators.mediapipe_assets import model_path; print(model_path(cache=sys.argv[1]))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    paths = {process.communicate()[0].strip() for process in both}
    assert len(paths) == 1 and [str(p) for p in tmp_path.iterdir()] == list(paths)
    (tmp_path / "marker").write_bytes(b"")
    path = tmp_path / paths.pop()
    path.write_bytes(b"what the cache holds")
    assert model_path(cache=tmp_path) == path and path.read_bytes() == b"what the cache holds"


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(mediapipe_assets, "_OFFICIAL_URL", "http://127.0.0.1:9/{model}.task")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CACHE_DIR", "")


def test_without_a_network_the_error_says_what_was_tried_and_what_to_do(tmp_path, no_network):
    with pytest.raises(UserError) as caught:
        model_path(cache=tmp_path)
    for part in ("127.0.0.1:9/full.task cannot be reached", "pip download mediapipe==0.10.21' failed", "--model"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match="no pose model 'heavy'") as caught:  # no wheel carries that one
        model_path("heavy", cache=tmp_path)
    assert "pip" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_download_that_is_not_the_official_file_is_not_believed(tmp_path, no_network, monkeypatch):
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>log in to this network first</html>")

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(mediapipe_assets, "_OFFICIAL_URL", f"http://127.0.0.1:{server.server_port}/{{model}}.task")
    try:
        with pytest.raises(UserError, match="is not the official file"):
            model_path("lite", cache=tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_is_taken_as_it_is_and_a_wrong_one_is_named(tmp_path, assembled):
    assert model_path(str(assembled)) == assembled
    with pytest.raises(UserError, match="give lite, full, heavy or the path"):
        model_path(str(tmp_path / "nowhere.task"))
    text = tmp_path / "text.task"
    text.write_text("no model")
    with pytest.raises(UserError, match=r"text\.task is not a pose landmarker"):
        PoseEstimator(text)


def test_a_missing_system_library_is_named_with_its_package(assembled, monkeypatch):
    load = ctypes.CDLL

    def without_gles(name, *args, **kwargs):
        if name == "libGLESv2.so.2":
            raise OSError
        return load(name, *args, **kwargs)

    monkeypatch.setattr(ctypes, "CDLL", without_gles)
    with pytest.raises(UserError, match=r"libGLESv2\.so\.2.*apt-get install libgles2"):
        PoseEstimator(assembled)
