"""A run's heavy loop where a GPU is: twins in PyTorch of fetching, lookup and Levin's equations.

CPU tensors go in and come out, a few megabytes a call, so that the state stays on the CPU; between lies one device.
Everything is whole pictures and few kernels. The constants are those of the CPU's own code, whose results
``tests/test_gpu.py`` holds these to. Optical flow stays on the CPU (docs/gpu.md).
"""

from __future__ import annotations

from functools import partial

from omnifusion.gpu.fetching import fetched
from omnifusion.gpu.searching import lookup
from omnifusion.gpu.solving import levin
from omnifusion.inpaint import Kernels


def kernels(device: str) -> Kernels:
    """The arithmetic of a run on ``device``: the compiled one on a CPU, else its twins."""
    return Kernels() if device == "cpu" else twins(device)


def twins(device: str) -> Kernels:
    """The twins, on any device."""
    return Kernels(partial(fetched, device=device), partial(lookup, device=device), partial(levin, device=device))
