# reproduce · test · lab · site · bench: each sets up what it needs, can be repeated, and does only what is missing.
#   make reproduce [STUDY=quantization] [PROFILE=smoke]
PYTHON  ?= python3
STUDY   ?=
PROFILE ?=
VENV    := .venv
RUN     := $(VENV)/bin/python

.PHONY: reproduce test lab site bench setup setup-dev
.DELETE_ON_ERROR:

reproduce: setup
	@$(RUN) -m mmlib reproduce --study "$(STUDY)" --profile "$(PROFILE)"

test: setup-dev
	@$(RUN) -m mmlib fetch
	@$(RUN) -m pytest

lab: setup
	@$(RUN) -m mmlib fetch
	@$(RUN) -m jupyter lab --notebook-dir=.

site: setup
	@$(RUN) -m jupyter nbconvert --to html --output-dir site reports/*/*.ipynb

bench: setup
	@$(RUN) -m benchmarks.gptq

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"Python {v} is too old; install Python 3.11 or newer, or name one: make PYTHON=python3.11")'
	@echo "set-up: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "set-up: installing requirements.lock (some minutes the first time)"
	@$(RUN) -m pip install --disable-pip-version-check -r requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@
