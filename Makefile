# make run: the demonstration job; make test: everything CI runs; make bench: the figures;
# make chaos, make chaos-harvester: kills.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SERVERS := $(VENV)/.servers

.PHONY: run test test-storage servers venv lint bench chaos chaos-harvester install tarball clean

run: venv
	$(PY) bin/espilot run --local etc/jobs/zmumu.toml

# Most tests wait for processes: three at a time keep two cores busy.
JOBS ?= 3
test: venv lint servers
	$(PY) -m pytest tests -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The contract suite and the sick storages, against real servers.
test-storage: venv servers
	$(PY) -m pytest tests/storage tests/contract/test_storage*.py

servers: $(SERVERS)

# Without a server its tests are skipped; the next make tries again to install it.
$(SERVERS): $(STAMP) tests/storage/install_servers.sh tests/systemd/install_packages.sh
	@tests/systemd/install_packages.sh
	@if tests/storage/install_servers.sh $(PY); then touch $@; fi

# The pilot as a service of this machine; DESTDIR is for packagers.
PREFIX ?= /usr
install:
	sh etc/systemd/install.sh $(PYTHON) '$(DESTDIR)' $(PREFIX)

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: venv
	$(PY) -m bench

# Random kills for SECONDS; the same SEED makes the same choices. The last line is a JSON object.
SECONDS ?= 600
SEED ?= 1
chaos: venv
	$(PY) tests/faults/chaos.py --seconds $(SECONDS) --seed $(SEED)

# The same beside Harvester: pilots and a reader exchange 10,000 ranges or more in each of two modes.
chaos-harvester: venv
	@$(PY) tests/faults/chaos_harvester.py --seconds $(SECONDS) --seed $(SEED)

# For factories: unpacks to pilot3/, runs with the node's own Python, no pip, no network.
TARBALL ?= dist/pilot3-espilot.tar.gz
tarball: venv
	$(PY) tools/tarball.py $(TARBALL)

venv: $(STAMP)

# pythia8mc only as a wheel: its newest release may be source only, and building it takes a compiler and an hour.
$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --only-binary pythia8mc -e '.[server,metrics,demo,test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
