# make demo       the whole path on this machine: studio, extract, pair, train, evaluate, serve, one request over HTTP
# make demo KEEP=1   the same, and everything stays up at the end
# make test       all tests; make test-fast: those that need no Ray
# make hooks      git checks and formats what is committed (pre-commit)
# Each sets up .venv by itself.

PYTHON ?= python3
BIN := .venv/bin
export MPLBACKEND := Agg

.PHONY: setup hooks demo test test-fast lint clean

setup: .venv/.done

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11: name a newer one, as in 'make PYTHON=python3.11 $(MAKECMDGOALS)'" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: setup
	$(BIN)/python -m cluster.local $(if $(KEEP),--keep) -- python -m rayjobs.demo $(if $(KEEP),--keep)

test: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

test-fast: setup
	$(BIN)/python -m pytest -m "not cluster"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

hooks: setup
	$(BIN)/pre-commit install

clean:
	rm -rf .venv build *.egg-info
