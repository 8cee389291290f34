# make setup | test | test-all | demo | bench | clean
# Options: DETECTRON2=/path/to/clone (instead of GitHub), DATA=/path (make demo on a CamVid-like
# folder), PYTHON=python3.12 (what .venv is made from), WORKERS=4 (test processes).

PYTHON ?= python3
WORKERS ?= 2
DETECTRON2 ?=
DATA ?=

python := .venv/bin/python
ready := .venv/.ready

.PHONY: setup detectron2 test test-all demo bench clean

# A clone that the user names is installed on request; without one, the set-up tries GitHub once.
setup: $(ready) $(if $(DETECTRON2),detectron2)

$(ready): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	  f"aa_plugins needs Python 3.10 or newer, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(python) -m pip install --quiet --upgrade pip
	$(python) -m pip install --editable ".[mmseg,detectron2,robustness,dev]"
	$(if $(DETECTRON2),,@tools/install_detectron2.sh .venv || true)
	@touch $@

detectron2: $(ready)
	@tools/install_detectron2.sh .venv "$(DETECTRON2)"

# One thread a worker: two workers on two cores would otherwise fight over them. A worker that has
# nothing left takes over from the others, as tests differ in length.
test: setup
	$(python) -m ruff check .
	OMP_NUM_THREADS=1 $(python) -m pytest -n $(WORKERS) --dist worksteal

test-all: setup
	$(python) -m ruff check .
	OMP_NUM_THREADS=1 $(python) -m pytest -n $(WORKERS) --dist worksteal -m ""

demo: setup
	$(python) tools/demo $(if $(DATA),--data "$(DATA)")

bench: setup
	$(python) tools/benchmark

clean:
	rm -rf .venv out build *.egg-info .pytest_cache .ruff_cache .hypothesis
