"""How the studio's inner loops are compiled: by numba, kept on disk, without the interpreter's lock."""

from numba import njit

exact = njit(cache=True, nogil=True, error_model="numpy")
fast = njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
"""Sums may be reordered."""
