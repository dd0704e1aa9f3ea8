"""How the studio's inner loops are compiled: by numba, without the interpreter's lock, once for every machine.

Compiling them takes 24 s of a core. numba keeps what it compiled beside each file, or under that file's path: every upload of
a job's working folder would compile anew. Here it is kept in the project's cache, under the content of the whole studio, for a
loop holds what the loops that it calls held.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import InTreeCacheLocator

from refiner.wheels import cache_folder

_STUDIO = Path(__file__).parent


class ByContent(InTreeCacheLocator):
    """Where numba keeps what it compiled of a file of the studio; of other files it says nothing."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(cache_folder() / "kernels" / _digest())

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "ByContent | None":
        """None for files that are not the studio's, and where the cache cannot be written to: numba's usual place serves."""
        return super().from_function(py_func, py_file) if _STUDIO in Path(py_file).parents else None


@cache
def _digest() -> str:
    """Of all the studio's code."""
    files = sorted(_STUDIO.rglob("*.py"))
    content = b"".join(str(f.relative_to(_STUDIO)).encode() + b"\0" + f.read_bytes() + b"\0" for f in files)
    return hashlib.sha256(content).hexdigest()[:16]


_LOCATORS = "CACHE_LOCATOR_CLASSES"  # of numba's configuration, where NUMBA_CACHE_LOCATOR_CLASSES is, too
if not getattr(config, _LOCATORS):  # what somebody set themselves stays
    usual = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,ZipCacheLocator"
    setattr(config, _LOCATORS, f"{__name__}.ByContent,{usual}")
exact = njit(cache=True, nogil=True, error_model="numpy")
fast = njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
"""Sums may be reordered."""
