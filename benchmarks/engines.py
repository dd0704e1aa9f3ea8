"""The landmark network alone, in each engine that runs here, by the size of a batch.

    python -m benchmarks.engines --batches 1 2 8 64

Milliseconds for a picture, the least of several rounds: on a CPU of the process's own time, whatever others on the machine do,
on a GPU by the wall clock. Beside it how far the answers are from LiteRT's. An engine that cannot run here is a sentence. The
last line is JSON.
"""

import functools
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refiner.command import log, parse
from refiner.errors import UserError
from refiner.estimators.blazepose.engine import Engine, LiteRT, MakeEngine
from refiner.estimators.blazepose.landmarks import SIZE
from refiner.estimators.blazepose.onnx import OnnxRuntime
from refiner.estimators.blazepose.openvino import OpenVino
from refiner.estimators.mediapipe_assets import LANDMARKS, model_path

ENGINES: dict[str, tuple[MakeEngine, Callable[[], float]]] = {  # and the clock by which they are timed
    "litert": (LiteRT, time.process_time),
    "onnx": (OnnxRuntime, time.process_time),
    "openvino_bf16": (OpenVino, time.process_time),
    "onnx_cuda": (functools.partial(OnnxRuntime, device="cuda"), time.perf_counter),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    batches: tuple[int, ...] = (1, 2, 8, 64)
    """Pictures in a call."""
    rounds: int = 30
    """Calls of each, of which the quickest counts."""


def quickest(work: Callable[[], object], rounds: int, clock: Callable[[], float]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(rounds):
        started = clock()
        work()
        times.append(clock() - started)
    return 1000 * min(times)


def main(options: Options) -> None:
    with zipfile.ZipFile(model_path()) as bundle:
        network = bundle.read(LANDMARKS)
    pictures = np.random.default_rng(0).random((max(options.batches), SIZE, SIZE, 3), dtype=np.float32)
    expected, figures = LiteRT(network)(pictures[:1]), dict[str, dict[str, float]]()
    print(f"{'ms a picture':16}" + "".join(f"{batch:>9}" for batch in options.batches) + f"{'apart':>12}")
    for name, (make, clock) in ENGINES.items():
        try:
            engine: Engine = make(network)
        except UserError as error:
            log(f"{name}: {error}")
            continue
        worst = max(
            float(np.abs(mine - theirs).max() / max(np.ptp(theirs), 0.01))
            for mine, theirs in zip(engine(pictures[:1]), expected, strict=True)
        )
        rows = {
            str(batch): quickest(lambda batch=batch, run=engine: run(pictures[:batch]), options.rounds, clock) / batch
            for batch in options.batches
        }
        print(f"{name:16}" + "".join(f"{ms:9.2f}" for ms in rows.values()) + f"{worst:12.1e}", flush=True)
        figures[name] = {batch: round(ms, 3) for batch, ms in rows.items()}
    print(json.dumps({"ms_per_picture": figures}))


if __name__ == "__main__":
    main(parse(Options))
