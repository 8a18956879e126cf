# Two commands matter: `make serve` and `make test`. Both install what they need into .venv first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := .venv/bin/pip --disable-pip-version-check --quiet
INSTALLED := .venv/.installed
ARGS ?=

# Without it, what is started here could import the folders at the root by their bare names, and `kernels`
# would hide the package of that name that transformers looks for.
export PYTHONSAFEPATH := 1
# The version in constraints.txt is meant; asking for a newer one would need the network.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help serve test test-fast chaos check format docs docs-serve bench clean

help:
	@echo "make serve      install, then serve the embedded model until Ctrl-C (options: ARGS='--port 8001')"
	@echo "make test       install, then run every test"
	@echo "make test-fast  the tests that do not start the cluster"
	@echo "make chaos      ten minutes of load on a cluster of several nodes whose processes are killed"
	@echo "make check      lint, format and types, as CI does"
	@echo "make format     rewrite the sources in the house format"
	@echo "make docs       build the documentation into build/site; make docs-serve shows it at 127.0.0.1:8100"
	@echo "make bench      measure the engine and the cluster on this machine, and compare all families"
	@echo "make clean      remove the environment and everything that was built"

# exec: Ctrl-C and SIGTERM must reach easel itself, which takes its processes down.
serve: $(INSTALLED)
	@exec .venv/bin/easel serve $(ARGS)

test: $(INSTALLED)
	@exec .venv/bin/pytest -n 2 --dist loadgroup $(ARGS)

test-fast: $(INSTALLED)
	@exec .venv/bin/pytest -m 'not end_to_end' $(ARGS)

# The tests are no part of the package: this one place needs the root on the path.
chaos: $(INSTALLED)
	@PYTHONSAFEPATH= exec .venv/bin/python -m tests.chaos --seconds 600 $(ARGS)

check: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright --project .src

format: $(INSTALLED)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The variable silences an advertisement of mkdocs-material.
docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict $(ARGS)

docs-serve: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 exec .venv/bin/mkdocs serve --dev-addr 127.0.0.1:8100 $(ARGS)

bench: $(INSTALLED)
	.venv/bin/python -m easel.bench.engine
	.venv/bin/python -m easel.bench.cluster
	.venv/bin/python -m easel.bench.partial
	.venv/bin/python -m easel.bench.parity

clean:
	rm -rf .venv build dist easel.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first: it is by far the largest, and whichever build of it the configured index offers stays.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Easel needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x .venv/bin/pip || { echo "Creating .venv with $$("$(PYTHON)" -V)"; "$(PYTHON)" -m venv .venv; }
	@echo "Installing torch (the largest part: minutes on a slow line)"
	@$(PIP) install --constraint constraints.txt setuptools torch
	@echo "Installing Easel and the rest (a few minutes, once)"
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@
