"""Downloads from a server that does what networks do: drops connections, asks to wait, lies about lengths, sends rubbish."""

import io
import re
import threading
import zipfile
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rayjobs import download
from rayjobs.fetch import Fetcher, FetchError
from refiner import UserError, files
from refiner.data import aistpp, video

NAMES = [f"gBR_sBM_{camera}_d{dancer:02d}_mBR0_ch0{dancer}" for dancer in (4, 5) for camera in ("c01", "c02", "c03")]


class Server(ThreadingHTTPServer):
    """Serves `files`; `faults[path]` are done to the first requests for it, one each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        with server.lock:
            server.requests[path] += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            fault = server.faults[path].pop(0) if server.faults[path] else ""
        try:
            self.answer(server.files.get(path), fault)
        finally:
            with server.lock:
                server.at_once -= 1

    def answer(self, content, fault):
        if content is None:
            return self.send_error(404)
        if fault in ("429", "503"):
            self.send_response(int(fault))
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and fault != "no ranges":
            start = int(asked[1])
            self.server.ranges.append(asked[0])
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        length = len(body) + (1000 if fault == "too long" else 0)
        if fault == "rubbish":
            body = b"\0" * len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        # a drop: half of what was promised, and the connection is gone
        self.wfile.write(body[: len(body) // 2] if fault == "drop" else body)
        if fault in ("drop", "too long"):
            self.connection.close()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long downloads would have waited: they need not, in a test."""
    waited: list[float] = []
    real = Fetcher.__init__

    def impatient(self, *, attempts=6):
        real(self, attempts=attempts, sleep=waited.append, jitter=lambda: 0.5)

    monkeypatch.setattr(Fetcher, "__init__", impatient)
    return waited


@pytest.fixture
def film(tmp_path) -> bytes:
    path = tmp_path / "film.mp4"
    with video.VideoWriter(path, (128, 96), 60) as writer:
        for i in range(30):
            writer.write(np.full((96, 128, 3), 5 * i, dtype=np.uint8))
    return path.read_bytes()


@pytest.fixture
def published(server, film) -> Server:
    server.files["list.txt"] = "\n".join(NAMES).encode()
    for i, name in enumerate(NAMES):
        server.files[f"{name}.mp4"] = film + bytes(i)  # of its own length each
    return server


def options(server, root, **changes) -> download.Options:
    given = dict(
        videos=True, i_accept_the_aist_terms=True, video_url=server.url, video_list_url=f"{server.url}/list.txt"
    )
    return download.Options(out=str(root), annotations_url=server.url, **given | changes)


def test_nothing_is_fetched_before_the_terms_are_accepted_and_once_is_enough(published, tmp_path, waits):
    root = tmp_path / "data"
    with pytest.raises(UserError, match=r"terms_of_use.*--i-accept-the-aist-terms"):
        download.run(options(published, root, i_accept_the_aist_terms=False))
    assert not published.requests and not root.exists()
    download.run(options(published, root, limit=1))
    assert "accepted" in (root / "terms-accepted.txt").read_text()
    assert download.run(options(published, root, limit=2, i_accept_the_aist_terms=False)).fetched == 1


def test_everything_arrives_byte_for_byte_whatever_happens_on_the_way(published, tmp_path, waits):
    for name, faults in zip(
        NAMES,
        (["drop"] * 5, ["429", "503"], ["too long", "too long"], ["rubbish"], ["drop", "no ranges"], []),
        strict=True,
    ):
        published.faults[f"{name}.mp4"] = faults
    root = tmp_path / "data"
    summary = download.run(options(published, root, connections=2))
    assert (summary.wanted, summary.fetched, summary.missing) == (6, 6, {})
    for name in NAMES:
        assert (root / f"videos/{name}.mp4").read_bytes() == published.files[f"{name}.mp4"]
    assert sorted(p.name for p in (root / "videos").iterdir()) == sorted(f"{n}.mp4" for n in NAMES)
    assert published.ranges  # what was dropped went on where it stopped
    assert published.most_at_once <= 2
    assert waits.count(7 * 1.5) == 2  # as long as the server asked for, and some more
    requests = published.requests.total()
    again = download.run(options(published, root))
    assert (again.there_before, again.fetched) == (6, 0) and published.requests.total() == requests


def test_an_interrupted_run_goes_on_where_it_stopped(published, tmp_path, waits):
    name, root = NAMES[0], tmp_path / "data"
    content = published.files[f"{name}.mp4"]
    (root / "videos").mkdir(parents=True)
    (root / f"videos/{name}.mp4.part").write_bytes(content[:1000])
    summary = download.run(options(published, root, limit=1))
    assert published.ranges == ["bytes=1000-"] and summary.bytes == len(content) - 1000
    assert (root / f"videos/{name}.mp4").read_bytes() == content


def test_what_cannot_be_had_is_missing_with_its_reason_and_the_others_arrive(published, tmp_path, waits):
    del published.files[f"{NAMES[0]}.mp4"]
    published.faults[f"{NAMES[1]}.mp4"] = ["503"] * 100
    published.faults[f"{NAMES[2]}.mp4"] = ["rubbish"] * 100
    summary = download.run(options(published, tmp_path / "data", attempts=4))
    assert summary.fetched == 3 and set(summary.missing) == {f"{name}.mp4" for name in NAMES[:3]}
    reasons = [summary.missing[f"{name}.mp4"] for name in NAMES[:3]]
    assert "HTTP 404" in reasons[0] and "HTTP 503, 4 times" in reasons[1] and "not a complete video" in reasons[2]
    assert [published.requests[f"{name}.mp4"] for name in NAMES[:3]] == [1, 4, 4]
    assert not list((tmp_path / "data/videos").glob("*.part"))


def test_waiting_grows_and_has_an_end(server, tmp_path, waits):
    server.files["a"] = b"content"
    server.faults["a"] = ["rubbish"] * 20

    def never(path):
        raise FetchError("not this")

    with pytest.raises(FetchError, match="not this, 10 times in a row"):
        Fetcher(attempts=10).fetch(f"{server.url}/a", tmp_path / "a", check=never)
    assert waits == [1.5 * min(2.0**i, 120) for i in range(9)]


def test_cameras_sequences_splits_and_a_limit_take_a_part(published, tmp_path, waits):
    root = tmp_path / "data"

    def wanted(**changes) -> list[str]:
        return download.wanted(options(published, root, **changes), str(root), Fetcher())

    assert wanted(cameras=("c02",)) == [n for n in NAMES if "_c02_" in n]
    sequence = aistpp.Name.parse(NAMES[0]).sequence
    assert wanted(sequences=(sequence,)) == NAMES[:3]
    assert wanted(sequences=(sequence,), limit=2) == NAMES[:2]
    (root / "annotations/splits").mkdir(parents=True)
    (root / "annotations/splits/pose_val.txt").write_text(aistpp.Name.parse(NAMES[3]).sequence)
    assert wanted(split="val") == NAMES[3:]
    with pytest.raises(UserError, match="none of the 6 videos"):
        wanted(cameras=("c09",))
    with pytest.raises(UserError, match="there is no c10"):
        options(published, root, cameras=("c10",))


def archive(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "/"), text)
    return content.getvalue()


def test_annotations_are_unpacked_into_the_layout_whatever_folders_the_archive_has(server, tmp_path, waits):
    server.files["cameras.zip"] = archive(**{"final__cameras__mapping.txt": "a setting1", "__MACOSX__._x": "no"})
    server.files["splits.zip"] = archive(**{"pose_train.txt": "a", "..__..__..__escaped.txt": "nowhere else"})
    server.files["keypoints3d.zip"] = archive(**{"keypoints3d__a.pkl": "arrays"})
    server.files["ignore_list.txt"] = b"b"
    server.faults["keypoints3d.zip"] = ["rubbish", "drop"]
    root = tmp_path / "data"
    summary = download.run(options(server, root, videos=False, annotations=True))
    assert (summary.wanted, summary.fetched, summary.missing) == (4, 4, {})
    dataset = aistpp.Dataset(root)
    assert dataset.mapping == {"a": "setting1"} and dataset.split("train") == ("a",) and dataset.ignored == {"b"}
    assert (root / "annotations/keypoints3d/a.pkl").read_text() == "arrays"
    assert not (tmp_path / "escaped.txt").exists() and not list(root.rglob("*.zip*")) and not list(root.rglob("*.part"))
    again = download.run(options(server, root, videos=False, annotations=True))
    assert (again.there_before, again.fetched) == (4, 0)


def test_asking_for_nothing_says_what_can_be_asked_for(tmp_path):
    with pytest.raises(UserError, match="--annotations, --videos or both"):
        download.Options(out=str(tmp_path))


def test_a_store_gets_whole_files_and_what_was_interrupted_goes_on(published, film, tmp_path, waits):
    parts = tmp_path / "parts"

    def fetch(**changes) -> download.Summary:
        return download.run(options(published, "memory://archive/aistpp", parts_folder=str(parts), **changes))

    published.faults[f"{NAMES[0]}.mp4"] = ["drop"] * 2
    first = fetch(attempts=1)
    assert (first.fetched, set(first.missing)) == (5, {f"{NAMES[0]}.mp4"})
    assert 0 < (parts / f"{NAMES[0]}.mp4.part").stat().st_size < len(film)
    second = fetch(i_accept_the_aist_terms=False)  # noted in the store
    assert (second.there_before, second.fetched, second.missing) == (5, 1, {}) and published.ranges
    videos = files.find("memory://archive/aistpp/videos", {".mp4"})
    assert {file.name: file.size for file in videos} == {name: len(film) + i for i, name in enumerate(NAMES)}
    with files.opened(videos[0].where) as file:
        assert file.read() == film
        file.seek(0)
        assert video.probe(videos[0].where, file).frames == 30
    assert not list(parts.glob("*.mp4*"))
    with pytest.raises(UserError, match="annotations are read from a folder of this machine"):
        fetch(annotations=True)
