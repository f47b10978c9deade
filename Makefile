VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
RUN ?= runs/demo
FIGURES ?= .pytest_cache/faults.jsonl
WHAT := --constraint constraints.txt --editable '.[dev]'

.PHONY: install demo test test-all test-faults test-exhaustive check docs bench clean

install: $(VENV)/.installed

# constraints.txt says which releases. uv resolves in seconds; pip is the fallback. A torch that pip is configured to find on disk is
# offered to uv too: it would else take the registry's build with CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	( $(BIN)/python -m pip install --quiet uv \
	  && UV_FIND_LINKS="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)" \
	     $(BIN)/uv pip install --quiet --python $(BIN)/python $(WHAT) ) \
	|| $(BIN)/python -m pip install --quiet $(WHAT)
	touch $@

demo: install  ## search, retrain and report on the embedded digits
	$(BIN)/tutelage demo --out $(RUN)

test: install  ## the default tests, some 9 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: install  ## the slow ones too
	FAULTS=sample $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not exhaustive'

test-faults: install  ## the whole campaign of faults, an hour on 2 cores; what passed is not run again; docs/reliability.md
	FAULTS=all FAULTS_KEPT=$(FIGURES) $(BIN)/python -m pytest -n 2 --dist worksteal tests/faults -m 'slow or not slow'

test-exhaustive: install  ## every method with every search in every space, before a release
	$(BIN)/python -m pytest -n 2 --dist worksteal -m exhaustive

check: install  ## lint, format, types, and the code in the docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_docs.py

docs: install  ## the site, to site/: pages, reference, tutorials as notebooks, a gallery of reports
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt '.[docs]' \
	|| $(BIN)/python -m pip install --quiet --constraint constraints.txt '.[docs]'
	$(BIN)/python docs/gallery.py runs/docs/gallery
	$(BIN)/python docs/notebooks.py runs/docs/notebooks
	$(BIN)/mkdocs build --strict

bench: install  ## cost of the rules and of a search step; see benchmarks/
	$(BIN)/python benchmarks/rules.py
	$(BIN)/python benchmarks/search_step.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
