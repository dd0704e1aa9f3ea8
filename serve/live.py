"""The model that is being served, and how it changes while requests run.

`LiveModel` holds one `Served` at a time behind one reference: whoever reads the reference keeps that model for the whole
request, so no answer ever mixes two versions. A thread watches the registry's alias; a version that the alias names is
downloaded, loaded and tried beside the one that serves, and takes its place only when it proved itself. The registry may
be away at any time: what was downloaded once serves on, also in a replica that starts meanwhile.
"""

import copy
import dataclasses
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from refiner import UserError, registry
from refiner.inference import drift, onnx
from refiner.inference.depth_refiner import DepthRefiner, Refinement
from refiner.inference.onnx import OnnxNetwork
from refiner.inference.validation import validate_poses
from refiner.model.checkpoint import read_card
from refiner.skeleton import INDEX, NUM_JOINTS

logger = logging.getLogger("ray.serve")
Registry = Literal["reachable", "unreachable", "not used"]

WARM_UP_SIZES = (
    1,
    2,
    64,
)  # lets every kernel that requests use be chosen, and its memory be taken, before the first one


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One version of the model, ready."""

    refiner: DepthRefiner
    model: Mapping[str, str]  # {"name", "version"}
    run_id: str | None
    tags: Mapping[str, str]
    loaded_at: str
    trained_on: Mapping[str, Any] | None = None  # `drift.statistics` of its training poses, if it carries them

    @property
    def runtime(self) -> Literal["onnxruntime", "pytorch"]:
        return self.refiner.network.runtime


class LiveModel:
    def __init__(
        self,
        source: str,
        *,
        device: str | None,
        threads: int,
        poll_s: float,
        cache: Path,
        now: Callable[[], datetime],
        on_swap: Callable[[str], None],
    ) -> None:
        """
        Args:
            source: "models:/name@alias" (followed), "models:/name/version", or a checkpoint's folder.
            device: for `DepthRefiner`.
            threads: that one call may use on a CPU.
            poll_s: seconds between two looks at the alias.
            cache: folder where the last version that proved itself is remembered.
            now: the clock.
            on_swap: told "swapped" or "refused" after every attempt to change the version.

        Raises:
            UserError: there is no such model, or it is unusable, and none has proved itself before.
        """
        self.source = source
        self.refused: dict[str, str] = {}  # version that the alias names, but was not taken -> why
        self._registered = registry.ModelSource.parse(source)
        self.registry: Registry = "reachable" if self._registered else "not used"
        self._device, self._threads, self._now, self._on_swap = device, threads, now, on_swap
        key = hashlib.sha256(f"{registry.tracking_uri()} {source}".encode()).hexdigest()[:16]
        self._remembered = cache / f"{key}.json"
        self._stop = threading.Event()
        self.current = self._start()
        if self._registered is not None and self._registered.alias is not None:
            follow = self._registered, self._registered.alias, poll_s
            threading.Thread(target=self._watch, args=follow, name="champion-watch", daemon=True).start()

    def address(self, served: Served) -> str:
        """What another process loads the same version by."""
        return str(self._registered.at(served.model["version"])) if self._registered else self.source

    def close(self) -> None:
        self._stop.set()

    def check(self) -> None:
        """Refines a pose.

        Raises:
            UserError: the answer is not finite; the replica is to be replaced.
        """
        try_out(self.current.refiner, sizes=(1,))

    def _start(self) -> Served:
        if self._registered is None:
            refiner = DepthRefiner(self.source, device=self._device)
            return self._proved(refiner, Path(self.source), run_id=None, tags={})
        try:
            local = registry.download(self._registered)  # from this disk, if MLflow is away
        except UserError as error:
            return self._last_good(error)
        try:
            return self._load(local)
        except Exception as error:
            self._refuse(local.version, error)
            return self._last_good(error)

    def _load(self, local: registry.LocalModel) -> Served:
        refiner = DepthRefiner(local.path, device=self._device)
        refiner.name, refiner.version = local.name, local.version
        served = self._proved(refiner, local.path, run_id=local.run_id, tags=local.tags)
        record = {**dataclasses.asdict(local), "path": str(local.path)}
        self._remembered.parent.mkdir(parents=True, exist_ok=True)
        part = self._remembered.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(record))
        os.replace(part, self._remembered)
        return served

    def _proved(self, refiner: DepthRefiner, folder: Path, *, run_id: str | None, tags: Mapping[str, str]) -> Served:
        try_out(refiner)
        trained_on = read_card(folder).get(drift.CARD_KEY)
        if trained_on is not None:  # damaged statistics are met here, and not in the health check
            drift.drift(trained_on, *validate_poses(standing_poses(1)))
        if refiner.device.type == "cpu":
            # not waited for: exporting takes seconds, in which PyTorch gives the same answers
            threading.Thread(target=_quicken, args=(refiner, folder, self._threads), daemon=True).start()
        return Served(
            refiner=refiner,
            model={"name": refiner.name, "version": refiner.version},
            run_id=run_id,
            tags=tags,
            loaded_at=self._now().isoformat(timespec="seconds"),
            trained_on=trained_on,
        )

    def _last_good(self, error: Exception) -> Served:
        """What served before this replica started, where the registry offers nothing that does."""
        try:
            record = json.loads(self._remembered.read_text())
        except (OSError, ValueError):
            raise error from None
        logger.error("%s: version %s, which served last, keeps serving", error, record["version"])
        return self._load(registry.LocalModel(**{**record, "path": Path(record["path"])}))

    def _watch(self, source: registry.ModelSource, alias: str, poll_s: float) -> None:
        while not self._stop.wait(poll_s):
            try:
                version = registry.get_alias(source.name, alias)
                self.refused = {refused: why for refused, why in self.refused.items() if refused == version}
                if version is not None and version != self.current.model["version"] and version not in self.refused:
                    self._change(registry.download(source.at(version)))
                self.registry = "reachable"
            except Exception as error:  # MLflow away or ill: it is asked again, and what is here serves on
                if self.registry == "reachable":
                    logger.warning("%s: version %s keeps serving", error, self.current.model["version"])
                self.registry = "unreachable"

    def _change(self, local: registry.LocalModel) -> None:
        try:
            self.current = self._load(local)
        except Exception as error:
            self._refuse(local.version, error)
        else:
            logger.info("version %s serves now", local.version)
            self._on_swap("swapped")

    def _refuse(self, version: str, error: Exception) -> None:
        self.refused[version] = str(error)
        logger.error("version %s is refused: %s", version, error)
        self._on_swap("refused")


def _quicken(refiner: DepthRefiner, folder: Path, threads: int) -> None:
    """Puts ONNX Runtime in PyTorch's place if it gives the same answers; a model that it cannot take stays with PyTorch."""
    trial = copy.copy(refiner)
    try:
        trial.network = OnnxNetwork(onnx.export(folder), threads)
        try_out(trial)
        poses = standing_poses(3)
        answered, expected = trial.predict(poses, sequence=True), refiner.predict(poses, sequence=True)
        for name in ("poses", "confidence"):
            if not np.allclose(getattr(answered, name), getattr(expected, name), atol=1e-4):
                raise UserError(f"ONNX Runtime and PyTorch disagree about the {name}")
    except Exception as error:
        logger.warning("version %s stays with PyTorch, which is slower: %s", refiner.version, error)
    else:
        refiner.network = trial.network


def standing_poses(count: int) -> np.ndarray:
    """(count, 17, 3) m: a person standing upright, turned a little further from pose to pose."""
    points = {
        "nose": (0, -0.62, -0.08), "eye": (0.03, -0.65, -0.06), "ear": (0.07, -0.63, 0.0), "shoulder": (0.18, -0.48, 0.0),
        "elbow": (0.22, -0.22, 0.02), "wrist": (0.24, 0.02, -0.03), "hip": (0.11, 0.0, 0.0), "knee": (0.12, 0.42, 0.01),
        "ankle": (0.12, 0.82, 0.06),
    }  # fmt: skip
    pose = np.zeros((NUM_JOINTS, 3))
    for name, joint in INDEX.items():
        side, _, part = name.rpartition("_")
        pose[joint] = points[part or name]
        pose[joint, 0] *= -1 if side == "right" else 1
    turn = np.linspace(0, np.pi / 2, count)
    c, s, zero, one = np.cos(turn), np.sin(turn), np.zeros(count), np.ones(count)
    about_y = np.stack([c, zero, s, zero, one, zero, -s, zero, c], axis=-1).reshape(count, 3, 3)
    return np.einsum("nij,kj->nki", about_y, pose).astype(np.float32)


def rounded(poses: np.ndarray) -> list[Any]:
    """In centimetres' steps, as nested lists: for examples that people read."""
    return poses.astype(np.float64).round(2).tolist()


def try_out(refiner: DepthRefiner, sizes: tuple[int, ...] = WARM_UP_SIZES) -> None:
    """Refines some poses, each size as a batch and as a clip.

    Raises:
        UserError: the answers have the wrong shape or are not finite.
    """
    for size in sizes:
        for sequence in (False, True):
            answered: Refinement = refiner.predict(standing_poses(size), sequence=sequence)
            shapes = answered.poses.shape, answered.confidence.shape, answered.view_angle.shape
            if shapes != ((size, NUM_JOINTS, 3), (size, NUM_JOINTS), (size,)):
                raise UserError(f"model {refiner.name} version {refiner.version} answers in the shapes {shapes}")
            if not all(np.isfinite(a).all() for a in (answered.poses, answered.confidence, answered.view_angle)):
                raise UserError(
                    f"model {refiner.name} version {refiner.version} answers with numbers that are not finite"
                )
