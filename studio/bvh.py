"""BVH files as motion: any hierarchy, in the dialects of CMU, Mixamo, Rokoko, Xsens, LaFAN1, Rocketbox and whoever else.

The format has no norm but one exporter's example (Biovision's, of 1995), so what is unambiguous is read, whatever its form;
what the reader had to put right stands in the capture's notes.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from refiner.errors import UserError
from studio.capture import Capture

_MOST_FRAMES = 2_000_000
_MOST_DEPTH = 1_000  # joints in one chain: a hand has 4, a whip or a tail some dozens
# Frames a second that cameras and capture systems have. A step that was rounded to one of these is that one.
_USUAL_RATES = (24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 72, 75, 80, 90, 100, 120, 144, 150,
                160, 180, 200, 240, 250, 300, 360, 400, 480, 500, 600, 1000)  # fmt: skip
_SHORTEST_STEP_S = 1e-4  # ten times as fast as the fastest of these
_FARTHEST = 1e9  # of lengths in any unit, and of degrees
_ASSUMED_RATE = 30.0  # Biovision's example's

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<joint>ROOT|JOINT|End(?=Site\b)|End)(?:\b|(?=Site))[ \t]*(?P<name>[^{}]*?)\s*\{
    |(?P<close>\})
    |OFFSET(?P<offset>(?:\s+[-+.,\deE]+){3})(?=\s|\})
    |CHANNELS\s+(?P<count>\d{1,4})(?P<channels>(?:\s+[XYZ](?:position|rotation))*)(?=\s|\}|$)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_FRAMES = re.compile(r"\s*Frames\s*[:=]?\s*(-?\d{1,12})(?:\.0*)?(?=\s|$)", re.IGNORECASE)
# What stands behind it, or alone on the next line.
_FRAME_TIME = re.compile(
    r"\s*Frame\s*Time\s*[:=]?(?:[ \t]*\n[ \t]*(?=\S+[ \t]*(?:\n|$)))?[ \t]*([^\n]*)", re.IGNORECASE
)


def decoded(content: bytes) -> str:
    """The text of a file in UTF-8 or UTF-16 with or without a byte-order mark, or in some 8-bit code."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if content[1:2] == b"\0":
        return content.decode("utf-16-le", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_bvh(text: str, where: str) -> Capture:
    """Reads a BVH file: any hierarchy, any order of channels, positions at any joint.

    Position channels replace a joint's offset, as in the files of CMU, LAFAN1 and Bandai-Namco. Rotations are about the
    axes that the earlier ones have turned, in the order of the channels. An end site becomes a joint `<parent>_end`.

    Args:
        text: the file's content, as `decoded` gives it.
        where: its name, for errors.

    Raises:
        UserError: it is damaged, or no BVH.
    """
    from scipy.spatial.transform import Rotation

    text = text.lstrip("\ufeff\x00 \t\r\n").replace("\r\n", "\n").replace("\r", "\n")
    if "." not in text:  # written where the decimal point is a comma
        text = text.replace(",", ".")
    parts = re.split(r"^[ \t]*MOTION\b", text, maxsplit=1, flags=re.MULTILINE | re.IGNORECASE)
    start = re.match(r"HIERARCHY\b", text, re.IGNORECASE)
    if start is None or len(parts) != 2:
        raise UserError(f"{where} is not a BVH file: it must begin with HIERARCHY and go on to MOTION")
    tree = _hierarchy(_spaced(parts[0][start.end() :]), where)
    values, step, notes = _motion(parts[1], sum(map(len, tree.channels)), where)
    frames = len(values)
    rotations = np.tile(np.eye(3), (frames, len(tree.names), 1, 1))
    positions = np.tile(np.array(tree.offsets), (frames, 1, 1))
    at = 0
    for joint, of_joint in enumerate(tree.channels):
        columns = values[:, at : at + len(of_joint)]
        at += len(of_joint)
        turns = [i for i, channel in enumerate(of_joint) if channel.endswith("rotation")]
        for i, channel in enumerate(of_joint):
            if channel.endswith("position"):
                positions[:, joint, "XYZ".index(channel[0])] = columns[:, i]
        if turns:
            axes = "".join(of_joint[i][0] for i in turns)
            rotations[:, joint] = Rotation.from_euler(axes, columns[:, turns], degrees=True).as_matrix()
    return Capture(tuple(tree.names), tuple(tree.parents), np.arange(frames) * step, rotations, positions, notes)


@dataclass(slots=True)
class _Tree:
    """The joints in the file's order."""

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)  # −1: the root
    offsets: list[tuple[float, ...]] = field(default_factory=list)
    channels: list[tuple[str, ...]] = field(default_factory=list)  # "Xposition", "Zrotation", …


def _hierarchy(text: str, where: str) -> _Tree:
    tree, open_joints, at = _Tree(), [], 0
    end = len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at)
        near = " ".join(text[at : at + 60].split())
        if token is None or (token["joint"] is None and not open_joints):
            raise UserError(f"{where} is damaged: its HIERARCHY cannot be read near '{near}'")
        at = token.end()
        if token["joint"]:
            parent = open_joints[-1] if open_joints else -1
            name = " ".join(token["name"].split())
            if parent < 0 and tree.names:
                raise UserError(f"{where} has several roots ('{tree.names[0]}', '{name}'): export each body alone")
            if len(open_joints) >= _MOST_DEPTH:
                raise UserError(f"{where} is damaged: its HIERARCHY has more than {_MOST_DEPTH} levels")
            open_joints.append(len(tree.names))
            tree.names.append(f"{tree.names[parent]}_end" if token["joint"].lower() == "end" and parent >= 0 else name)
            tree.parents.append(parent)
            tree.offsets.append((0.0, 0.0, 0.0))
            tree.channels.append(())
        elif token["close"]:
            open_joints.pop()
        elif token["offset"]:
            try:
                tree.offsets[open_joints[-1]] = tuple(map(float, token["offset"].split()))
            except ValueError:
                raise UserError(f"{where} is damaged: its HIERARCHY cannot be read near '{near}'") from None
        else:
            of_joint = tuple(c[0].upper() + c[1:].lower() for c in token["channels"].split())
            if len(of_joint) != int(token["count"]) or len(set(of_joint)) != len(of_joint):
                raise UserError(f"{where} is damaged: its HIERARCHY cannot be read near '{near}'")
            tree.channels[open_joints[-1]] = of_joint
    if open_joints or not tree.names:
        raise UserError(f"{where} is damaged: its HIERARCHY must be one tree with every brace closed")
    if not (np.abs(tree.offsets) < _FARTHEST).all():
        raise UserError(f"{where} is damaged: it has numbers that are not finite or too large; fetch it again")
    return tree


def _motion(text: str, width: int, where: str) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """(T, width) values, seconds a frame, notes."""
    notes: list[str] = []
    said: int | None = None
    written: str | None = None
    while header := _FRAMES.match(text) or _FRAME_TIME.match(text):  # in any order
        if header.re is _FRAMES:
            said = int(header[1])
        else:
            written = header[1].strip()
        text = text[header.end() :]
    if said is None and written is None:
        raise UserError(f"{where} is damaged: its MOTION part cannot be read, since it does not begin with 'Frames:'")
    step = _step(written or "", where, notes)
    rows = _rows(text, said or 0, width, where)
    if len(rows) > _MOST_FRAMES or not len(rows):
        raise UserError(f"{where} has {len(rows):,} frames of motion: 1 to {_MOST_FRAMES:,} can be read")
    if len(rows) != said:
        says = "it does not say how many" if said is None else f"not {said:,} as it says"
        notes.append(f"it has {len(rows):,} frames, {says}: those that are there are used")
    if not (np.abs(rows) < _FARTHEST).all():
        raise UserError(f"{where} is damaged: it has numbers that are not finite or too large; fetch it again")
    return rows, step, tuple(notes)


def _rows(text: str, said: int, width: int, where: str) -> np.ndarray:
    """(T, width): the frames that are there whole. Only the last may be cut off."""
    text = _spaced(text if "." in text else text.replace(",", "."))
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        numbers = [np.array(line.split(), dtype=np.float64) for line in lines[:-1]]
        try:
            numbers += [np.array(line.split(), dtype=np.float64) for line in lines[-1:]]
        except ValueError:  # ends in the middle of a number
            numbers.append(np.zeros(0))
    except ValueError as error:
        raise UserError(
            f"{where} is damaged: its MOTION part cannot be read ({str(error)[:80]}); fetch it again"
        ) from None
    if not width:
        raise UserError(f"{where} has no channels: nothing in it moves")
    # of a file that was cut off the last number may have lost digits
    cut_off = 1 < len(numbers) < said and not text.endswith(("\n", "\r"))
    if numbers and (len(numbers) == 1 or len(numbers[-2]) == width) and (cut_off or len(numbers[-1]) < width):
        numbers.pop()
    wrong = next((i for i, row in enumerate(numbers) if len(row) != width), None)
    if wrong is None:
        return np.array(numbers).reshape(-1, width)
    flat = np.concatenate(numbers)  # perhaps frames are broken into several lines each
    if len(flat) % width or len(numbers) <= len(flat) // width:
        raise UserError(
            f"{where} is damaged: frame {wrong} has {len(numbers[wrong])} numbers for {width} channels; fetch it again"
        )
    return flat.reshape(-1, width)


def _spaced(text: str) -> str:
    """Commas and semicolons between numbers as spaces."""
    return re.sub(r"(?<=[\d.])[,;](?=[-+.\d\s])", " ", text)


def _number(written: re.Match[str]) -> float:
    return int(written[1]) / int(written[2]) if written[1] else float(written[0].replace(",", "."))


def _step(text: str, where: str, notes: list[str]) -> float:
    """Seconds a frame, of what stands behind 'Frame Time:'."""
    written = re.match(r"(\d+)\s*/\s*(\d+)|[-+]?[\d.,]+(?:[eE][-+]?\d+)?", text)
    try:
        number = 0.0 if written is None else _number(written)
    except (ValueError, ZeroDivisionError):
        number = 0.0
    if written is None or number == 0:
        said = f"'{text[:40]}'" if text else "missing"
        notes.append(f"its Frame Time is {said}: {_ASSUMED_RATE:g} frames a second are assumed")
        return 1 / _ASSUMED_RATE
    if 0 < number < _SHORTEST_STEP_S:
        raise UserError(
            f"{where} is damaged: its frames are {number:g} s apart, as it says; give it the right Frame Time"
        )
    if 0 < number < 1:
        return _unrounded(number, written[0])
    for rate, meant in ((number, "frames a second"), (1000 / number, "milliseconds")):
        nearest = min(_USUAL_RATES, key=lambda usual: abs(usual / rate - 1)) if rate > 0 else 0.0
        if abs(nearest / rate - 1) < 0.005:
            notes.append(f"its Frame Time is {number:g}, which must mean {meant}: {nearest:g} frames a second are used")
            return 1 / nearest
    raise UserError(f"{where} is damaged: its frames are {number:g} s apart, as it says; give it the right Frame Time")


def _unrounded(step: float, text: str) -> float:
    """A step that was written with few digits as the usual one that is rounded like it, if there is one."""
    digits = len(re.sub(r"[eE].*", "", text).replace(",", ".").partition(".")[2])
    if "e" in text.lower() or not digits:
        return step
    near = [1 / rate for rate in _USUAL_RATES if abs(1 / rate - step) <= 0.5001 * 10**-digits]
    return min(near, key=lambda usual: abs(usual - step)) if near else step
