# `make` prints what there is. Needed: Python 3.11 or newer with venv and pip, git, make; for the image's test podman
# or docker.
.PHONY: help demo test test-feature test-variant test-updates test-rest lint types format snapshots mutants \
  constraints release benchmark clean

PYTHON ?= python3
PORT ?= 8000
# One more than there are processors: tests wait half of their time, but some look at a clock.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Read from the environment by the recipes, so that no shell parses what it holds.
export NAME VERSION
# Only interpreters that the machine has.
export UV_PYTHON_DOWNLOADS := never

help: ## print this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/installed ## render the default service to build/demo and run it at PORT, by default 8000
	@exec .venv/bin/python hooks/demo.py --port $(PORT)

test: lint types ## all that CI does: every variant, booted and driven
	.venv/bin/pytest -n $(WORKERS) --dist worksteal

test-feature: .venv/installed ## one switch: the leanest variant with NAME, and the fullest
	@tests=$$(.venv/bin/python -m tests.variants --feature "$$NAME") && .venv/bin/pytest $$tests

test-variant: .venv/installed ## the variant NAME, as `python -m tests.variants` lists it
	.venv/bin/pytest "tests/test_variants.py::test_a_variant_passes_every_stage[$$NAME]"

test-updates: .venv/installed ## updates from every release of all 64 variants, not of a sample
	EVERY_VARIANT=1 .venv/bin/pytest -n $(WORKERS) --dist worksteal tests/test_updates.py

test-rest: lint types ## all but the variants
	.venv/bin/pytest -n $(WORKERS) --dist worksteal --ignore tests/test_variants.py

lint: .venv/installed ## check style and format of tests and hooks
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: .venv/installed ## check types of tests and hooks
	.venv/bin/mypy

format: .venv/installed ## fix what can be fixed
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

snapshots: .venv/installed ## write anew what each variant holds and serves, and examples/; then read the diff
	.venv/bin/python -W ignore -m tests.examples
	.venv/bin/python -W ignore -m tests.snapshots

mutants: .venv/installed ## take one thing after the other away from the template: a test must turn red; or ARGS=--help
	.venv/bin/python -W ignore -m tests.mutation $(ARGS)

constraints: .venv/installed ## pin the newest versions of the tools, in constraints.txt
	sed '/^[^#]/d' constraints.txt > constraints.new
	.venv/bin/uv pip compile pyproject.toml --group test --universal --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --upgrade --quiet >> constraints.new
	mv constraints.new constraints.txt
	for pins in tests/checkov.txt tests/clients/*.txt; do \
	  sed '/^[^#]/d' $$pins > pins.new; \
	  sed -n 's/^# Pins of: //p' $$pins | tr ' ' '\n' | .venv/bin/uv pip compile - --python-version 3.11 \
	    --universal --no-annotate --no-header --no-emit-index-url --no-emit-find-links --upgrade --quiet \
	    >> pins.new || exit 1; \
	  mv pins.new $$pins; \
	done

release: .venv/installed ## record what VERSION is rendered from, in releases/
	@.venv/bin/python hooks/release.py "$$VERSION"

benchmark: .venv/installed ## how fast the service is beside others; ARGS as benchmarks/README.md has them
	@.venv/bin/python benchmarks/compare.py $(ARGS)

clean: ## remove what was made here
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt --group test
	touch $@
