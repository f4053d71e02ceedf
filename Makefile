# Everything runs inside .venv, made on first use. TORCH_ARGS can name another build of PyTorch
# (for example a CUDA one); by default pip takes the version pinned in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_ARGS ?=
DEMO_ARGS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile
STAMP := $(VENV)/.installed
FOLDERS := modeling_genecompass tokenization dataset_scripts training inference eval model_cards

.PHONY: setup demo docs test test-oldest test-newest fuzz wheel lint types bench clean

setup: $(STAMP) .typing/genecompass

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH_ARGS) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(STAMP)

# Type checkers cannot follow setuptools' folder mapping, so they are pointed at a folder of links.
.typing/genecompass:
	mkdir -p $@.new
	for entry in genecompass/*; do ln -sfn "../../$$entry" "$@.new/$$(basename "$$entry")"; done
	for folder in $(FOLDERS); do ln -sfn "../../$$folder" "$@.new/$$folder"; done
	mv $@.new $@

demo: setup
	$(BIN)/genecompass demo $(DEMO_ARGS)

# The site: references written from the code, tutorials executed on what the demo leaves; warnings are errors.
docs: setup $(VENV)/.docs build/tutorials/demo_output/report.html
	HF_HUB_OFFLINE=1 $(BIN)/sphinx-build -W --keep-going -q docs build/docs

$(VENV)/.docs: pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@

build/tutorials/demo_output/report.html: | setup
	rm -rf $(@D) && $(BIN)/genecompass demo -o $(@D)

test: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

# The oldest transformers that checkpoints load with, in an environment of its own.
test-oldest: setup
	test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install -q $(TORCH_ARGS) "$$(grep '^torch==' constraints.txt)"
	$(VENV)-oldest/bin/python -m pip install -q -e . "transformers==5.0.0" pytest pytest-xdist hypothesis
	GENECOMPASS_OLDEST_PYTHON=$(VENV)-oldest/bin/python $(BIN)/python -m pytest tests/modeling_genecompass/test_oldest_transformers.py

# The newest of everything that the package allows, in an environment of its own: training, the demo, the readers.
test-newest: setup
	test -x $(VENV)-newest/bin/python || $(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install -q --upgrade $(TORCH_ARGS) torch
	$(VENV)-newest/bin/python -m pip install -q --upgrade --upgrade-strategy eager -e . pytest pytest-xdist hypothesis
	HF_HUB_OFFLINE=1 $(VENV)-newest/bin/python -m pytest $(PYTEST_ARGS) tests/tokenization tests/training tests/eval/test_demo.py

# Every reader against damaged files, for minutes; the suite does the same for seconds. FUZZ is files per format.
FUZZ ?= 400
fuzz: setup
	GENECOMPASS_FUZZ=$(FUZZ) GENECOMPASS_FUZZ_KEEP=build/fuzz $(BIN)/python -m pytest tests/fuzz

# The package as users get it: built, installed outside the checkout, every module imported, verbs run.
wheel: setup
	PYTHON=$(abspath $(BIN))/python .ci/wheel

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy -p genecompass

bench: setup
	@for script in benchmarks/*.py; do case $$script in */_*) ;; *) echo "== $$script"; $(BIN)/python $$script || exit 1;; esac; done

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest .typing build *.egg-info
