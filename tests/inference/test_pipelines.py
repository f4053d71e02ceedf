"""transformers' pipelines on cells: the same numbers as the plain call, whatever the batch size, for every input."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from genecompass.modeling_genecompass import (
    GeneCompassConfig,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
    GeneCompassModel,
)
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from transformers import pipeline

GENES = [f"ENSG{number:011d}" for number in range(30)]
LABELS = ["B cell", "T cell", "monocyte"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    frame = pd.DataFrame({"gene_id": GENES, "species": ["human"] * 20 + ["mouse"] * 10})
    processor = GeneCompassProcessor.from_gene_table(GeneTable.from_genes(frame), max_length=16)
    config = GeneCompassConfig.tiny(vocab_size=32, max_position_embeddings=16, id2label=dict(enumerate(LABELS)))
    made = {}
    for kind, network in (
        ("encoder", GeneCompassModel),
        ("cells", GeneCompassForSequenceClassification),
        ("genes", GeneCompassForTokenClassification),
    ):
        made[kind] = str(tmp_path_factory.mktemp("pipelines") / kind)
        network(config).save_pretrained(made[kind])
        processor.save_pretrained(made[kind])
    return made


@pytest.fixture(scope="module")
def counts():
    counts = np.random.default_rng(0).poisson(1.0, size=(11, 20))
    counts[:, 0] = 1
    counts[0] = 1
    return counts


def _load(task, folder, **options):
    return pipeline(task, model=folder, trust_remote_code=True, device="cpu", **options)


def test_embeddings_are_those_of_the_plain_call(folders, counts):
    embed = _load("cell-embedding", folders["encoder"])
    found = embed(counts, genes=GENES[:20], species="human")
    model = GeneCompassModel.from_pretrained(folders["encoder"]).eval()
    processor = GeneCompassProcessor.from_pretrained(folders["encoder"])
    with torch.inference_mode():
        batch = processor(counts, genes=GENES[:20], species="human", return_tensors="pt")
        states = model(**batch).last_hidden_state
    assert found.shape == (11, 64)
    np.testing.assert_allclose(found, states[:, 0].numpy(), atol=1e-5)
    mean = embed(counts, genes=GENES[:20], species="human", pooling="mean")
    mask = batch["attention_mask"][..., None]
    np.testing.assert_allclose(mean, ((states[:, 1:] * mask).sum(1) / mask.sum(1)).numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_batches_change_nothing_and_neither_does_the_kind_of_input(folders, counts, size):
    embed = _load("cell-embedding", folders["encoder"], species="human")
    expected = embed(counts, genes=GENES[:20])
    adata = ad.AnnData(sp.csr_matrix(counts), var=pd.DataFrame(index=GENES[:20]))
    adata.layers["counts"] = adata.X.copy()
    adata.X = sp.csr_matrix(adata.X.multiply(0.5))
    for cells, options in (
        (adata, {"layer": "counts"}),
        ((counts, GENES[:20]), {}),
        (sp.csc_matrix(counts), {"genes": GENES[:20]}),
    ):
        np.testing.assert_allclose(embed(cells, batch_size=size, **options), expected, atol=1e-5)


def test_species_may_differ_from_cell_to_cell(folders):
    embed = _load("cell-embedding", folders["encoder"])
    counts = np.ones((4, 30), dtype=int)
    human = embed(counts[:1, :20], genes=GENES[:20], species="human")
    mouse = embed(counts[:1, 20:], genes=GENES[20:], species="mouse")
    mixed = embed(counts, genes=GENES, species=["mouse", "human", "human", "mouse"], batch_size=3)
    np.testing.assert_allclose(mixed[[1, 2]], np.repeat(human, 2, 0), atol=1e-5)
    np.testing.assert_allclose(mixed[[0, 3]], np.repeat(mouse, 2, 0), atol=1e-5)


def test_cells_get_labels_with_probabilities(folders, counts):
    classify = _load("cell-classification", folders["cells"])
    best = classify(counts, genes=GENES[:20], species="human")
    assert len(best) == 11
    assert all(result["label"] in LABELS for result in best)
    every = classify(counts, genes=GENES[:20], species="human", top_k=3)
    assert [row[0] for row in every] == [pytest.approx(result) for result in best]
    assert sum(result["score"] for result in every[0]) == pytest.approx(1.0, abs=1e-5)


def test_genes_get_labels_in_the_order_of_their_rank(folders, counts):
    results = _load("gene-classification", folders["genes"])(counts, genes=GENES[:20], species="human")
    processor = GeneCompassProcessor.from_pretrained(folders["genes"])
    tokens = processor(counts, genes=GENES[:20], species="human")["input_ids"]
    for found, expected in zip(results, tokens, strict=True):
        assert [entry["gene_id"] for entry in found] == processor.tokenizer.convert_ids_to_tokens(expected.tolist())
        assert {entry["label"] for entry in found} <= set(LABELS)


def test_a_pipeline_leaves_a_model_that_can_be_saved_again(folders, counts, tmp_path):
    embed = _load("cell-embedding", folders["encoder"], species="human")
    embed.model.save_pretrained(tmp_path)
    embed.processor.save_pretrained(tmp_path)
    again = _load("cell-embedding", str(tmp_path), species="human")
    np.testing.assert_allclose(again(counts, genes=GENES[:20]), embed(counts, genes=GENES[:20]), atol=1e-6)


def test_bad_input(folders, counts):
    with pytest.raises(ValueError, match="no trained classifier"):
        _load("cell-classification", folders["encoder"])
    embed = _load("cell-embedding", folders["encoder"], species="human")
    with pytest.raises(ValueError, match="genes is missing"):
        embed(counts)
    with pytest.raises(ValueError, match="columns"):
        embed(counts, genes=GENES)
    with pytest.raises(ValueError, match="unknown pooling"):
        embed(counts, genes=GENES[:20], pooling="median")
    with pytest.raises(ValueError, match=r"0\.5|count"):
        embed(counts * 0.5, genes=GENES[:20])
    with pytest.raises(ValueError, match="known"):
        embed(counts, genes=["x"] * 20)
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline("cell-embedding", model=folders["encoder"])
