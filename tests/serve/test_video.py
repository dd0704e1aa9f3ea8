"""Videos over HTTP: real MediaPipe in its own deployment, the refiner in its own."""

import httpx
import numpy as np
import pytest

from refiner import DepthRefiner
from refiner.data import records
from refiner.data.video import VideoWriter, frames
from refiner.estimators import observe
from refiner.estimators.mediapipe_assets import model_path
from refiner.skeleton import to_coco
from serve import codec

pytestmark = pytest.mark.cluster
HEADERS = {"Content-Type": "video/mp4"}


@pytest.fixture(scope="module")
def clip(real_people, tmp_path_factory):
    """Two dozen frames of a real person."""
    source = sorted(real_people.glob("*.mp4"))[0]
    pictures = [frame.rgb for frame, _ in zip(frames(source), range(24), strict=False)]
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, (pictures[0].shape[1] // 2 * 2, pictures[0].shape[0] // 2 * 2), 25) as writer:
        for picture in pictures:
            height, width = picture.shape[:2]
            writer.write(np.ascontiguousarray(picture[: height // 2 * 2, : width // 2 * 2]))
    return path


@pytest.mark.timeout(600)
def test_a_video_comes_back_as_the_poses_that_the_library_finds_in_it(endpoint, clip, tmp_path):
    answer = httpx.post(f"{endpoint}/v1/refine/video", content=clip.read_bytes(), headers=HEADERS, timeout=300)
    assert answer.status_code == 200, answer.text
    found = answer.json()

    out = tmp_path / "observations.parquet"
    observe.observe(video=str(clip), out=str(out), model=str(model_path()))
    data = records.read_table(out, records.OBSERVATIONS)
    seen = records.column(data, "detected").astype(bool)
    assert seen.sum() >= 20
    refiner = DepthRefiner("models:/pose-depth-refiner@champion", device="cpu")
    expected = refiner.predict(
        to_coco(records.column(data, "world")[seen]),
        to_coco(records.column(data, "visibility")[seen][..., None])[..., 0],
        sequence=True,
        fps=25,
    )
    assert found["frame"] == records.column(data, "frame")[seen].tolist()
    assert found["timestamp_us"] == records.column(data, "timestamp_us")[seen].tolist()
    np.testing.assert_allclose(found["refined"], expected.poses, atol=1e-4)
    assert found["model"]["version"] == refiner.version == answer.headers["x-model-version"]

    arrow = httpx.post(
        f"{endpoint}/v1/refine/video",
        content=clip.read_bytes(),
        headers={**HEADERS, "Accept": codec.ARROW},
        timeout=300,
    )
    np.testing.assert_allclose(codec.ArrowCodec().decode_response(arrow.content).poses, expected.poses, atol=1e-4)

    for body, says in ((b"no video at all" * 100, "upload"), (clip.read_bytes()[:3000], "upload"), (b"", "upload")):
        refused = httpx.post(f"{endpoint}/v1/refine/video", content=body, headers=HEADERS, timeout=300)
        assert refused.status_code == 422, refused.text
        assert says in refused.json()["detail"] and "/tmp" not in refused.json()["detail"]
    huge = httpx.post(
        f"{endpoint}/v1/refine/video", content=iter([bytes(1_000_000)] * 101), headers=HEADERS, timeout=60
    )
    assert huge.status_code == 413
