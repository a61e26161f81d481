# The workshop of uvmd. `make` alone teaches; every target works twice in a row and in a
# fresh clone. What a target needs it sets up first: Debian packages that are missing
# (as root), the virtual environment from hashed pins, our own distributions.

SHELL  := /bin/bash
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
# Debian's own interpreter first: version managers put shims before it that start slowly.
PYTHON ?= $(shell for python in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$python"; break; }; done)
# Our distributions, in the order of their dependencies; the example proves the plugin contract.
OURS   := core $(patsubst %/setup.cfg,%,$(wildcard plugins/*/setup.cfg tests/*_plugin/setup.cfg))
ROOMS  := core/src/uvmd $(wildcard plugins/*/src)
UNIT   := $(wildcard tests/unit plugins/*/tests tests/*_plugin/tests)
TESTS  := $(UNIT) $(wildcard tests/fuzz tests/wire tests/packages)
# Where `make packages` keeps what it needs beside the workshop.
PACKAGES := .cache/packages-tools
# For one test, say: make unit ARGS='-k frames'
ARGS   ?=

.PHONY: help setup system demo demo-restart soak test quick check lint unit wire fuzz bench profile coverage docs golden constraints clean

help:
	@echo "uvmd: the guest daemon of a utility VM. What would you like to do?"
	@echo
	@echo "  see it work      make demo      start uvmd, run a real container through it, clean up (root)"
	@echo "                   make demo-restart  kill the daemon over and over; containers and host go on (root)"
	@echo "  set up           make setup     Debian packages and .venv; the other targets do it too"
	@echo
	@echo "  before a commit  make check     ruff, mypy --strict, and the rules of the house; a few seconds"
	@echo "                   make unit      unit and property tests: no root, no fork, no sleep"
	@echo "  before a push    make test      everything: unit, fuzz, wire against crun and runc (root)"
	@echo "                   make quick     the same without what takes long"
	@echo
	@echo "  parts            make lint      ruff and mypy alone"
	@echo "                   make wire      the real daemon over sockets and pipes (root)"
	@echo "                   make fuzz      the frame and message layer; FUZZ_SECONDS=600 for longer"
	@echo "                   make soak      bad days in a row: kills, malformed input, storms, long lives; docs/soak.md (root)"
	@echo "                   make bench     the table of figures, each beside the bare runtime's (root)"
	@echo "                   make profile   where the time of a start goes (root)"
	@echo "                   make coverage  unit tests, lines that none of them ran"
	@echo
	@echo "  in a guest       make guest-demo   boot a VM with uvmd as its service, run a container in it (root)"
	@echo "                   make demo-policy  a policy at work: a pod allowed, a change denied, a fragment (root)"
	@echo "                   make guest-test   the tests that need a kernel and devices of their own (root)"
	@echo "                   make guest-bench  figures from the guest, each beside the bare system's (root)"
	@echo "                   make guest-image  build the image of a utility VM: docs/guest-image.md (root)"
	@echo
	@echo "  to install       make packages  wheels, a Debian package and its bill of materials, reproducibly"
	@echo "                   make packages-test   the tests of that"
	@echo
	@echo "  to read          make docs      the documentation as a site of plain files, in .cache/docs/site"
	@echo
	@echo "  maintenance      make golden    write the golden files anew; review them as code"
	@echo "                   make constraints  pin .ci/requirements.in anew, with hashes"
	@echo "                   make clean     remove what was built; the Debian packages stay"
	@echo
	@echo "One test: make unit ARGS='-k frames'.  More: README.md, CONTRIBUTING.md, docs/."

setup: $(READY)
	@echo "ready: $$($(BIN)/python --version), uvmd $$($(BIN)/python -c 'import uvmd; print(uvmd.__version__)')," \
	      "crun $$(crun --version | awk 'NR==1{print $$3}'), runc $$(runc --version | awk 'NR==1{print $$3}')"

system:
	@.ci/system-packages

# Stamped by what it is made from. pip checks every hash; our own sources are linked, not copied.
# --no-deps, here and below: the pins are complete, and a pip that looks for what they depend on
# stumbles over the next release of a package with extras (coverage[toml]). `pip check` holds them.
$(READY): .ci/constraints.txt $(OURS:%=%/setup.cfg) | system
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || { echo "making $(VENV) with $(PYTHON)"; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "installing the pinned packages (.ci/constraints.txt)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r .ci/constraints.txt
	@echo "linking $(OURS)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation $(OURS:%=-e ./%)
	@said=$$($(BIN)/python -m pip check --disable-pip-version-check) || { echo "$$said" >&2; exit 1; }
	@touch $@

demo: $(READY)
	@PYTHONPATH=tests $(BIN)/python tests/support/demo.py

demo-restart: $(READY)
	@PYTHONPATH=tests $(BIN)/python tests/support/demo_restart.py $(ARGS)

soak: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m soak.soak $(ARGS)

lint: $(READY)
	@echo "ruff"; $(BIN)/ruff check --quiet --config .ci/ruff.toml .
	@echo "mypy --strict $(ROOMS)"; $(BIN)/mypy --config-file setup.cfg $(ROOMS)

check: lint
	@$(PYTEST) -q tests/unit/house $(ARGS)

unit: $(READY)
	@$(PYTEST) -q $(UNIT) $(ARGS)

wire: $(READY)
	@$(PYTEST) tests/wire $(ARGS)

fuzz: export FUZZ_SECONDS := $(or $(FUZZ_SECONDS),60)
fuzz: $(READY)
	@$(PYTEST) -q -s tests/fuzz $(ARGS)

test: $(READY) $(PACKAGES)/ready packages-system
	@$(PYTEST) $(TESTS) $(ARGS)

quick: $(READY) $(PACKAGES)/ready
	@$(PYTEST) -q -m 'not slow' $(TESTS) $(ARGS)

bench: $(READY)
	@PYTHONPATH=tests $(BIN)/python tests/bench/bench.py $(ARGS)

profile: $(READY)
	@PYTHONPATH=tests $(BIN)/python tests/bench/startup.py $(ARGS)

# -- guests: virtual machines with Debian's kernel (docs/guest-image.md, docs/guest-tests.md)

.PHONY: guest-system guest-image guest-test guest-demo guest-bench demo-policy
guest-system: | system
	@.ci/system-packages guest

guest-image: $(READY) $(PACKAGES)/ready guest-system
	@$(BIN)/python packaging/guest-image/build.py $(ARGS)

# The base image is built before pytest, so that its progress is seen.
guest-test: $(READY) $(PACKAGES)/ready guest-system
	@$(BIN)/python packaging/guest-image/build.py --base
	@$(PYTEST) --guest tests/guest tests/packages $(wildcard plugins/*/tests) $(ARGS)

guest-demo: $(READY) $(PACKAGES)/ready guest-system
	@PYTHONPATH=tests $(BIN)/python tests/guest/demo.py

# A VM of its own: what a policy names are disks with hash trees.
demo-policy: $(READY) guest-system
	@$(BIN)/python packaging/guest-image/build.py --base
	@PYTHONPATH=tests $(BIN)/python tests/guest/demo_policy.py

guest-bench: $(READY) $(PACKAGES)/ready guest-system
	@PYTHONPATH=tests $(BIN)/python tests/guest/bench.py $(ARGS)

# The documentation as a site of plain files; mkdocs has an environment of its own. A link that
# leads nowhere fails it.
DOCS := .cache/docs-venv
docs: $(READY) $(DOCS)/ready
	@$(BIN)/python packaging/docs-site/build.py
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict -f .cache/docs/mkdocs.yml

$(DOCS)/ready: .ci/docs.txt
	@echo "making $(DOCS) (.ci/docs.txt)"
	@rm -rf $(DOCS); $(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r .ci/docs.txt
	@touch $@

# Wheels, bill of materials, Debian package. What the build needs beside the workshop lies apart:
# nothing of it is part of what is built, or of what the tests see.
.PHONY: packages packages-test packages-system
packages: $(PACKAGES)/ready
	@PYTHONPATH=$(PACKAGES) $(BIN)/python packaging/packages/build.py $(ARGS)

packages-system: | system
	@.ci/system-packages packages

packages-test: $(PACKAGES)/ready packages-system
	@$(PYTEST) tests/packages $(ARGS)

$(PACKAGES)/ready: .ci/packages.txt $(READY)
	@echo "installing what packages are built with (.ci/packages.txt)"
	@rm -rf $(PACKAGES)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r .ci/packages.txt --target $(PACKAGES)
	@touch $@

coverage: $(READY)
	@$(PYTEST) -q $(UNIT) --cov --cov-report=term --cov-report=html $(ARGS)
	@echo "line by line: .cache/htmlcov/index.html"

golden: $(READY)
	@$(PYTEST) -q tests/unit tests/wire -m golden --update-golden $(ARGS)
	@git --no-pager diff --stat

constraints: .ci/requirements.in .ci/docs.in .ci/packages.in
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$(PYTHON) -m venv "$$tools"; "$$tools/bin/pip" install --quiet pip-tools; \
	"$$tools/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	    --annotation-style=line -o .ci/constraints.txt .ci/requirements.in; \
	"$$tools/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	    --annotation-style=line -o .ci/docs.txt .ci/docs.in; \
	"$$tools/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	    --annotation-style=line -o .ci/packages.txt .ci/packages.in
	@git --no-pager diff --stat .ci/constraints.txt .ci/docs.txt .ci/packages.txt

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
