# How the tests, the demo and the benchmarks are run. Included by the Makefile, which builds them.
# Each target first installs what is missing, then starts make anew, so that what was installed
# (pkg-config, say) is seen.
FUZZ_SECONDS ?= 60
PYTEST ?=
MEASURE ?=
BASE ?=
CAMPAIGN ?=
PYTHON := .venv/bin/python

.PHONY: deps check check-run lint lint-run demo picture manifests bench bench-run campaign campaign-run
deps:
	@tests/deps.sh tests

check: deps
	@$(MAKE) --no-print-directory check-run

# ThreadSanitizer of gcc 12 cannot place its shadow under a strongly randomised address space.
RUN_PREFIX := $(if $(findstring thread,$(SAN)),setarch $(shell uname -m) -R)
check-run: all tests $(if $(SAN),,fuzz)
	@$(RUN_PREFIX) $(PYTHON) tests/check.py --build $(BUILD) --sanitizer '$(SAN)' \
	    --fuzz-seconds $(FUZZ_SECONDS) -- $(PYTEST)

lint: deps
	@$(MAKE) --no-print-directory lint-run

LINT_SRC := $(LIB_SRC) $(FS_SRC)
FORMAT_SRC := $(wildcard lib/*.h lib/*/*.[ch] lib/*/*/*.[ch] fs/*/*.[ch] tests/*.h tests/*/*.[ch])
# A process for each file: after others clang-tidy 14 takes any function for va_start now and then.
lint-run:
	@$(PYTHON) tests/layers.py
	clang-format --dry-run -Werror $(FORMAT_SRC)
	@printf '%s\n' $(LINT_SRC) | xargs -P $$(nproc) -n 1 sh -c \
	    'clang-tidy --quiet "$$1" -- $(CPPFLAGS) -std=gnu11 2>/dev/null' clang-tidy
	@echo "lint: $(words $(FORMAT_SRC)) files formatted, $(words $(LINT_SRC)) files checked"

# With a checkpoint of one's own it needs no more than building does.
demo:
	@tests/deps.sh $(if $(SRC),build,tests)
	@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc)) $(BUILD)/unshard
	@SRC='$(SRC)' MNT='$(MNT)' UNSHARD_BIN=$(BUILD)/unshard contrib/demo/demo.sh

# The README's picture of `unshard status --watch`, recorded from a mount of slow storage.
picture:
	@tests/deps.sh build
	@$(MAKE) --no-print-directory $(BUILD)/unshard $(SLOWFS)
	@contrib/demo/picture.py --unshard $(BUILD)/unshard contrib/demo/watch.svg

# What the chart makes of its default values, for those without helm.
KUBERNETES := contrib/kubernetes
manifests: deps
	@mkdir -p build
	@{ echo '# Made by `make manifests` of chart/ and its default values: change it there.'; \
	    .venv/bin/helm template unshard $(KUBERNETES)/chart --skip-tests; } >build/daemonset.yaml
	@mv build/daemonset.yaml $(KUBERNETES)/daemonset.yaml

# Rounds of corruption, of faults, of kills and upgrades; CAMPAIGN=... goes to all, --help tells what.
campaign: deps
	@$(MAKE) --no-print-directory campaign-run
campaign-run: all $(SLOWFS)
	@status=0; for one in detection faults survival; do \
	    UNSHARD_BIN=$(abspath $(BUILD))/unshard $(PYTHON) tests/campaign/$$one.py $(CAMPAIGN) || \
	    status=1; done; exit $$status

# MEASURE=... chooses what to measure and how large: see tests/bench/bench.py --help.
# BASE=COMMIT measures the program of that commit beside this one.
bench:
	@tests/deps.sh bench
	@$(MAKE) --no-print-directory bench-run
bench-run: all $(SLOWFS) build/tests/bench/reader
	@$(PYTHON) tests/bench/bench.py --build $(BUILD) --compiler '$(CC)' $(if $(BASE),--base '$(BASE)') $(MEASURE)
