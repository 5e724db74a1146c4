# The first call of any target creates .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# The UI's store and port: make ui URI=sqlite:////elsewhere/mlflow.db PORT=5001
URI ?= sqlite:///mlflow.db
PORT ?= 5000

# Test files run in parallel processes with one thread each: processes that all use every core slow each other down.
# They start in the order of tests/conftest.py, because those with few tests are not the short ones.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

# If this is set, Python keeps no compiled files, and every start takes about ten seconds longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test slow check bench ui clean distclean

help:
	@echo 'make demo       fine-tune EfficientNet-Lite0 on handwritten digits (no network access, under 3 minutes)'
	@echo 'make test       run the tests; make slow runs those that take minutes'
	@echo 'make check      check lint, format, types and known vulnerabilities'
	@echo 'make bench      run the benchmarks and append to benchmarks/results.md'
	@echo 'make ui         compare the runs in MLflow'
	@echo 'make clean      remove caches and builds; make distclean also removes .venv. Runs are kept.'

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python -m ftexp

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_known_vulnerabilities.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.head_partial
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.loss_parts
	$(BIN)/python -m benchmarks.side_by_side start
	$(BIN)/python -m benchmarks.memory

ui: $(INSTALLED)
	$(BIN)/python -m ftexp.ui --uri '$(URI)' --port $(PORT)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

# uv installs in about one minute, pip in four. A .venv that an interrupted call left without pip is created again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ftexp needs Python 3.11 or newer, and $(PYTHON) is %d.%d. Choose another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $@
