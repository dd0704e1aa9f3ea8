"""Observations and ground truth brought together: matched in time, in the virtual camera frame, whole sequences per split.

What cannot be paired is counted under its reason, never invented.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refiner.data import aistpp, clips, records
from refiner.data.records import Pairs, column
from refiner.errors import UserError
from refiner.geometry import Y_UP, Camera, azimuth, crop_normalise, pitch, to_virtual_camera, view_angle
from refiner.skeleton import MIRROR, root_centred, to_coco

# Half the time between two annotations: a frame further away from every annotation has none.
TOLERANCE_US = 0.5e6 / aistpp.FPS
# A video in which this share of the frames lies beyond its annotation has been re-timed, or belongs to another sequence.
MAX_BEYOND_END = 0.1
# What tells a wrong camera setting, sequence or person from MediaPipe's own errors: the distance between its image points
# and the projected truth, in body heights (the larger side of the person's box), median over a video; and the angle between
# the two bodies, mean over a video. Cameras stand 45° apart. In a short clip a single pose that MediaPipe misjudges looks like
# a wrong setting: there the angle does not count, and a back may be taken for a front, left for right.
MAX_DISTANCE = 0.2
MAX_TURN = 30.0
TURN_JUDGED_S = 1.5

# Why frames or videos are left out; the keys of the summary.
NOBODY_DETECTED = "nobody detected"
NO_ANNOTATION_AT_THAT_TIME = "no annotation at that time"
TRUTH_HAS_GAPS = "ground truth has gaps"


@dataclass(kw_only=True, slots=True)
class Paired:
    """What became of one video, or of many added up."""

    pairs: Pairs | None = None
    frames: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # frames by reason


def pair_video(
    observations: dict[str, np.ndarray], name: aistpp.Name, truth: np.ndarray, camera: Camera, up: np.ndarray = Y_UP
) -> Paired:
    """Pairs the frames of one video.

    Args:
        observations: `timestamp_us`, `frame` (F,), `detected` (F,), `world` (F, 33, 3), `image` (F, 33, 2) in pixels of
            the video, `visibility` (F, 33), and `size` (2,), the video's width and height.
        name: of the video.
        truth: (N, 17, 3) metres, world frame, one row per 1/60 s.
        camera: that filmed it.
        up: (3,) of the world.

    Raises:
        UserError: video and annotation do not belong together.
    """
    scale = _scale(observations["size"], camera)
    timestamps = observations["timestamp_us"]
    annotation = np.rint(timestamps * (aistpp.FPS / 1e6)).astype(np.int64)
    near = (annotation >= 0) & (annotation < len(truth))
    near &= np.abs(annotation * (1e6 / aistpp.FPS) - timestamps) <= TOLERANCE_US
    if near.mean() < 1 - MAX_BEYOND_END:
        raise UserError(
            f"the video lasts {timestamps[-1] / 1e6:.1f} s, its annotation {len(truth) / aistpp.FPS:.1f} s: "
            "it was re-timed, or they do not belong together"
        )
    detected = observations["detected"]
    target = truth[np.where(near, annotation, 0)]  # (F, 17, 3) world
    whole = np.isfinite(target).all((1, 2))
    kept = near & detected & whole
    paired = Paired(frames=len(timestamps))
    # a frame is counted under the first reason that holds
    paired.left_out[NO_ANNOTATION_AT_THAT_TIME] = int((~near).sum())
    paired.left_out[NOBODY_DETECTED] = int((near & ~detected).sum())
    paired.left_out[TRUTH_HAS_GAPS] = int((near & detected & ~whole).sum())
    paired.left_out = +paired.left_out  # without zeros
    if not kept.any():
        return paired
    target = target[kept]
    image = to_coco(observations["image"][kept])
    corrupted = root_centred(to_coco(observations["world"][kept])).astype(np.float32)
    ground_truth = to_virtual_camera(camera.to_camera(target)).astype(np.float32)
    azimuths = azimuth(corrupted)  # of what is observed, as when serving: the truth is not known then
    seconds = float(np.ptp(timestamps[kept])) * 1e-6
    _check_agreement(image, camera.project(target) * scale, azimuths - azimuth(ground_truth), seconds)
    paired.pairs = Pairs(
        sequence=np.full(len(target), name.sequence, dtype=object),
        camera=np.full(len(target), name.camera, dtype=object),
        frame=observations["frame"][kept],
        timestamp_us=timestamps[kept],
        corrupted=corrupted,
        ground_truth=ground_truth,
        visibility=to_coco(observations["visibility"][kept][..., None])[..., 0],
        image_points=crop_normalise(image).astype(np.float32),
        view_angle=view_angle(azimuths),
        azimuth=azimuths,
        clip=observations["clip"][kept] if "clip" in observations else None,
        pitch=pitch(camera, target, up).astype(np.float32),
    )
    return paired


def _scale(size: np.ndarray, camera: Camera) -> np.ndarray:
    """(2,) pixels of a video of that size (2,) for one of the calibrated picture.

    Raises:
        UserError: the two have another shape.
    """
    calibrated = np.array(camera.size)
    scale = size / calibrated
    if abs(scale[0] / scale[1] - 1) > 0.01:
        raise UserError(
            f"the video is {size[0]} × {size[1]}, but its camera is calibrated for {calibrated[0]} × {calibrated[1]}"
        )
    return scale


def _check_agreement(image: np.ndarray, projected: np.ndarray, turn: np.ndarray, seconds: float) -> None:
    """(F, 17, 2) pixels, what MediaPipe saw and where the truth should be seen; (F,) degrees between the two bodies; how
    long the clip is.
    """
    # the larger side of the box around the person: somebody who lies has hardly any height in the picture
    size = np.maximum(np.ptp(projected, axis=1).max(axis=-1), 1)  # (F,)
    short = seconds < TURN_JUDGED_S
    sides = (projected, projected[:, MIRROR]) if short else (projected,)
    distance = np.median(np.min([np.linalg.norm(image - side, axis=-1).mean(axis=1) for side in sides], axis=0) / size)
    if not distance <= MAX_DISTANCE:  # NaN, too: the truth lies behind the camera
        how = f"{distance:.2f} body heights away from"
    # of the doubled angle, so that frames in which MediaPipe takes a back for a front, which are its own errors, agree
    elif not short and abs(mean := np.degrees(np.angle(np.exp(2j * np.radians(turn)).mean())) / 2) > MAX_TURN:
        how = f"turned by {abs(mean):.0f}° against"
    else:
        return
    raise UserError(
        f"the person in the video is {how} the one in the annotation: "
        "another camera setting, another sequence, or another person in view"
    )


def read_people(path: str | Path) -> list[dict[str, np.ndarray]]:
    """A file of observations (path or URI) as the arrays that `pair_video` takes, in order of time; of each person.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    names = ("frame", "timestamp_us", "detected", "world", "image", "visibility", "clip", "person")
    observations = records.read_table(path, records.OBSERVATIONS, names)
    size = (observations.schema.metadata or {}).get(b"size")
    if size is None or not len(observations):
        raise UserError(f"{path} holds no observations, or not the size of its video: extract that video again")
    return [
        {name: column(rows, name) for name in names}
        | {"clip": clips.of_observations(rows), "size": np.array(json.loads(size))}
        for rows in records.by_person(observations).values()
    ]


def read_observations(path: str | Path) -> dict[str, np.ndarray]:
    """As `read_people`; of the first person, who in most files is the only one."""
    return read_people(path)[0]


def pair_people(
    people: Sequence[dict[str, np.ndarray]], name: aistpp.Name, truth: np.ndarray, camera: Camera
) -> Paired:
    """As `pair_video`, of the one among several people whom the annotation describes."""
    best, refusal = None, None
    for seen in people:
        try:
            paired = pair_video(seen, name, truth, camera)
        except UserError as error:
            refusal = refusal or error
            continue
        if best is None or len(paired.pairs or ()) > len(best.pairs or ()):
            best = paired
    if best is None:
        raise refusal or UserError("there is nobody in its observations")
    return best


def pair_sequence(dataset: aistpp.Dataset, videos: Iterable[tuple[str, str]]) -> tuple[Paired, dict[str, str]]:
    """Pairs all videos of one sequence.

    Args:
        dataset: where the ground truth is.
        videos: (name of the video, path of its observations), all of the same sequence.

    Returns:
        All cameras' pairs, ordered by camera and frame, with the frames left out; and, by video that cannot be paired
        at all, the reason.
    """
    total, problems, parts, truth = Paired(), {}, [], None
    for video, path in sorted(videos):
        try:
            name = aistpp.Name.parse(video)
            if name.sequence in dataset.ignored:
                raise UserError("its sequence is on the ignore list")
            if name.sequence in aistpp.OUT_OF_SYNC:
                raise UserError("its sequence is known to be out of sync")
            truth = dataset.keypoints3d(name.sequence) if truth is None else truth
            camera = dataset.cameras(name.sequence).get(name.camera)
            if camera is None:
                raise UserError(f"its camera setting has no camera {name.camera}")
            paired = pair_people(read_people(path), name, truth, camera)
        except UserError as error:
            problems[video] = str(error)
            continue
        total.frames += paired.frames
        total.left_out += paired.left_out
        if paired.pairs is not None:
            parts.append(paired.pairs)
    if parts:
        total.pairs = Pairs.concatenate(parts)
    return total, problems


# --- splits -----------------------------------------------------------------------------------------------------------


def official_splits(dataset: aistpp.Dataset) -> dict[str, str]:
    """Sequence -> 'train', 'val' or 'test', as the dataset's authors have it.

    Raises:
        UserError: the files are missing, or a sequence is in two of them: what was trained on must not be tested on.
    """
    splits: dict[str, str] = {}
    for split in aistpp.SPLITS:
        for sequence in dataset.split(split):
            other = splits.setdefault(sequence, split)
            if other != split:
                raise UserError(
                    f"{sequence} is in pose_{other}.txt and in pose_{split}.txt of {dataset.annotations / 'splits'}: "
                    "what is trained on must not be tested on; fetch the splits again"
                )
    return splits


def disjoint_splits(sequences: Sequence[str], held_out: float = 0.1) -> dict[str, str]:
    """Sequence -> split, so that no dancer and no choreography is in two splits.

    Sequences that share a dancer or a choreography, directly or through others, go together. In AIST++ that makes one
    group of each genre; held-out data then is of genres that no training saw. The same sequences give the same splits.

    Args:
        sequences: names.
        held_out: the share of all sequences that val and test get each, or a little more.

    Raises:
        UserError: everything hangs together, or there is too little for three splits.
    """
    names = {sequence: aistpp.Name.parse(sequence) for sequence in sequences}
    parent: dict[str, str] = {}

    def root(item: str) -> str:
        parent.setdefault(item, item)
        while parent[item] != item:
            item = parent[item]
        return item

    for name in names.values():
        parent[root(name.dancer)] = root(name.dance)
    groups: dict[str, list[str]] = defaultdict(list)
    for sequence in sorted(names):
        groups[root(names[sequence].dancer)].append(sequence)
    if len(groups) < len(aistpp.SPLITS):
        raise UserError(
            f"these {len(names)} sequences make {len(groups)} group(s) that share no dancer and no choreography: "
            "three splits need at least three; use --split-by official"
        )
    # an order that no name, genre or date decides, and that stays the same
    shuffled = sorted(groups.values(), key=lambda group: hashlib.sha256(group[0].encode()).digest())
    splits: dict[str, str] = {}
    for split in ("test", "val"):
        count = 0
        while count < held_out * len(names) and len(shuffled) > (1 if split == "val" else 2):
            group = shuffled.pop()
            count += len(group)
            splits |= dict.fromkeys(group, split)
    return splits | {sequence: "train" for group in shuffled for sequence in group}
