# `make quickstart` shows what this is; `make test` and `make lint` are what CI runs.
# Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint clean

quickstart: .venv/run.stamp
	$(BIN)/trivium run recipes/quickstart.yaml

test: .venv/test.stamp
	$(BIN)/python -m tools.run_tests

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A stamp is written after an installation that worked; the test profile includes the other.
.venv/run.stamp: pyproject.toml tools/install.py engines/cpu_stack.py engines/torchvision_shim.py
	$(PYTHON) -m tools.install run
	touch $@

.venv/test.stamp: pyproject.toml tools/install.py engines/cpu_stack.py engines/torchvision_shim.py
	$(PYTHON) -m tools.install test
	touch .venv/run.stamp $@

clean:
	rm -rf .venv
