PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test app lint fast gpu-check gpu-carry

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.11 ...") if sys.version_info < (3, 10) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
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

# On a machine with a GPU. One that has PyTorch and nothing else, and no network: `make gpu-carry` elsewhere, with the same
# version of Python, take the folder along, and there `make gpu-check GPU_PYTHON=python3`.
GPU_PYTHON ?= $(BIN)/python
CARRIED := diffusers huggingface_hub safetensors pillow pyyaml regex requests httpx2 httpcore2 truststore h11 anyio \
	idna certifi charset_normalizer urllib3 tqdm packaging filelock importlib_metadata zipp fsspec psutil \
	opencv-python-headless scipy numba llvmlite

gpu-check:
	PYTHONPATH=.:build/carry $(GPU_PYTHON) benchmarks/gpu.py

gpu-carry: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/carry $(CARRIED)
