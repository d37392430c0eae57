# One command per job. Each sets up what it needs in .venv, given only Python >= 3.11, make and a shell. With
# PYTHON=python3.13 it does so in .venv/3.13: an environment cannot change its Python.
.DEFAULT_GOAL := help
.NOTPARALLEL: # all of them share one virtual environment
.PHONY: help demo test test-oldest test-newest orchestrators bench chaos fuzz dist check lint format types contracts docs sbom
.PHONY: clean test-slow

ifdef PYTHON
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
VENV := .venv/$(or $(VERSION),$(error PYTHON: $(PYTHON) is no Python 3 that runs))
else
VENV := .venv
endif
BIN := $(VENV)/bin
SETUP := pyproject.toml tools/bootstrap.sh tools/hatch_build.py src/marketfetch/decoding/_rows.c
CODE := $(wildcard src tests examples benchmarks chaos tools)
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema
# Further arguments: make test ARGS="-k spans -n 0", make chaos ARGS="--only kill9"
ARGS ?=
export PYTHON
# Without compiled modules each of the hundreds of processes that the tests start takes 0.2 s longer.
unexport PYTHONDONTWRITEBYTECODE
# What the tools download stays inside the environment: HOME may be empty or read-only.
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/$(VENV)/cache/pyright
export NO_MKDOCS_2_WARNING := 1 # an advertisement
export npm_config_cache := $(CURDIR)/$(VENV)/cache/npm

help: ## show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.ready-run ## back-fill a simulated exchange and show what happened, without any network
	@$(BIN)/python -m marketfetch demo

# Four workers suit two cores: many tests wait for a rate limit, a paused proxy or a process of their own.
test: $(VENV)/.ready-test ## run the tests, against a real PostgreSQL too
	@$(BIN)/python -m pytest -n 4 -m "not slow" $(ARGS)

test-slow: $(VENV)/.ready-test ## run the slow tests, such as the short forms of `make chaos`
	@$(BIN)/python -m pytest -n 4 -m slow $(ARGS)

test-oldest: .venv/oldest/.ready ## run all tests with the oldest versions of all that we depend on, on Python 3.11
	@.venv/oldest/bin/python -m pytest -n 4 $(ARGS)

test-newest: ## run all tests with the newest versions of today
	@sh tools/bootstrap.sh $(VENV)/newest test --upgrade --upgrade-strategy eager
	@$(VENV)/newest/bin/python -m pytest -n 4 $(ARGS)

# Airflow and Prefect want other versions of the same packages.
orchestrators: $(VENV)/orchestrators/.ready $(VENV)/airflow/.ready ## let Dagster, Prefect and Airflow run the examples for them
	@$(VENV)/orchestrators/bin/python -m pytest $(ARGS) -k "not airflow" examples/orchestrators/test_orchestrators.py
	@$(VENV)/airflow/bin/python -m pytest $(ARGS) -k airflow examples/orchestrators/test_orchestrators.py

bench: $(VENV)/.ready-bench $(VENV)/.ready-peers ## measure everything that has a bar, in about half an hour
	@$(BIN)/python -m benchmarks $(ARGS)

dist: $(VENV)/.ready-dist ## build the files of a release for all platforms, twice, check them and run them
	@$(BIN)/python -m tools.dist dist

chaos: $(VENV)/.ready-chaos ## try to break every promise of docs/guarantees.md, in about 25 minutes
	@$(BIN)/python -m chaos $(ARGS)

fuzz: $(VENV)/.ready-chaos ## give 10 million inputs to all decoders; stop it at any moment, it continues the next time
	@$(BIN)/python -m chaos.fuzz $(ARGS)

check: lint types contracts docs ## lint, types, contracts and docs

lint: $(VENV)/.ready-dev ## check style, format, spelling and workflows
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "Not formatted; the remedy is: make format"; exit 1; }
	@$(BIN)/codespell
	@$(BIN)/zizmor --offline --quiet .github
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.dependabot .github/dependabot.yml
	@$(SCHEMA) vendor.citation-file-format CITATION.cff
	@$(SCHEMA) vendor.compose-spec examples/deploy/compose.yaml

format: $(VENV)/.ready-dev ## format the code and mend what can be mended mechanically
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

types: $(VENV)/.ready-dev ## check types: mypy (strict) and pyright
	@$(BIN)/mypy --no-error-summary $(CODE)
	@$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.ready-dev ## check that layers import only lower layers
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.ready-dev ## build the documentation into site/, and test it in Chromium if there is one
	@$(BIN)/mkdocs build --strict --quiet
	@$(BIN)/python -m pytest -n 0 --quiet --no-header tests/site --site site

# The environment has no pip, so that the list has only what an installation needs.
sbom: $(VENV)/.ready-sbom ## after `make dist`: write what an installation of that consists of to sbom.cdx.json
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/sbom
	@$(BIN)/python -m pip --python $(VENV)/sbom install --quiet --disable-pip-version-check \
	    --find-links dist --only-binary marketfetch 'marketfetch[all]==$(patsubst dist/marketfetch-%.tar.gz,%,$(wildcard dist/*.tar.gz))'
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
	    --output-file sbom.cdx.json $(VENV)/sbom

clean: ## remove everything that the other targets made
	rm -rf .venv .fuzz site dist build sbom.cdx.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

# The libraries that we are compared with cannot share our environment.
$(VENV)/.ready-peers: benchmarks/peers.txt $(VENV)/.ready-bench
	@$(BIN)/python -m venv $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

# Newer Pythons have no wheels of the oldest versions.
.venv/oldest/.ready: PYTHON := $(or $(PYTHON),python3.11)
.venv/oldest/.ready: tools/lowest.py $(SETUP)
	@mkdir -p $(@D)
	@$(PYTHON) tools/lowest.py > .venv/oldest.txt
	@sh tools/bootstrap.sh $(@D) test --constraint .venv/oldest.txt
	@touch $@

$(VENV)/orchestrators/.ready $(VENV)/airflow/.ready: $(SETUP)
	@sh tools/bootstrap.sh $(@D) $(notdir $(@D))
	@touch $@

# One stamp per dependency group, so that a demo need not wait for the linters.
$(VENV)/.ready-%: $(SETUP)
	@sh tools/bootstrap.sh $(VENV) $*
	@touch $@
