"""How the studio's inner loops are compiled: by numba, kept on disk, without the interpreter's lock."""

from numba import njit

exact = njit(cache=True, nogil=True)
fast = njit(cache=True, nogil=True, fastmath=True)
"""Sums may be reordered."""
