# Each target makes .venv from a bare checkout first. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SEEDS ?= 200
DATA ?= ./data
NODES ?= 3

.PHONY: help demo test test-virtual test-rest serve sim sim-pieces sim-cores lint sanitize clean

help:
	@echo "make demo      a site of NODES=$(NODES) nodes, real files, a node killed and wiped, and the proof that nothing was lost"
	@echo "make serve     a node on 127.0.0.1:9000 with its data in $(DATA)"
	@echo "make test      sets up and runs every test"
	@echo "make sim       the simulator, SEEDS=$(SEEDS) new seeds of one node and of a log, a quarter as many of a site"
	@echo "make sanitize  the kernel tests with the C extension under ASan and UBSan"
	@echo "make lint      ruff, mypy, import-linter"

$(VENV)/.library: pyproject.toml setup.py $(wildcard cext/*)
	@PYTHON="$(PYTHON)" sh requirements/install.sh $(VENV) library

$(VENV)/.development: $(VENV)/.library requirements/development.txt
	@PYTHON="$(PYTHON)" sh requirements/install.sh $(VENV) development

demo: $(VENV)/.development
	@$(RUN) -m benchmarks.demo --nodes $(NODES)

serve: $(VENV)/.library
	@$(VENV)/bin/edgestore serve --data $(DATA) --s3 127.0.0.1:9000

# What runs by the clock has the machine to itself; the simulated runs, whose time is virtual, share it with the rest.
TIMED := tests/faults tests/site tests/wire
VIRTUAL := tests/sim tests/kernels
test: $(VENV)/.development
	$(RUN) -m pytest -q $(TIMED)
	@$(MAKE) --no-print-directory -j2 --output-sync test-virtual test-rest

test-virtual: $(VENV)/.development
	$(RUN) -m pytest -q $(VIRTUAL)

test-rest: $(VENV)/.development
	$(RUN) -m pytest -q tests $(addprefix --ignore=,$(TIMED) $(VIRTUAL))

sim: $(VENV)/.development
	@$(MAKE) --no-print-directory -j2 --output-sync sim-pieces sim-cores

sim-pieces: $(VENV)/.development
	$(RUN) -m tests.sim --seeds $(SEEDS)
	$(RUN) -m tests.sim --site --seeds $(SEEDS)

sim-cores: $(VENV)/.development
	$(RUN) -m tests.sim --cores --seeds $$(( ($(SEEDS) + 3) / 4 ))

sanitize: $(VENV)/.development
	$(RUN) -m tests.kernels.sanitize

lint: $(VENV)/.development
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info edgestore/kernels/_native*.so
