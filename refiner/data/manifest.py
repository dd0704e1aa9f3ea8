"""What a folder of pairs holds, counted once when it is written: `manifest.json` beside the pairs.

Written by `rayjobs.pair` and `rayjobs.simulate`; read by training, tuning, simulating and evaluating, which need not read all
pairs to count them, to check that they are plausible, or to know their fingerprint.
"""

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from refiner import files
from refiner.data import records
from refiner.data.aistpp import SPLITS
from refiner.data.records import Pairs
from refiner.errors import UserError

FILE = "manifest.json"
VERSION = 1
_PAIRS = re.compile(r"split=[^/]+/[^/]+\.parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFile:
    """One Parquet file of pairs."""

    split: str
    rows: int
    bytes: int
    sequences: list[str]
    digest: str
    """Of its content (`records.content_digest`), hexadecimal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All files of a folder of pairs, and what is known of them."""

    files: dict[str, PairFile]
    """By path in the folder."""
    gists: dict[str, dict[str, Any]]
    """By split: the sums of `checks.Gist` over all its pairs, which say whether observation and truth show the same."""
    inputs: dict[str, Any] | None = None
    """`drift.statistics` of the training poses."""
    estimator: dict[str, Any] = field(default_factory=dict)
    """That saw the poses."""
    made_of: dict[str, str] = field(default_factory=dict)
    """The folders that they were made of, and how."""
    schema_version: int = VERSION

    @property
    def fingerprint(self) -> str:
        """Of the pairs' content, however the files are cut."""
        return records.fingerprint_of(int(file.digest, 16) for file in self.files.values())

    def of_split(self, split: str) -> list[PairFile]:
        return [file for file in self.files.values() if file.split == split]

    def rows(self, split: str) -> int:
        return sum(file.rows for file in self.of_split(split))

    def sequences(self, *splits: str) -> set[str]:
        return {name for split in splits for file in self.of_split(split) for name in file.sequences}


def described(pairs: Pairs, path: str | Path, split: str) -> PairFile:
    """What the manifest says of one file, once it is written."""
    names = sorted(set(pairs.sequence.tolist()))
    digest = f"{records.content_digest(pairs, split):064x}"
    return PairFile(split=split, rows=len(pairs), bytes=files.info(path).size, sequences=names, digest=digest)


def write(
    root: str | Path,
    pair_files: Mapping[str, PairFile],
    *,
    gists: Mapping[str, dict[str, Any]],
    inputs: dict[str, Any] | None,
    estimator: Mapping[str, Any],
    made_of: Mapping[str, str],
) -> Manifest:
    """Writes the manifest of a folder.

    Args:
        root: of the pairs.
        pair_files: by path in the folder.
        gists: by split, `checks.Gist.to_json`.
        inputs: `drift.statistics` of the training poses.
        estimator: that saw the poses.
        made_of: where they come from.
    """
    manifest = Manifest(
        files=dict(sorted(pair_files.items())),
        gists=dict(gists),
        inputs=inputs,
        estimator=dict(estimator),
        made_of=dict(made_of),
    )
    content = {**asdict(manifest), "fingerprint": manifest.fingerprint}
    files.write_text(files.join(root, FILE), json.dumps(content, indent=1) + "\n")
    return manifest


def read(root: str | Path) -> Manifest | None:
    """The manifest of a folder of pairs; None where there is none: of an older version, or written by hand.

    Raises:
        UserError: it is damaged, of another version, or does not say what lies beside it.
    """
    path = files.join(root, FILE)
    again = "run what made the pairs again, or delete it to have them counted again"
    try:
        content = json.loads(files.read_text(path))
        if content["schema_version"] != VERSION:
            raise UserError(f"{path} has version {content['schema_version']}, this program reads {VERSION}: {again}")
        fingerprint = content.pop("fingerprint")
        files_of = {name: PairFile(**file) for name, file in content.pop("files").items()}
        manifest = Manifest(files=files_of, **content)
        matches = manifest.fingerprint == fingerprint
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): {again}") from None
    if not matches:
        raise UserError(f"{path} is damaged (its fingerprint is not that of its files): {again}")
    there = {name: file for name, file in files.below(root).items() if _PAIRS.fullmatch(name)}
    if different := sorted(there.keys() ^ manifest.files.keys()):
        raise UserError(f"{path} does not describe what lies beside it, such as {different[0]}: {again}")
    with ThreadPoolExecutor(32) as pool:  # reads the end of each file: mostly waiting
        rows = pool.map(lambda name: _rows(there[name].where), manifest.files)
        for (name, file), number in zip(manifest.files.items(), rows, strict=True):
            if there[name].size != file.bytes or number != file.rows:
                raise UserError(f"{there[name].where} is not the file that {path} describes: {again}")
    return manifest


def counted(root: str | Path) -> tuple[str, dict[str, int]]:
    """Fingerprint of a folder of pairs, and the number of pairs by split, where its manifest has them; else without."""
    known = read(root)
    if known is None:
        return records.fingerprint(root, SPLITS), dict.fromkeys(SPLITS, 0)
    return known.fingerprint, {split: known.rows(split) for split in SPLITS}


def _rows(where: str) -> int:
    """Of its footer; -1 where that is damaged."""
    try:
        return records.read_footer(where).num_rows
    except (OSError, ValueError):
        return -1
