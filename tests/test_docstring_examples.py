"""The examples in the docstrings run, and those that cannot say why."""

import doctest
import importlib
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOMS = ("tokenization", "modeling_genecompass", "dataset_scripts", "training", "inference", "eval", "model_cards")
# Examples that are printed and not run, by the start of their name: what the reader has to bring.
NOT_RUN = {
    "dataset_scripts.corpus.": "a corpus of the reader's",
    "dataset_scripts.new_species.": "annotation and homologs of a new species",
    "dataset_scripts.prior_knowledge.": "gene tables, networks, genomes and corpora as their publishers ship them",
    "eval.demo.": "takes minutes; its own tests run it",
    "eval.metrics.embedding.scib_scores": "the extra `metrics`",
    "eval.plots.plot_umap": "an embedding of the reader's",
    "eval.tasks.": "benchmark data, or minutes",
    "inference.annotation.attribution.explain": "a fine-tuned model",
    "inference.annotation.streamed.": "a fine-tuned model",
    "inference.app.": "opens a page",
    "inference.checkpoint.read_finetuning": "a fine-tuned model",
    "inference.embedding.": "tokenised cells, or a file of cells",
    "inference.h5ad.": "a file of cells",
    "inference.perturbation.figures.": "a result of the reader's",
    "inference.response.": "a perturbation screen, an ontology or the extra `compounds`",
    "model_cards.": "a checkpoint that is to be published",
    "modeling_genecompass.conversion.": "published weights",
    "tokenization.packed.": "a file of the reader's",
    "tokenization.readers.hdf5.": "a file of the reader's",
    "training.finetuning.data.": "tokenised cells",
    "training.finetuning.finetune.": "labels of genes",
    "training.finetuning.methods.": "a loaded model",
}


def modules():
    # by files, not by the package's path: an editable installation maps its rooms one by one
    root = Path(__file__).parent.parent
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            yield ".".join(("genecompass", *(part for part in parts if part != "__init__")))


def load(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"needs an extra: {error}")


@pytest.mark.parametrize("name", modules())
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = load(name)
    text = Path(module.__file__).read_text(encoding="utf-8") if module.__file__ else ""
    if "blood_cells" in text and find_spec("scanpy") is None:
        pytest.skip("the cells of its examples ship inside scanpy (extra: plots)")
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
    assert not os.listdir(tmp_path), "an example writes into the reader's folder"


def test_examples_that_do_not_run_say_why():
    finder, unused, unexplained = doctest.DocTestFinder(exclude_empty=True), set(NOT_RUN), []
    for name in modules():
        for found in finder.find(load(name)):
            if any(doctest.SKIP in example.options for example in found.examples):
                short = found.name.removeprefix("genecompass.")
                reasons = {start for start in NOT_RUN if short.startswith(start)}
                unused -= reasons
                unexplained += [] if reasons else [short]
    assert not unexplained
    assert not unused, "nothing of these is left out any more"
