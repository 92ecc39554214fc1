# Two commands are enough: `make app` opens the page, `make test` checks everything.
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 7860

.PHONY: app test lint worlds train students results bench

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

# Rendered towns: 42 to learn from, 2 to choose on, 6 to calibrate on, as large as the 3 to be judged by;
# about an hour on two cores.
CORE := $(BIN)/python -m core
RESEARCH := $(BIN)/python -m core.research
# glibc gives large arrays back to the system and asks for them anew, page by page: without these two
# most of the time of a render or of a training step can go there.
worlds train students results: export MALLOC_MMAP_THRESHOLD_ = 2000000000
worlds train students results: export MALLOC_TRIM_THRESHOLD_ = 8000000000
worlds: .venv/test.stamp
	$(CORE) world towns --part train --count 42 --out build/worlds/train
	$(CORE) world towns --part validation --count 2 --panoramas 400 --out build/worlds/validation
	$(CORE) world towns --part test --count 1 --out build/worlds/test
	for town in calibration/town-2002 calibration/town-2003 calibration/town-2004 calibration/town-2005 \
	calibration/town-2006 calibration/town-2007 test/town-3001 test/town-3002; do \
	test -d build/worlds/$$town || $(CORE) world build --seed $${town##*-} --panoramas 300 --photos 48 \
	--aerial-grid 1 --out build/worlds/$$town || exit 1; done
	for town in style/steppe-4000 style-test/steppe-4001; do \
	test -d build/worlds/$$town || $(CORE) world build --seed $${town##*-} --style steppe --size-m 700 \
	--panoramas 120 --photos 0 --aerial-grid 1 --out build/worlds/$$town || exit 1; done
	test -d assets/town || $(CORE) world pack build/worlds/test/town-3000 --out assets/town
	$(CORE) world examples build/worlds/test/town-3000 --out assets/examples

# A small student in six stages, the shipped one, a teacher's branches, teacher, calibration, demo gallery;
# recipes/town-*.toml say how each is trained. A stopped run goes on where it was. With a GPU:
# make train ON="--device cuda --workers 7".
# The small student was trained on two cores with the settings of its day (batch, offset, no extra
# negatives, no memory of tiles, level cameras only) and, like the teacher, on the first 28 towns, which
# their configs tell. The shipped one took 10.5 minutes on an H200, from pictures that were made small
# enough to be sent there (AVIF of quality 48, the first 480 of the 500 panoramas of each town).
TRAIN := $(CORE) train --data build/worlds/train
JUDGED := --validation build/worlds/validation
ON ?=
train: .venv/test.stamp
	$(TRAIN) --recipe recipes/town-small-1.toml $(JUDGED) --run build/runs/student --out build/student-first
	$(TRAIN) --recipe recipes/town-small-2.toml $(JUDGED) --start build/student-first \
	--run build/runs/student-on --out build/student-second
	$(TRAIN) --recipe recipes/town-small-3.toml $(JUDGED) --start build/student-second \
	--run build/runs/student-third --out build/student-third
	$(TRAIN) --recipe recipes/town-small-4.toml $(JUDGED) --start build/student-third \
	--run build/runs/student-fourth --out build/student-fourth
	$(TRAIN) --recipe recipes/town-small-5.toml $(JUDGED) --start build/student-fourth \
	--run build/runs/student-fifth --out build/student-fifth
	$(TRAIN) --recipe recipes/town-small-6.toml $(JUDGED) --start build/student-fifth \
	--run build/runs/student-sixth --out build/student-sixth-trained
	$(RESEARCH) blend build/student-fifth build/student-sixth-trained --share 0.5 --out build/student-sixth
	$(TRAIN) --recipe recipes/town-student.toml $(ON) --run build/runs/student-m --out build/student-m
	$(TRAIN) --recipe recipes/town-student-on.toml $(ON) --start build/student-m \
	--run build/runs/student-last --out assets/models/student
	$(TRAIN) --recipe recipes/town-branches.toml --start build/student-fifth \
	--run build/runs/branches --out build/branches
	$(TRAIN) --recipe recipes/town-teacher.toml --start build/branches \
	--run build/runs/teacher --out assets/models/teacher
	$(CORE) calibrate assets/models/student --teacher assets/models/teacher --queries 60 \
	--validation build/worlds/calibration --other-towns build/worlds/style
	$(CORE) gallery build assets/town --model assets/models/student --out assets/town

# The papers' own encoders and one of timm, with small budgets: what any model folder can do here. Slow
# enough to describe places from their centres alone. Too large to ship; their numbers go to docs/results.md.
students: .venv/test.stamp
	for model in timm saig-d l2ltr; do \
	$(TRAIN) --recipe recipes/town-$$model.toml --run build/runs/$$model-student --out build/students/$$model && \
	$(CORE) calibrate build/students/$$model --validation build/worlds/validation --viewpoints 1 && \
	$(CORE) gallery build assets/town --model build/students/$$model --out build/students/$$model-town \
	--viewpoints 1 && \
	$(CORE) evaluate build/students/$$model --data assets/town --queries 100 --viewpoints 1 \
	--out docs/results/student-$$model.json || exit 1; done

# Every figure in docs/results.md and README.md is measured here, but for those of `make students`, and
# written by the last line. The curve against training time needs the models of `make train`.
MODELS := assets/models/student --teacher assets/models/teacher
ABLATE := --worlds build/worlds/train --start assets/models/student --data build/worlds/test/town-3001 --seeds 3
FRESH := --teacher assets/models/teacher --fresh convnet-xs --steps 150 --batch 32 --rate 0.0015
results: .venv/test.stamp
	$(CORE) evaluate $(MODELS) --data assets/town --queries 150 --out docs/results/town-3000.json
	for seed in 3001 3002; do $(CORE) evaluate $(MODELS) --queries 100 \
	--data build/worlds/test/town-$$seed --out docs/results/town-$$seed.json || exit 1; done
	for time in first second third fourth fifth sixth m; do \
	$(CORE) evaluate build/student-$$time --no-reranked --queries 400 --out docs/results/training-$$time.json \
	--data build/worlds/validation/town-2000 || exit 1; done
	$(CORE) evaluate assets/models/student --no-reranked --queries 400 \
	--data build/worlds/validation/town-2000 --out docs/results/training-last.json
	for town in train/town-1000 train/town-1020 train/town-1041 validation/town-2000 validation/town-2001; do \
	$(CORE) evaluate assets/models/student --no-reranked --queries 200 --data build/worlds/$$town \
	--out docs/results/seen-$${town##*-}.json || exit 1; done
	$(CORE) pointing assets/models/teacher --student assets/models/student --data assets/town \
	--queries 100 --out docs/results/explanations.json
	$(RESEARCH) shortcuts assets/models/student --data assets/town --queries 300 \
	--out docs/results/shortcuts.json
	$(CORE) trust $(MODELS) --queries 150 --data assets/town --other-town build/worlds/test/town-3001 \
	--other-town build/worlds/test/town-3002 --other-town build/worlds/style-test/steppe-4001 \
	--out docs/results/trust-3000.json --figure docs/results/trust.png
	for seed in 3001 3002; do $(CORE) trust $(MODELS) --queries 100 --data build/worlds/test/town-$$seed \
	--other-town assets/town --other-town build/worlds/style-test/steppe-4001 \
	--out docs/results/trust-$$seed.json || exit 1; done
	$(RESEARCH) ablate $(ABLATE) --steps 100 --batch 12 --run build/runs/ablation --out docs/results/ablation.json
	$(RESEARCH) ablate $(ABLATE) $(FRESH) --run build/runs/students --out docs/results/ablation-students.json
	$(RESEARCH) ablate $(ABLATE) $(FRESH) --noise 0.2 --run build/runs/students-noise \
	--out docs/results/ablation-students-noise.json
	$(RESEARCH) ablate --worlds build/worlds/train --start build/student-sixth --data build/worlds/test/town-3001 \
	--seeds 3 --teacher assets/models/teacher --steps 150 --batch 32 --rate 0.001 --noise 0.2 \
	--run build/runs/onward-noise --out docs/results/ablation-onward-noise.json
	$(CORE) bench models --threads 1 --repeat 3 --out docs/results/bench-models.json
	$(CORE) results

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
