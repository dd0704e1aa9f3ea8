"""The page at `/` as people meet it: its files over HTTP, its logic in Node, and all of it in a real Chromium.

What needs Node, Chromium or npm's packages (`make page`) is left out where they are missing.
"""

import gzip
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from cluster.running import CHECKOUT
from refiner import skeleton
from refiner.data import video
from refiner.formats import FORMATS
from serve import pages, refined_models
from serve.live import standing_poses
from tests.serve.chromium import (
    BUDGET_BYTES,
    CLIP,
    LOOKS,
    NO_WEBGL,
    PATIENCE_MS,
    at_rate,
    figure,
    first_screen_bytes,
    fits_everybody,
    opened,
    person,
    running,
)  # fmt: skip
from tests.serve.streams import serving
from tests.waiting import PATIENCE_S, wait_for

PAGE = CHECKOUT / "serve/page"
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def address(make_replica) -> Iterator[str]:
    """Of the replica's application behind a real server."""
    with serving(make_replica)() as (host, _):
        yield f"http://{host}"


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def http(address) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
        yield client


def test_the_page_may_speak_to_its_own_origin_only(http):
    for path in ("/", "/page/style.css", "/page/js/main.js"):
        answer = http.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "connect-src 'self'" in policy and "default-src 'none'" in policy
        assert "http" not in policy and "unsafe-inline" not in policy and "'unsafe-eval'" not in policy


def test_who_has_a_file_already_gets_no_second_copy(tmp_path, monkeypatch):
    model, api = tmp_path / "refined.task", FastAPI()
    model.write_bytes(b"a model")
    monkeypatch.setattr(pages, "VENDOR", tmp_path)

    async def made() -> Path:
        return model

    pages.add_page(api, made)
    client = TestClient(api)
    for path in ("/", "/page/style.css", "/v1/refined.task"):
        first = client.get(path)
        known = {"if-none-match": first.headers["etag"]}
        again = client.get(path, headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert client.get(path, headers={"if-none-match": '"another"'}).content == first.content
    model.write_bytes(b"a newer model")
    assert client.get("/v1/refined.task", headers=known).content == b"a newer model"


@pytest.mark.parametrize("accepted", ["gzip", "br, GZIP;q=0.5", "identity", "gzip;q=0", "gzip; q=0.0, br", "xgzip", ""])
def test_files_come_packed_to_who_takes_that_and_names_that_cannot_be_are_not_found(tmp_path, accepted):
    text = b"let packed = true;" * 100
    (tmp_path / "js").mkdir()
    (tmp_path / "js/a.js").write_bytes(text)
    (tmp_path / "js/a.js.gz").write_bytes(gzip.compress(text))
    (tmp_path / "js/b.js").write_bytes(text)
    client = TestClient(Starlette(routes=[Mount("/page", pages.Files(tmp_path, {}))]), raise_server_exceptions=True)
    headers = {"accept-encoding": accepted}
    packed = accepted in ("gzip", "br, GZIP;q=0.5")
    for name, lies_packed in (("a", packed), ("b", False)):
        answer = client.get(f"/page/js/{name}.js", headers=headers)
        assert answer.content == text and ("content-encoding" in answer.headers) == lies_packed
        assert answer.headers["content-type"].startswith("text/javascript")
    for name in ("a" * 300, "a/" * 3000, "a%00", "%ff", "a.js/a", "../a", "..%2fa"):
        assert client.get(f"/page/js/{name}.js", headers=headers).status_code == 404


def test_nothing_else_of_the_package_is_handed_out(http):
    for path in ("/page/../pages.py", "/page/%2e%2e/pages.py", "/page/js/../../app.py", "/page/..%2fapp.py"):
        assert http.get(path).status_code == 404
    for name in ("package.json", "package-lock.json", "README.md", "vendor.mjs"):
        assert (PAGE / name).is_file()
        assert http.get(f"/page/{name}").status_code == 404


def test_why_a_model_is_not_there_is_for_the_log(caplog, tmp_path):
    async def missing() -> Path:
        return refined_models._write(str(tmp_path / "nowhere"), tmp_path / "tasks") or tmp_path

    api = FastAPI()
    pages.add_page(api, missing)
    with caplog.at_level("ERROR", "ray.serve"):
        answer = TestClient(api).get("/v1/refined.task")
    assert answer.status_code == 503 and str(tmp_path) not in answer.text
    assert str(tmp_path) in caplog.text


def test_where_npm_was_not_the_page_says_how_to_get_it(http, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "VENDOR", tmp_path / "missing")
    answer = http.get("/")
    assert answer.status_code == 200 and "make page" in answer.text and "docs" in answer.text


def test_a_motion_is_exported_in_every_format_that_is_offered(http):
    offered = http.get("/v1/formats").json()
    assert offered.keys() <= FORMATS.keys() and {"bvh", "json", "csv", "npz", "trc"} <= offered.keys()
    clip = standing_poses(20)
    points = (clip[..., :2] * 200 + 300).tolist()
    for more in ({}, {"image_points": points, "size": [640, 480], "visibility": np.ones((20, 17)).tolist()}):
        body = {"refined": clip.tolist(), "fps": 25, "name": "me", **more}
        for name in offered:
            answer = http.post("/v1/export", params={"to": name}, json=body)
            assert answer.status_code == 200, answer.text
            content = answer.content
            if name == "bvh":
                assert content.startswith(b"HIERARCHY") and b"Frames: 20" in content
            elif name == "glb":
                assert content[:4] == b"glTF"
            elif name == "json":
                pose = np.array(json.loads(content)["frames"][0]["pose"])
                assert 0 <= pose[:, 1].min() < 0.2 and pose[:, 1].max() > 1.2  # stands on the floor, y up
            elif name == "npz":
                assert "poses.npy" in zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_confidences_of_all_landmarks_are_those_of_the_joints(http):
    body = {"refined": standing_poses(2).tolist(), "confidence": [[i / 33 for i in range(33)]] * 2}
    for to in ("csv", "json"):
        assert http.post("/v1/export", params={"to": to}, json=body).status_code == 200
    frame = http.post("/v1/export", params={"to": "json"}, json=body).json()["frames"][0]
    assert len(frame["confidence"]) == 17


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"refined": []}, "refined"), ({"refined": [[[0, 0]]]}, "shape"), ({"refined": None}, "refined"),
        ({"confidence": [[1]]}, "confidence"), ({"timestamp_us": [1, 1]}, "timestamp_us"), ({"what": 1}, "what"),
        ({"image_points": [[[0, 0]] * 5] * 2, "size": [640, 480]}, "image_points"),
        ({"fps": 0}, "fps is 0"), ({"fps": 1e-300}, "from 0.001 to 1000"), ({"fps": "x"}, "fps is 'x'"),
        ({"to": "fbx"}, "fbx"), ({"refined": [[[1e9] * 3] * 17] * 2}, "metres"),
        *(({"size": [640, 480], "image_points": [[[p, p]] * 17] * 2}, "between 0 and 1") for p in (0, 0.3)),
        *(({"refined": (standing_poses(2) * [0, 1, 0]).tolist(), "to": to}, "no form") for to in ("bvh", "glb")),
        # frames at even times would bridge the gap, terabytes of them
        *(({"to": to, "timestamp_us": [0, gap]}, "timestamp_us" if gap > 10**13 else "20,000 frames")
          for to in ("bvh", "trc", "csv") for gap in (10**9, 10**12, 2**62, 2**63, 10**40)),
        *(({"size": size, "image_points": [[[p, p]] * 17] * 2}, "size" if size[0] < 1 or size[0] > 1e6 else "image_points")
          for size in ([0, 0], [-5, 3], [10**40, 3], [640, 480]) for p in (1e30, -1e7)),
    ],
)  # fmt: skip
def test_an_export_that_makes_no_sense_is_one_sentence(http, change, says):
    body = {"refined": standing_poses(2).tolist(), **change}
    answer = http.post("/v1/export", params={"to": body.pop("to", "json")}, json=body)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_the_clip_is_small_and_whole():
    content = json.loads((PAGE / "clip/clip.json").read_text())
    count = sum(1 for _ in video.frames(CLIP))
    assert {len(content[key]) for key in ("poses", "visibility", "image_points", "truth")} == {count}
    assert sum(path.stat().st_size for path in (PAGE / "clip").iterdir()) < 300_000


# --- in Node ----------------------------------------------------------------------------------------------------------


needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


@needs_node
def test_the_pages_logic_in_node():
    command = [NODE, "--test", "tests/serve/page/logic.test.mjs"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "# tests 0" not in done.stdout


@needs_node
def test_the_pages_skeleton_is_the_librarys():
    code = "import('./serve/page/js/skeleton.js').then((s) => console.log(JSON.stringify({...s})))"
    done = subprocess.run([NODE, "-e", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert tuple(told["JOINTS"]) == skeleton.JOINTS and told["LANDMARKS"] == skeleton.NUM_LANDMARKS
    for name in ("FROM_MEDIAPIPE", "BONES", "DRAWN"):
        assert told[name] == getattr(skeleton, name).tolist()


# --- in Chromium ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    with running(person(tmp_path_factory.mktemp("webcam") / "person.mjpeg")) as chromium:
        yield chromium


@pytest.mark.slow
def test_the_example_plays_at_once_scrubs_and_turns(browser, address):
    with opened(browser, address) as page:
        assert figure(page, "bone-cv", 1) < 0.5 * figure(page, "bone-cv", 0)
        assert figure(page, "jitter", 1) < 0.5 * figure(page, "jitter", 0)
        assert figure(page, "depth-error", 1) < figure(page, "depth-error", 0)
        assert "version" in page.locator("#model").inner_text()
        page.locator("#play[aria-label=Pause]").wait_for()  # it plays
        line = page.locator("#scrub").bounding_box()
        page.mouse.click(line["x"] + 0.8 * line["width"], line["y"] + line["height"] / 2)
        page.locator("#play[aria-label=Play]").wait_for()
        assert 2.2 < float(page.locator("#time").inner_text().rstrip(" s")) < 2.6  # of 2.97 s
        page.locator("#scrub").fill("1.5")
        assert page.locator("#time").inner_text() == "1.50 s"
        page.locator("#scrub").press("ArrowRight")
        page.locator("#time", has_text="1.53 s").wait_for()
        turn = page.locator("#space").get_attribute("data-turn")
        page.locator("#space").press("ArrowLeft")
        page.locator(f"#space:not([data-turn='{turn}'])").wait_for()
        box = page.locator("#space").bounding_box()
        turn = page.locator("#space").get_attribute("data-turn")
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 120)
        page.mouse.up()
        page.locator(f"#space:not([data-turn='{turn}'])").wait_for()
        drawn = page.locator("#chart .line.refined").get_attribute("d")
        page.select_option("#joint", label="right ankle")
        assert page.locator("#chart .line.refined").get_attribute("d") != drawn
        assert "right ankle" in page.locator("#chart").get_attribute("aria-label")


@pytest.mark.slow
def test_files_are_opened_downloaded_and_refused_in_a_sentence(browser, address, tmp_path):
    poses = standing_poses(30)
    (tmp_path / "mine.json").write_text(json.dumps({"poses": poses.tolist(), "fps": 10}))
    (tmp_path / "bad.json").write_text(json.dumps({"poses": [[[1, 2]]]}))
    (tmp_path / "pixels.json").write_text(json.dumps({"poses": (poses * 300).tolist()}))
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    with opened(browser, address) as page:
        page.set_input_files("#file", tmp_path / "mine.json")
        page.locator("#frames", has_text="mine.json: 30 of 30 frames").wait_for()
        assert page.locator("#depth-error").is_hidden()
        for name in page.locator("#downloads button").all_inner_texts():
            with page.expect_download() as waiting:
                page.get_by_role("button", name=f"Download as {name.upper()}").click()
            saved = tmp_path / f"saved.{name.lower()}"
            waiting.value.save_as(saved)
            assert waiting.value.suggested_filename == f"mine.{name.lower()}" and saved.stat().st_size > 1000
        page.set_input_files("#file", tmp_path / "saved.json")  # a result
        page.locator("#frames", has_text="saved.json: 30 of 30 frames").wait_for()
        for name, says in (
            ("bad.json", "17 or 33"),
            ("pixels.json", "metres"),
            ("broken.mp4", "cannot play broken.mp4"),
        ):
            page.set_input_files("#file", tmp_path / name)
            page.locator("#problem", has_text=says).wait_for()
            assert page.locator("#by-server").is_visible() == name.endswith("mp4")
        page.click("#example")
        page.locator("#frames", has_text="Example").wait_for()
        assert page.locator("#problem").is_hidden()


@pytest.mark.slow
def test_the_webcam_is_seen_in_the_browser_and_refined_live(browser, address):
    with opened(browser, address, permissions=["camera"]) as page:
        page.click("#webcam")
        page.locator("#latency", has_text="MediaPipe on the CPU").wait_for()  # this Chromium has no real graphics
        page.locator("#frames", has_text="webcam: ").wait_for()
        wait_for(lambda: page.wait_for_timeout(200) or int(page.locator("#frames").inner_text().split()[1]) > 20)
        assert figure(page, "bone-cv", 1) < figure(page, "bone-cv", 0)
        page.click("#webcam")
        page.locator("#webcam[aria-pressed=false]").wait_for()
        page.locator("#scrub").press("ArrowLeft")  # what was seen stays, and is scrubbed


@pytest.mark.slow
def test_a_video_is_looked_at_in_the_browser(browser, address):
    with opened(browser, address) as page:
        page.set_input_files("#file", CLIP)
        page.locator("#frames", has_text="clip.mp4").wait_for()
        seen = int(page.locator("#frames").inner_text().split()[1])
        assert seen > 80 and figure(page, "bone-cv", 1) < figure(page, "bone-cv", 0)


@pytest.mark.slow
def test_each_picture_is_looked_at_once_at_its_own_time_whatever_came_before(browser, address, tmp_path):
    slow, count = at_rate(tmp_path / "slow.mp4", 20)
    with opened(browser, address) as page:
        page.set_input_files("#file", slow)
        page.locator("#frames", has_text=f"slow.mp4: {count} of {count} frames").wait_for()
        page.locator("#play[aria-label=Pause]").wait_for()
        page.click("#play")
        page.locator("#scrub").fill("1.001")
        page.locator("#scrub").press("ArrowRight")
        page.locator("#time", has_text="1.05 s").wait_for()
        first = figure(page, "jitter", 0)
        shutil.copy(slow, tmp_path / "again.mp4")
        page.set_input_files("#file", tmp_path / "again.mp4")
        page.locator("#frames", has_text=f"again.mp4: {count} of {count} frames").wait_for()
        assert figure(page, "jitter", 0) == pytest.approx(first, rel=0.05)


@pytest.mark.slow
def test_a_camera_that_may_not_be_used_or_is_not_there_is_one_sentence(browser, address):
    with opened(browser, address, permissions=[]) as page:
        for name, says in (("NotAllowedError", "address bar"), ("NotFoundError", "no camera")):
            page.evaluate(
                "name => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('x', name)); }",
                name,
            )
            page.click("#webcam")
            page.locator("#problem", has_text=says).wait_for()
            assert page.locator("#webcam").get_attribute("aria-pressed") == "false"


@pytest.mark.slow
def test_without_webgl_all_but_the_view_in_space_works(address, browser):
    context = browser.new_context()
    context.add_init_script(NO_WEBGL)
    page = context.new_page()
    page.goto(address)
    page.locator("#bone-cv td:last-child", has_text="%").wait_for(timeout=PATIENCE_MS)
    assert "WebGL" in page.locator("#no-space").inner_text()
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(browser, address, look):
    with opened(browser, address, **LOOKS[look]) as page:
        fits_everybody(page)


@pytest.mark.slow
def test_the_first_screen_keeps_its_budget(browser, address):
    assert 300_000 < first_screen_bytes(browser, address) < BUDGET_BYTES


@pytest.mark.slow
def test_with_a_token_the_page_asks_for_it(browser, make_replica, tmp_path):
    (tmp_path / "tokens").write_text("secret\n")
    with serving(make_replica)(token_file=str(tmp_path / "tokens")) as (host, _):
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://{host}")
        page.locator("#problem", has_text="token").wait_for()
        page.get_by_label("This endpoint wants a token").fill("secret")
        page.get_by_role("button", name="Go on").click()
        page.locator("#bone-cv td:last-child", has_text="%").wait_for()
        context.close()
