"""All tests: PyTorch's threads would spend more time waiting for each other than working on pictures this small."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported, and for the processes that tests start

import pytest


@pytest.fixture(autouse=True)
def _the_device_is_found_out_anew() -> None:
    """A test that pretends a graphics card leaves no other test with it."""
    import omnifusion.stages

    omnifusion.stages.usable_device.cache_clear()
