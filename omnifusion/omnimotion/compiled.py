"""How kernels are compiled by numba; after a change here, what is kept on disk has to be deleted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FAST = {"contract", "arcp", "nsz", "reassoc", "afn"}
"""Fast math that keeps NaN and infinity honest, so that a diverging run is seen."""
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
inlined = njit(**OPTIONS, forceinline=True)
"""For the parts of a kernel: called, they would round differently in the process that compiled them and in later ones,
which load the kernel from disk, since only the first links them from a module of their own."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled when first called and kept on disk, or, where no folder can be written, compiled in every process."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:
        return njit(**OPTIONS)(function)
