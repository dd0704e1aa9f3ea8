"""Training the refiner: plain PyTorch, one process or several (torch.distributed), no Ray.

What an epoch does is a function of the seed, the epoch's number and nothing else, so a run repeats exactly, a run that was
killed goes on as if nothing had happened, and the order of the pairs does not depend on the number of workers. On a GPU no
step waits for the host: pairs, their order and all random numbers are on the device. Used by `rayjobs.train`, which adds Ray
Train, MLflow and the registry.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from refiner.errors import UserError
from refiner.model.config import RefinerConfig
from refiner.model.inputs import Inputs
from refiner.model.network import CONFIDENT_WITHIN_LOG, CONFIDENT_WITHIN_M, PoseAwareDepthRefiner
from refiner.skeleton import HIPS
from refiner.training import augment, losses
from refiner.training.dataset import Share, Source, TrainingData, generator, state_of
from refiner.training.losses import CM

STATE_TENSORS, STATE_FILE = "state.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a refiner is trained."""

    epochs: int = 15
    batch_size: int = 256
    """Pairs per step, over all workers together."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of all steps in which the learning rate rises; then it falls as a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; longer ones are clipped."""
    ema: float = 0.998
    """Decay per step of the averaged weights, which are what is validated and kept."""
    patience: int = 5
    """Epochs without a better validation error after which training stops."""
    max_seconds: float = math.inf
    """Time after which no further epoch starts."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp16 with gradient scaling on CUDA, fp32 on the CPU (measured there: bf16 takes three times as long)."""
    seed: int = 0
    only_pitch: bool = False
    """Learn only what the camera's pitch changes; where it is not known, the answers of the weights that training starts from
    stay as they are."""
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    augmentation: augment.Augmentation = field(default_factory=augment.Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")


# --- training ---------------------------------------------------------------------------------------------------------


def initialise(
    config: RefinerConfig, training: TrainingConfig, data: Source, start: PoseAwareDepthRefiner | None = None
) -> PoseAwareDepthRefiner:
    """A refiner on the data's device: untrained, with weights from the seed, or with those of `start`.

    Raises:
        UserError: `start` has another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = PoseAwareDepthRefiner(config)
    model.to(data.device)
    if start is not None:
        try:
            model.load_state_dict(start.with_camera_pitch(config.camera_pitch).state_dict())
        except RuntimeError:
            raise UserError(
                f"the checkpoint to start from has another network ({start.config}): train that one"
            ) from None
        if training.only_pitch:
            model.learn_pitch_alone()
        return model
    if training.only_pitch:
        raise UserError("only_pitch goes on from weights that know all else: name a checkpoint to start from")
    model.standardise(inputs for inputs, _ in data.chunks())
    return model


class Trainer:
    """Trains one model, an epoch at a time.

    In several processes each takes its part of every batch; `wrapped` is then the model in DistributedDataParallel.
    """

    def __init__(
        self,
        model: PoseAwareDepthRefiner,
        training: TrainingConfig,
        train: Source,
        val: TrainingData,
        *,
        wrapped: nn.Module | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if training.batch_size < world:
            raise UserError(f"a batch of {training.batch_size} is too small for {world} workers: choose a larger one")
        if len(train) < training.batch_size:
            raise UserError(
                f"{len(train)} training pairs are fewer than a batch of {training.batch_size}: "
                "make more pairs, or choose a smaller --batch-size"
            )
        if training.only_pitch and not val.frames.pitch.isfinite().any():
            raise UserError(
                "--only-pitch learns from the camera's pitch, and no pair of the validation split knows it: make the pairs "
                "again with 'rayjobs.pair' or 'rayjobs.film'"
            )
        self.model, self.wrapped = model, wrapped or model
        self.training, self.train, self.val = training, train, val
        self.rank, self.world = rank, world
        self.device = train.device
        self.parameters: list[Tensor] = list(model.parameters())
        decay = 0.0 if training.only_pitch else training.weight_decay  # nothing pulls at what is not learnt
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
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
        self.averages: list[Tensor] = list(self.averaged.parameters())
        self.best = {k: v.clone() for k, v in self.averaged.state_dict().items()}
        self.best_error, self.best_epoch = math.inf, -1
        self.epoch = self.steps = 0
        self.steps_per_epoch = len(train) // training.batch_size
        self.seconds = 0.0
        self._bones = losses.Bones.on(self.device)
        self._draws = generator(training.seed, device=self.device)
        self._names: list[str] = []  # of the loss's terms

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
        sums = torch.zeros(1, device=self.device)
        for step, share in enumerate(
            self.train.steps(options.batch_size, options.seed, self.epoch, self.rank, self.world)
        ):
            sums = sums + self.step(share, step)
        if self.world > 1:
            dist.all_reduce(sums)
        means = (sums / self.steps_per_epoch).tolist()  # the first moment at which the host waits for the device
        trained = time.perf_counter()
        # the clock of the slowest counts, so that all workers stop after the same epoch
        clock = torch.tensor(trained - started, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(clock, dist.ReduceOp.MAX)
        error = self._validate()
        if error < self.best_error:
            self.best_error, self.best_epoch = error, self.epoch
            self.best = {k: v.clone() for k, v in self.averaged.state_dict().items()}
        figures = {
            "epoch": self.epoch,
            **{f"train/{n}": v for n, v in zip(self._names, means, strict=True)},
            "val/depth_cm": error,
            "learning_rate": self._learning_rate(self.steps),
            "samples_per_s": self.steps_per_epoch * options.batch_size / (trained - started),
            "seconds": time.perf_counter() - started,
        }
        self.epoch += 1
        self.seconds += float(clock)
        return figures

    def step(self, share: Share, step: int) -> Tensor:
        """Learns from one batch.

        Args:
            share: this worker's part of it.
            step: its number within the epoch.

        Returns:
            (terms,) on the device: each term of the loss, so that the sum over all workers is the batch's mean.
        """
        draws = self._draw(len(share.rows), share.first, step)
        inputs, truth = self._vary(draws, *self._assemble(share))
        loss, terms = self._judge(inputs, truth)
        weight = len(share.rows) / self.training.batch_size
        self._backward(loss * (weight * self.world))  # DDP takes the mean over workers
        self._update()
        return terms * weight

    def _draw(self, count: int, first: int, step: int) -> augment.Draws:
        """The random numbers of this worker's part: drawn for the whole batch, and cut."""
        options = self.training
        self._draws.manual_seed(state_of(options.seed, self.epoch, step))
        draws = augment.draw(options.batch_size, options.augmentation, self._draws)
        return draws if count == options.batch_size else draws.take(slice(first, first + count))

    def _assemble(self, share: Share) -> tuple[Inputs, Tensor]:
        return share.data.batch(share.rows)

    def _vary(self, draws: augment.Draws, inputs: Inputs, truth: Tensor) -> tuple[Inputs, Tensor]:
        return augment.apply(draws, inputs, truth, self.model.config)

    def _judge(self, inputs: Inputs, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and (terms,) what it is made of."""
        with torch.autocast(self.device.type, self.autocast_type, enabled=self.autocast_type is not None):
            outputs = self.wrapped(inputs)
        parts = losses.terms(outputs, truth, self.model.config.axes, self._bones)
        parts["loss"] = losses.total(parts, self.training.weights)
        self._names = list(parts)
        return parts["loss"], torch.stack([t.detach() for t in parts.values()])

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.steps)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, self.training.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        # short at first, so that the average forgets the start
        decay = min(self.training.ema, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.averages, self.parameters, self.steps)

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

        Raises:
            UserError: the disk is full, or the like; what was there before is still there.
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
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as part:
                # clones: safetensors refuses tensors that share memory
                save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, Path(part, STATE_TENSORS))
                Path(part, STATE_FILE).write_text(json.dumps(numbers))
                for name in (STATE_TENSORS, STATE_FILE):
                    os.replace(Path(part, name), folder / name)
        except (OSError, SafetensorError) as error:  # a full disk, as a rule
            raise UserError(
                f"the checkpoint of epoch {self.epoch} could not be written to {folder} ({error}): make room there; the one "
                "before is kept, and the same --name goes on from it"
            ) from None

    def load(self, folder: str | Path) -> dict[str, Any]:
        """Takes over a state that `save` wrote, and returns its facts.

        Raises:
            UserError: it is damaged, or belongs to a model of another shape.
        """
        try:
            tensors = load_file(Path(folder, STATE_TENSORS), device=str(self.device))
            numbers = json.loads(Path(folder, STATE_FILE).read_text())
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(
                f"{folder} is not a complete training checkpoint ({error}): give the run another --name, or delete it there"
            ) from None

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
    difference, (left, right) = poses[..., 2] - truth[..., 2], HIPS
    return (difference - (difference[:, left, None] + difference[:, right, None]) / 2).abs()


@torch.no_grad()
def calibrate(model: PoseAwareDepthRefiner, val: TrainingData) -> None:
    """Fits the two numbers that turn an expected error into the probability of being within 5 cm (Platt scaling).

    Newton's method on the logistic likelihood; it is convex, and a few steps do.
    """
    answers = [(model(inputs), truth) for inputs, truth in val.chunks()]
    scale = torch.cat([o.log_scale for o, _ in answers]).double().flatten() - CONFIDENT_WITHIN_LOG
    within = torch.cat([depth_errors(o.poses, t) < CONFIDENT_WITHIN_M for o, t in answers]).double().flatten()
    rows = torch.stack([torch.ones_like(scale), -scale], dim=-1)  # (M, 2)
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64, device=rows.device)
    ridge = 1e-6 * len(rows) * torch.eye(2, dtype=torch.float64, device=rows.device)
    for _ in range(25):
        probability = torch.sigmoid(rows @ weights)
        curvature = rows.T @ (rows * (probability * (1 - probability))[:, None]) + ridge
        weights = weights + torch.linalg.solve(curvature, rows.T @ (within - probability))
    model.calibration.copy_(weights.float())
