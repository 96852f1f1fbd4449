# Each target installs what it needs. Requires only Python 3.11 or newer with pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help wheel install run demo test coverage campaign lint types imports check bench growth docs screenshots build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with everything that the other targets need

$(READY): pyproject.toml uv.lock
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 && into="$(BIN)/python -m pip" || into="$(PYTHON) -m pip --python $(BIN)/python"; \
		$$into install --quiet --disable-pip-version-check "uv>=0.5"
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/python -m uv sync --quiet --frozen --inexact --all-extras --group dev
	@touch $@

PORT ?= 11435

run: $(READY) ## serve the dashboard and the API for your Ollama server, or for a sandbox
	@$(BIN)/herdbook serve --sandbox auto --port $(PORT)

demo: $(READY) ## tour of the main commands, including a crash
	@$(BIN)/herdbook demo

ONLY ?=

# Many tests wait for programs and timers: with a process for each of two processors, a
# fifth of their time stays unused.
test: $(READY) ## run all tests, or ONLY="tests/core tests/cli"
	$(BIN)/python -m pytest -n 3 --dist worksteal -q $(ONLY)

# Without the slow tests, whose time coverage would double.
coverage: $(READY) ## run the tests with coverage of branches, at least 95 %
	$(BIN)/python -m pytest -n 2 --dist worksteal -q --cov --cov-report=term \
		$(addprefix --ignore=tests/,browser campaign proof faults service/api/test_schema.py \
		service/http/test_loop_lag.py test_benchmarks.py)

MINUTES ?= 10

campaign: $(READY) ## thousands of faults, random hours, and MINUTES=10 of concurrent clients
	PYTHONPATH=tests $(BIN)/python -m campaign.faults.run --out docs/fault-campaign.json
	$(BIN)/python docs/generate.py
	HERDBOOK_CAMPAIGN=20 HERDBOOK_CAMPAIGN_MINUTES=$(MINUTES) \
		$(BIN)/python -m pytest -n 2 -q -rP tests/campaign

lint: $(READY) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Unpacks the wheel into one folder, for tools that do not follow editable installs.
wheel: $(READY)
	rm -rf build/typing build/wheel build/lib
	$(BIN)/python -m uv build --quiet --wheel --out-dir build/wheel .
	$(BIN)/python -m uv pip install --quiet --no-deps --target build/typing build/wheel/*.whl

types: wheel ## check the types of the wheel, the tests and the benchmarks
	MYPYPATH=build/typing $(BIN)/mypy --namespace-packages --explicit-package-bases -p herdbook
	MYPYPATH=build/typing:tests $(BIN)/mypy --namespace-packages --explicit-package-bases tests
	MYPYPATH=build/typing:. $(BIN)/mypy --namespace-packages --explicit-package-bases -p benchmarks

imports: wheel ## check the import rules
	PYTHONPATH=build/typing $(BIN)/lint-imports

check: lint types imports test ## lint, types, imports and test

bench: $(READY) ## run the benchmarks, relative to peers and floors
	$(BIN)/python -m benchmarks

growth: $(READY) ## measure and draw how durations grow with events and models (20 minutes)
	$(BIN)/python -m benchmarks.growth

docs: $(READY) ## generate the pages in docs/ that come from code
	$(BIN)/python docs/generate.py

screenshots: $(READY) ## take the screenshots of the dashboard (needs Chromium)
	PYTHONPATH=tests $(BIN)/python docs/screenshots.py

build: $(READY) ## build wheel and source distribution in dist/
	$(BIN)/python -m uv build --quiet --out-dir dist .

clean: ## remove generated files
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
