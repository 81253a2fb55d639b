# make test, make demo, make bench: each sets up .venv by itself, pinned by constraints.txt. make clean removes it and build outputs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup test test-arm demo bench clean

help:
	@echo "make test    run the tests"
	@echo "make test-arm  run kernels of ARM boards under QEMU; ARM=quick: a few of them"
	@echo "make demo    search bitwidths by measured latency, retrain, compile, verify, time; leaves runs/demo/report.html"
	@echo "make bench   measure this machine against the speeds that mpcompile aims at"
	@echo "make setup   only set up $(VENV)"
	@echo "make clean   remove $(VENV), runs/ and build outputs"

setup: $(READY)

# The mark is made last: a set-up that fails or is interrupted is taken up again by the next make.
$(READY): pyproject.toml constraints.txt .ci/setup
	@bash .ci/setup "$(PYTHON)" $(VENV)
	@touch $@

# One thread a process: the tests run in JOBS processes.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(TESTS)

# Kernels of the ARM boards under QEMU; installs Debian's cross compilers and QEMU where they are missing.
# ARM=quick: the layers of one file and the bundles.
ARM_TESTS = $(if $(filter quick,$(ARM)),tests/arm/test_arm_quick.py tests/arm/test_arm_bundle.py,tests/arm)
test-arm: $(READY)
	bash .ci/setup-arm $(VENV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(ARM_TESTS)

demo: $(READY)
	$(BIN)/python examples/demo/run.py

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
