# `make help` lists the targets. Each sets up .venv by itself.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := refiner studio rayjobs serve cluster
export MPLBACKEND := Agg
# Ray's workers import what a job uploads some hundred times: compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

PAGE := serve/page

.PHONY: help setup page demo endpoint doctor test test-fast cluster-test audit lint types docs hooks release clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.done page  ## .venv with everything that development needs; PYTHON=python3.12 names another interpreter

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11: name a newer one, as in 'make PYTHON=python3.11 $(MAKECMDGOALS)'" >&2; exit 2; }
	@echo "setting up .venv: some minutes, 8 GB, 4 without CUDA (pip says nothing until it is done)"
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv  # over another Python's it would be a bit of both
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

page: $(PAGE)/vendor/.done  ## what the endpoint's page takes from npm, pinned and checked (serve/page/package-lock.json)

$(PAGE)/vendor/.done: $(PAGE)/package-lock.json $(PAGE)/vendor.mjs
	@if command -v npm >/dev/null; then cd $(PAGE) && npm ci --silent && npm run --silent vendor && touch vendor/.done || \
		echo "npm could not fetch its packages: the endpoint works, but its page at / does not (make page tries again)"; \
	else echo "npm is not installed: the endpoint works, but its page at / does not (apt-get install npm, then make page)"; fi

demo: setup  ## studio, extract, pair, train, evaluate, serve, one request over HTTP; KEEP=1 leaves everything up at the end
	$(BIN)/python -m cluster.local $(if $(KEEP),--keep) -- python -m rayjobs.demo $(if $(KEEP),--keep)

endpoint: setup  ## the endpoint on this machine with its page, until Ctrl-C; ARGS="--help" lists its options (port, model, tokens)
	$(BIN)/python -m cluster.endpoint $(ARGS)

doctor: setup  ## what on this machine would make Ray, MLflow or a job fail
	$(BIN)/python -m cluster.doctor

test: lint test-fast  ## lint, then all tests
	$(BIN)/python -m pytest -m "cluster or slow" --numprocesses 2 --dist loadfile

test-fast: setup  ## the tests that need no Ray and little time, on two cores
	$(BIN)/python -m pytest -m "not cluster and not slow and not survival" --numprocesses 2 --dist loadfile

cluster-test: setup  ## the long tests of a cluster of several nodes: nodes, heads, stores and disks that fail (needs root for networks)
	$(BIN)/python -m pytest -m survival

audit: setup  ## known holes in the packages of constraints.txt; fails where a fixed version is out
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --format json --progress-spinner off > .venv/audit.json || true
	$(BIN)/python tests/audit.py < .venv/audit.json

# The second look of deptry is at what is not installed, which may use development's packages. Contenders and Blender bring their own.
lint: setup  ## formatting, common mistakes, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry $(PACKAGES)
	$(BIN)/deptry $(PACKAGES) tests benchmarks -e '\.venv' -e '.*/(contender|blender_)' --ignore DEP004
	$(BIN)/basedpyright

types: setup  ## Pyright over the five packages, "standard"
	$(BIN)/basedpyright

docs: setup  ## the documents as a site, in build/site/; the reference is made from the code
	$(BIN)/mkdocs build --quiet

hooks: setup  ## git checks and formats what is committed
	$(BIN)/pre-commit install

release: setup page  ## dist/ with sdist and wheel, built and checked
	rm -rf dist
	$(BIN)/python -m build
	DIST=dist $(BIN)/python -m pytest tests/test_wheel.py

clean:  ## without .venv and what was built
	rm -rf .venv build dist *.egg-info
