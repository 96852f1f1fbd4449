# Each verb sets up what it needs; Python 3.11 or newer with pip is all it takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help wheel install run demo test campaign lint types imports check bench docs screenshots build clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make .venv with everything that the other verbs need

$(READY): pyproject.toml uv.lock
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 && into="$(BIN)/python -m pip" || into="$(PYTHON) -m pip --python $(BIN)/python"; \
		$$into install --quiet --disable-pip-version-check "uv>=0.5"
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/python -m uv sync --quiet --frozen --inexact --all-extras --group dev
	@touch $@

PORT ?= 11435

run: $(READY) ## serve the dashboard and the API: over your Ollama if it answers, else a sandbox
	@$(BIN)/herdbook serve --sandbox auto --port $(PORT)

demo: $(READY) ## walk through the main job on the command line, a crash included
	@$(BIN)/herdbook demo

# What is slow already is not measured: it takes twice as long then.
UNMEASURED := tests/browser tests/campaign tests/proof tests/faults \
	tests/service/api/test_schema.py tests/test_benchmarks.py

ONLY ?=

test: $(READY) ## run all tests, or ONLY="tests/core tests/cli"
ifdef COVERAGE
	$(BIN)/python -m pytest -n 2 -q $(UNMEASURED)
	$(BIN)/python -m pytest -n 2 -q $(addprefix --ignore=,$(UNMEASURED)) --cov --cov-report=term
else
	$(BIN)/python -m pytest -n 2 -q $(ONLY)
endif

MINUTES ?= 10

campaign: $(READY) ## random hours with faults, crowds of clients, and MINUTES=10 of a served crowd
	HERDBOOK_CAMPAIGN=20 HERDBOOK_CAMPAIGN_MINUTES=$(MINUTES) \
		$(BIN)/python -m pytest -n 2 -q -rP tests/campaign

lint: $(READY) ## check style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What ships is laid out as one folder, for tools that do not see editable installs.
wheel: $(READY)
	rm -rf build/typing build/wheel build/lib
	$(BIN)/python -m uv build --quiet --wheel --out-dir build/wheel .
	$(BIN)/python -m uv pip install --quiet --no-deps --target build/typing build/wheel/*.whl

types: wheel ## check the types of the wheel that ships, and of the tests against it
	MYPYPATH=build/typing $(BIN)/mypy --namespace-packages --explicit-package-bases -p herdbook
	MYPYPATH=build/typing:tests $(BIN)/mypy --namespace-packages --explicit-package-bases tests
	MYPYPATH=build/typing:. $(BIN)/mypy --namespace-packages --explicit-package-bases -p benchmarks

imports: wheel ## check which room imports which
	PYTHONPATH=build/typing $(BIN)/lint-imports

check: lint types imports test ## all of the above that can fail

bench: $(READY) ## measure, beside peers and floors in the same run
	$(BIN)/python -m benchmarks

docs: $(READY) ## make the generated parts of docs/ anew
	$(BIN)/python docs/generate.py

screenshots: $(READY) ## take the pictures of the dashboard anew (needs Chromium)
	PYTHONPATH=tests $(BIN)/python docs/screenshots.py

build: $(READY) ## make wheel and source distribution in dist/
	$(BIN)/python -m uv build --quiet --out-dir dist .

clean: ## remove what was made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
