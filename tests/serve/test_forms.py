"""Videos in forms, as browsers and curl send them, and as strangers do."""

import contextlib
import os

import httpx
import pytest

from refiner import UserError
from serve import bodies
from serve.bodies import Body, video_in


def test_a_video_in_a_form_is_the_video():
    video = os.urandom(300_000) + b"\r\n--not the boundary\r\n"
    form = httpx.Request("POST", "http://x", data={"note": "mine"}, files={"video": ("clip.mp4", video, "video/mp4")})
    body = Body.of(form.read())
    assert b"".join(video_in(body, form.headers["content-type"])) == video
    assert b"".join(video_in(Body.of(video), "video/mp4")) == video
    two = httpx.Request("POST", "http://x", files=[("a", ("a.mp4", video)), ("b", ("b.mp4", b"another"))])
    assert b"".join(video_in(Body.of(two.read()), two.headers["content-type"])) == video


def test_a_form_whose_end_did_not_come_is_no_video():
    form = httpx.Request("POST", "http://x", files={"video": ("clip.mp4", os.urandom(300_000), "video/mp4")})
    content, kind = form.read(), form.headers["content-type"]
    whole = len(content) - len("--\r\n")  # behind the last boundary
    for length in (0, 10, 200, 1_000, whole - 33, whole - 1):
        with pytest.raises(UserError, match=r"not complete|has no file"):
            list(video_in(Body.of(content[:length]), kind))


@pytest.mark.parametrize(
    "part",
    [b"\r\n", b'Content-Disposition: form-data; name="a"\r\n\r\n', b"Content-Disposition: x; filename=a\r\n\r\n"],
)
def test_of_a_form_of_a_million_parts_only_the_first_are_looked_at(part, monkeypatch):
    looked_at = []
    monkeypatch.setattr(bodies.MultipartParser, "callback", counted(bodies.MultipartParser.callback, looked_at))
    content = (b"--X\r\n" + part + b"\r\n") * 1_000_000
    with contextlib.suppress(UserError):
        assert not any(video_in(Body.of(content), "multipart/form-data; boundary=X"))
    assert 0 < len(looked_at) < 10 * bodies.MOST_PARTS


def counted(function, calls):
    """The same function; it notes its calls."""

    def noted(*arguments, **options):
        calls.append(function)
        return function(*arguments, **options)

    return noted
