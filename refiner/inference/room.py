"""Where the person is: the root's path in front of the camera, the floor, and feet that stand still while they stand.

MediaPipe's world landmarks hang at the hips, so whatever is made of them dances on the spot. Here the refined poses, the image
points and the lens give the hips' place (`root_path`), slow ankles the floor and the vertical (`find_floor`), and `stand` puts
all of it together. Frames of reference: *virtual camera* and *camera* as in `refiner.geometry`; *room*: metres, y up, the
floor at y = 0, z towards the camera, the origin on the floor below the first place of the hips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner import temporal
from refiner.geometry import rotation_between, to_room, unit, virtual_camera_rotation
from refiner.inference.feet import ANKLES, LEAST_STAND_S, anchored_path, plant, runs
from refiner.skeleton import HIPS, INDEX, LEFT_SHOULDER, NUM_JOINTS, RIGHT_SHOULDER

# Without a word about the lens: between a phone's main camera in video mode (60–68°) and a camcorder's (50–60°), along the
# longer side.
DEFAULT_FOV_DEG = 60.0
# Sigma of the Gaussian over time for the distance, whose noise is ten times that of the place in the picture.
DISTANCE_SIGMA_S = 0.2
# An ankle stands that moves slower than this across the line of sight, where the picture says it, and along it, where the
# pose does; and that is no higher above the lowest than this. On 28 rendered clips half of the ankles that truly stand are
# seen at 0.1 and 0.2 m/s, 90 % below 0.3 and 0.5; those that move, at 0.7 across.
ACROSS_M_S, AWAY_M_S, STANDING_HEIGHT_M = 0.3, 0.7, 0.15
ACROSS_SIGMA_S, AWAY_SIGMA_S = 0.03, 0.1
ANKLE_HEIGHT_M = 0.08  # of the joint above the sole
# What is believed of a floor before it is seen. Cameras look up or down by so many degrees, but their horizon is level; the
# floor is at right angles to a body that stands, within so many degrees, and as many more as it moves about. How far from it
# standing ankles are found, and how many of them say something of their own. Chosen on 28 rendered clips (docs/own-video.md).
PITCH_DEG, ROLL_DEG, BODY_DEG, ANKLE_SPREAD_M, INDEPENDENT = 6.0, 2.5, 6.0, 0.10, 15
KNOWN_PITCH_DEG = 1.0  # how well a camera's pitch is known that somebody gives
LEVEL = np.array([0.0, -1.0, 0.0])  # up in the picture
SIDEWAYS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # in which a normal near it can lean: right, and away


@dataclass(frozen=True, kw_only=True, slots=True)
class Lens:
    """A pinhole camera without distortion."""

    focal: float  # pixels
    centre: tuple[float, float]  # of the picture, pixels

    @classmethod
    def of_fov(cls, size: tuple[int, int], fov_deg: float = DEFAULT_FOV_DEG) -> "Lens":
        """From the picture's width and height in pixels and the angle of view along its longer side, degrees."""
        return cls(focal=max(size) / 2 / np.tan(np.radians(fov_deg) / 2), centre=(size[0] / 2, size[1] / 2))

    def rays(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels -> (..., 3) directions with z = 1, camera frame."""
        flat = (points - np.asarray(self.centre)) / self.focal
        return np.concatenate([flat, np.ones((*flat.shape[:-1], 1))], axis=-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The plane that standing feet have in common."""

    normal: np.ndarray  # (3,) up, camera frame
    height: float  # normal · x of its points, metres


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A person in the room; N frames."""

    joints: np.ndarray  # (N, 17, 3) m, room frame
    standing: np.ndarray  # (N, 2) bool: the left, the right foot stands
    floor: Floor
    turn: np.ndarray  # (3, 3) camera frame -> room frame, before the origin is moved
    origin: np.ndarray  # (3,) m, of the room, in the turned frame


def camera_poses(poses: np.ndarray, image_points: np.ndarray, lens: Lens) -> np.ndarray:
    """(N, 17, 3) of the virtual camera, (N, 17, 2) pixels -> (N, 17, 3) the same poses in the camera's axes, about the hips.

    MediaPipe's frame looks along the ray to the person; the hips' image points say which ray that was.
    """
    turns = virtual_camera_rotation(lens.rays(image_points[:, HIPS].mean(1)))
    return np.einsum("nji,nkj->nki", turns, poses)


def rescaled(points: np.ndarray, of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Points of one picture -> where a picture of another size and shape, through a lens of the same angle, would have them.

    Args:
        points: (N, J, 2) pixels.
        of: (N, 2) or (2,) width and height of their pictures; the lens's angle is along the longer side.
        to: (N, 2) or (2,) of the others.
    """
    of, to = (np.atleast_2d(np.asarray(size, dtype=np.float64))[:, None] for size in (of, to))
    scale = to.max(-1, keepdims=True) / of.max(-1, keepdims=True)
    return (points - of / 2) * scale + to / 2


def pitch_of_sight(camera_pitch: float, points: np.ndarray, lens: Lens) -> np.ndarray:
    """How far the lines of sight to (..., 2) pixels look down, (...) degrees, of a camera that itself looks down by so many."""
    rays, pitch = unit(lens.rays(points)), np.radians(camera_pitch)
    return np.degrees(np.arcsin(np.clip(rays[..., 1] * np.cos(pitch) + rays[..., 2] * np.sin(pitch), -1, 1)))


def root_path(poses: np.ndarray, image_points: np.ndarray, weights: np.ndarray, lens: Lens) -> np.ndarray:
    """Where the hips' midpoint must be so that the joints are seen where they are seen: weighted least squares, in closed form.

    Each joint j gives two equations that are linear in the root T: x_j (T_z + p_z) = T_x + p_x, and the same for y. Twice
    more with the weights of those that do not fit lowered (Geman–McClure).

    Args:
        poses: (N, 17, 3) m, the camera's axes, about the hips (`camera_poses`).
        image_points: (N, 17, 2) pixels.
        weights: (N, 17) such as the visibility.
        lens: of the camera.

    Returns:
        (N, 3) m, camera frame.
    """
    seen = lens.rays(image_points)[..., :2]  # (N, 17, 2)
    rows = np.zeros((len(poses), NUM_JOINTS, 2, 3))
    rows[:, :, 0, 0] = rows[:, :, 1, 1] = 1
    rows[..., 2] = -seen
    right = seen * poses[..., 2:] - poses[..., :2]  # (N, 17, 2)
    trust, root = np.maximum(weights, 1e-3), np.zeros((len(poses), 3))
    for _ in range(3):
        gram = np.einsum("nj,njca,njcb->nab", trust, rows, rows)
        moment = np.einsum("nj,njca,njc->na", trust, rows, right)
        root = np.linalg.solve(gram + 1e-9 * np.eye(3), moment[..., None])[..., 0]
        residual = np.linalg.norm(np.einsum("njca,na->njc", rows, root) - right, axis=-1)  # metres
        typical = np.median(residual, axis=1, keepdims=True) + 1e-3
        trust = np.maximum(weights, 1e-3) / (1 + (residual / (2 * typical)) ** 2) ** 2
    root[:, 2] = np.maximum(root[:, 2], 0.3)
    return root


def smoothed_path(
    root: np.ndarray, poses: np.ndarray, image_points: np.ndarray, lens: Lens, seconds: np.ndarray, clips: np.ndarray
) -> np.ndarray:
    """The root's path with its distance smoothed in time, and its place across the line of sight found anew for that.

    Args:
        root: (N, 3) m, as `root_path` gives it.
        poses: (N, 17, 3) m, the camera's axes, about the hips.
        image_points: (N, 17, 2) pixels.
        lens: of the camera.
        seconds: (N,) when.
        clips: (N,) numbers of the clips.
    """
    distance = np.exp(temporal.smooth(np.log(root[:, 2]), seconds, clips, DISTANCE_SIGMA_S))
    trunk = [*HIPS, LEFT_SHOULDER, RIGHT_SHOULDER]
    seen = lens.rays(image_points[:, trunk])[..., :2]
    across = seen * (distance[:, None, None] + poses[:, trunk, 2:]) - poses[:, trunk, :2]
    return np.concatenate([across.mean(1), distance[:, None]], axis=-1)


def speeds(points: np.ndarray, seconds: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """(N, …, 3) m -> (N, …) m/s, by central differences; one-sided at a clip's ends, 0 where a clip is one frame."""
    before, after = np.maximum(np.arange(len(points)) - 1, 0), np.minimum(np.arange(len(points)) + 1, len(points) - 1)
    rows = np.arange(len(points))
    before = np.where(clips[before] == clips, before, rows)
    after = np.where(clips[after] == clips, after, rows)
    span = np.maximum(seconds[after] - seconds[before], 1e-6)
    return np.linalg.norm(points[after] - points[before], axis=-1) / span.reshape(-1, *(1,) * (points.ndim - 2))


def slow_ankles(
    joints: np.ndarray, image_points: np.ndarray, lens: Lens, seconds: np.ndarray, clips: np.ndarray
) -> np.ndarray:
    """(N, 2) bool: whether the left and the right ankle hardly move.

    Args:
        joints: (N, 17, 3) m, camera frame.
        image_points: (N, 17, 2) pixels.
        lens: of the camera.
        seconds: (N,) when.
        clips: (N,) numbers of the clips.
    """
    away = joints[:, ANKLES, 2:]  # (N, 2, 1) m
    across = lens.rays(image_points[:, ANKLES])[..., :2] * np.median(away)
    speed_across = speeds(temporal.smooth(across, seconds, clips, ACROSS_SIGMA_S), seconds, clips)
    speed_away = speeds(temporal.smooth(away, seconds, clips, AWAY_SIGMA_S), seconds, clips)
    return (speed_across < ACROSS_M_S) & (speed_away < AWAY_M_S)


def find_floor(joints: np.ndarray, slow: np.ndarray, camera_pitch: float | None = None) -> Floor:
    """The plane through slow, low ankles. Where they say little of its lean, a standing body and the picture's vertical count.

    Args:
        joints: (N, 17, 3) m, camera frame.
        slow: (N, 2) bool, as `slow_ankles` gives it.
        camera_pitch: degrees that the camera looks down, where that is known.
    """
    ankles = joints[:, ANKLES]  # (N, 2, 3)
    body = unit(joints[:, (LEFT_SHOULDER, RIGHT_SHOULDER)].mean(1) - ankles.mean(1))
    # the lean (2,) by weighted least squares: `sure` @ lean = `said`, to which whoever knows something adds
    sure = np.diag(np.radians([ROLL_DEG, PITCH_DEG if camera_pitch is None else KNOWN_PITCH_DEG]) ** -2.0)
    said = sure @ [0.0, -np.tan(np.radians(camera_pitch or 0.0))]
    upright = slow.any(1) & (body @ LEVEL > 0.85)
    if upright.sum() > 5:
        usual = unit(np.median(body[upright], axis=0))
        moves = np.median(np.arccos(np.clip(body[upright] @ usual, -1, 1)))  # radians
        weight = 1 / (np.radians(BODY_DEG) ** 2 + moves**2)
        sure, said = sure + weight * np.eye(2), said + weight * SIDEWAYS @ usual / (LEVEL @ usual)
    normal = _leaning(np.linalg.solve(sure, said))
    low = points = ankles[slow] if slow.sum() >= 5 else ankles.reshape(-1, 3)
    for _ in range(5):
        heights = points @ normal
        low = points[heights < np.quantile(heights, 0.1) + STANDING_HEIGHT_M]
        # as many points as there are say the same many times over: a stand of a second counts once
        share = min(1.0, INDEPENDENT / len(low)) / ANKLE_SPREAD_M**2
        spread = low - low.mean(0)
        slopes = spread @ SIDEWAYS.T
        normal = _leaning(np.linalg.solve(sure + share * slopes.T @ slopes, said - share * slopes.T @ (spread @ LEVEL)))
    height = np.median(low @ normal)
    return Floor(normal=normal, height=float(height) - ANKLE_HEIGHT_M)


def _leaning(lean: np.ndarray) -> np.ndarray:
    """The unit normal that leans from the picture's vertical by (2,) to the right and away."""
    return unit(LEVEL + lean @ SIDEWAYS)


def find_standing(
    joints: np.ndarray, slow: np.ndarray, floor: Floor, seconds: np.ndarray, clips: np.ndarray
) -> np.ndarray:
    """(N, 2) bool: whether the left and the right ankle stand: slow, low, and for a tenth of a second at least."""
    height = joints[:, ANKLES] @ floor.normal - floor.height - ANKLE_HEIGHT_M
    standing = slow & (height < STANDING_HEIGHT_M)
    for foot in range(2):
        for start, end in runs(standing[:, foot], clips):
            if seconds[end - 1] - seconds[start] < LEAST_STAND_S:
                standing[start:end, foot] = False
    return standing


@dataclass(frozen=True, kw_only=True, slots=True)
class Refined:
    """One person before they are placed; N frames in which they are seen."""

    poses: np.ndarray  # (N, 17, 3) m, virtual camera frame, about the hips
    image_points: np.ndarray  # (N, 17, 2) pixels of the same joints
    weights: np.ndarray  # (N, 17) such as the visibility
    seconds: np.ndarray  # (N,) when, rising within a clip
    clips: np.ndarray  # (N,) non-decreasing numbers of the clips
    height_m: float | None = None  # stature, which fixes the scale; None leaves it as MediaPipe has it


def stand(
    poses: np.ndarray,
    image_points: np.ndarray,
    weights: np.ndarray,
    lens: Lens,
    seconds: np.ndarray,
    clips: np.ndarray,
    height_m: float | None = None,
    camera_pitch: float | None = None,
) -> Placed:
    """A refined person in the room; arguments as the fields of `Refined`, and the camera's lens and pitch."""
    person = Refined(
        poses=poses, image_points=image_points, weights=weights, seconds=seconds, clips=clips, height_m=height_m
    )
    return stand_together([person], lens, camera_pitch)[0]


def stand_together(people: Sequence[Refined], lens: Lens, camera_pitch: float | None = None) -> list[Placed]:
    """Refined people in one room: they have the floor in common, and the first one's first place is where it begins.

    Args:
        people: at least one, each with at least one frame.
        lens: of the camera.
        camera_pitch: degrees that it looks down, where that is known.
    """
    turned, paths, slow = [], [], []
    for person in people:
        poses, points, moments = person.poses, person.image_points, (person.seconds, person.clips)
        if person.height_m is not None:
            poses = poses * (person.height_m / stature(poses))
        turned.append(camera_poses(poses.astype(np.float64), points, lens))
        seen = root_path(turned[-1], points, person.weights, lens)
        paths.append(smoothed_path(seen, turned[-1], points, lens, *moments))
        slow.append(slow_ankles(turned[-1] + paths[-1][:, None], points, lens, *moments))
    floor = find_floor(
        np.concatenate([t + p[:, None] for t, p in zip(turned, paths, strict=True)]), np.concatenate(slow), camera_pitch
    )
    standing = []
    for number, person in enumerate(people):
        moments = person.seconds, person.clips
        joints = turned[number] + paths[number][:, None]
        standing.append(find_standing(joints, slow[number], floor, *moments))
        paths[number] = anchored_path(paths[number], turned[number], standing[number], *moments)
    joints = [t + p[:, None] for t, p in zip(turned, paths, strict=True)]
    floor = find_floor(np.concatenate(joints), np.concatenate(standing), camera_pitch)
    turn, origin = _room(floor, paths[0][0])
    return [
        Placed(
            joints=plant(placed, stands, person.seconds, person.clips) @ turn.T - origin,
            standing=stands, floor=floor, turn=turn, origin=origin,
        )
        for person, placed, stands in zip(people, joints, standing, strict=True)
    ]  # fmt: skip


def _room(floor: Floor, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) camera frame -> room frame, and (3,) its origin in that; by the floor and a place (3,) above the origin."""
    up = to_room(floor.normal)
    turn = rotation_between(up, np.array([0.0, 1.0, 0.0])) @ to_room(np.eye(3))
    # z towards the camera: the line of sight to the place, seen from above, points along -z
    away = turn @ unit(place)
    about = np.arctan2(away[0], -away[2])
    spin = np.array([[np.cos(about), 0, np.sin(about)], [0, 1, 0], [-np.sin(about), 0, np.cos(about)]])
    turn = spin @ turn
    origin = turn @ place
    origin[1] = floor.height
    return turn, origin


def stature(poses: np.ndarray) -> float:
    """The height that a person of these bones has standing, metres: legs, trunk, and a head's share.

    Over body heights, ankle to hip is 0.49 … and the shoulders' line is at 0.82 (Drillis & Contini 1966): what the joints span,
    from ankle (0.039) to shoulder (0.818), is 0.779 of the stature.
    """

    def length(a: str, b: str) -> float:
        return float(np.median(np.linalg.norm(poses[:, INDEX[a]] - poses[:, INDEX[b]], axis=-1)))

    sides = [
        length(f"{side}_ankle", f"{side}_knee")
        + length(f"{side}_knee", f"{side}_hip")
        + length(f"{side}_hip", f"{side}_shoulder")
        for side in ("left", "right")
    ]
    return float(np.mean(sides)) / 0.779
