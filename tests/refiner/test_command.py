"""How commands end where something around them fails: one sentence and a status, never a traceback."""

import errno
import io
import os
import subprocess
import sys

import pytest

from refiner import UserError
from refiner.command import EXIT_USER_ERROR, INTERRUPTED, READER_LEFT, ending


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UserError("this is wrong"), EXIT_USER_ERROR, "error: this is wrong\n"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted: it goes on\n"),
        (
            OSError(errno.ENOSPC, "", "/full/a.parquet"),
            EXIT_USER_ERROR,
            "/full/a.parquet cannot be written (no space left",
        ),
        (
            OSError(errno.ENOSPC, "pyarrow's text"),
            EXIT_USER_ERROR,
            "a file cannot be written (no space left on device): ",
        ),
        (PermissionError(errno.EACCES, "", "/out"), EXIT_USER_ERROR, "(permission denied): choose another folder\n"),
        (OSError(errno.EROFS, "", "/out"), EXIT_USER_ERROR, "(read-only file system): choose another folder\n"),
    ],
)
def test_what_is_not_the_commands_fault_is_one_line(error, status, says, capsys):
    with pytest.raises(SystemExit) as left, ending("it goes on"):
        raise error
    said = capsys.readouterr().err
    assert left.value.code == status and says in said and said.count("\n") == 1


def test_a_fault_of_the_commands_own_keeps_its_traceback():
    for error in (OSError(errno.EBADF, "bad"), ZeroDivisionError()):
        with pytest.raises(type(error)), ending(""):
            raise error


def test_a_reader_that_leaves_ends_the_command_without_a_word():
    script = "from refiner.command import ending\nwith ending(''):\n  for i in range(100_000): print('line', i)"
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr is not None and running.stderr.read() == b"" and running.wait() == READER_LEFT


def test_what_a_terminal_cannot_show_is_written_out(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with ending(""):
        print("7 → 5", os.fsdecode(b"clip\xff.mp4"))
    assert raw.getvalue() == b"7 \\u2192 5 clip\\udcff.mp4\n"
