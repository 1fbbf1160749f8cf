# requant. `make help` lists every target.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-all check format bench teachers clean
.DEFAULT_GOAL := help

help:  ## list every target
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(STAMP)  ## build .venv with everything that running and testing needs

# The pip that a new venv carries may be too old for dependency groups, so a known one comes first.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check 'pip>=25.1,<26.2'
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[models,onnx,faiss]' --group dev
	@touch $@

demo: setup  ## the demo on embedded data: compress, retrain without labels, measure, draw (2 minutes)
	$(PY) run.py

test: setup  ## all tests but the slow ones
	$(PY) -m pytest -m 'not slow'

test-all: setup  ## all tests
	$(PY) -m pytest

check: setup  ## lint, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup  ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup  ## benchmarks: ratios, both sides in one run
	$(PY) -m benchmarks.quantize_vgg16
	$(PY) -m benchmarks.bench_clustering

# Each goes on where a killed one was, and is only shown where it is done (outputs/teachers).
teachers: setup  ## train the two teachers of the CIFAR-10 studies and keep them in experiments/teachers/ (hours; resumable)
	$(PY) run.py experiment=teacher_vgg16_cifar10
	$(PY) run.py experiment=teacher_resnet50_cifar10

clean:  ## remove .venv and caches (not outputs/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
