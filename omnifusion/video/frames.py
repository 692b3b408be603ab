"""Frames that are made where they are asked for, in the place of an array."""

from __future__ import annotations

import math
import operator
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnifusion.progress import InputError


class Frames(ABC):
    """Frames ``(T, 3, H, W)`` uint8 sRGB; the one asked for last is kept. Several threads may ask."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.size = path, shape, math.prod(shape)
        self._last: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int]) -> np.ndarray:
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        if isinstance(index, Sequence | np.ndarray):
            return np.stack([self[i] for i in index]) if len(index) else np.zeros((0, *self.shape[1:]), np.uint8)
        i = range(len(self))[operator.index(index)]
        with self._lock:
            if self._last is None or self._last[0] != i:
                frame = self._frame(i)
                if frame is None or frame.shape != self.shape[1:]:
                    raise InputError(f"{self.path} has changed while it was read; run again.")
                self._last = i, frame
            return self._last[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_lock"} | {"_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @abstractmethod
    def _frame(self, i: int) -> np.ndarray | None:
        """Decode a frame; None where it is not there any more."""
