# make demo   create a virtual environment, install poolwise, and run the demonstration on CIFAR-10
# make test   install the test dependencies and run the tests
# make check  run what CI runs: ruff, mypy, tests
# make slow   run the slow tests
# make sbom   write a CycloneDX list of the installed packages to dist/sbom.json, for a release
# make audit  check the installed packages against the advisory database (needs the network)
#
# PYTHON=python3.11  Python that creates the environment
# TORCH_INDEX=URL    package index with CPU wheels of torch (see pytorch.org); default: pip's index
VENV ?= .venv
PYTHON ?= python3
RUN ?= runs/demo
BIN = $(VENV)/bin

.PHONY: demo test check slow sbom audit clean

demo: $(VENV)/installed
	@if [ -e $(RUN)/run.json ]; then $(BIN)/poolwise resume $(RUN); else $(BIN)/poolwise run --preset demo --out $(RUN); fi

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow -n auto --dist worksteal

sbom: $(VENV)/installed $(VENV)/installed-release
	@mkdir -p dist
	$(VENV)-release/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible --of JSON -o dist/sbom.json $(BIN)/python

audit: $(VENV)/installed $(VENV)/installed-release
	$(BIN)/pip freeze --exclude-editable > $(VENV)-release/requirements.txt
	$(VENV)-release/bin/pip-audit --no-deps --disable-pip -r $(VENV)-release/requirements.txt

clean:
	rm -rf $(VENV) $(VENV)-release build src/*.egg-info

$(VENV)/installed-release:
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/pip install -q 'cyclonedx-bom>=5,<8' 'pip-audit>=2.7,<3'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(if $(TORCH_INDEX),$(BIN)/pip install -q --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(BIN)/pip install -q -e '.[test]'
	@touch $@
