# Python 3.10 or newer and pip are all that is needed: servers for tests and demo come as packages.
PYTHON ?= python3
VENV   ?= .venv
WORKERS ?= auto
MINUTES ?= 10
BIN    := $(VENV)/bin

.PHONY: demo test test-full check house unit faults soak outage mutants test-system test-versions completions docs pictures lock audit wheel clean

demo: $(VENV)/.ready          ## real servers, a marketplace, the whole tour; KEEP=1 leaves them running
	$(BIN)/idxctl demo $(if $(KEEP),--keep)

test: check                   ## lint, types, import rules and the tests: those that take minutes are left to test-full
	IDXCTL_TEST_HISTORIES=$${IDXCTL_TEST_HISTORIES:-12} $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not system and not full"

test-full: check              ## the same with every test but those that need system packages; CI runs this
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not system"

check: $(VENV)/.ready         ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

house: $(VENV)/.ready         ## how long modules and functions are, what classes hold, circles of imports, what stands twice
	PYTHONPATH=tests $(BIN)/python -m house

unit: $(VENV)/.ready          ## the tests without servers
	$(BIN)/pytest tests/unit

faults: $(VENV)/.ready        ## real processes killed, paused and cut off
	$(BIN)/pytest tests/faults

soak: $(VENV)/.ready          ## all faults at random under load, then every document compared: MINUTES=10 SEED=
	PYTHONPATH=tests MINUTES=$(MINUTES) SEED=$(SEED) $(BIN)/python -m soak

outage: $(VENV)/.ready        ## OpenSearch away under load: no attempt spent, no letter, drained in time: SECONDS_AWAY=30 RATE=200
	PYTHONPATH=tests $(BIN)/python -m soak.outage

mutants: $(VENV)/.ready       ## leave out one rule of the protocol at a time: a test must turn red for each
	PYTHONPATH=tests $(BIN)/python -m mutants

test-system: $(VENV)/.ready   ## as root, with Debian's cron, zsh, fish, pgbouncer, postgresql and prometheus; Go and Maven for the examples
	$(BIN)/pytest -m system

test-versions: $(VENV)/.ready ## the versions that the README claims, an hour: ONLY="postgres-14 lowest"; ONLY=cheap is what CI runs
	PYTHONPATH=tests $(BIN)/python -m versions $(ONLY)

completions: $(VENV)/.ready   ## write the completion scripts again
	$(BIN)/idxctl completion bash > completions/idxctl.bash
	$(BIN)/idxctl completion zsh > completions/_idxctl
	$(BIN)/idxctl completion fish > completions/idxctl.fish

docs: $(VENV)/.ready          ## write the pages that are made from code again
	$(BIN)/python docs/make.py

pictures: $(VENV)/.ready      ## draw the pictures of the README again, from a real run
	$(BIN)/python docs/pictures/make.py

lock: $(VENV)/.ready          ## pin what an image of the application installs, with hashes: pip install --require-hashes -r requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra http --extra aws --universal --python-version 3.10 --generate-hashes \
	  --upgrade --quiet --no-config --custom-compile-command "make lock" --output-file requirements.lock

audit: $(VENV)/.ready         ## known advisories of what requirements.lock pins, where their data can be reached
	PATH="$(BIN):$$PATH" .ci/audit requirements.lock

wheel: $(VENV)/.ready
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build --wheel --outdir dist

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
