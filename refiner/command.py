"""What all commands share: the command line, one-line errors, progress on stderr, the JSON summary, the exit status."""

import dataclasses
import errno
import inspect
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import tyro

from refiner import telemetry
from refiner.errors import UserError

EXIT_USER_ERROR = 2
INTERRUPTED, READER_LEFT = 130, 141  # as a shell counts what SIGINT and SIGPIPE end
_OF_THE_MACHINE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another folder",
    errno.EPERM: "choose another folder",
}

T = TypeVar("T")


def launch(run: Callable[[Any], Any], options_type: type) -> None:
    """Parses the command line into `options_type`, runs the job, prints its summary as one line of JSON, and exits.

    The docstring of the job's module is its `--help`. Progress goes to stderr, so that stdout's last line is the summary.
    A `UserError` becomes one line on stderr and exit status 2.
    """
    with ending("what is finished stays; the same command goes on from there"):
        summary = json.dumps(to_json(run(parse(options_type))), allow_nan=False)
        # as many digits as anybody measures: 5.21 s, not 5.207318412000001
        print(json.dumps(json.loads(summary, parse_float=lambda digits: float(f"{float(digits):.7g}"))))


@contextmanager
def ending(interrupted: str) -> Iterator[None]:
    """Of a command that runs inside: one line and an exit status for whatever is not its own fault, then an exit.

    Args:
        interrupted: what an interrupt leaves.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know no arrows, and names need not be UTF-8
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _last_words(f"error: {error}", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _last_words(f"interrupted: {interrupted}", INTERRUPTED)
    except BrokenPipeError:  # whoever read standard output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so once more at its end
        sys.exit(READER_LEFT)
    except OSError as error:
        sentence = unwritten(error)
        if sentence is None:
            raise
        _last_words(f"error: {sentence}", EXIT_USER_ERROR)


def unwritten(error: OSError) -> str | None:
    """What to do about a file that cannot be written, as a sentence; None where the error is another one."""
    if error.errno not in _OF_THE_MACHINE:
        return None
    where = f"{error.filename} cannot be written" if error.filename else "a file cannot be written"
    return f"{where} ({os.strerror(error.errno).lower()}): {_OF_THE_MACHINE[error.errno]}"


def _last_words(text: str, status: int) -> NoReturn:
    print(text, file=sys.stderr, flush=True)
    sys.exit(status)


def parse(options_type: type[T], args: Sequence[str] | None = None) -> T:
    """The command line as `options_type`; the docstring of the module that defines it is the `--help`, as wide as the terminal.

    Args:
        options_type: dataclass of the options.
        args: what to parse in place of the process's own arguments.
    """
    telemetry.turn_off()  # all commands come through here before they import anything that reports
    module = sys.modules[options_type.__module__]
    command = f"python -m {module.__spec__.name.removesuffix('.__main__')}" if module.__spec__ else None
    paragraphs = inspect.cleandoc(module.__doc__ or "").split("\n\n")
    width = min(shutil.get_terminal_size().columns, 120)
    margin = "  "  # where the options' names are; and tyro would make one line of lines that start with a letter
    text = "\n\n".join(
        textwrap.indent(p, margin)
        if p.startswith(" ")
        else textwrap.fill(p, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
        for p in paragraphs
    )
    return tyro.cli(options_type, prog=command, description=text, args=args)


def to_json(value: Any) -> Any:
    """Dataclasses, mappings and numpy numbers as plain JSON values; a number that is not finite becomes null."""
    if not isinstance(value, type) and dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def log(message: str) -> None:
    """One line of progress, on stderr."""
    print(message, file=sys.stderr, flush=True)


def logical_cpus() -> int:
    """CPUs that an embedded Ray is told it has: the cores and some spare, for tasks that wait more than they compute."""
    return cores() + 4


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
