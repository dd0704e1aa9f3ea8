"""What training sees of the pairs: all of them in device memory, or streamed from their files where they do not fit.

Both deal out an epoch's batches in an order that follows from the seed and the epoch alone, whatever the number of workers.
Used by `refiner.training.trainer.Trainer`, which does not know which of the two it has.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor

from refiner.data import checks, manifest, records
from refiner.data.records import PAIRS, Pairs, Seen
from refiner.errors import UserError
from refiner.inference.depth_refiner import prepare
from refiner.inference.validation import validate_poses
from refiner.model.config import RefinerConfig
from refiner.model.inputs import Inputs
from refiner.skeleton import NUM_JOINTS, root_centred

# Pairs at once where nothing is learnt from them: enough to keep a core busy, and a GPU.
CHUNK = {"cpu": 4096, "cuda": 65536}
# A streamed batch is made of this many parts (or a divisor of the batch size), each from files of its own, so that several
# workers share the reading and still see the batches that one would see.
LANES = 16
# Share of a device's memory that pairs may fill; the rest is for activations, and on a machine for its other workers.
AUTO_SHARE = {"cpu": 0.2, "cuda": 0.5}
# Files of a split that are looked at beforehand for wrong units and frames, mistakes that all of them share.
SAMPLE = 64
READERS = min(8, os.cpu_count() or 1)  # threads


class Part(NamedTuple):
    """A file of pairs, and how its frames were seen. The same file may be there in several ways."""

    path: str | Path
    seen: Seen = "mediapipe"


class Share(NamedTuple):
    """What one worker does of a step's batch."""

    data: "TrainingData"
    rows: Tensor  # (b,) int64 indices into `data`
    first: int  # position of the first of them within the whole batch


class Source(Protocol):
    """Training pairs, wherever they are."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def steps(self, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Share]:
        """This worker's share of each whole batch of an epoch. What is left over waits for another epoch."""
        ...

    def chunks(self) -> Iterator[tuple[Inputs, Tensor]]:
        """All pairs in a fixed order."""
        ...


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of these numbers."""
    return torch.Generator(device).manual_seed(state_of(*key))


def state_of(*key: int) -> int:
    """These numbers as the state of a generator."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class TrainingData:
    """Pairs on a device."""

    def __init__(self, pairs: Pairs, config: RefinerConfig, device: torch.device | str = "cpu") -> None:
        self._allocate(len(pairs), config, device)
        self._fill(0, pairs)

    @classmethod
    def read(
        cls,
        root: str | Path,
        split: str,
        config: RefinerConfig,
        device: torch.device | str,
        also: Sequence[str | Path] = (),
        seen: Sequence[Seen] = ("mediapipe",),
    ) -> "TrainingData":
        """All pairs of a split, in each way that they were seen, and of `also` these files, one by one, so that only one is
        in the host's memory at a time.

        Raises:
            UserError: there are none, a file is damaged, or its numbers cannot be.
        """
        parts = parts_of(root, split, seen, also)
        counts = row_counts([part.path for part in parts])
        self = cls.__new__(cls)
        self._allocate(sum(counts), config, device)
        starts = np.cumsum([0, *counts])
        for start, pairs in zip(starts, read_all(parts, config), strict=False):
            if len(pairs):
                self._fill(int(start), pairs)
        return self

    def _allocate(self, count: int, config: RefinerConfig, device: torch.device | str) -> None:
        if not count:
            raise UserError("there are no pairs to train on: run 'python -m rayjobs.pair' to make some")
        self.config = config
        points = torch.empty(count if config.image_points else 1, NUM_JOINTS, 2, device=device)
        self.frames = Inputs(
            torch.empty(count, NUM_JOINTS, 3, device=device),
            torch.empty(count, NUM_JOINTS, device=device),
            torch.empty(count, device=device),
            points if config.image_points else points.zero_().expand(count, -1, -1),  # takes no memory
            torch.empty(count, device=device)
            if config.camera_pitch
            else torch.full((1,), torch.nan, device=device).expand(count),
        )
        self.truth = torch.empty(count, NUM_JOINTS, 3, device=device)  # m

    def _fill(self, start: int, pairs: Pairs) -> None:
        """Pairs from row `start` on."""
        poses, visibility = validate_poses(pairs.corrupted, pairs.visibility, recognise=False)
        pitch = pairs.pitch if self.config.camera_pitch else None
        kept = {"image_points": self.config.image_points, "pitch": self.config.camera_pitch}
        for i in range(0, len(poses), CHUNK["cpu"]):
            inputs = prepare(self.config, poses, visibility, slice(i, i + CHUNK["cpu"]), pairs.image_points, pitch)
            rows = slice(start + i, start + i + len(inputs.azimuth))
            for name, given in inputs._asdict().items():
                if kept.get(name, True):
                    getattr(self.frames, name)[rows] = given.to(self.device)
        rows = slice(start, start + len(poses))
        self.truth[rows] = torch.from_numpy(root_centred(pairs.ground_truth)).to(self.device)

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def device(self) -> torch.device:
        return self.truth.device

    def batch(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        """Row indices (B,) -> what the network sees and the truth (B, 17, 3)."""
        frames = self.frames
        points = frames.image_points
        points = points[rows] if self.config.image_points else points[:1].expand(len(rows), -1, -1)
        return (
            Inputs(frames.poses[rows], frames.visibility[rows], frames.azimuth[rows], points, frames.pitch[rows]),
            self.truth[rows],
        )

    def chunks(self, rows: Tensor | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """All pairs (or these rows), in order."""
        rows = torch.arange(len(self), device=self.device) if rows is None else rows
        return (self.batch(part) for part in rows.split(CHUNK[self.device.type]))

    def steps(self, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Share]:
        # drawn on the device: ten million numbers take a CPU as long as an epoch takes a GPU, and no step waits for a copy
        order = torch.randperm(len(self), generator=generator(seed, epoch, device=self.device), device=self.device)
        first, last = (r * batch_size // world for r in (rank, rank + 1))
        for start in range(0, len(self) - batch_size + 1, batch_size):
            yield Share(self, order[start + first : start + last], first)


class StreamedData:
    """Pairs that stay on disk. Each epoch reads every file about once, in an order of its own.

    The files in the epoch's order make one long row of pairs. It is cut into equal lanes, and a batch takes as many pairs from
    each lane; within a lane, pairs are shuffled among the next `buffer` pairs of all lanes together. Lanes are dealt to
    the workers, so that each reads its own part only. While one buffer is learnt from, a thread fills the next.
    """

    def __init__(self, parts: Sequence[Part], config: RefinerConfig, device: torch.device | str, buffer: int) -> None:
        """
        Args:
            parts: Parquet files, each with whole clips.
            config: of the network.
            device: where batches are wanted.
            buffer: pairs, over all workers together, that are shuffled among each other.
        """
        self.parts, self.config, self.device, self.buffer = list(parts), config, torch.device(device), buffer
        self.counts = row_counts([part.path for part in self.parts])
        if (largest := max(self.counts)) > buffer:
            path = self.parts[self.counts.index(largest)].path
            raise UserError(
                f"{path} alone has {largest} pairs, and only {buffer} may be in memory at a time: "
                "allow more with --memory-gb, or make smaller files"
            )

    def __len__(self) -> int:
        return sum(self.counts)

    def chunks(self) -> Iterator[tuple[Inputs, Tensor]]:
        for pairs in read_all(self.parts, self.config):
            yield from TrainingData(pairs, self.config, self.device).chunks()

    def steps(self, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Share]:
        lanes = math.gcd(batch_size, LANES)
        if world > lanes:
            raise UserError(
                f"a batch of {batch_size} can be streamed to {lanes} workers at most, not {world}: choose a multiple of {LANES}"
            )
        mine = range(rank * lanes // world, (rank + 1) * lanes // world)
        steps, each = len(self) // batch_size, batch_size // lanes  # pairs that a step takes from a lane
        at_once = max(1, self.buffer // batch_size)  # steps
        order = torch.randperm(len(self.parts), generator=generator(seed, epoch)).numpy()

        def fill(first: int) -> tuple[TrainingData, Tensor]:
            count = min(at_once, steps - first)
            starts = [lane * len(self) // lanes + first * each for lane in mine]
            spans = [np.arange(start, start + count * each) for start in starts]
            shuffled = [
                span[torch.randperm(len(span), generator=generator(seed, epoch, first, lane)).numpy()]
                for lane, span in zip(mine, spans, strict=True)
            ]
            data, rows = self._read(order, np.concatenate(shuffled))
            return data, torch.from_numpy(rows).to(self.device).view(len(mine), count, each)

        with ThreadPoolExecutor(1, "pairs") as reader:
            coming = reader.submit(fill, 0)
            for first in range(0, steps, at_once):
                data, rows = coming.result()
                if first + at_once < steps:
                    coming = reader.submit(fill, first + at_once)
                for step in range(rows.shape[1]):
                    yield Share(data, rows[:, step].flatten(), mine.start * each)

    def _read(self, order: np.ndarray, positions: np.ndarray) -> tuple[TrainingData, np.ndarray]:
        """Loads the files that hold these positions of the epoch's row of pairs, and says where they are in them."""
        counts = np.array(self.counts)[order]
        starts = np.cumsum(counts) - counts
        place = np.searchsorted(starts, positions, side="right") - 1  # index into `order`
        used = np.unique(place)
        data = TrainingData.__new__(TrainingData)
        data._allocate(int(counts[used].sum()), self.config, self.device)
        offsets = np.zeros(len(order), dtype=np.int64)
        offsets[used] = np.cumsum(counts[used]) - counts[used]
        for i, pairs in zip(used, read_all([self.parts[order[i]] for i in used], self.config), strict=True):
            data._fill(int(offsets[i]), pairs)
        return data, offsets[place] + positions - starts[place]


def load(
    root: str | Path,
    config: RefinerConfig,
    device: torch.device | str,
    memory: float,
    simulated: str | Path | None = None,
    seen: Sequence[Seen] = ("mediapipe",),
) -> tuple[Source, TrainingData]:
    """Training and validation pairs: both in device memory where they fit, else the training pairs streamed.

    Args:
        root: of the pairs.
        config: of the network.
        device: of this worker.
        memory: bytes that pairs may take; 0: `AUTO_SHARE` of the smallest worker's device. The order of streamed pairs
            follows from it.
        simulated: of further pairs to train on, which 'rayjobs.simulate' wrote.
        seen: how the frames were seen; every pair is there in each of these ways, to train and to validate.

    Raises:
        UserError: what is there is no set of pairs, or the validation pairs alone do not fit.
    """
    budget = memory or AUTO_SHARE[torch.device(device).type] * device_memory(device)
    if dist.is_initialized():  # or workers would stream in different orders
        smallest = torch.tensor(budget, dtype=torch.float64, device=device)
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        budget = float(smallest)
    size = bytes_per_pair(config)
    train, val = (records.pair_files(root, split) for split in ("train", "val"))
    also = records.pair_files(simulated, "train") if simulated else []
    known = manifest.read(root)
    if known is not None:
        checks.check_known(known, "train", "val")
    for split, paths in (("train", train), ("val", val)) if known is None else ():
        some = [records.read_table(path, PAIRS) for path in paths[:: max(1, len(paths) // SAMPLE)]]
        checks.check_pairs(Pairs.from_table(pa.concat_tables(some)), split)
    here = sum(row_counts(val)) * size * len(seen)
    if here > budget / 2:
        raise UserError(
            f"the validation pairs of {root} take {here / 1e9:.2g} GB, more than half of the {budget / 1e9:.2g} GB that pairs "
            "may fill: allow more with --memory-gb, or validate on fewer"
        )
    validation = TrainingData.read(root, "val", config, device, seen=seen)
    parts = parts_of(root, "train", seen, also)
    if here + sum(row_counts([part.path for part in parts])) * size <= budget:
        return TrainingData.read(root, "train", config, device, also, seen), validation
    # one buffer is learnt from while the next is filled, and files reach beyond what is wanted of them
    return StreamedData(parts, config, device, int((budget - here) / (3 * size))), validation


def parts_of(root: str | Path, split: str, seen: Sequence[Seen], also: Sequence[str | Path] = ()) -> list[Part]:
    """The files of a split, in each of these ways, and these others, as everybody has them."""
    return [Part(path, way) for way in seen for path in records.pair_files(root, split)] + [Part(path) for path in also]


def bytes_per_pair(config: RefinerConfig) -> int:
    """What a pair takes on a device."""
    numbers = NUM_JOINTS * (3 + 1 + 3 + 2 * config.image_points) + 1 + config.camera_pitch
    return 4 * numbers


def device_memory(device: torch.device | str) -> int:
    """Bytes that a device has; for the CPU what the machine has, or the container may use of it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return machine


def row_counts(paths: Sequence[str | Path]) -> list[int]:
    """Number of pairs in each file, from their footers."""
    return [_footer(path).num_rows for path in paths]


def _footer(path: str | Path) -> pq.FileMetaData:
    try:
        return records.read_footer(path)
    except (OSError, ValueError) as error:  # pyarrow's exceptions are ValueErrors
        raise UserError(
            f"{path} is not a complete Parquet file ({error}): run 'python -m rayjobs.pair' again"
        ) from None


def read_all(parts: Sequence[Part], config: RefinerConfig) -> Iterator[Pairs]:
    """The pairs of each file, in order; some threads read ahead."""
    with ThreadPoolExecutor(READERS, "pairs") as pool:
        ahead: deque[Future[Pairs]] = deque()
        for part in parts:
            ahead.append(pool.submit(read_clips, part, config))
            if len(ahead) > READERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def read_clips(part: Part, config: RefinerConfig) -> Pairs:
    """The pairs of one file by clip. What training needs not (view angle, azimuth, unless wanted the image points and the
    camera's pitch) is empty.

    Raises:
        UserError: it is damaged, or its truth holds NaN; of the observations `validate_poses` takes care.
    """
    needed = ["sequence", "camera", "frame", "timestamp_us", "corrupted", "ground_truth", "visibility", "clip"]
    path, seen = part
    needed += ["image_points"] * config.image_points + ["pitch"] * config.camera_pitch
    table = records.read_pair_table(path, needed, seen)
    table = table.sort_by([("sequence", "ascending"), ("camera", "ascending"), ("frame", "ascending")])
    columns = {f.name: np.zeros(0, np.float32) for f in fields(Pairs)}
    pairs = Pairs(**columns | {name: records.column(table, name) for name in table.column_names})
    if not np.isfinite(pairs.ground_truth).all():
        raise UserError(f"the 'ground_truth' of {path} holds NaN or infinity: run 'python -m rayjobs.pair' again")
    return pairs
