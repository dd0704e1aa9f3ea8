"""Training the refiner: plain PyTorch, one process or several (torch.distributed), no Ray.

All pairs live in device memory. What an epoch does is a function of the seed, the epoch's number and nothing else, so a
run repeats exactly, a run that was killed goes on as if nothing had happened, and the order of the pairs does not depend
on the number of workers. Used by `rayjobs.train`, which adds Ray Train, MLflow and the registry.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refiner import augment, baselines, losses, temporal
from refiner.errors import UserError
from refiner.inference import prepare, validate_poses
from refiner.metrics import CM
from refiner.model import CONFIDENT_WITHIN_LOG, CONFIDENT_WITHIN_M, Inputs, PoseAwareDepthRefiner, RefinerConfig
from refiner.records import Pairs
from refiner.skeleton import HIPS, root_centred

STATE_TENSORS, STATE_FILE = "state.safetensors", "state.json"
CHUNK = 4096  # pairs at once where nothing is learnt from them


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a refiner is trained."""

    epochs: int = 10
    batch_size: int = 128
    """Pairs per step, over all workers together."""
    accumulate: int = 1
    """Parts that a step's batch is cut into, one after the other: for batches that do not fit into memory."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of all steps in which the learning rate rises; then it falls as a cosine."""
    clip_norm: float = 1.0
    """Longest gradient."""
    ema: float = 0.995
    """Decay per step of the averaged weights, which are what is validated and kept."""
    patience: int = 5
    """Epochs without a better validation error after which training stops."""
    max_seconds: float = math.inf
    """Time after which no further epoch starts."""
    ridge: float = 1e-2
    """Penalty of the linear term, where the model has one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp16 with gradient scaling on CUDA, fp32 on the CPU (measured there: bf16 takes three times as long)."""
    seed: int = 0
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    augmentation: augment.Augmentation = field(default_factory=augment.Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")


# --- data -------------------------------------------------------------------------------------------------------------


class TrainingData:
    """Pairs on a device, as single frames and the rows of each one's temporal window."""

    def __init__(self, pairs: Pairs, config: RefinerConfig, device: torch.device | str = "cpu") -> None:
        poses, visibility = validate_poses(pairs.corrupted, pairs.visibility)
        single = np.arange(len(poses))[:, None]
        parts = [
            prepare(_single(config), poses, visibility, single, slice(i, i + CHUNK), pairs.image_points)
            for i in range(0, len(poses), CHUNK)
        ]
        self.frames = Inputs(*(torch.cat(t).to(device) for t in zip(*parts, strict=True)))
        self.truth = torch.from_numpy(root_centred(pairs.ground_truth)).to(device)  # (N, 17, 3)
        clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
        taps = temporal.tap_rows(pairs.timestamp_us * 1e-6, clips, config.taps_s)
        self.taps = torch.from_numpy(taps).long().to(device)  # (N, T)

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def device(self) -> torch.device:
        return self.truth.device

    def batch(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        """Row indices (B,) -> what the network sees and the truth (B, 17, 3)."""
        taps = self.taps[rows]
        frames = self.frames
        return (
            Inputs(
                frames.poses[taps, 0], frames.visibility[taps, 0], frames.azimuth[rows], frames.image_points[taps, 0]
            ),
            self.truth[rows],
        )

    def chunks(self, rows: Tensor | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """All pairs (or these rows), in order."""
        rows = torch.arange(len(self), device=self.device) if rows is None else rows
        return (self.batch(part) for part in rows.split(CHUNK))


def _single(config: RefinerConfig) -> RefinerConfig:
    return RefinerConfig(image_points=config.image_points)


def step_rows(pairs: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Shuffles all pairs and yields the row indices of each step's whole batch; the remainder waits for another epoch."""
    order = torch.randperm(pairs, generator=_generator(seed, epoch))
    size = min(batch_size, pairs)
    return (order[i : i + size] for i in range(0, pairs - size + 1, size))


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of these numbers."""
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(state)


# --- training ---------------------------------------------------------------------------------------------------------


def initialise(config: RefinerConfig, training: TrainingConfig, data: TrainingData) -> PoseAwareDepthRefiner:
    """An untrained refiner on the data's device: weights from the seed, the linear term solved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = PoseAwareDepthRefiner(config)
    model.to(data.device)
    if config.linear:
        model.linear.copy_(baselines.solve_ridge(data.chunks(), config, training.ridge))
    return model


class Trainer:
    """Trains one model, an epoch at a time.

    In several processes each has the whole data and takes its part of every batch; `wrapped` is then the model in
    DistributedDataParallel.
    """

    def __init__(
        self,
        model: PoseAwareDepthRefiner,
        training: TrainingConfig,
        train: TrainingData,
        val: TrainingData,
        *,
        wrapped: nn.Module | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if training.batch_size % (world * training.accumulate):
            raise UserError(
                f"a batch of {training.batch_size} cannot be shared evenly by {world} workers in {training.accumulate} "
                "parts: choose a multiple"
            )
        if len(train) < training.batch_size:
            raise UserError(
                f"{len(train)} training pairs are fewer than a batch of {training.batch_size}: "
                "make more pairs, or choose a smaller batch size"
            )
        self.model, self.wrapped = model, wrapped or model
        self.training, self.train, self.val = training, train, val
        self.rank, self.world = rank, world
        self.device = train.device
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=training.learning_rate,
            fused=True,
        )
        precision = training.precision
        if precision == "auto":
            precision = "fp16" if self.device.type == "cuda" else "fp32"
        self.autocast_type = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.averaged = PoseAwareDepthRefiner(model.config).to(self.device).eval()
        self.averaged.load_state_dict(model.state_dict())
        self.best = {k: v.clone() for k, v in self.averaged.state_dict().items()}
        self.best_error, self.best_epoch = math.inf, -1
        self.epoch = self.steps = 0
        self.steps_per_epoch = len(train) // min(training.batch_size, len(train))
        self.seconds = 0.0

    def epochs(self) -> Iterator[dict[str, float]]:
        """Trains until it is done, and yields each epoch's figures. May be left after any of them.

        Yields:
            `epoch`, `train/<term>`, `val/depth_cm` (of the averaged weights), `learning_rate`, `samples_per_s`, `seconds`.
        """
        while not self.done:
            yield self.run_epoch()

    @property
    def done(self) -> bool:
        return (
            self.epoch >= self.training.epochs
            or self.epoch - 1 - self.best_epoch >= self.training.patience
            or self.seconds >= self.training.max_seconds
        )

    def run_epoch(self) -> dict[str, float]:
        """One pass over the training pairs and one over the validation pairs."""
        options, started = self.training, time.perf_counter()
        # dropout is the one thing that differs between workers
        torch.manual_seed(options.seed * 1_000_003 + self.epoch * 1_009 + self.rank)
        self.model.train()
        sums: dict[str, Tensor] = {}
        for step, rows in enumerate(step_rows(len(self.train), options.batch_size, options.seed, self.epoch)):
            for name, value in self._step(rows, step).items():
                sums[name] = sums.get(name, 0.0) + value
        trained = time.perf_counter()
        names = sorted(sums)
        shared = torch.stack([sums[n] for n in names]) / (self.steps_per_epoch * self.world)
        # the clock of the slowest counts, so that all workers stop after the same epoch
        clock = torch.tensor(time.perf_counter() - started, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(shared)
            dist.all_reduce(clock, dist.ReduceOp.MAX)
        error = self._validate()
        if error < self.best_error:
            self.best_error, self.best_epoch = error, self.epoch
            self.best = {k: v.clone() for k, v in self.averaged.state_dict().items()}
        figures = {
            "epoch": self.epoch,
            **{f"train/{n}": v for n, v in zip(names, shared.tolist(), strict=True)},
            "val/depth_cm": error,
            "learning_rate": self._learning_rate(self.steps),
            "samples_per_s": self.steps_per_epoch * options.batch_size / (trained - started),
            "seconds": time.perf_counter() - started,
        }
        self.epoch += 1
        self.seconds += float(clock)
        return figures

    def _step(self, rows: Tensor, step: int) -> dict[str, Tensor]:
        options = self.training
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.steps)
        draws = augment.draw(
            len(rows), options.augmentation, _generator(options.seed, self.epoch, step, device=self.device)
        )
        mine = slice(self.rank * len(rows) // self.world, (self.rank + 1) * len(rows) // self.world)
        rows, draws = rows[mine].to(self.device), augment.Draws(*(d[mine] for d in draws))
        sums: dict[str, Tensor] = {}
        parts = options.accumulate
        for part in range(parts):
            chosen = slice(part * len(rows) // parts, (part + 1) * len(rows) // parts)
            inputs, truth = augment.apply(
                augment.Draws(*(d[chosen] for d in draws)), *self.train.batch(rows[chosen]), self.model.config.centre
            )
            last = part == parts - 1
            if self.wrapped is not self.model:
                self.wrapped.require_backward_grad_sync = last  # gradients travel once per step
            with torch.autocast(self.device.type, self.autocast_type, enabled=self.autocast_type is not None):
                outputs = self.wrapped(inputs)
            found = losses.terms(outputs, truth, self.model.config.axes)
            found["loss"] = losses.total(found, options.weights)
            self.scaler.scale(found["loss"] / parts).backward()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / parts
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        # short at first, so that the average forgets the start
        decay = min(options.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)
        return sums

    def _learning_rate(self, step: int) -> float:
        options = self.training
        steps = self.steps_per_epoch * options.epochs
        rise = max(1, round(options.warmup * steps))
        if step < rise:
            return options.learning_rate * (step + 1) / rise
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean |Δz| of the averaged weights on the validation pairs, cm; each worker looks at its share."""
        rows = torch.arange(self.rank, len(self.val), self.world, device=self.device)
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for inputs, truth in self.val.chunks(rows):
            total[0] += depth_errors(self.averaged(inputs).poses, truth).double().sum()
            total[1] += truth.shape[0] * truth.shape[1]
        if self.world > 1:
            dist.all_reduce(total)
        return float(total[0] / total[1]) * CM

    def best_model(self) -> PoseAwareDepthRefiner:
        """The averaged weights of the epoch with the lowest validation error, calibrated on the validation pairs."""
        model = PoseAwareDepthRefiner(self.model.config).to(self.device)
        model.load_state_dict(self.best)
        calibrate(model.eval(), self.val)
        return model

    # --- checkpoints: tensors as safetensors, numbers as JSON; nothing here is ever unpickled ---

    def save(self, folder: str | Path, facts: dict[str, object] | None = None) -> None:
        """Writes the whole state of the training, so that `load` goes on exactly from here.

        Args:
            folder: must exist.
            facts: further numbers and strings to keep, such as the id of the run.
        """
        tensors: dict[str, Tensor] = {}
        for prefix, state in (
            ("model", self.model.state_dict()),
            ("averaged", self.averaged.state_dict()),
            ("best", self.best),
        ):
            tensors |= {f"{prefix}/{k}": v for k, v in state.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in entry.items()}
        numbers = {
            "epoch": self.epoch,
            "steps": self.steps,
            "seconds": self.seconds,
            "best_error": self.best_error if math.isfinite(self.best_error) else None,
            "best_epoch": self.best_epoch,
            "scaler": self.scaler.state_dict(),
            "facts": facts or {},
        }
        folder = Path(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as part:
            # clones: safetensors refuses tensors that share memory
            save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, Path(part, STATE_TENSORS))
            Path(part, STATE_FILE).write_text(json.dumps(numbers))
            for name in (STATE_TENSORS, STATE_FILE):
                os.replace(Path(part, name), folder / name)

    def load(self, folder: str | Path) -> dict[str, object]:
        """Takes over a state that `save` wrote, and returns its facts.

        Raises:
            UserError: it belongs to a model of another shape.
        """
        tensors = load_file(Path(folder, STATE_TENSORS), device=str(self.device))
        numbers = json.loads(Path(folder, STATE_FILE).read_text())

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.model.load_state_dict(under("model/"))
            self.averaged.load_state_dict(under("averaged/"))
        except RuntimeError:
            raise UserError(f"{folder} is the checkpoint of another model: give the run another name") from None
        self.best = under("best/")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in under("optimizer/").items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.scaler.load_state_dict(numbers["scaler"])
        self.epoch, self.steps, self.seconds = numbers["epoch"], numbers["steps"], numbers["seconds"]
        self.best_error = math.inf if numbers["best_error"] is None else numbers["best_error"]
        self.best_epoch = numbers["best_epoch"]
        return numbers["facts"]


def depth_errors(poses: Tensor, truth: Tensor) -> Tensor:
    """(B, 17, 3), (B, 17, 3) -> (B, 17) root-centred |Δz|, metres; `metrics.depth_error` on the device."""
    difference = poses[..., 2] - truth[..., 2]
    return (difference - difference[:, HIPS].mean(1, keepdim=True)).abs()


@torch.no_grad()
def calibrate(model: PoseAwareDepthRefiner, val: TrainingData) -> None:
    """Fits the two numbers that turn an expected error into the probability of being within 5 cm (Platt scaling).

    Newton's method on the logistic likelihood; it is convex, and a few steps do.
    """
    found = [(model(inputs), truth) for inputs, truth in val.chunks()]
    scale = torch.cat([o.log_scale for o, _ in found]).double().flatten() - CONFIDENT_WITHIN_LOG
    within = torch.cat([depth_errors(o.poses, t) < CONFIDENT_WITHIN_M for o, t in found]).double().flatten()
    rows = torch.stack([torch.ones_like(scale), -scale], dim=-1)  # (M, 2)
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64, device=rows.device)
    ridge = 1e-6 * len(rows) * torch.eye(2, dtype=torch.float64, device=rows.device)
    for _ in range(25):
        probability = torch.sigmoid(rows @ weights)
        curvature = rows.T @ (rows * (probability * (1 - probability))[:, None]) + ridge
        weights = weights + torch.linalg.solve(curvature, rows.T @ (within - probability))
    model.calibration.copy_(weights.float())
