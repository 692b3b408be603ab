PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# On Linux PyPI's PyTorch brings CUDA. Where there is no NVIDIA card and PyTorch's own index answers, its CPU build is taken.
TORCH_INDEX := https://download.pytorch.org/whl/cpu
NVIDIA := $(wildcard /proc/driver/nvidia/version /usr/lib/wsl/lib/nvidia-smi)
CPU_ONLY = test "$$(uname)$(NVIDIA)" = Linux && \
	timeout 8 $(PYTHON) -c 'import urllib.request; urllib.request.urlopen("$(TORCH_INDEX)/torch/", timeout=5)' 2>/dev/null

.PHONY: setup demo test app lint fast gpu-check

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.11 ...") if sys.version_info < (3, 10) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(CPU_ONLY) && echo "No NVIDIA card: PyTorch's CPU build, without 5 GB of CUDA" && \
		$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $$(grep '^torch[v>]' requirements.txt) || \
		echo "PyTorch as PyPI has it"
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	touch $@

demo: $(STAMP)
	$(BIN)/python -m omnifusion demo --out out/demo --overwrite

test: lint
	$(BIN)/python -m pytest

fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not browser"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

app: $(STAMP)
	$(BIN)/python app.py

gpu-check: $(STAMP)
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py
