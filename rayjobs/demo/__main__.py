"""Demo: the whole path on one machine, in minutes. Each step is a job submitted to the cluster.

    make demo                                              # on a cluster of its own
    python -m cluster.local -- python -m rayjobs.demo      # the same, the environment being there

Dancers are rendered and filmed by six of nine cameras, MediaPipe watches the videos, its poses meet the exact truth, a refiner
is trained, registered, compared on dancers and choreographies it never saw, promoted if it wins, deployed, and asked over
HTTP about every held-out clip. What an earlier run rendered and observed is used again.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cluster.running import CHECKOUT, Cluster
from rayjobs.demo import report
from refiner import UserError, registry
from refiner.command import launch, log
from refiner.data import records
from refiner.data.records import Pairs
from refiner.evaluation import baselines, compare
from refiner.extras import require
from refiner.geometry import azimuth
from refiner.inference.depth_refiner import Refinement
from serve.client import Client


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    data: str = "data/demo"
    """Folder of the rendered dataset, the observations and the pairs."""
    out: str = "runs/demo"
    """Folder of the report."""
    sequences: int = 64
    """Dances to render. Many short ones teach more than few long ones."""
    cameras: int = 6
    """How many of the nine cameras film each dance, drawn anew for each."""
    seconds: float = 1.0
    """Length of each."""
    fps: int = 15
    """Frame rate of the videos (the annotations are at 60 Hz, as in AIST++)."""
    size: tuple[int, int] = (960, 540)
    """Width and height of the videos in pixels. At 720p, rendering takes half as long again."""
    seed: int = 0
    """Seed of the dancers, their motion and the training."""
    train_seconds: float = 60
    """Training ends at the latest after this time; it ends earlier when the validation error no longer falls."""
    keep: bool = False
    """The cluster stays up: print how to call the endpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    mediapipe: dict[str, float]
    """Depth error, MPJPE (cm) and bone-length CV of MediaPipe's poses as they are."""
    refined: dict[str, float]
    """The same of the champion's."""
    baselines: dict[str, float]
    """Depth error (cm) of the cheap alternatives."""
    http: dict[str, dict[str, float]]
    """The champion's, measured on what came back over HTTP."""
    model: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Clock:
    """How long each step took, for the report."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        log(f"\n── {name} " + "─" * max(3, 40 - len(name)) + f" {what}")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)


def run(options: Options) -> Summary:
    """Runs all steps on the cluster of the environment. A `UserError` says which of them failed, and why."""
    require("the demo", "numba", "skimage", "jinja2")  # now, and not when half of it is done
    cluster = Cluster.from_environment()
    data, out = Path(options.data).absolute(), Path(options.out).absolute()
    dataset, observations, pairs = data / "dataset", data / "observations", data / "pairs"
    clock = Clock()

    def submit(job: str, *arguments: object) -> dict[str, Any]:
        command = ["python", "-m", f"rayjobs.{job}", *map(str, arguments)]
        return cluster.submit(shlex.join(command), env={"GIT_COMMIT": registry.git_commit()}) or {}

    with clock.step("studio", f"{options.sequences} dances, {options.cameras} of nine cameras each"):
        submit(
            *("studio", "--out", dataset, "--sequences", options.sequences, "--cameras", options.cameras),
            *("--seconds", options.seconds, "--fps", options.fps, "--size", *options.size, "--seed", options.seed),
        )
    with clock.step("extract", "MediaPipe on every frame"):
        submit("extract", "--videos", dataset / "videos", "--out", observations)
    with clock.step("pair", "what MediaPipe saw beside what was true"):
        submit("pair", "--observations", observations, "--dataset", dataset, "--out", pairs)
    with clock.step("train", "two DDP workers; tracked and registered in MLflow"):
        trained = submit(
            *("train", "--pairs", pairs, "--storage", out / "checkpoints", "--seed", options.seed),
            *("--max-seconds", options.train_seconds),
        )
    with clock.step("evaluate", "on dancers and choreographies no training saw; the winner is promoted"):
        evaluated = submit("evaluate", "--pairs", pairs, "--out", out / "evaluation")
    with clock.step("serve", "the champion behind HTTP"):
        url = cluster.deploy(CHECKOUT / "serve" / "config.yaml")
    with clock.step("http", "every held-out clip, sent to the endpoint"):
        held_out = records.read_pairs(pairs, "test")
        answer, version = ask(url, held_out)
        if version != evaluated["model"]["version"]:
            raise UserError(
                f"{url} answers with version {version}, but the champion is {evaluated['model']['version']}"
            )
    with clock.step("report", str(out / "index.html")):
        methods = {name: m(held_out) for name, m in baselines.fit_all(records.read_pairs(pairs, "train")).items()}
        evaluation = compare.evaluate(answer, methods, held_out)
        page = report.Report(
            folder=out, dataset=dataset, observations=observations, pairs=held_out, answer=answer, evaluation=evaluation,
            model=evaluated["model"], history=trained["history"],
        )  # fmt: skip
        page.draw()
    page.write(clock.seconds)

    print(report.table(evaluation))
    print(f"\nReport: {out / 'index.html'}")
    if options.keep:
        _print_addresses(cluster, url, request_body(held_out), out / "clip.json")
    return Summary(
        mediapipe=headline(evaluated["mediapipe"]),
        refined=headline(evaluated["refined"]),
        baselines=evaluated["baselines"],
        http={"refined": headline(evaluation.methods[compare.REFINED])},
        model=evaluated["model"],
        seconds=clock.seconds,
    )


def _print_addresses(cluster: Cluster, url: str, request: bytes, file: Path) -> None:
    """Where everything is that stays up, and a request to try, whose body is written to `file`."""
    file.write_bytes(request)
    print(f"\nRay      {cluster.dashboard_url}\nMLflow   {cluster.mlflow_uri}\nEndpoint {url}")
    print(f"\ncurl -s {url}/v1/refine -H 'Content-Type: application/json' -d @{file}\n")


def headline(figures: dict[str, float]) -> dict[str, float]:
    """The three of a method's figures that the summary shows, rounded."""
    return {key: round(figures[key], 4) for key in ("depth_cm", "mpjpe_cm", "bone_cv")}


def clips(pairs: Pairs) -> Iterator[Pairs]:
    """One after the other: what one camera saw of one sequence."""
    ends = [*pairs.clip_starts()[1:], len(pairs)]
    for start, end in zip(pairs.clip_starts(), ends, strict=True):
        yield pairs.take(np.arange(start, end))


def frame_rate(clip: Pairs) -> float:
    """Frames per second, from the median step between timestamps; 1 for a single frame."""
    return 1e6 / float(np.median(np.diff(clip.timestamp_us))) if len(clip) > 1 else 1.0


def ask(url: str, pairs: Pairs) -> tuple[Refinement, str]:
    """What the endpoint makes of every clip, and the version of the model that answered."""
    answers, versions = [], set()
    with Client(url) as client:
        for clip in clips(pairs):
            answer = client.refine(
                clip.corrupted, clip.visibility,
                image_points=clip.image_points, sequence=True, fps=frame_rate(clip),
            )  # fmt: skip
            answers.append(answer)
            versions.add(answer.model["version"])
    joined = {
        name: np.concatenate([getattr(answer, name) for answer in answers])
        for name in ("poses", "confidence", "view_angle")
    }
    return Refinement(**joined, azimuth=azimuth(pairs.corrupted)), ", ".join(sorted(versions))


def request_body(pairs: Pairs) -> bytes:
    """The first clip as the JSON that the endpoint takes."""
    clip = next(clips(pairs))
    body = {
        "poses": clip.corrupted.round(4).tolist(),
        "visibility": clip.visibility.round(3).tolist(),
        "sequence": True,
        "fps": frame_rate(clip),
    }
    return orjson.dumps(body)


if __name__ == "__main__":
    launch(run, Options)
