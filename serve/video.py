"""Videos over HTTP: from an upload on disk to the poses in it. Runs on CPUs, beside the refiner, never in its process.

Uploads are strangers' files and decoders are native code: each is decoded in a child process that may die, and that is
held to a number of frames and seconds.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner import UserError
from refiner.data import records
from refiner.data.video import probe
from refiner.estimators import observe
from refiner.estimators.isolation import ChildError, Isolated
from refiner.estimators.mediapipe_assets import model_path
from refiner.skeleton import to_coco


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What MediaPipe saw, in the frames in which it saw somebody."""

    frame: np.ndarray  # (N,) int32, rising
    timestamp_us: np.ndarray  # (N,) int64
    poses: np.ndarray  # (N, 17, 3) float32 m, virtual camera frame
    visibility: np.ndarray  # (N, 17) float32
    image_points: np.ndarray  # (N, 17, 2) float32 pixels
    fps: float

    def runs(self) -> list[slice]:
        """Stretches of successive frames: across a gap there is no motion to learn from."""
        cuts = np.flatnonzero(np.diff(self.frame) > 1) + 1
        edges = [0, *cuts.tolist(), len(self.frame)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]


class VideoObserver:
    """Videos into clips, one at a time."""

    def __init__(self, model: str | None, *, max_video_s: float, timeout_s: float) -> None:
        """
        Args:
            model: MediaPipe's .task file, or None for the usual one.
            max_video_s: longer videos are refused.
            timeout_s: that one video may take.
        """
        self._model = str(model_path(model or "full"))
        self._max_video_s, self._timeout_s = max_video_s, timeout_s
        self._child = Isolated("serve.video:observe_bounded", stall_s=timeout_s)

    def clip(self, path: Path) -> Clip:
        """
        Raises:
            UserError: it is no video, too long, takes too long, or there is nobody in it.
        """
        out = path.with_suffix(".parquet")
        try:
            found = self._child(
                lambda frames: None,
                video=str(path),
                out=str(out),
                model=self._model,
                max_video_s=self._max_video_s,
                timeout_s=self._timeout_s,
            )
            data = records.read_table(out, records.OBSERVATIONS)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "the upload")) from None
        except ChildError as error:
            raise UserError(f"the video cannot be decoded: {error.reason}".replace(str(path), "the upload")) from None
        finally:
            out.unlink(missing_ok=True)
        seen = records.column(data, "detected").astype(bool)
        if not seen.any():
            raise UserError(f"MediaPipe finds nobody in the {len(seen)} frames of the video")
        return Clip(
            frame=records.column(data, "frame")[seen],
            timestamp_us=records.column(data, "timestamp_us")[seen],
            poses=to_coco(records.column(data, "world")[seen]),
            visibility=to_coco(records.column(data, "visibility")[seen][..., None])[..., 0],
            image_points=to_coco(records.column(data, "image")[seen]),
            fps=found["fps"],
        )


def observe_bounded(
    *, video: str, out: str, model: str, max_video_s: float, timeout_s: float, on_progress: Callable[[int], None]
) -> dict[str, float]:
    """The child's part: `observe.observe` within limits. What a header declares may be a lie, so they are counted.

    Raises:
        UserError: a limit is passed, or `observe` refuses the video.
    """
    info = probe(video)
    longest = UserError(f"the video is longer than {max_video_s:g} s: send it in parts")
    if info.duration_s > max_video_s:
        raise longest
    started = time.monotonic()

    def bounded(frames: int) -> None:
        if frames > max_video_s * max(info.fps, 1.0) + 1:
            raise longest
        if time.monotonic() - started > timeout_s:
            raise UserError(f"the video took more than {timeout_s:g} s: send a shorter or smaller one")
        on_progress(frames)

    observe.observe(video=video, out=out, model=model, on_progress=bounded)
    return {"fps": info.fps or 30.0}
