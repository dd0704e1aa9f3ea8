"""Using a trained refiner: poses in, corrected poses and what to think of them out.

    refined = DepthRefiner("models:/pose-depth-refiner@champion").refine(pose, visibility)

`validate_poses` and `prepare` are the only pre-processing there is: training, evaluation, batch refinement and the HTTP
endpoint all come through here, so what a model sees in use is what it was trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from refiner import geometry, registry, temporal
from refiner.data.clips import of_poses
from refiner.data.records import Pairs
from refiner.errors import UserError
from refiner.inference.validation import (
    as_numbers,
    check_pixels,
    from_landmarks,
    numbers_or_none,
    shape_of,
    validate_poses,
)  # fmt: skip
from refiner.model.checkpoint import load_checkpoint, read_card
from refiner.model.config import RefinerConfig
from refiner.model.inputs import Inputs
from refiner.model.network import PoseAwareDepthRefiner
from refiner.skeleton import BONES, NUM_JOINTS, NUM_LANDMARKS, root_centred, to_coco

DEFAULT_FPS = 30.0
SHORTEST_STEP_S = 2.5e-4  # between two frames; the fastest cameras that film people take twice that
SHORTEST_BONE_M, LONGEST_BONE_M = 0.01, 1.0  # that a caller may ask for
# The model in the box: trained on rendered dancers.
SHIPPED = Path(__file__).parents[1] / "weights" / "studio"
BATCH = 1024  # poses at once: enough to keep a core busy, little memory


class Stopped(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refinement:
    """Corrected poses and what is known about them; N poses."""

    poses: np.ndarray  # (N, 17, 3) float32 m, virtual camera frame, hips' midpoint at the origin
    confidence: np.ndarray  # (N, 17) float32: probability that the joint's depth is within 5 cm of the truth
    view_angle: np.ndarray  # (N,) float32 degrees, 0 frontal (or from behind) … 90 profile, of the pose as it was given
    azimuth: np.ndarray  # (N,) float32 degrees, signed, full circle, of the pose as it was given
    bone_lengths: np.ndarray | None = None  # (B,) m, medians before they were kept, of a sequence; None where none are


def prepare(
    config: RefinerConfig,
    poses: np.ndarray,
    visibility: np.ndarray,
    rows: slice | np.ndarray = slice(None),
    image_points: np.ndarray | None = None,
    pitch: np.ndarray | None = None,
) -> Inputs:
    """Poses as `validate_poses` returns them -> what the network sees.

    Args:
        config: of the network.
        poses: (N, 17, 3).
        visibility: (N, 17).
        rows: which poses are wanted, B of them; all by default.
        image_points: (N, 17, 2) crop-normalised. Where they are not known (None or NaN) the pose itself, seen from far
            away, stands in.
        pitch: (N,) degrees that the line of sight to the person looks down. None or NaN: not known.

    Returns:
        Inputs of B poses, on the CPU.
    """
    wanted = poses[rows]  # (B, 17, 3)
    if config.image_points:
        points = geometry.crop_normalise(wanted[..., :2])
        if image_points is not None:
            given = image_points[rows]
            points = np.where(np.isfinite(given), given, points)
    else:
        points = np.zeros((len(wanted), NUM_JOINTS, 2), dtype=np.float32)
    return Inputs(
        poses=torch.from_numpy(wanted),
        visibility=torch.from_numpy(visibility[rows]),
        azimuth=torch.from_numpy(geometry.azimuth(wanted).astype(np.float32, copy=False)),
        image_points=torch.from_numpy(points.astype(np.float32, copy=False)),
        pitch=torch.full((len(wanted),), torch.nan) if pitch is None else torch.tensor(pitch[rows]),
    )


class Network(Protocol):
    """What computes, prepared inputs -> (B, 17, 3) m corrected and (B, 17) confidence."""

    runtime: Literal["onnxruntime", "pytorch"]

    def __call__(self, inputs: Inputs, /) -> tuple[np.ndarray, np.ndarray]: ...


class TorchNetwork:
    """The network on PyTorch. `refiner.inference.onnx.OnnxNetwork` is the same on ONNX Runtime."""

    runtime: Literal["onnxruntime", "pytorch"] = "pytorch"

    def __init__(self, model: PoseAwareDepthRefiner, device: torch.device) -> None:
        self._model, self._device = model, device

    @torch.inference_mode()
    def __call__(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """B poses -> (B, 17, 3) m corrected, (B, 17) confidence."""
        outputs = self._model(inputs.to(self._device))
        return outputs.poses.cpu().numpy(), self._model.confidence(outputs.log_scale).cpu().numpy()


class DepthRefiner:
    """A trained refiner, ready to use. Safe to share between threads.

    `card` has the facts that came with the checkpoint. `network` is what computes: PyTorch, unless `refiner.inference.onnx`
    puts something quicker in its place.
    """

    def __init__(self, source: str | Path | None = None, *, device: str | torch.device | None = None) -> None:
        """
        Args:
            source: a folder with model.safetensors and config.json, or the registry's "models:/pose-depth-refiner@champion"
                or "models:/pose-depth-refiner/3". By default the model that comes with this package; its card, in the
                config.json beside it, says what it was trained on and how good it is.
            device: "cuda", "cpu" …; CUDA where there is one by default.

        Raises:
            UserError: there is no such model, or it is damaged.
        """
        source = SHIPPED if source is None else source
        if (registered := registry.ModelSource.parse(source)) is not None:
            local = registry.download(registered)
            folder, self.name, self.version = local.path, local.name, local.version
        else:
            folder = Path(source)
            # whoever asks by the usual name gets what is there before any training
            shipped = folder.resolve() == SHIPPED
            self.name, self.version = registry.NAME if shipped else folder.resolve().name, "0"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._use(load_checkpoint(folder).to(self.device))
        self.card = read_card(folder)

    @classmethod
    def of(cls, model: PoseAwareDepthRefiner, name: str = "unsaved", version: str = "0") -> "DepthRefiner":
        """Wraps a network that is in memory already, on the device where it is."""
        self = cls.__new__(cls)
        self.name, self.version = name, version
        self.card = {}
        self.device = next(model.parameters()).device
        self._use(model.eval())
        return self

    def _use(self, model: PoseAwareDepthRefiner) -> None:
        self.model = model
        self.network: Network = TorchNetwork(model, self.device)

    def refine(
        self,
        pose: np.ndarray,
        visibility: np.ndarray | None = None,
        *,
        image_points: np.ndarray | None = None,
        sequence: bool = False,
        fps: float = DEFAULT_FPS,
        camera_pitch: float | np.ndarray | None = None,
    ) -> np.ndarray:
        """Corrects one pose, (17 or 33, 3) -> (17, 3), or many, (N, 17 or 33, 3) -> (N, 17, 3). Else as `predict`."""
        pose = as_numbers(from_landmarks(pose), "poses")
        if pose.ndim != 2:
            return self.predict(
                pose, visibility, image_points=image_points, sequence=sequence, fps=fps, camera_pitch=camera_pitch
            ).poses
        return self.predict(
            pose[None],
            None if visibility is None else as_numbers(visibility, "visibility")[None],
            image_points=None if image_points is None else as_numbers(image_points, "image_points")[None],
            camera_pitch=camera_pitch,
        ).poses[0]

    def predict(
        self,
        poses: np.ndarray,
        visibility: np.ndarray | None = None,
        *,
        image_points: np.ndarray | None = None,
        sequence: bool = False,
        fps: float = DEFAULT_FPS,
        timestamps_us: np.ndarray | None = None,
        clip: np.ndarray | None = None,
        keep_bones: bool = True,
        bone_lengths: np.ndarray | None = None,
        camera_pitch: float | np.ndarray | None = None,
        recognise: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Refinement:
        """Corrects poses.

        Args:
            poses: (N, 17 or 33, 3) m, MediaPipe's world landmarks.
            visibility: (N, 17 or 33), or None.
            image_points: (N, 17 or 33, 2) pixels of the same joints, or None; only models with image points look at them.
            sequence: the poses are successive frames of one video, whose answers are smoothed over time and keep their
                bones' lengths, where the model's config says so; otherwise each stands for itself.
            fps: frames per second of that video.
            timestamps_us: (N,) rising; when each frame was taken, in microseconds, instead of `fps`.
            clip: (N,) whole numbers that never fall: the scene of each frame, across whose ends nothing is smoothed or
                levelled; None finds the ends by gaps and by motion that no body makes.
            keep_bones: give each bone of a scene one length, if the model is of that kind. A part of a longer video is
                refined without; `temporal.with_bone_lengths` then gives the whole its lengths.
            bone_lengths: (B,) m, in the order of `skeleton.BONES`: those lengths; None is the median of each in its scene.
            camera_pitch: degrees by which the camera looks down (negative: up), where that is known; with one number for each
                pose, (N,), that of the line of sight to the person, who may be far from the picture's middle. None: not
                known. Only models whose config has camera_pitch look at it.
            recognise: refuse what is of another kind, see `validate_poses`; not for what was checked by itself before.
            stopped: asked every thousand poses; says that the answer is not wanted any more.

        Raises:
            UserError: as `validate_poses`.
            Stopped: `stopped` said so.
        """
        poses, visibility = validate_poses(poses, visibility, recognise=recognise)
        if image_points is not None:
            image_points = _image_points(image_points, len(poses))
        pitch = None if camera_pitch is None else _pitch(camera_pitch, len(poses))
        if not sequence:
            return self._correct(poses, visibility, image_points, stopped=stopped, pitch=pitch)
        if bone_lengths is not None:
            bone_lengths = _bone_lengths(bone_lengths)
        fps = temporal.check_fps(fps)
        count = len(poses)
        seconds = np.arange(count) / fps if timestamps_us is None else _seconds(timestamps_us, count)
        clip = of_poses(poses, seconds) if clip is None else _clips(clip, count)
        refinement = self._correct(poses, visibility, image_points, (seconds, clip), stopped, pitch)
        return self._levelled(refinement, clip, keep_bones, bone_lengths)

    def predict_pairs(self, pairs: Pairs, *, camera_pitch: bool = False) -> Refinement:
        """Corrects the observed poses of pairs, each clip as a sequence with its own time stamps.

        Args:
            pairs: as they were observed.
            camera_pitch: tell the model how the camera looks, as the pairs know it; most users do not.
        """
        poses, visibility = validate_poses(pairs.corrupted, pairs.visibility, recognise=False)
        clips = temporal.clip_ids(pairs.clip_starts(), len(pairs))
        moments, pitch = (pairs.timestamp_us * 1e-6, clips), pairs.pitch if camera_pitch else None
        refinement = self._correct(poses, visibility, pairs.image_points, moments, pitch=pitch)
        return self._levelled(refinement, clips)

    def _levelled(
        self, refinement: Refinement, clips: np.ndarray, keep_bones: bool = True, bone_lengths: np.ndarray | None = None
    ) -> Refinement:
        """With bones of one length in each clip, where the model is of that kind."""
        return (
            _levelled(refinement, clips, keep_bones, bone_lengths) if self.model.config.constant_bones else refinement
        )

    def _correct(
        self,
        poses: np.ndarray,
        visibility: np.ndarray,
        image_points: np.ndarray | None,
        moments: tuple[np.ndarray, np.ndarray] | None = None,
        stopped: Callable[[], bool] = lambda: False,
        pitch: np.ndarray | None = None,
    ) -> Refinement:
        """`moments` are the seconds and the clip's number of each pose; without them each pose stands for itself."""
        config, count = self.model.config, len(poses)
        parts = []
        for start in range(0, count, BATCH):
            if stopped():
                raise Stopped
            inputs = prepare(config, poses, visibility, slice(start, start + BATCH), image_points, pitch)
            parts.append((*self.network(inputs), inputs.azimuth.numpy()))
        refined, confidence, azimuth = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        refined = root_centred(refined)
        if moments is not None:
            refined = temporal.smooth(refined, *moments, config.smoothing_s)
        return Refinement(
            poses=refined, confidence=confidence, view_angle=geometry.view_angle(azimuth), azimuth=azimuth
        )


def along_clips(
    refinement: Refinement, seconds: np.ndarray, clips: np.ndarray, smoothing_s: float, constant_bones: bool
) -> Refinement:
    """Poses that were refined each by itself, as frames of clips: what `DepthRefiner.predict` does with a sequence.

    Args:
        refinement: N poses.
        seconds: (N,) when, rising within a clip.
        clips: (N,) non-decreasing numbers of the clips.
        smoothing_s: of the model's config.
        constant_bones: of the same.
    """
    refinement = replace(refinement, poses=temporal.smooth(refinement.poses, seconds, clips, smoothing_s))
    return _levelled(refinement, clips) if constant_bones else refinement


def _levelled(
    refinement: Refinement, clips: np.ndarray, keep_bones: bool = True, bone_lengths: np.ndarray | None = None
) -> Refinement:
    if not len(clips):
        return refinement
    medians = temporal.bone_lengths(refinement.poses)
    if keep_bones:
        lengths = temporal.clip_bone_lengths(refinement.poses, clips) if bone_lengths is None else bone_lengths
        refinement = replace(refinement, poses=temporal.with_bone_lengths(refinement.poses, lengths))
    return replace(refinement, bone_lengths=medians)


def _image_points(values: np.ndarray, count: int) -> np.ndarray:
    """(N, 17 or 33, 2) pixels -> (N, 17, 2) crop-normalised."""
    points = as_numbers(values, "image_points")
    if points.ndim != 3 or points.shape[1] not in (NUM_JOINTS, NUM_LANDMARKS) or points.shape[2] != 2:
        raise UserError(f"image_points have the shape {shape_of(points)}: expected N×17×2 or N×33×2 pixels")
    if len(points) != count:
        raise UserError(f"there are {len(points)} rows of image_points and {count} poses: send one for each")
    check_pixels(points)
    return geometry.crop_normalise(to_coco(points))


def _seconds(timestamps_us: np.ndarray, count: int) -> np.ndarray:
    """(N,) rising microseconds -> seconds."""
    stamps = numbers_or_none(timestamps_us)
    if stamps is None or stamps.shape != (count,):
        raise UserError(f"timestamps_us must be {count} rising numbers, one for each pose")
    seconds = stamps * 1e-6
    if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
        raise UserError(f"timestamps_us must be {count} rising numbers, one for each pose")
    if count > 1 and np.median(np.diff(seconds)) < SHORTEST_STEP_S:
        raise UserError(
            f"timestamps_us are {np.median(np.diff(stamps)):g} microseconds apart, which no camera takes: "
            "give microseconds, not seconds or milliseconds"
        )
    return seconds


def _clips(numbers: np.ndarray, count: int) -> np.ndarray:
    """(N,) whole numbers, any type -> int64, in which differences do not wrap."""
    clips = numbers_or_none(numbers)
    if (
        clips is None
        or clips.shape != (count,)
        or clips.dtype.kind not in "iu"
        or (np.diff(clips := clips.astype(np.int64)) < 0).any()
    ):
        raise UserError(f"clip must be {count} whole numbers that never fall, one for each pose")
    return clips


def _pitch(degrees: float | np.ndarray, count: int) -> np.ndarray:
    """One number for all or (N,) -> (N,)."""
    pitch = as_numbers(degrees, "camera_pitch")
    if pitch.shape not in ((), (count,)) or not (np.abs(pitch) <= 90).all():
        raise UserError(f"camera_pitch is to be one number of degrees from -90 to 90, or {count}: one for each pose")
    return np.tile(pitch, count) if pitch.ndim == 0 else pitch


def _bone_lengths(values: np.ndarray) -> np.ndarray:
    lengths = as_numbers(values, "bone_lengths")
    if lengths.shape != (len(BONES),) or not ((lengths >= SHORTEST_BONE_M) & (lengths <= LONGEST_BONE_M)).all():
        raise UserError(
            f"bone_lengths must be {len(BONES)} lengths of {SHORTEST_BONE_M:g} to {LONGEST_BONE_M:g} metres, one for each of "
            "skeleton.BONES"
        )
    return lengths
