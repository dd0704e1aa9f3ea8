"""Videos, observations and refined poses in an object store: moto's S3 server, spoken to over HTTP as any other."""

import dataclasses
import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import refiner
from rayjobs import download, extract, pair, refine
from rayjobs.storage import list_videos
from refiner import UserError, files
from refiner.data import records, video

pytestmark = pytest.mark.cluster


def upload(path: Path, where: str) -> None:
    with files.written_whole(where) as part:
        part.write_bytes(path.read_bytes())


def test_from_videos_to_refined_poses_without_a_local_file(
    store, server, studio_dataset, studio_observations, tmp_path, monkeypatch
):
    local, far = tmp_path / "local", files.join(store, "observations")
    local.mkdir()
    some = [
        sorted(studio_dataset.videos.glob(f"{sequence.replace('cAll', '*')}.mp4"))[i]
        for i, sequence in enumerate(studio_dataset.sequences)
    ]
    for path in some:
        upload(path, files.join(store, "videos", "by day", path.name))
        (local / f"{path.stem}.parquet").symlink_to(studio_observations / f"{path.stem}.parquet")
    broken = files.join(store, "videos", "broken.mp4")
    files.write_text(broken, "no video")

    # extraction: the same rows as from local files, what is broken set aside, nothing done twice
    options = extract.Options(videos=files.join(store, "videos"), out=far, actors=2)
    assert (expected := extract.run(extract.Options(videos=options.videos, out=far, dry_run=True))).videos == 5
    assert expected.frames > 0
    first = extract.run(options)
    assert (first.videos, first.extracted, first.failed, first.frames) == (5, 4, 1, 4 * 12)
    for path in some:
        there, here = (
            records.read_table(files.join(folder, f"{path.stem}.parquet"), records.OBSERVATIONS)
            for folder in (far, studio_observations)
        )
        assert there.equals(here)
    again = extract.run(options)
    assert (again.done_before, again.failed_before, again.extracted) == (4, 1, 0)
    upload(some[0], broken)
    retried = extract.run(extract.Options(videos=options.videos, out=far, retry_failed=True))
    assert (retried.done_before, retried.extracted) == (4, 1)
    assert not files.find(files.join(far, extract.FAILURES), {".json"})
    files.delete(files.join(far, "broken.parquet"))

    # pairs: the same as from local files
    def pairs_of(observations: str) -> str:
        return pair.run(
            pair.Options(observations=observations, dataset=str(studio_dataset.root), out=str(tmp_path / "pairs"))
        ).fingerprint

    assert pairs_of(far) == pairs_of(str(local))

    # refined poses
    refined = refine.Options(
        observations=far, out=files.join(store, "refined"), model=str(Path(refiner.__file__).parent / "weights/studio")
    )
    assert (one := refine.run(refined)).refined == 4 and not one.failures
    assert refine.run(refined).done_before == 4
    poses = files.find(refined.out, {".parquet"})
    assert sum(len(records.read_table(p.where, records.REFINED)) for p in poses) == one.poses > 0


def test_videos_are_downloaded_into_a_store(store, studio_dataset, tmp_path):
    """From a web server that lacks one of them at first."""
    some = sorted(studio_dataset.videos.glob("*_c01_*.mp4"))[:2]
    published = tmp_path / "published"
    published.mkdir()
    (published / "video_list.txt").write_text("\n".join(path.stem for path in some))
    (published / some[0].name).write_bytes(some[0].read_bytes())
    handler = functools.partial(SimpleHTTPRequestHandler, directory=published)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_port}"
        options = download.Options(
            out=f"{store}/downloaded", parts_folder=str(tmp_path / "parts"), videos=True, i_accept_the_aist_terms=True,
            video_url=url, video_list_url=f"{url}/video_list.txt",
        )  # fmt: skip
        first = download.run(options)
        assert (first.fetched, list(first.missing)) == (1, [some[1].name])
        (published / some[1].name).write_bytes(some[1].read_bytes())
        second = download.run(dataclasses.replace(options, i_accept_the_aist_terms=False))  # noted in the store
        assert (second.there_before, second.fetched, second.missing) == (1, 1, {})
        web.shutdown()
    listed = list_videos(f"{store}/downloaded/videos")
    assert [(v.name, v.size) for v in listed] == [(path.stem, path.stat().st_size) for path in some]
    with files.fetched(listed[1].where) as path:
        assert path.read_bytes() == some[1].read_bytes()
    with files.opened(listed[1].where) as file:
        assert video.probe(listed[1].where, file) == video.probe(some[1])


def test_a_store_is_listed_by_folder_glob_and_name(store, server, tmp_path, monkeypatch):
    for name in ("clips/a_c01.mp4", "clips/a_c02.mp4", "clips/below/b 1_c01.MP4", "clips/notes.txt"):
        files.write_text(f"{store}/{name.replace(' ', '%20')}", "x" * 10)
    assert [(v.name, v.size) for v in list_videos(f"{store}/clips")] == [("a_c01", 10), ("a_c02", 10), ("b 1_c01", 10)]
    assert [v.name for v in list_videos(f"{store}/clips/*_c01.mp4")] == ["a_c01"]
    assert [v.name for v in list_videos(f"{store}/clips/a_c02.mp4")] == ["a_c02"]
    with pytest.raises(UserError, match="no videos found in s3://archive/nothing"):
        list_videos(f"{store}/nothing")
    with pytest.raises(UserError, match="no videos found in s3://another/clips"):
        list_videos("s3://another/clips")
    with pytest.raises(UserError, match=r"s3://archive/clips\?.* cannot be read .*connect"):
        list_videos(f"{store}/clips?endpoint_override=127.0.0.1:1&scheme=http")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    there = f"?endpoint_override={server.replace('://', '%3A%2F%2F').replace(':', '%3A')}"
    (named,) = list_videos(f"{store}/clips/below{there}")
    assert named.where == f"{store}/clips/below/b%201_c01.MP4{there}"
    with files.fetched(named.where) as path:
        assert path.name == "b 1_c01.MP4" and path.read_text() == "x" * 10
    assert not path.exists()
