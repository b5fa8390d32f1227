# Everything a newcomer needs: `make train` and `make test` install first if they must.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install train test check lint types clean

install: $(VENV)/.installed

# torch goes first and pinned: a bare `torch` would pull several GB of CUDA packages on a CPU machine
# that has a CPU build of this version at hand.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,bench]"
	touch $@

train: install
	$(BIN)/ecrl train

test: export HF_HUB_OFFLINE = 1
test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy -p ecrl

check: lint types test

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
