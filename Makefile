# make lint, make test, make demo, make docs, make bench: each sets up .venv by itself, pinned by constraints.txt.
# make clean removes it and build outputs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup lint test test-long test-arm relay-env test-relay mutants fuzz soak exporters demo docs bench clean

help:
	@echo "make lint    check style, format and types: ruff, pyright"
	@echo "make test    run the tests; the slowest ten are listed"
	@echo "make test-long  run those that take longer: whole networks, ONNX's own tests, full disks, kills"
	@echo "make test-arm  run kernels, networks and boards of ARM under QEMU; ARM=quick: a few of them"
	@echo "make relay-env  set up .relay: TVM 0.19, the last with Relay, in an environment of its own, for mpcompile.relay"
	@echo "make test-relay  run the tests of mpcompile.relay in it; RELAY=all: those of every network, too; RELAY=arm: on a board"
	@echo "make mutants  change FILE place by place, and list the changes that no test of TESTS notices"
	@echo "make fuzz    random inputs of every kind for ten minutes; FUZZ=3: for three hours. What is found goes to tests/data/fuzz"
	@echo "make soak    ten minutes of threads, forks, bundles and sessions, and nothing that grows; SOAK=60: seconds"
	@echo "make exporters  make the files of tests/data/exporters anew, with the tools themselves; EXPORTERS=aimet: of one environment"
	@echo "make demo    search bitwidths by measured latency, retrain, compile, verify, time; leaves runs/demo/report.html"
	@echo "make bench   measure this machine against the speeds that mpcompile aims at; into benchmarks/results, docs/performance, README.md"
	@echo "make docs    build the documentation into site/; everything that is wrong with it is an error"
	@echo "make setup   only set up $(VENV)"
	@echo "make clean   remove $(VENV), .arm, .relay, runs/ and build outputs"

setup: $(READY)

# The mark is made last: a set-up that fails or is interrupted is taken up again by the next make.
$(READY): pyproject.toml constraints.txt .ci/setup
	@bash .ci/setup "$(PYTHON)" $(VENV)
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# One thread a process: the tests run in JOBS processes.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=10 -n $(JOBS) --dist worksteal $(if $(TESTS),$(TESTS),-m "not long")

# What takes longer: whole networks, ONNX's backend tests, full disks, kills, a little of make fuzz.
test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=10 -n $(JOBS) --dist worksteal -m long

# ARM under QEMU: kernels, C libraries, boards. Installs Debian's cross compilers and the like where they are missing, and
# makes an arm64 system in .arm. ARM=quick: the tests that are marked so.
test-arm: $(READY)
	bash .ci/setup-arm $(VENV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(if $(filter quick,$(ARM)),-m quick) tests/arm

# TVM 0.19, the last with Relay, which cannot be beside today's. Cheap to run again.
relay-env: $(READY)
	@bash .ci/relay-env "$(PYTHON)" .relay $(BIN)/python

# RELAY=arm: its modules on an emulated board, which needs what test-arm needs.
test-relay: relay-env
	$(if $(filter arm,$(RELAY)),bash .ci/setup-arm $(VENV) && bash .ci/relay-arm .relay .arm)
	OMP_NUM_THREADS=1 TOPHUB_LOCATION=NONE .relay/bin/python -m pytest -q --durations=5 \
		$(if $(TESTS),$(TESTS),$(if $(filter arm,$(RELAY)),tests/relay/arm,tests/relay --ignore tests/relay/arm \
		$(if $(filter all,$(RELAY)),,-m "not long")))

# make mutants FILE=mpcompile/latency/table.py TESTS="tests/latency/test_table_sums.py"
mutants: $(READY)
	@bash .ci/mutants $(BIN)/python "$(FILE)" $(TESTS)

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --jobs $(JOBS) $(if $(FUZZ),--hours $(FUZZ))

soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.soak $(if $(SOAK),--seconds $(SOAK))

exporters:
	bash .ci/exporters "$(PYTHON)" .exporters $(EXPORTERS)

demo: $(READY)
	$(BIN)/python examples/demo/run.py

bench: $(READY)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.pages

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) .arm .exporters .relay runs site build dist .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
