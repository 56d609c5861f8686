# make demo and make test are all that a fresh machine with Python 3.11 and make needs.
PYTHON ?= python3.11
JOBS ?= 2
BIN = .venv/bin
STAMP = .venv/.installed

SUITES = $(patsubst benchmarks/suites/%.toml,%,$(wildcard benchmarks/suites/table-*.toml benchmarks/suites/figure-*.toml))

.PHONY: install demo mini test nightly gpu lint docs

install: $(STAMP)

# uv where it is installed, plain venv and pip where not
$(STAMP): pyproject.toml constraints.txt
	@if command -v uv > /dev/null; then \
		uv venv --quiet --seed --allow-existing --python $(PYTHON) .venv && \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

demo: install
	$(BIN)/bmm train --suite demo --jobs $(JOBS)
	$(BIN)/bmm report --suite demo --out runs/demo
	$(BIN)/bmm report --suite demo --check

# a smoke test of every row of the paper's tables, on the built-in synthetic data
mini: install
	@for suite in $(SUITES); do \
		$(BIN)/bmm train --suite $$suite-mini --jobs $(JOBS) > /dev/null && \
		$(BIN)/bmm report --suite $$suite-mini --format markdown || exit; \
	done

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) -m "not long"

# with the tests that repeat at length what shorter ones show
nightly: install
	$(PYTEST)

# all that waits for a GPU: prints one JSON object
gpu: install
	$(BIN)/python benchmarks/performance/gpu.py

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

# the site of docs/, in docs/_build/html
docs: install
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build --quiet --fresh-env --write-all --fail-on-warning --keep-going docs docs/_build/html
