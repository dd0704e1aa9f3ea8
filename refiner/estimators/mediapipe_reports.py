"""MediaPipe's usage reports, turned off.

MediaPipe's packages for Python report the performance and use of each task to Google (its "Tasks Privacy Notice"; the
sources that are published have no word of it) and offer no option against it. The address is a constant in the library.
It is overwritten in this process's memory, before the first task is made, by one of the same length at which nobody
listens; the file stays as it is. Not done where there is no /proc (macOS, Windows).
`tests/cluster/test_calling_home.py` holds that nobody is called.
"""

import functools
import logging
import os

ADDRESS = b"https://play.googleapis.com/log"
NOWHERE = b"http://127.0.0.1:9/log/disabled"
assert len(ADDRESS) == len(NOWHERE)
LIBRARY = "libmediapipe.so"
_log = logging.getLogger(__name__)


@functools.cache
def turn_off() -> bool:
    """Once a process, before a task is made.

    Returns:
        Whether it was done.
    """
    if not os.path.exists("/proc/self/mem"):
        return False
    from mediapipe.tasks.python.core import mediapipe_c_bindings

    mediapipe_c_bindings.load_raw_library()
    try:
        done = _overwrite()
    except OSError as error:
        _log.warning("MediaPipe's usage reports could not be turned off (%s)", error)
        return False
    if not done:
        _log.warning("this MediaPipe keeps the address of its usage reports elsewhere: they are not turned off")
    return done


def _overwrite() -> bool:
    """Whether the address was there."""
    overwritten = False
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "r+b", buffering=0) as memory:
        for line in maps:
            # address range, permissions, offset, device, inode, path
            fields = line.split(maxsplit=5)
            if len(fields) < 6 or not fields[5].strip().endswith(LIBRARY) or "r" not in fields[1]:
                continue
            start, end = (int(part, 16) for part in fields[0].split("-"))
            memory.seek(start)
            at = memory.read(end - start).find(ADDRESS)
            if at >= 0:
                memory.seek(start + at)
                memory.write(NOWHERE)
                overwritten = True
    return overwritten
