"""Which windows of real sequences drive dancers, and how they are danced."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from refiner.data.aistpp import FPS, SPLITS, Dataset
from refiner.errors import UserError
from refiner.geometry import mirror
from refiner.skeleton import INDEX
from studio.motion.contacts import ground
from studio.motion.limbs import turned_about_y, unit
from studio.motion.varied import varied

PAD = 30  # frames before and after a window, so that filters and splines have no ends inside it
TEMPO = (0.8, 1.25)  # how much slower and faster than it was captured
# What nine cameras see: how far from the stage's centre a window may have its own, and how far it may travel, metres.
_OFF_CENTRE, _TRAVEL = 0.5, 2.4


@dataclass(frozen=True, slots=True)
class Source:
    """A window of a real sequence, and how it is danced."""

    sequence: str
    index: int  # of the sequence among all sources
    start: int  # frame
    mirrored: bool = False
    tempo: float = 1.0  # frames of the sequence in 1/60 s
    heading: float = 0.0  # how far it is turned about the vertical, radians
    upper: "Source | None" = None  # the window that chest, arms and head dance; None: this one
    varied: int | None = None  # a seed: arms, trunk, head and stance are otherwise; None: as captured


class TooShort(UserError):
    """A sequence has no window of the length asked for."""


def sources(root: str, pattern: tuple[str, ...]) -> dict[str, list[str]]:
    """Sequences of an AIST++ folder that can drive dancers, by split, in the order in which they take turns.

    The official split where it is there, else one in which the longest sequences train (`pattern`: the splits by turns). A
    sequence is in one split only, so that no dancer of another split moves like it. A long one has more turns than a
    short one: as the square root of its length.

    Raises:
        UserError: there are fewer than three, or a split would have none.
    """
    dataset = Dataset(Path(root))
    names = [name for name in dataset.sequences if name not in dataset.ignored]
    sizes = {n: (dataset.annotations / "keypoints3d" / f"{n}.pkl").stat().st_size for n in names}
    if (dataset.annotations / "splits").is_dir():
        known = set(names)
        by_split = {split: [n for n in dataset.split(split) if n in known] for split in SPLITS}
    else:
        ordered = sorted(names, key=lambda n: (-sizes[n], n))
        by_split = {split: [n for i, n in enumerate(ordered) if pattern[i % len(pattern)] == split] for split in SPLITS}
    empty = [split for split, members in by_split.items() if not members]
    if empty:
        raise UserError(
            f"{root} has {len(names)} motions in annotations/keypoints3d, none of them for the split {empty[0]}: "
            "give at least three, so that each split has its own"
        )
    return {split: _turns({name: sizes[name] for name in members}) for split, members in by_split.items()}


def _turns(sizes: dict[str, int]) -> list[str]:
    """Names, each as often as the square root of its size says against the smallest, evenly mixed."""
    smallest = min(sizes.values())
    turns = []
    for place, (name, size) in enumerate(sizes.items()):
        count = max(1, round((size / smallest) ** 0.5))
        turns += [((turn + 0.5) / count, place, name) for turn in range(count)]
    return [name for *_, name in sorted(turns)]


def draw_source(root: str, sequence: str, index: int, seconds: float, seed: int) -> Source:
    """A window of a sequence, somewhere in it, as it is or in the mirror, at a tempo and with a heading of its own.

    Raises:
        TooShort: the sequence is, even danced slowly.
    """
    rng = np.random.default_rng(seed)
    last, wanted = len(Dataset(Path(root)).keypoints3d(sequence)) - 1, seconds * FPS
    if last < np.ceil(wanted * TEMPO[0]):
        raise TooShort(
            f"{sequence} in {root} lasts {last / FPS:.1f} s: render sequences of at most "
            f"{np.floor(last / FPS / TEMPO[0] * 10) / 10:.1f} s with --seconds"
        )
    tempo = min(float(np.exp(rng.uniform(*np.log(TEMPO)))), last / wanted)
    start = int(rng.integers(last - int(wanted * tempo) + 1))
    return Source(sequence, index, start, bool(rng.random() < 0.5), tempo, float(rng.uniform(-np.pi, np.pi)))


def recombined(root: str, source: Source, others: list[tuple[str, int]], seconds: float, seed: int) -> Source:
    """The window with a chest, arms and a head that dance another one, if its legs stand: hands that carry stay with them.

    Args:
        root: AIST++ folder.
        source: what the legs dance.
        others: sequences of the same split with their indices, from which the other window is drawn.
        seconds: length of the clip.
        seed: what is drawn from.
    """
    if not _on_its_feet(window(root, source, seconds)):
        return source
    rng = np.random.default_rng(seed)
    others = [other for other in others if other[1] != source.index] or others
    for i in rng.permutation(len(others)):
        sequence, index = others[i]
        try:
            return replace(source, upper=draw_source(root, sequence, index, seconds, int(rng.integers(2**32))))
        except TooShort:
            continue
    return source


def varied_source(source: Source, seed: int) -> Source:
    """The window danced otherwise (see `varied`); where two are danced at once, each in its own way."""
    upper = source.upper and replace(source.upper, varied=seed + 1)
    return replace(source, varied=seed, upper=upper)


def window_times(seconds: float) -> np.ndarray:
    """(T,) seconds: a clip's moments and some before and after it."""
    return np.arange(-PAD, int(np.ceil(seconds * FPS)) + 1 + PAD) / FPS


def window(root: str, source: Source, seconds: float) -> np.ndarray:
    """(T, 17, 3) the poses of a window at `window_times`, metres, on the stage, the floor at zero."""
    poses = Dataset(Path(root)).keypoints3d(source.sequence)
    poses[..., 1] -= ground(poses)
    at = source.start + window_times(seconds) * FPS * source.tempo
    first, last = max(int(at[0]) - PAD, 0), int(at[-1]) + PAD
    poses = _filled(poses)[first:last]
    poses = CubicSpline(np.arange(len(poses)), poses)(np.clip(at - first, 0, len(poses) - 1))
    if source.mirrored:
        poses = mirror(poses)
    if source.varied is not None:
        poses = varied(poses, np.random.default_rng(source.varied))
    return _on_stage(turned_about_y(poses, source.heading))


def _on_stage(poses: np.ndarray) -> np.ndarray:
    """Moved to where the cameras look. Who travels further than they see dances as on a treadmill."""
    path = poses[:, [INDEX["left_hip"], INDEX["right_hip"]]].mean(1) * (1, 0, 1)  # (T, 3)
    way = path[-PAD] - path[PAD]
    too_far = max(0.0, 1 - _TRAVEL / max(float(np.linalg.norm(way)), 1e-9))
    drift = (
        way * too_far * np.linspace(-PAD / (len(path) - 2 * PAD), 1 + PAD / (len(path) - 2 * PAD), len(path))[:, None]
    )
    path = (path - drift)[PAD:-PAD]
    centre = (path.min(0) + path.max(0)) / 2
    off = float(np.linalg.norm(centre))
    return poses - (drift + centre * max(0.0, 1 - _OFF_CENTRE / max(off, 1e-9)))[:, None]


def _on_its_feet(poses: np.ndarray) -> bool:
    """Whether the trunk is upright over both hips, and these well over the lower foot, all the time."""
    hips = poses[:, [INDEX["left_hip"], INDEX["right_hip"]]].mean(1)
    trunk = unit(poses[:, [INDEX["left_shoulder"], INDEX["right_shoulder"]]].mean(1) - hips)
    feet = poses[:, [INDEX["left_ankle"], INDEX["right_ankle"]], 1].min(1)
    return bool((trunk[:, 1] > 0.7).all() and (hips[:, 1] - feet > 0.45).all())


def _filled(poses: np.ndarray) -> np.ndarray:
    """Gaps (NaN) bridged in a straight line."""
    whole = np.isfinite(poses).all((1, 2))
    if whole.all():
        return poses
    at = np.arange(len(poses))
    flat = poses.reshape(len(poses), -1)
    return np.stack([np.interp(at, at[whole], column[whole]) for column in flat.T], axis=1).reshape(poses.shape)
