# make demo   its own virtual environment, the install, and the main job on real CIFAR-10
# make test   installs what the tests need and runs them
# make check  what CI runs: ruff, mypy, tests
#
# PYTHON=python3.11     which Python makes the environment
# TORCH_INDEX=URL       a package index that holds CPU wheels of torch (pytorch.org names one); without it pip's default serves
VENV ?= .venv
PYTHON ?= python3
RUN ?= runs/demo
BIN = $(VENV)/bin

.PHONY: demo test check slow clean

demo: $(VENV)/installed
	@if [ -e $(RUN)/run.json ]; then $(BIN)/poolwise resume $(RUN); else $(BIN)/poolwise run --preset demo --out $(RUN); fi

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) build src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(if $(TORCH_INDEX),$(BIN)/pip install -q --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(BIN)/pip install -q -e '.[test]'
	@touch $@
