"""The actors of `rayjobs.extract`: each takes videos through a child process, whatever they do to it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.util.metrics import Counter

from refiner import UserError, files
from refiner.estimators.isolation import ChildError, Isolated

ATTEMPTS = 2  # for a video whose process dies or stalls: the cause may have been the machine's
VIDEOS_PER_PROCESS = 200  # then a fresh one, so that what native code leaks cannot add up over days


class Extractor:
    """An actor: takes one video at a time through decoding and MediaPipe to a finished file, in a child process of its own.

    INPUT row: video, out, failure (paths or URIs). OUTPUT: frames, detected, seconds, notes.
    """

    def __init__(self, model: list[ray.ObjectRef], observe: str, arguments: dict[str, Any], stall_s: float) -> None:
        """Args:
        model: the content of the estimator's file, in a list, so that Ray does not fetch it for each row.
        observe: `module:function` that turns a video into a file, as `refiner.estimators.observe:observe` does.
        arguments: of that function that are the same for all videos: `estimator`, `stride`, ….
        stall_s: a video that makes no progress for so many seconds is given up.
        """
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name, "pose.task")
        file.write_bytes(ray.get(model[0]))
        self._arguments = {"model": str(file), **arguments}
        # Ray hands these to Prometheus; each actor counts its own
        self._frames = Counter("extract_frames", description="Frames observed.")
        self._videos = Counter("extract_videos", description="Videos finished, by outcome.", tag_keys=("outcome",))
        self._observe = Isolated(observe, stall_s=stall_s, calls_per_process=VIDEOS_PER_PROCESS)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        attempts = counted = 0

        def count(frames: int) -> None:
            nonlocal counted
            if frames > counted:  # a second attempt counts from where the first one came to
                self._frames.inc(frames - counted)
                counted = frames

        reason = trace = ""
        while attempts < ATTEMPTS:
            attempts += 1
            try:
                with files.fetched(row["video"]) as video:
                    observed = self._observe(count, video=str(video), out=row["out"], **self._arguments)
                count(observed["frames"])
                self._videos.inc(tags={"outcome": "extracted"})
                files.delete(row["failure"])
                return observed | {"notes": "; ".join(observed.get("notes", ()))}
            except UserError as error:  # the file's own fault: it will not be another file the next time
                reason, trace = str(error), ""
                break
            except ChildError as error:
                reason, trace = error.reason, error.trace
            except OSError as error:  # the store's, while the video was fetched
                reason, trace = f"it could not be fetched: {error}", ""
        self._videos.inc(tags={"outcome": "failed"})
        failure = {"video": files.printable(row["video"]), "reason": reason, "attempts": attempts, "traceback": trace}
        try:
            files.write_text(row["failure"], json.dumps(failure, indent=1))
        except OSError as error:  # the disk may be full; the run goes on with what can be written
            reason = f"{reason}; nor can the record of this be written ({error.strerror or error})"
        raise UserError(reason)
