"""Training's speed: the job's own step beside a plain PyTorch loop and beside a DataLoader over one NPZ file per pair.

    python -m benchmarks.train

All three train the same network with the same loss, augmentation and optimizer on the same pairs, in turns, several rounds;
medians of the rounds' ratios. On CPUs all have one core, as a worker of the job has; the NPZ loop is also shown with loader
processes on all cores beside it. Then: where an epoch's time goes, two workers on two cores against one, and on a GPU what
precision does at three batch sizes. Needs neither Ray nor MLflow: torch, numpy, pyarrow and
safetensors are enough, so it runs on any machine with a GPU. The last line is JSON.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.training_loops import NpzPairs, Plain, project
from refiner import geometry
from refiner.data import records
from refiner.data.records import Pairs
from refiner.model import presets
from refiner.model.config import RefinerConfig
from refiner.skeleton import root_centred
from refiner.training.trainer import Trainer, TrainingConfig, TrainingData, initialise

OURS, PLAIN, LOADERS = "rayjobs.train", "plain PyTorch", ("DataLoader, NPZ", "DataLoader, NPZ, loader processes")
GPU_BATCHES, PRECISIONS = (64, 4096, 65_536), ("fp32", "bf16", "fp16")


def invented_pairs(clips: int, frames: int = 64, seed: int = 0) -> Pairs:
    """Pairs of the right shapes and sizes: joints that sway around a standing person. Nothing is to be learnt from them."""
    rng = np.random.default_rng(seed)
    standing = np.zeros((17, 3))
    standing[:, 0] = [
        0, 0.03, -0.03, 0.07, -0.07, 0.18, -0.18, 0.3, -0.3, 0.35, -0.35, 0.1, -0.1, 0.12, -0.12, 0.12, -0.12,
    ]  # fmt: skip
    standing[:, 1] = [-0.7, -0.73, -0.73, -0.7, -0.7, -0.5, -0.5, -0.25, -0.25, 0, 0, 0, 0, 0.42, 0.42, 0.8, 0.8]
    time_s = np.arange(frames) / 30
    phase = rng.uniform(0, 2 * np.pi, (clips, 1, 17, 3))
    sway = 0.08 * np.sin(2 * np.pi * rng.uniform(0.2, 1, phase.shape) * time_s[:, None, None] + phase)
    truth = root_centred((standing + sway).reshape(-1, 17, 3)).astype(np.float32)
    seen = root_centred(truth + rng.normal(0, 0.05, truth.shape)).astype(np.float32)
    azimuth = geometry.azimuth(seen).astype(np.float32)
    name = np.array([f"invented_{i:06d}" for i in range(clips)], dtype=object)
    return Pairs(
        sequence=name.repeat(frames),
        camera=np.full(clips * frames, "c01", dtype=object),
        frame=np.tile(np.arange(frames, dtype=np.int32), clips),
        timestamp_us=np.tile(np.rint(time_s * 1e6).astype(np.int64), clips),
        corrupted=seen,
        ground_truth=truth,
        visibility=rng.uniform(0.5, 1, (clips * frames, 17)).astype(np.float32),
        image_points=geometry.crop_normalise(seen[..., :2]).astype(np.float32),
        view_angle=geometry.view_angle(azimuth),
        azimuth=azimuth,
    )


def rate(steps: Iterator[None], batch_size: int, seconds: float, device: torch.device) -> float:
    """Samples per second over at least that time."""
    synchronise(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or not count:
        next(steps)
        count += 1
    synchronise(device)
    return count * batch_size / (time.perf_counter() - started)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def new_trainer(config: RefinerConfig, training: TrainingConfig, data: TrainingData) -> Trainer:
    return Trainer(initialise(config, training, data), training, data, data)


def side_by_side(
    config: RefinerConfig, training: TrainingConfig, data: TrainingData, options
) -> dict[str, list[float]]:
    """Rates of every round. The NPZ loader runs in this process, and with further ones, one for each core."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        NpzPairs.write(data, Path(folder), max(8 * training.batch_size, 2048))
        contenders = {
            OURS: project(new_trainer(config, training, data)),
            PLAIN: Plain(initialise(config, training, data), training).in_memory(data),
        }
        for workers in (0, cores):
            plain = Plain(initialise(config, training, data), training)
            contenders[LOADERS[workers > 0]] = plain.from_files(Path(folder), workers, data.device)
        for steps in contenders.values():
            rate(steps, training.batch_size, options.seconds / 4, data.device)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, steps in contenders.items():
                rates[name].append(rate(steps, training.batch_size, options.seconds, data.device))
        for steps in contenders.values():
            steps.close()
    return rates


def where_the_time_goes(
    config: RefinerConfig, training: TrainingConfig, data: TrainingData, steps: int
) -> dict[str, float]:
    """Microseconds a pair, each part waited for; validation and checkpoint as they come once in an epoch."""
    trainer = new_trainer(config, training, data)
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable) -> Callable:
        def run(*args):
            synchronise(data.device)
            started = time.perf_counter()
            answer = work(*args)
            synchronise(data.device)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
            return answer

        return run

    whole = timed("whole step", lambda: next(running))
    parts = {
        "_draw": "augmentation",
        "_assemble": "batch assembly",
        "_vary": "augmentation",
        "_judge": "forward and loss",
    }
    for method, name in (parts | {"_backward": "backward", "_update": "optimizer, average"}).items():
        setattr(trainer, method, timed(name, getattr(trainer, method)))
    running = project(trainer)
    for _ in range(3):
        next(running)
    spent.clear()
    for _ in range(steps):
        whole()
    with tempfile.TemporaryDirectory() as folder:
        timed("validation (a pair)", trainer._validate)()
        spent["validation (a pair)"] *= steps * training.batch_size / len(data)
        timed("checkpoint (once an epoch)", lambda: trainer.save(folder))()
    spent["rest"] = 2 * spent["whole step"] - sum(v for k, v in spent.items() if "(" not in k)
    per_pair = {name: 1e6 * seconds / (steps * training.batch_size) for name, seconds in spent.items()}
    per_pair["checkpoint (once an epoch)"] = 1e6 * spent["checkpoint (once an epoch)"] / len(data)
    return per_pair


def _worker(rank: int, world: int, folder: str, config: RefinerConfig, training: TrainingConfig, steps: int) -> None:
    """One of several processes on one core each; the first writes the rate of all."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world)
    data = TrainingData.read(folder, "train", config, "cpu")
    model = initialise(config, training, data)
    wrapped = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
    trainer = Trainer(model, training, data, data, wrapped=wrapped, rank=rank, world=world)
    model.train()
    shares = list(itertools.islice(data.steps(training.batch_size, 0, 0, rank, world), steps))
    rates = []
    for _ in range(4):  # the first warms up
        dist.barrier()
        started = time.perf_counter()
        for step, share in enumerate(shares):
            trainer.step(share, step)
        dist.barrier()
        rates.append(len(shares) * training.batch_size / (time.perf_counter() - started))
    if rank == 0:
        Path(folder, f"rate-{world}").write_text(str(statistics.median(rates[1:])))
    dist.destroy_process_group()


def workers_on_cores(config: RefinerConfig, training: TrainingConfig, pairs: Pairs, steps: int) -> dict[int, float]:
    """Samples per second of one and of two processes in DDP (gloo), a core each."""
    with tempfile.TemporaryDirectory() as folder:
        records.write_atomically(pairs.to_table(), Path(folder, "split=train", "all.parquet"), {})
        for world in (1, 2):
            torch.multiprocessing.spawn(_worker, (world, folder, config, training, steps), nprocs=world)
        return {world: float(Path(folder, f"rate-{world}").read_text()) for world in (1, 2)}


def step_table(
    config: RefinerConfig,
    data: TrainingData,
    batches: tuple[int, ...] = GPU_BATCHES,
    precisions: tuple[str, ...] = PRECISIONS,
    seconds: float = 1.0,
) -> list[dict[str, object]]:
    """Samples per second for each batch size and precision; on a GPU also the share of the time in
    which no kernel ran. What cannot run says why.
    """
    rows = []
    for batch in batches:
        for precision in precisions:
            row: dict[str, object] = {"batch": batch, "precision": precision}
            rows.append(row)
            try:
                training = TrainingConfig(batch_size=batch, precision=precision)
                steps = project(new_trainer(config, training, data))
                rate(steps, batch, seconds, data.device)  # warms up
                row["samples_per_s"] = round(rate(steps, batch, seconds, data.device))
                if data.device.type == "cuda":
                    row["not_kernels"] = round(1 - kernel_share(steps), 3)
            except Exception as error:  # no memory: the other rows still count
                row["why_not"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
            print("  ".join(f"{value!s:>8}" for value in row.values()), flush=True)
    return rows


def kernel_share(steps: Iterator[None], count: int = 20) -> float:
    """Share of the time in which the GPU ran kernels; the time is taken without the profiler, which slows the host."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        next(steps)
    torch.cuda.synchronize()
    wall = time.perf_counter() - started
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(count):
            next(steps)
        torch.cuda.synchronize()
    kernels = sum(event.self_device_time_total for event in profile.key_averages()) * 1e-6
    return min(1.0, kernels / wall)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="folder of pairs that 'rayjobs.pair' wrote; invented ones by default")
    parser.add_argument("--preset", default="best", choices=sorted(presets.PRESETS))
    parser.add_argument("--batch-size", type=int, default=TrainingConfig().batch_size)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in each round")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    # the loops by hand have no image points, correct depth alone, and are in fp32
    config = replace(presets.PRESETS[options.preset], image_points=False, axes="z")
    training = TrainingConfig(batch_size=options.batch_size, precision="fp32", epochs=100)
    pairs = records.read_pairs(options.pairs, "train") if options.pairs else invented_pairs(128)
    data = TrainingData(pairs, config, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} threads"
    print(
        f"{len(data)} pairs, preset {options.preset}, batch {options.batch_size}, {name}, torch {torch.__version__}\n"
    )

    rates = side_by_side(config, training, data, options)
    median = {contender: statistics.median(each) for contender, each in rates.items()}
    print(f"{'samples/s':36} {'median':>12}")
    for contender, each in rates.items():
        print(f"{contender:36} {median[contender]:12,.0f}   {' '.join(f'{r:,.0f}' for r in each)}")

    print(f"\n{'where the time goes':32} {'µs a pair':>12}")
    for part, microseconds in where_the_time_goes(config, training, data, 20).items():
        print(f"{part:32} {microseconds:12.2f}")

    scaling = workers_on_cores(config, training, pairs, 20) if device.type == "cpu" else {}
    for world, samples in scaling.items():
        print(f"{'' if world > 1 else chr(10)}{f'{world} workers, a core each':32} {samples:12,.0f}")

    table = []
    if device.type == "cuda":
        print("\nbatch, precision, samples/s, share of the step without a kernel")
        single = presets.PRESETS["baseline"]
        wanted = invented_pairs(2 * max(GPU_BATCHES) // 64)
        table = step_table(single, TrainingData(wanted, single, device))
    ratio = {
        contender: round(statistics.median(a / b for a, b in zip(rates[OURS], rates[contender], strict=True)), 3)
        for contender in (PLAIN, *LOADERS)
    }
    print(
        json.dumps(
            {
                "ratio_to_plain_torch": ratio[PLAIN],
                "ratio_to_npz_loader": ratio[LOADERS[0]],
                "ratio_to_npz_loader_processes": ratio[LOADERS[1]],
                "samples_per_s": round(median[OURS]),
                "two_workers_to_one": round(scaling[2] / scaling[1], 3) if scaling else None,
                "gpu": table,
            }
        )
    )


if __name__ == "__main__":
    main()
