# Two commands are enough: `make app` opens the page, `make test` checks everything.
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 7860

.PHONY: app test lint worlds train results bench

app: .venv/app.stamp
	$(BIN)/python app.py --port $(PORT)

test: .venv/test.stamp lint
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

# app.py is checked by itself: beside the package app/ it would be a second module of that name.
lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy core app
	$(BIN)/mypy app.py

worlds: .venv/test.stamp
	$(BIN)/python -m core world build --help

train: .venv/test.stamp
	$(BIN)/python -m core train --help

results: .venv/test.stamp
	$(BIN)/python -m core evaluate --help

bench: .venv/app.stamp
	$(BIN)/python -m core bench

# A stamp newer than the requirements means that they are installed: a second start skips pip.
.venv/app.stamp: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/test.stamp: requirements.txt requirements-world.txt requirements-dev.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ .venv/app.stamp

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Crossview needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which with: make app PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
