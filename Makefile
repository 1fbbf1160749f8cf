# requant. `make help` lists every target.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ON_ALL_CORES := -n auto --maxprocesses 4 --dist worksteal

FIGURES := fig05 fig06 fig07 fig08 fig09 fig10 fig11 fig12 fig13 fig14 fig15 fig16
SMOKE := fig07-smoke fig08-smoke fig09-smoke fig15-smoke fig16-smoke

# REQUANT_PHOTOS=<folder> takes those photographs instead of the few that come with scikit-image.
PHOTOS := $(if $(SCALE),,$(if $(REQUANT_PHOTOS),unlabeled=folder unlabeled.root=$(REQUANT_PHOTOS)))

.PHONY: help setup demo test test-all test-slurm check format bench damage frontier teachers report sync clean
.PHONY: figures tables tables-runs cases-runs photographs photographs-runs $(FIGURES) $(FIGURES:%=%-runs) $(SMOKE)
.DEFAULT_GOAL := help

help:  ## list every target
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@printf '  make fig05 ... fig16, photographs\n%20sdraw one figure from its results.csv\n' ''
	@printf '  make fig05-runs ... fig16-runs, photographs-runs, cases-runs, tables-runs\n%20sits runs, or go on with them (hours; REQUANT_PHOTOS=<photographs>), and its results.csv\n' ''
	@printf '  make fig07-smoke, fig08-smoke, fig09-smoke, fig15-smoke, fig16-smoke\n%20sthe whole chain on embedded data, within a minute\n' ''

setup: $(STAMP)  ## build .venv with everything that running and testing needs

# The pip that a new venv carries may be too old for dependency groups, so a known one comes first.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check 'pip>=25.1,<26.2'
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[models,huggingface,onnx,faiss,report,search,dashboard]' --group dev
	@touch $@

demo: setup  ## the demo on embedded data: compress, retrain without labels, measure, draw (2 minutes)
	$(PY) run.py

test: setup  ## all tests but the slow ones
	$(PY) -m pytest -m 'not slow' $(ON_ALL_CORES)

test-all: setup  ## all tests
	$(PY) -m pytest $(ON_ALL_CORES)

# On the loopback, in a temporary folder; ten minutes, most of them Slurm's own waits.
test-slurm: setup  ## tests on a real Slurm of one node, started and ended by them (installs Debian's where it is missing)
	PATH=$$PATH:/usr/sbin; command -v slurmctld > /dev/null || apt-get install -y --no-install-recommends slurm-wlm munge
	$(PY) -m pytest tests/slurm

check: setup  ## lint, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup  ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup  ## benchmarks: ratios, both sides in one run
	$(PY) -m benchmarks.quantize_vgg16
	$(PY) -m benchmarks.sensitivity
	$(PY) -m benchmarks.bench_clustering
	$(PY) -m benchmarks.export
	$(PY) -m benchmarks.bench_archive load

# With REQUANT_PHOTOS=<folder> (and, for EfficientNet-Lite0, IMAGENET=<imagenet>) what the csv files lack is measured first.
frontier: setup  ## size against accuracy beside other tools, and step by step: experiments/frontier, experiments/ablation
	for network in vgg16_cifar10 resnet50_cifar10 $(if $(REQUANT_PHOTOS),$(if $(IMAGENET),effnet_lite0),effnet_lite0); do \
	  for study in frontier ablation; do \
	    $(PY) -m benchmarks.$$study $$network $(if $(IMAGENET),--images $(IMAGENET)/val) \
	      $(if $(REQUANT_PHOTOS),--photographs $(REQUANT_PHOTOS)) || exit 1; \
	  done; \
	done

damage: setup  ## 100,000 damaged archives and 2,000 forged ones of each storage (minutes; resumable): experiments/damage
	$(PY) -m benchmarks.damage

# Each goes on where a killed one was, and is only shown where it is done (outputs/teachers).
teachers: setup  ## train the two teachers of the CIFAR-10 studies and keep them in experiments/teachers/ (hours; resumable)
	$(PY) run.py experiment=teacher_vgg16_cifar10
	$(PY) run.py experiment=teacher_resnet50_cifar10

figures: setup  ## draw every figure whose results.csv is committed (experiments/fig*/figure.png and .pdf)
	$(PY) -m requant.figures draw

tables: setup  ## the headline table and the machine, ours beside the paper's: experiments/tables
	$(PY) -m requant.figures tables

# The case studies, three seeds each: the paper's two ways of retraining, reconstruction instead of training, and the best of ours.
CASE := $(or $(SCALE),cifar10)
SEEDS := seed=0,1,2
RECONSTRUCT := $(SEEDS) retrain=reconstruct retrain.images=8192 retrain@baseline=none
FAST := retrain=reconstruct retrain.damping=0.1 retrain@baseline=none
STARTED := $(SEEDS) retrain.start=reconstruct retrain.images=8192 retrain.learning_rate=0.005 retrain@baseline=none
AUTO := $(SEEDS) retrain=reconstruct retrain.images=1024 retrain@baseline=none plan=auto plan.images=256 storage=entropy
cases-runs: setup
	$(PY) run.py -m experiment=vgg16_$(CASE) $(SEEDS) $(TREES) $(PHOTOS)
	$(PY) run.py -m experiment=vgg16_$(CASE) $(RECONSTRUCT) $(TREE) $(PHOTOS)
	$(PY) run.py -m experiment=vgg16_$(CASE) $(STARTED) $(TREE) $(PHOTOS)
	$(PY) run.py -m experiment=vgg16_$(CASE) $(AUTO) target.reduction=0.95 $(TREE) $(PHOTOS)
	$(PY) run.py -m experiment=resnet50_$(CASE) centroids=16,256 $(SEEDS) $(TREES) $(PHOTOS)
	$(PY) run.py -m experiment=resnet50_$(CASE) centroids=16,256 $(RECONSTRUCT) $(TREE) $(PHOTOS)
	$(PY) run.py -m experiment=resnet50_$(CASE) $(AUTO) target.reduction=0.9 $(TREE) $(PHOTOS)

tables-runs: cases-runs
	$(PY) -m requant.figures tables --collect

# make fig07 draws one figure; make fig07-runs does its runs, or goes on with them, and collects experiments/fig07*/results.csv.
# With SCALE=imagenet IMAGENET=<imagenet> the same at the paper's scale (imagenet.csv, imagenet.png and .pdf).
SCALED := $(if $(SCALE),--scale $(SCALE))
AT := $(if $(SCALE),_$(SCALE))
TREE := $(if $(IMAGENET),data.root=$(IMAGENET)/val)
TREES := $(if $(IMAGENET),$(TREE) data.train_root=$(IMAGENET)/train)
$(FIGURES) photographs: setup
	$(PY) -m requant.figures $(SCALED) draw $@

fig05-runs fig06-runs fig10-runs fig11-runs: setup
	$(PY) -m requant.figures collect $(@:-runs=)

fig07-runs fig08-runs: setup
	$(PY) run.py experiment=fig07_08_vgg16$(AT) $(TREE)
	$(PY) run.py experiment=fig07_08_vgg16$(AT) 'sensitivity.kinds=[bias]' 'sensitivity.layers=[each,1-16]' $(TREE)
	$(PY) -m requant.figures $(SCALED) collect $(@:-runs=)

fig12-runs fig13-runs: setup
	$(PY) run.py experiment=fig12_13_resnet50$(AT) $(TREE)
	$(PY) run.py experiment=fig12_13_resnet50$(AT) 'sensitivity.kinds=[bn_alpha,bn_beta,bn_mean,bn_std]' \
	  'sensitivity.layers=[2-10,11-22,23-40,41-49,1-49]' $(TREE)
	$(PY) -m requant.figures $(SCALED) collect $(@:-runs=)

fig09-runs: setup
	$(PY) run.py -m experiment=fig09_vgg16$(AT) centroids=8,16,32,64,128,256 $(TREE) $(PHOTOS)
	$(PY) -m requant.figures $(SCALED) collect fig09

fig14-runs: setup
	$(PY) run.py -m experiment=fig14_resnet50$(AT) centroids=16,32,64,128,256 $(TREE) $(PHOTOS)
	$(PY) -m requant.figures $(SCALED) collect fig14

# Beside the case studies' few epochs the paper's 100: an hour for each network, way and seed on one core.
LONG := $(SEEDS) retrain@baseline=none
WITH_LABELS := retrain=conventional retrain.epochs=50
fig15-runs: cases-runs
ifndef SCALE
	$(PY) run.py -m experiment=fig15_vgg16 $(LONG) $(PHOTOS)
	$(PY) run.py -m experiment=fig15_vgg16 $(LONG) $(WITH_LABELS)
	$(PY) run.py -m experiment=fig15_resnet50 $(LONG) $(PHOTOS)
	$(PY) run.py -m experiment=fig15_resnet50 $(LONG) $(WITH_LABELS)
endif
	$(PY) -m requant.figures $(SCALED) collect fig15

# On a machine that does nothing else: seconds are what is measured.
fig16-runs: setup
	$(PY) run.py experiment=vgg16_$(CASE) out=outputs/fig16 $(TREES) $(PHOTOS)
	$(PY) run.py experiment=vgg16_$(CASE) out=outputs/fig16 $(FAST) retrain.images=2048 $(TREE) $(PHOTOS)
	$(PY) run.py experiment=resnet50_$(CASE) centroids=16 out=outputs/fig16 $(TREES) $(PHOTOS)
	$(PY) run.py experiment=resnet50_$(CASE) centroids=16 out=outputs/fig16 $(FAST) retrain.images=512 $(TREE) $(PHOTOS)
	$(PY) -m requant.figures $(SCALED) collect fig16 --runs outputs/fig16

photographs-runs: setup
	for network in vgg16 resnet50; do \
	  $(PY) run.py -m experiment=photographs_$$network unlabeled.limit=50,100,200,500 seed=0,1,2 $(PHOTOS) && \
	  $(PY) run.py -m experiment=photographs_$$network retrain=reconstruct retrain.images=8192 \
	    unlabeled.limit=50,100,200,500 seed=0,1,2 $(PHOTOS) || exit 1; \
	done
	$(PY) -m requant.figures collect photographs

# The whole chain on embedded data, small: run, collect, draw (outputs/smoke/figures). It shows that it works, nothing else.
SMOKE_RUN := $(PY) run.py teacher.epochs=2 data.train_limit=600 data.limit=200 unlabeled.limit=200 retrain.epochs=2 out=outputs/smoke
SMOKE_DRAW = $(PY) -m requant.figures --experiments outputs/smoke/figures

fig07-smoke fig08-smoke: setup
	$(SMOKE_RUN) name=fig07_08_vgg16 task=sensitivity 'sensitivity.centroids=[2,8,32]'
	$(SMOKE_DRAW) collect $(@:-smoke=) --runs outputs/smoke
	$(SMOKE_DRAW) draw $(@:-smoke=)

fig09-smoke: setup
	$(SMOKE_RUN) name=fig09_vgg16 retrain@baseline=none
	$(SMOKE_DRAW) collect fig09 --runs outputs/smoke
	$(SMOKE_DRAW) draw fig09

fig15-smoke fig16-smoke: setup
	$(SMOKE_RUN) name=vgg16_cifar10
	$(SMOKE_DRAW) collect $(@:-smoke=) --runs outputs/smoke
	$(SMOKE_DRAW) draw $(@:-smoke=)

report: setup  ## report.html: all runs below outputs/ (RUNS=<folder> for others) as one page
	$(PY) -m requant report $(or $(RUNS),outputs) --out report.html

# Each run is uploaded under the hash of its settings, so that one that went on goes on there too.
sync: setup  ## upload the offline wandb runs below outputs/ (RUNS=<folder> for others); needs `wandb login`
	find $(or $(RUNS),outputs) -type d -name 'offline-run-*' -prune -exec $(VENV)/bin/wandb sync {} +

clean:  ## remove .venv and caches (not outputs/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
