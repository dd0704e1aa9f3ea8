"""What every job's command line promises: one line for a user's error, JSON last, the exit status."""

import importlib
import json
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import rayjobs
from refiner.command import parse, to_json

JOB = '''"""A job for this test.

    python -m job --number 3
"""
from dataclasses import dataclass
from refiner.command import launch, log
from refiner import UserError

@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    number: int
    """How many."""

@dataclass
class Summary:
    twice: int

def run(options: Options) -> Summary:
    log("working")
    if options.number < 0:
        raise UserError("--number is negative: give 0 or more")
    if options.number > 9:
        raise RuntimeError("a defect")
    return Summary(twice=2 * options.number)

if __name__ == "__main__":
    launch(run, Options)
'''


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    return lambda *args: subprocess.run(
        [sys.executable, str(tmp_path / "job.py"), *args], capture_output=True, text=True
    )


def test_the_last_line_of_stdout_is_the_summary(job):
    done = job("--number", "3")
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1]) == {"twice": 6}
    assert "working" in done.stderr


def test_a_users_error_is_one_line_and_exit_status_2(job):
    done = job("--number", "-1")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == "error: --number is negative: give 0 or more"
    assert "Traceback" not in done.stderr


def test_a_defect_keeps_its_traceback(job):
    done = job("--number", "10")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_help_is_the_docstring_and_the_options_own_words(job):
    done = job("--help")
    assert done.returncode == 0 and "A job for this test." in done.stdout and "How many." in done.stdout


def test_summaries_are_strict_json():
    value = {"a": np.float32(1.5), "b": np.arange(2), "c": float("nan"), "d": (np.int64(3), np.bool_(True)), "e": None}
    assert json.loads(json.dumps(to_json(value), allow_nan=False)) == {
        "a": 1.5, "b": [0, 1], "c": None, "d": [3, True], "e": None,
    }  # fmt: skip


def test_the_help_of_every_job_fits_into_80_columns(monkeypatch, capsys):
    """An option that stands twice, also in a nested group, only shows when the command line is built."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = set()
    for module in pkgutil.walk_packages(rayjobs.__path__, "rayjobs."):
        job = importlib.import_module(module.name)
        if hasattr(job, "Options") and hasattr(job, "run"):
            with pytest.raises(SystemExit) as end:
                parse(job.Options, ["--help"])
            assert not end.value.code, module.name
            shown.add(module.name)
    assert {f"rayjobs.{job}" for job in ("train", "tune", "extract", "pair", "evaluate", "studio")} <= shown
    assert "rayjobs.demo.__main__" in shown
    prose = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("usage:", "      "))]
    assert len(prose) > 100 and max(map(len, prose)) <= 80
