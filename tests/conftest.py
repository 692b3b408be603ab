"""All tests: PyTorch's threads would spend more time waiting for each other than working on pictures this small."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported, and for the processes that tests start
