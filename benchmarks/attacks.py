"""Strangers and an honest client at one endpoint: what the honest one still gets, and what the strangers get.

    python -m benchmarks.attacks --seconds 600

Starts a cluster and an endpoint on loopback, measures a quiet while (all honest clients, nobody else), then plays every attack
of benchmarks/hostile.py in turn; what is asked between two of them does not count. Attackers make way for the honest clients
(`stand_aside`), so that it is the endpoint and not their own work that costs these time. The last line is one JSON object;
wanted are 0 wrong_answers, failed_honest and server_errors, rss_growth_mb of at most 300, flat descriptors_growth, and a
p99_ratio of at most 3. In a storm clients come back after the second that Retry-After says, so whoever asks without waiting
(p99_ratio_at_every_moment) meets it more often than who waits.
"""

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import numpy as np
import torch
import yaml

from benchmarks.hostile import ATTACKS
from benchmarks.target import VIDEO, Target
from cluster.local import local_cluster
from cluster.running import CHECKOUT, Cluster
from refiner import DepthRefiner, UserError
from refiner.command import log, parse
from refiner.model.checkpoint import save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from serve.client import PART_POSES, Client
from serve.live import standing_poses

# What lives as long as the endpoint, by a word in its command line. (The process that decodes a video is made to be lost.)
LASTING = {"endpoint": "RefineEndpoint", "videos": "VideoPoses", "proxy": "haproxy.cfg"}
SINGLES_PER_S = 20.0
LEAST_QUIET_S = 20.0  # or the 99th percentile would be a single answer
CLIP = PART_POSES + 500  # sent in two parts
AGREE_M = 1e-4  # parts of a clip, and the same poses in another batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seconds: float = 600.0
    """For all attacks together, and the quiet while before them, which is a tenth of it or 20 s."""
    only: tuple[str, ...] = ()
    """Names of attacks; all without."""
    slow_connections: int = 2000
    """Of the attacks with slow bodies and with slow readers."""
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.only) - set(ATTACKS):
            raise UserError(f"there is no attack {min(unknown)}: there are {', '.join(ATTACKS)}")


While = tuple[float, float]  # start and end, time.monotonic()


def p99_ms(seconds: Sequence[float]) -> float:
    return round(float(np.percentile(seconds, 99)) * 1e3, 1) if seconds else float("nan")


def at_every_moment(seconds: Sequence[float]) -> list[float]:
    """As if the client had gone on asking while it waited: a stall of a second is then twenty answers late and not one
    ("coordinated omission").
    """
    period = 1 / SINGLES_PER_S
    return [late for one in seconds for late in np.arange(one, min(one, period) - 1e-9, -period).tolist()]


@dataclass
class Honest:
    """What the honest clients met; moments are time.monotonic(), which all processes share."""

    singles: list[tuple[float, float]] = field(default_factory=list)  # (moment, seconds with all retries)
    counts: Counter = field(default_factory=Counter)  # answers by kind
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)  # of every attempt

    def seconds(self, whiles: Sequence[While]) -> list[float]:
        """Of the single poses that were asked for in these whiles."""
        return [seconds for moment, seconds in self.singles if any(start <= moment < end for start, end in whiles)]


def stand_aside(niceness: int) -> None:
    """Puts this process into a group of its own, with so much less of a CPU than others. Linux shares CPUs out among sessions
    first, and looks at the niceness of processes only within one (sched(7), "The autogroup feature"): an attacker of nice 19
    in the honest clients' session would use up their share.
    """
    os.setsid()
    os.nice(niceness)
    with contextlib.suppress(OSError):  # a kernel without it, where the niceness says all
        Path("/proc/self/autogroup").write_text(str(niceness))


def honest(url: str, checkpoint: str, videos: list[bytes], pipe: Connection) -> None:
    """The honest clients, in a process of their own. Says "ready" when all of them were answered and goes on until the pipe
    says so; then sends an `Honest` through it.
    """
    stand_aside(0)
    torch.set_num_threads(1)
    seen, stop, unsaid = Honest(), threading.Event(), threading.Lock()
    refiner = DepthRefiner(checkpoint, device="cpu")
    poses = standing_poses(50)
    expected = refiner.predict(poses).poses
    clip = np.tile(standing_poses(60), (CLIP // 60 + 1, 1, 1))[:CLIP]
    whole = refiner.predict(clip, sequence=True).poses
    kept: dict[int, list] = {}  # a video's first answer, from the quiet while

    def single(client: Client, number: int) -> str | None:
        row = number % len(poses)
        start = time.monotonic()
        answer = client.refine(poses[row]).poses[0]
        seen.singles.append((start, time.monotonic() - start))
        return None if np.abs(answer - expected[row]).max() < AGREE_M else f"pose {row}"

    def long_clip(client: Client, number: int) -> str | None:
        apart = np.abs(client.refine(clip, sequence=True).poses - whole).max()
        return None if apart < AGREE_M else f"a clip in parts is {apart * 1e3:.2f} mm from the whole"

    def video(client: Client, number: int) -> str | None:
        which = number % len(videos)
        content = client._exchange("POST", VIDEO, content=videos[which], headers={"content-type": "video/mp4"}).json()
        answer = [content["frame"], np.round(content["refined"], 3).tolist()]
        first = kept.setdefault(which, answer)
        return None if answer[0] == first[0] and np.allclose(answer[1], first[1], atol=0.005) else f"video {which}"

    def health(client: Client, number: int) -> str | None:
        answer = client._http.get("/healthz", timeout=10)
        return None if answer.status_code == 200 else f"/healthz says {answer.status_code}"

    def keep_on(name: str, ask: Callable[[Client, int], str | None], period_s: float) -> None:
        with Client(url, transport="json" if name == "single" else "arrow", timeout_s=120, seed=1) as client:
            client._http.event_hooks["response"].append(lambda answer: seen.statuses.update([answer.status_code]))
            due = time.monotonic()
            for number in itertools.count():
                try:
                    if problem := ask(client, number):
                        seen.wrong.append(problem)
                    seen.counts[name] += 1
                    if len(seen.counts) == len(kinds) and unsaid.acquire(blocking=False):  # once
                        pipe.send("ready")
                except (UserError, httpx.HTTPError) as error:
                    seen.failed.append(f"{name}: {error}")
                due = max(due + period_s, time.monotonic())
                if stop.wait(due - time.monotonic()):
                    return

    kinds = {"single": (single, 1 / SINGLES_PER_S), "clip": (long_clip, 3.0), "health": (health, 1.0)}
    if videos:
        kinds["video"] = (video, 2.0)
    threads = [threading.Thread(target=keep_on, args=(name, *what)) for name, what in kinds.items()]
    until_told(pipe, threads, stop)
    pipe.send(seen)


def until_told(pipe: Connection, threads: list[threading.Thread], stop: threading.Event) -> None:
    """Runs them until the pipe says something, or the benchmark is gone."""
    for thread in threads:
        thread.start()
    try:
        pipe.recv()
    finally:
        stop.set()
    for thread in threads:
        thread.join()


def play(name: str, target: Target, seconds: float, slow_connections: int, pipe: Connection) -> None:
    """One attack, in a process of its own, which says when it begins."""
    stand_aside(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    options = {"connections": slow_connections} if name in ("slow_bodies", "slow_readers") else {}
    pipe.send("begun")
    pipe.send(asyncio.run(ATTACKS[name](target, seconds, **options)))


def lasting(cluster: Cluster) -> dict[str, list[int]]:
    """The endpoint's processes that live as long as it does, by their part."""
    mark, by_part = str(cluster.token_path).encode(), {part: [] for part in LASTING}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or mark not in (entry / "environ").read_bytes():
                continue
            command = (entry / "cmdline").read_text()
            for part, word in LASTING.items():
                if word in command:
                    by_part[part].append(int(entry.name))
    return by_part


def memory_mb(process: int) -> float:
    """Its own. What it shares is another matter: an upload on its way to a decoder lies in Ray's object store, whose size is
    set when Ray starts, and each page of that store counts for every process that ever touched it.
    """
    with contextlib.suppress(OSError, IndexError):
        resident, shared = Path(f"/proc/{process}/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * resource.getpagesize() / 1e6
    return 0.0


def shared_mb(process: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[2]) * resource.getpagesize() / 1e6
    return 0.0


def descriptors(process: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{process}/fd"))
    return 0


class Watch:
    """Follows memory while attacks run; by part, all of its processes together."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._stop = cluster, threading.Event()
        self.before = self._now(memory_mb)
        self.open_before = self._now(descriptors)
        self.shared_before = self._now(shared_mb)
        self.processes = lasting(cluster)
        self.most = dict(self.before)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _now(self, measure: Callable[[int], float]) -> dict[str, float]:
        return {part: sum(map(measure, processes)) for part, processes in lasting(self._cluster).items()}

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            for part, now in self._now(memory_mb).items():
                self.most[part] = max(self.most[part], now)

    def end(self, patience_s: float = 60) -> dict[str, object]:
        """Memory at its most, descriptors as they settle, and how many processes are not those of the beginning."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + patience_s
        while True:
            grown = {part: int(now - self.open_before[part]) for part, now in self._now(descriptors).items()}
            if max(grown.values()) <= 0 or time.monotonic() > deadline:
                break
            time.sleep(1)
        now, shared = lasting(self._cluster), self._now(shared_mb)
        return {
            "rss_growth_mb": round(max(self.most[part] - self.before[part] for part in LASTING), 1),
            "rss_growth_mb_by_part": {part: round(self.most[part] - self.before[part], 1) for part in LASTING},
            "shared_growth_mb_by_part": {part: round(shared[part] - self.shared_before[part], 1) for part in LASTING},
            "descriptors_growth": max(grown.values()),
            "descriptors_growth_by_part": grown,
            "replaced": {part: len(set(self.processes[part]) - set(now[part])) for part in LASTING},
        }


@contextlib.contextmanager
def aside(work: Callable, *arguments: object) -> Iterator[Connection]:
    """A process beside this one, and a pipe to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(*arguments, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.join(5)
        process.kill()
        process.join()


def deploy(cluster: Cluster, checkpoint: Path, scratch: Path) -> str:
    """serve/config.yaml with one replica of each, so that what grows is not their number."""
    config = yaml.safe_load((CHECKOUT / "serve/config.yaml").read_text())
    (application,) = config["applications"]
    application["args"] = {"model": str(checkpoint)}
    for deployment in application["deployments"]:
        del deployment["autoscaling_config"]
        deployment["num_replicas"] = 1
    path = scratch / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    url = cluster.deploy(path, port=0)
    while httpx.get(f"{url}/info").json()["runtime"] != "onnxruntime":
        time.sleep(0.5)
    return url


def filmed(scratch: Path) -> list[bytes]:
    """Two small videos of a drawn dancer, of different length."""
    from studio.dataset import Spec, prepare

    videos = []
    for seconds in (0.8, 1.4):
        root = scratch / f"dataset-{seconds}"
        (take,) = prepare(root, Spec(sequences=1, seconds=seconds, fps=10, seed=3, size=(640, 480), cameras=1))
        take.film(root, take.filming)
        videos.append(take.video(root, take.filming[0]).read_bytes())
    return videos


def defects(seen: Honest, got: dict[str, dict[str, int]]) -> dict[str, int]:
    """What anybody was answered with that is nobody's fault but the endpoint's."""
    answers = Counter(str(status) for status in seen.statuses.elements()) + sum(map(Counter, got.values()), Counter())
    return {status: n for status, n in answers.items() if status.startswith("5") and status != "503"}


def ratios(seen: Honest, quiet: While, attacked: Sequence[While]) -> dict[str, float]:
    """What an honest client that asks for one pose after the other waits, and what one would that does not wait to ask."""
    before, meanwhile = seen.seconds([quiet]), seen.seconds(attacked)
    return {
        "p99_ratio": round(p99_ms(meanwhile) / p99_ms(before), 2),
        "quiet_p99_ms": p99_ms(before),
        "attacked_p99_ms": p99_ms(meanwhile),
        "p99_ratio_at_every_moment": round(p99_ms(at_every_moment(meanwhile)) / p99_ms(at_every_moment(before)), 2),
    }


def main() -> None:
    options = parse(Options)
    torch.set_num_threads(1)
    names = options.only or tuple(ATTACKS)
    each = 0.9 * options.seconds / len(names)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log("filming the honest client's videos …")
        videos = filmed(scratch)
        torch.manual_seed(options.seed)
        model = PoseAwareDepthRefiner(RefinerConfig(smoothing_s=0.05))
        checkpoint = save_checkpoint(model, scratch / "checkpoint")
        cluster = stack.enter_context(local_cluster(scratch / "cluster", usual_ports=False))
        os.environ.update(cluster.env)
        url = deploy(cluster, checkpoint, scratch)
        pipe = stack.enter_context(aside(honest, url, str(checkpoint), videos))
        for video in videos:  # MediaPipe's process is up before memory is measured
            httpx.post(f"{url}{VIDEO}", content=video, headers={"content-type": "video/mp4"}, timeout=300)
        if not pipe.poll(300):
            raise SystemExit("error: the honest clients get no answers")
        pipe.recv()  # from now on nothing is asked for the first time
        log("quiet …")
        quiet = time.monotonic(), time.monotonic() + max(LEAST_QUIET_S, 0.1 * options.seconds)
        time.sleep(quiet[1] - quiet[0])
        watch, moments, got = Watch(cluster), {}, {}
        target = Target(url, checkpoint.name, videos[1], options.seed)
        for name in names:
            log(f"{name} …")
            with aside(play, name, target, each, options.slow_connections) as attack:
                attack.recv()
                start = time.monotonic()
                got[name] = dict(attack.recv()) if attack.poll(each + 600) else {"never ended": 1}
                moments[name] = start, time.monotonic()
        growth = watch.end()
        pipe.send("stop")
        seen: Honest = pipe.recv()
    server_errors = defects(seen, got)
    summary = {
        "wrong_answers": len(seen.wrong),
        "failed_honest": len(seen.failed),
        "server_errors": sum(server_errors.values()),
        **growth,
        **ratios(seen, quiet, list(moments.values())),
        "honest_answers": dict(seen.counts),
        "honest_attempts": {str(status): n for status, n in seen.statuses.items()},
        "examples": {"wrong": seen.wrong[:3], "failed": seen.failed[:3], "server_errors": server_errors},
        "attacks": {
            name: {
                "got": got[name],
                "honest_p99_ms": p99_ms(seen.seconds([moments[name]])),
                "honest_longest_ms": round(max(seen.seconds([moments[name]]), default=float("nan")) * 1e3, 1),
                "honest_answers": len(seen.seconds([moments[name]])),
                "seconds": round(moments[name][1] - moments[name][0], 1),
            }
            for name in names
        },
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
