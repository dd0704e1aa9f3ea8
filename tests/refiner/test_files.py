"""Paths and URIs lead to the same files, and what is written is there whole or not at all."""

import pytest

from refiner import UserError, files


@pytest.fixture(params=["path", "file", "memory"])
def folder(request, tmp_path):
    if request.param == "memory":
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").store.clear()
        return f"memory://{tmp_path.name}"
    return str(tmp_path / "a") if request.param == "path" else (tmp_path / "a").as_uri()


def test_what_is_written_is_found_read_and_deleted(folder):
    assert files.find(folder, {".txt"}) == []
    local = not folder.startswith("memory")
    one, two = files.join(folder, "one 50%.txt"), files.join(folder, "below", "Two.TXT")
    for where in (one, two):
        files.write_text(where, where)
    files.write_text(files.join(folder, "other.json"), "{}")
    listed = files.find(folder, {".txt"})
    assert [(f.size, f.name) for f in listed] == [(len(one), "one 50%")]
    assert {f.name for f in files.find(folder, {".txt"}, below=True)} == {"one 50%", "Two"}
    for where in (one, listed[0].where):
        with files.fetched(where) as path:
            assert path.name == "one 50%.txt" and path.read_text() == one
        assert path.exists() == local  # a copy is gone, the file itself is not
    files.delete(one)
    files.delete(one)
    assert files.find(folder, {".txt"}) == []


def test_a_writer_that_fails_leaves_what_was_there(folder):
    where = files.join(folder, "a.txt")
    files.write_text(where, "old")
    with pytest.raises(ZeroDivisionError), files.written_whole(where) as part:
        part.write_text("half of the n")
        raise ZeroDivisionError
    with files.fetched(where) as local:
        assert local.read_text() == "old"
    assert [f.name for f in files.find(folder, {".txt", ".part"}, below=True)] == ["a"]


def test_the_query_of_a_uri_stays_at_its_end():
    assert files.join("s3://bucket/a?region=eu", "b c", "d.txt") == "s3://bucket/a/b%20c/d.txt?region=eu"
    assert files.join("s3://bucket", "d.txt") == "s3://bucket/d.txt"
    assert files.stem("s3://bucket/a/b%20c.mp4?region=eu") == "b c"


def test_where_only_a_local_folder_will_do_a_uri_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.local_folder("a", "--out") == tmp_path / "a"
    with pytest.raises(UserError, match=r"--out s3://bucket/a is a URI"):
        files.local_folder("s3://bucket/a", "--out")


def test_a_scheme_that_nobody_knows_is_named():
    with pytest.raises(UserError, match=r"nowhere://x is not a place for files"):
        files.find("nowhere://x", {".txt"})
