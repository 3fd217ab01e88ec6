# Each target sets up what it needs in .venv.
PYTHON ?= python3
BIN = .venv/bin

PYTEST = $(BIN)/pytest --numprocesses 2

comma = ,
# $(call needs,TOOL,HOW TO GET IT) ends a target that would fail half-way without it.
needs = @command -v $(1) >/dev/null || { echo "make $@ needs $(1): $(2)"; exit 2; }

.PHONY: demo test test-slow test-slurm test-slurm-trixie test-images test-all untest lint bench image check-long locks

# Its environment has the TensorFlow for processors alone, whatever the machine has.
demo: .venv/ready
	$(BIN)/vaehpc launch --preset demo --executor local --device cpu

# File by file, because the tests of a file share what it has made; in the order of tests/conftest.py.
BY_FILE = --dist loadfile --no-loadscope-reorder
test: .venv/ready
	$(PYTEST) $(BY_FILE)

test-slow: .venv/dev
	$(PYTEST) $(BY_FILE) -m slow

# These two install Debian's packages, if VAEHPC_TESTS_INSTALL=1 lets them; `make untest` takes them away again.
# Much of Slurm's tests is waiting: four share two cores.
test-slurm: .venv/ready
	tests/install.sh slurm
	$(PYTEST) --numprocesses 4 --dist worksteal -m 'slurm and not long' tests/cluster

# The same tests on Debian 13's Slurm, in a root of its own.
test-slurm-trixie:
	tests/trixie.sh make test-slurm

test-images: .venv/ready
	tests/install.sh slurm
	tests/install.sh images
	$(PYTEST) --dist worksteal -m 'images and not long' tests/containers

test-all: test test-slow test-slurm test-images

untest:
	tests/install.sh remove

bench: .venv/ready
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

# Needs podman; containers/README.md lists what BASE_IMAGE, TRAIN_LOCK and CA_BUNDLE are for.
export BASE_IMAGE TRAIN_LOCK CA_BUNDLE
image:
	$(call needs,podman,apt-get install podman$(comma) or dnf install podman)
	containers/build.sh images

check-long: .venv/dev
	$(BIN)/pytest -m long -s
	$(MAKE) test-slurm-trixie

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint containers/Dockerfile
	$(BIN)/shellcheck --exclude SC2016 tests/*.sh containers/*.sh

# What the demo and `make test` need; and, on top of it, linters and independent implementations.
.venv/ready: containers/locks/test.txt pyproject.toml
	$(call needs,$(PYTHON),apt-get install python3 python3-venv$(comma) or give another one: make PYTHON=python3.11 $@)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "vaehpc needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Give another one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement $<
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev: containers/locks/dev.txt .venv/ready
	$(BIN)/pip install --quiet --require-hashes --requirement $<
	touch $@

# Needs uv. Hashes pin every file; no index address is written.
LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet
locks:
	$(call needs,uv,pip install uv)
	$(LOCK) --output-file containers/locks/launcher.txt
	echo hatchling | $(subst pyproject.toml,-,$(LOCK)) --constraints containers/locks/dev.txt --output-file containers/locks/build.txt
	$(LOCK) --extra train-cpu --output-file containers/locks/train-cpu.txt
	$(LOCK) --extra train-gpu --output-file containers/locks/train-gpu.txt
	$(LOCK) --extra analysis --output-file containers/locks/analysis.txt
	$(LOCK) --extra train-cpu --extra analysis --extra test --extra dev --output-file containers/locks/dev.txt
	$(LOCK) --extra train-cpu --extra analysis --extra test --constraints containers/locks/dev.txt --output-file containers/locks/test.txt
