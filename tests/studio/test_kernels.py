"""Compiled loops are found again wherever the same code lies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import studio

CODE = """
import numpy as np
from studio.pictures.materials import step
step(0.2, 0.8, 0.5)
print(sum(step.stats.cache_hits.values()), sum(step.stats.cache_misses.values()))
"""


def hits_and_misses(checkout: Path, cache: Path) -> tuple[int, int]:
    env = {**os.environ, "POSE_DEPTH_REFINER_CACHE": str(cache), "PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, cwd=checkout)
    assert done.returncode == 0, done.stderr
    hits, misses = done.stdout.split()
    return int(hits), int(misses)


def test_a_copy_elsewhere_compiles_nothing_anew_and_other_code_everything(tmp_path):
    package = Path(studio.__file__).parent
    for name in ("one", "two"):
        for top in (package, package.parent / "refiner"):
            shutil.copytree(top, tmp_path / name / top.name, ignore=shutil.ignore_patterns("__pycache__"))
    assert hits_and_misses(tmp_path / "one", tmp_path / "cache") == (0, 1)
    assert hits_and_misses(tmp_path / "two", tmp_path / "cache") == (1, 0)
    changed = tmp_path / "two" / "studio" / "rig.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    assert hits_and_misses(tmp_path / "two", tmp_path / "cache") == (0, 1)


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "file").touch()
    package = Path(studio.__file__).parent
    for top in (package, package.parent / "refiner"):
        shutil.copytree(top, tmp_path / "copy" / top.name, ignore=shutil.ignore_patterns("__pycache__"))
    hits, misses = hits_and_misses(tmp_path / "copy", tmp_path / "file" / "nowhere")
    assert hits + misses == 1
