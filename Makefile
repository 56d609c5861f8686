# make demo and make test are all that a fresh machine with Python 3.11 and make needs.
PYTHON ?= python3.11
JOBS ?= 2
BIN = .venv/bin
STAMP = .venv/.installed

.PHONY: install demo test lint

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

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
