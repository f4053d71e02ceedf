"""Fine-tuning: it learns what is there to learn, saves what loads again, and refuses what makes no sense."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference import load_checkpoint
from genecompass.inference.annotation.in_memory import Reference
from genecompass.inference.embedding.encode import Moments
from genecompass.modeling_genecompass import GeneCompassForSequenceClassification, GeneCompassForTokenClassification
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import record_files
from genecompass.tokenization.thinning import thin_counts
from genecompass.tokenization.tokenize import tokenize_cells
from genecompass.training.finetuning.data import (
    CellRows,
    GeneRows,
    balanced_weights,
    collate,
    find_groups,
    read_labels,
    split_validation,
)
from genecompass.training.finetuning.finetune import finetune_cells, finetune_genes, read_gene_labels
from genecompass.training.finetuning.fit import predict_rows
from genecompass.training.finetuning.head import train_head
from genecompass.training.finetuning.methods import METHODS, default_learning_rate, without_dropout
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import genecompass as gc

GENES = 30
FAST = {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "device": "cpu"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return _checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


def _checkpoint(folder, seed):
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling

    names = [f"ENSG{i:011d}" for i in range(GENES)]
    human = pd.DataFrame({"gene_id": names, "symbol": [f"G{i}" for i in range(GENES)], "species": "human"})
    mouse = pd.DataFrame(
        {
            "gene_id": [f"ENSMUSG{i:011d}" for i in range(GENES)],
            "symbol": [f"g{i}" for i in range(GENES)],
            "species": "mouse",
            "homolog_gene_id": names,
        }
    )
    table = GeneTable.from_genes(pd.concat([human, mouse], ignore_index=True))
    torch.manual_seed(seed)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, max_position_embeddings=32, initializer_range=0.2)
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder)
    gc.GeneCompassProcessor.from_gene_table(table, max_length=32).save_pretrained(folder)
    return folder


def cells(n=60, prefix="ENSG", seed=0):
    """Two types that express different halves of the genes, from three donors."""
    generator = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    rates = np.where((np.arange(GENES) < GENES // 2) == kind[:, None].astype(bool), 4.0, 0.1)
    counts = generator.poisson(rates).astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": np.array(["alpha", "beta"])[kind],
            "cell_type_ontology_term_id": np.array(["CL:0000171", "CL:0000169"])[kind],
            "donor": np.array(["d1", "d2", "d3"])[np.arange(n) // 2 % 3],
        },
        index=[f"c{i}" for i in range(n)],
    )
    return ad.AnnData(
        sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"{prefix}{i:011d}" for i in range(GENES)])
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_an_easy_task(checkpoint, method, tmp_path):
    options = {**FAST, "epochs": 8} if method == "scratch" else FAST
    result = finetune_cells(
        cells(), "cell_type", str(checkpoint), "human", method=method, output=tmp_path / "out", **options
    )
    assert result.validation["macro_f1"] >= 0.85
    assert result.validation["split"] == "whole groups: 1 of 3"
    parameters = result.cost["parameters"]
    if method in ("full", "scratch"):
        assert parameters["trainable"] == parameters["total"]
    else:
        assert parameters["trainable"] < 0.25 * parameters["total"]
    query = cells(seed=5)
    gc.annotate(query, str(tmp_path / "out"), "human", threshold=0, device="cpu")
    assert (query.obs["genecompass_cell_type"].astype(str) == query.obs["cell_type"]).mean() > 0.7
    assert query.obs["genecompass_cell_type_score"].between(0, 1).all()
    right = {"alpha": "CL:0000171", "beta": "CL:0000169"}
    named = query.obs["genecompass_cell_type"].astype(str).map(right)
    assert (query.obs["genecompass_cell_type_ontology_term_id"].astype(str) == named).all()


def test_an_adapter_is_small_and_loads_with_peft(checkpoint, tmp_path):
    from genecompass.modeling_genecompass import GeneCompassForSequenceClassification
    from peft import AutoPeftModelForSequenceClassification, PeftModel

    result = finetune_cells(cells(), "cell_type", str(checkpoint), "human", output=tmp_path / "lora", **FAST)
    size = sum(file.stat().st_size for file in (tmp_path / "lora").iterdir())
    assert size < 200_000
    record = json.loads((tmp_path / "lora" / "finetuning.json").read_text())
    assert record["labels"] == ["alpha", "beta"]
    batch = collate([{"input_ids": np.arange(2, 12), "values": np.linspace(3, 1, 10, dtype=np.float32), "species": 1}])
    with torch.no_grad():
        expected = result.model(**batch).logits
        merged, _ = load_checkpoint(tmp_path / "lora", "cells", device="cpu")
        torch.testing.assert_close(merged(**batch).logits, expected, atol=1e-4, rtol=1e-4)
        asked = {"num_labels": 2}
        auto = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "lora", **asked).eval()
        torch.testing.assert_close(auto(**batch).logits, expected, atol=1e-4, rtol=1e-4)
        base = GeneCompassForSequenceClassification.from_pretrained(checkpoint, **asked)
        torch.testing.assert_close(PeftModel.from_pretrained(base, tmp_path / "lora").eval()(**batch).logits, expected)


def test_targets_of_lora(checkpoint):
    sizes = {}
    for targets in ("all-linear", "query-value"):
        found = finetune_cells(
            cells(), "cell_type", str(checkpoint), "human", targets=targets, max_steps=1, thin=(), device="cpu"
        )
        sizes[targets] = found.cost["parameters"]["trainable"]
        assert found.record["options"]["targets"] == targets
    assert sizes["all-linear"] > sizes["query-value"]


def test_an_adapter_refuses_another_base(checkpoint, tmp_path):
    finetune_cells(cells(), "cell_type", str(checkpoint), "human", output=tmp_path / "lora", **FAST)
    other = _checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on another base model"):
        load_checkpoint(tmp_path / "lora", "cells", base=other)
    with pytest.raises(InputError, match="has no head for gene classification"):
        load_checkpoint(tmp_path / "lora", "genes", device="cpu")


def test_a_merged_adapter_is_a_checkpoint(checkpoint, tmp_path):
    result = finetune_cells(cells(), "cell_type", str(checkpoint), "human", output=tmp_path / "m", merge=True, **FAST)
    assert (tmp_path / "m" / "model.safetensors").exists()
    assert (tmp_path / "m" / "genes.tsv.gz").exists()
    model, _ = load_checkpoint(tmp_path / "m", "cells", device="cpu")
    assert model.config.id2label == {0: "alpha", 1: "beta"}
    assert result.record["method"] == "lora"


def test_mouse_cells_are_labelled_by_a_model_that_learned_from_human(checkpoint, tmp_path):
    finetune_cells(cells(), "cell_type", str(checkpoint), "human", output=tmp_path / "out", **FAST)
    mouse = cells(prefix="ENSMUSG", seed=3)
    gc.annotate(mouse, str(tmp_path / "out"), "mouse", threshold=0, device="cpu")
    assert (mouse.obs["genecompass_cell_type"].astype(str) == mouse.obs["cell_type"]).mean() > 0.8


def test_cells_of_another_species_are_aligned_with_the_training_cells(checkpoint, tmp_path):
    finetune_cells(cells(), "cell_type", str(checkpoint), "human", method="frozen", output=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "finetuning.json").read_text())
    mouse, scores = cells(prefix="ENSMUSG", seed=3), {}
    for asked, meant in (("auto", "center"), ("center", "center"), ("none", "none")):
        gc.annotate(mouse, str(tmp_path / "out"), "mouse", align=asked, device="cpu")
        assert mouse.uns["genecompass"]["annotation"]["align"] == meant
        scores[asked] = mouse.obs["genecompass_cell_type_score"].to_numpy()
    assert (scores["auto"] == scores["center"]).all()
    assert (scores["auto"] != scores["none"]).any()
    human = cells(seed=3)
    gc.annotate(human, str(tmp_path / "out"), "human", device="cpu")
    assert human.uns["genecompass"]["annotation"]["align"] == "none"
    del record["pooled"]
    (tmp_path / "out" / "finetuning.json").write_text(json.dumps(record))
    record_files(tmp_path / "out", ["finetuning.json"])
    gc.annotate(mouse, str(tmp_path / "out"), "mouse", device="cpu")
    assert mouse.uns["genecompass"]["annotation"]["align"] == "none"
    with pytest.raises(InputError, match="fine-tune it again"):
        gc.annotate(mouse, str(tmp_path / "out"), "mouse", align="center", device="cpu")


def test_moments_are_given():
    pooled = np.random.default_rng(0).normal(5, 3, (50, 2)).astype(np.float32)
    pooled[:, 1] = 7
    given = Moments(np.array([1.0, 2.0], np.float32), np.array([0.5, 4.0], np.float32)).give_to(pooled)
    np.testing.assert_allclose(given.mean(axis=0), [1, 2], atol=1e-5)
    np.testing.assert_allclose(given.std(axis=0), [0.5, 0], atol=1e-5)


def test_labels_from_a_reference_without_training(checkpoint):
    query = cells(prefix="ENSMUSG", seed=4)
    reference = Reference(cells(), "cell_type", species="human")
    gc.annotate(query, str(checkpoint), "mouse", reference=reference, threshold=0.99, device="cpu")
    assert (query.obs["genecompass_cell_type_best"].astype(str) == query.obs["cell_type"]).mean() > 0.8
    assert (query.obs["genecompass_cell_type"].astype(str) == "unsure").any()
    assert query.uns["genecompass"]["annotation"]["align"] == "none"  # a label does not depend on the other cells
    with pytest.raises(InputError, match="no column 'nothing'"):
        gc.annotate(query, str(checkpoint), "mouse", reference=Reference(cells(), "nothing", species="human"))
    unlabelled = cells()
    unlabelled.obs["cell_type"] = np.nan
    with pytest.raises(InputError, match="no cell has a label"):
        gc.annotate(query, str(checkpoint), "mouse", reference=Reference(unlabelled, "cell_type", species="human"))


def test_annotate_needs_a_fine_tuned_model(checkpoint):
    with pytest.raises(InputError, match="finetune cells"):
        gc.annotate(cells(), str(checkpoint), "human")
    with pytest.raises(InputError, match="threshold"):
        gc.annotate(cells(), str(checkpoint), "human", threshold=2)


def test_annotate_a_file(checkpoint, tmp_path):
    from genecompass.inference import annotate_file

    finetune_cells(cells(), "cell_type", str(checkpoint), "human", output=tmp_path / "out", **FAST)
    query = cells(seed=7)
    query.write_h5ad(tmp_path / "query.h5ad")
    annotate_file(tmp_path / "query.h5ad", tmp_path / "labelled.h5ad", tmp_path / "out", "human", device="cpu")
    found = ad.read_h5ad(tmp_path / "labelled.h5ad")
    assert list(found.obs["donor"]) == list(query.obs["donor"])
    assert set(found.obs["genecompass_cell_type"].astype(str)) <= {"alpha", "beta", "unsure"}


def test_genes(checkpoint, tmp_path):
    labels = {f"ENSG{i:011d}": "first" if i < GENES // 2 else "second" for i in range(GENES)} | {
        "ENSG99999999999": "first"
    }
    result = finetune_genes(cells(), labels, str(checkpoint), "human", output=tmp_path / "genes", **FAST)
    assert result.record["unknown_genes"] == ["ENSG99999999999"]
    assert result.validation["genes"] + result.validation["training_genes"] == GENES
    assert result.validation["split"] == "by gene, stratified"
    model, _ = load_checkpoint(tmp_path / "genes", "genes", device="cpu")
    assert model.config.num_labels == 2
    with pytest.raises(InputError, match="one class only"):
        finetune_genes(cells(), dict.fromkeys(labels, "x"), str(checkpoint), "human")


def test_gene_label_files(tmp_path):
    (tmp_path / "wide.csv").write_text("a,b\nENSG1,ENSG2\nENSG3,\n")
    assert read_gene_labels(tmp_path / "wide.csv") == {"ENSG1": "a", "ENSG3": "a", "ENSG2": "b"}
    (tmp_path / "long.csv").write_text("gene,label\nENSG1,a\nENSG2,b\n")
    assert read_gene_labels(tmp_path / "long.csv") == {"ENSG1": "a", "ENSG2": "b"}
    (tmp_path / "twice.csv").write_text("gene,label\nENSG1,a\nENSG1,b\n")
    with pytest.raises(InputError, match="two labels"):
        read_gene_labels(tmp_path / "twice.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: obs.drop(columns="cell_type"), "no column 'cell_type'"),
        (lambda obs: obs.assign(cell_type=[np.nan, *obs["cell_type"][1:]]), r"1 of 60 cells have no 'cell_type'"),
        (lambda obs: obs.assign(cell_type="alpha"), "one class only"),
        (lambda obs: obs.assign(cell_type=["rare", *obs["cell_type"][1:]]), "class 'rare' .* has one cell only"),
    ],
)
def test_labels_that_cannot_be_learned(checkpoint, change, message, tmp_path):
    adata = cells()
    adata.obs = change(adata.obs)
    with pytest.raises(InputError, match=message):
        finetune_cells(adata, "cell_type", str(checkpoint), "human", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_bad_input(checkpoint, tmp_path):
    with pytest.raises(InputError, match="unknown fine-tuning method"):
        finetune_cells(cells(), "cell_type", str(checkpoint), "human", method="magic", device="cpu")
    with pytest.raises(InputError, match="choose all-linear or query-value"):
        finetune_cells(cells(), "cell_type", str(checkpoint), "human", targets="everything", device="cpu")
    with pytest.raises(InputError, match="more than the 32 genes"):
        finetune_cells(cells(), "cell_type", str(checkpoint), "human", max_length=64)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="is no fine-tuned model"):
        finetune_cells(cells(), "cell_type", str(checkpoint), "human", output=tmp_path)
    with pytest.raises(InputError, match="no column 'clinic'"):
        finetune_cells(cells(), "cell_type", str(checkpoint), "human", group="clinic")
    with pytest.raises(InputError, match="mouse"):
        finetune_cells(cells(prefix="ENSMUSG"), "cell_type", str(checkpoint), "human")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=80),
    st.integers(0, 5),
    st.booleans(),
)
def test_a_validation_split_is_a_split(codes, seed, grouped):
    codes = np.array([*codes, 0, 0, 1, 1, 2, 2, 3, 3])
    groups = np.arange(len(codes)) % 5 if grouped else None
    train, validation, how = split_validation(codes, groups=groups, seed=seed)
    assert sorted([*train, *validation]) == list(range(len(codes)))
    assert len(validation)
    assert set(codes[train]) == set(codes)
    if how.startswith("whole groups"):
        assert not set(groups[train]) & set(groups[validation])


def test_small_pieces():
    assert find_groups(cells().obs)[1] == "donor"
    assert find_groups(cells().obs.assign(donor="one")[["donor"]]) == (None, None)
    weights = balanced_weights(np.array([0, 0, 0, 1]), 2)
    assert (weights * np.array([3, 1])).sum() == pytest.approx(4)
    assert default_learning_rate("lora", 768) < default_learning_rate("lora", 256) < default_learning_rate("lora", 64)
    assert default_learning_rate("full", 2048) == default_learning_rate("full", 768)
    assert default_learning_rate("full", 64, task="genes") < default_learning_rate("full", 64)
    with pytest.raises(InputError, match="has no learning rate"):
        default_learning_rate("frozen", 64)
    batch = collate([{"input_ids": np.array([3]), "values": np.array([1.5], np.float32), "species": 1, "label": 1}])
    assert batch["values"].dtype == torch.float32
    assert batch["species"].tolist() == [1]
    assert batch["labels"].tolist() == [1]
    assert read_labels(cells().obs, "cell_type").ontology_ids["beta"] == "CL:0000169"


def test_dropout_is_off_while_a_fitted_head_goes_on_and_back_afterwards():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)).train()
    inputs = torch.ones(8, 4)
    with without_dropout(network):
        assert torch.equal(network(inputs), network[0](inputs))
    assert network[1].p == 0.5


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("auto", ["cells", "genes"])
def test_a_fitted_head_answers_as_the_regression_it_was_folded_from(checkpoint, classes, auto):
    adata = cells(n=30)
    tokenized = tokenize_cells(adata, GeneTable.read(checkpoint), species="human")
    codes = np.arange(30) % classes
    if auto == "cells":
        model, rows = GeneCompassForSequenceClassification, CellRows(tokenized, np.arange(30), codes)
    else:
        label_of_token = np.full(100, -100)
        label_of_token[2:12] = np.arange(10) % classes
        model, rows = GeneCompassForTokenClassification, GeneRows(tokenized, np.arange(30), label_of_token)
    # one class more than the items have: it must never be the answer
    network = model.from_pretrained(checkpoint, num_labels=classes + 1, ignore_mismatched_sizes=True).eval()
    found = train_head(network, rows, rows, score=lambda logits, labels: (logits.argmax(1) == labels).mean())
    logits, labels = predict_rows(network, rows)
    assert set(logits.argmax(1)) <= set(range(classes))
    # tanh is linear only about: a few items near a border may change sides
    assert (logits.argmax(1) == labels).mean() == pytest.approx(found["score"], abs=0.1)


def test_thinned_copies_help_with_shallow_cells(checkpoint):
    query = cells(seed=5)
    query.X = thin_counts(query.X, 0.3, seed=1)
    right = {}
    for thin in ((), (0.3,)):
        result = finetune_cells(cells(), "cell_type", str(checkpoint), "human", method="frozen", thin=thin)
        tokenized = tokenize_cells(query, GeneTable.read(checkpoint), species="human", empty_cells="keep")
        codes = query.obs["cell_type"].map({name: i for i, name in enumerate(result.labels)}).to_numpy(dtype=np.int64)
        logits, labels = predict_rows(result.model, CellRows(tokenized, np.arange(len(codes)), codes))
        assert result.record["options"]["thin"] == thin
        right[thin] = (logits.argmax(1) == labels).mean()
    assert right[(0.3,)] >= right[()]
    assert right[(0.3,)] > 0.7


def test_bad_shares_are_refused(checkpoint):
    with pytest.raises(InputError, match="cannot thin counts to 2"):
        finetune_cells(cells(), "cell_type", str(checkpoint), "human", method="frozen", thin=(2.0,))
