"""Benchmarks of annotation: splits, baselines, runs that continue, reports that say who wins."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.eval.baselines.annotation import BASELINES, log_counts
from genecompass.eval.baselines.genes import families_by_name, gene_coordinates, name_rule_scores
from genecompass.eval.metrics import auroc
from genecompass.eval.report import eval_results
from genecompass.eval.tasks.annotation import METHODS
from genecompass.eval.tasks.benchmarks import (
    BenchmarkSettings,
    benchmark_annotation,
    benchmark_cross_species,
    benchmark_gene_classification,
    benchmark_zero_shot,
    choose,
)
from genecompass.eval.tasks.gene_classification import GeneTask, _folds
from genecompass.eval.tasks.labelled_cells import pick_per_class, read_labelled, stratified_folds
from genecompass.eval.tasks.summary import summarise, winners
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.training.finetuning.data import Labels
from scipy import sparse

import genecompass as gc

GENES = 40
QUICK = {
    "methods": None,
    "seeds": "0,1",
    "cells_per_class": "3,all",
    "max_length": 512,
    "max_steps": 4,
    "epochs": 2,
    "batch_size": 8,
    "learning_rates": ["lora=0.01"],
    "pooling": "mean",
    "figures": False,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling

    names = [f"ENSG{i:011d}" for i in range(GENES)]
    human = pd.DataFrame({"gene_id": names, "symbol": "", "species": "human"})
    mouse = pd.DataFrame({"gene_id": [n.replace("ENSG", "ENSMUSG") for n in names], "symbol": "", "species": "mouse"})
    table = GeneTable.from_genes(pd.concat([human, mouse.assign(homolog_gene_id=names)], ignore_index=True))
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, max_position_embeddings=32, num_hidden_layers=1)
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder)
    gc.GeneCompassProcessor.from_gene_table(table, max_length=32).save_pretrained(folder)
    return folder


def cells(n=48, seed=0, species="human"):
    generator = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    rates = np.where((np.arange(GENES) < GENES // 2) == kind[:, None].astype(bool), 3.0, 0.2)
    prefix = {"human": "ENSG", "mouse": "ENSMUSG"}[species]
    obs = pd.DataFrame(
        {"cell_type": np.array(["a", "b"])[kind], "organism": species, "donor": kind // 1 * 0 + np.arange(n) % 3}
    )
    obs["donor"] = "d" + obs["donor"].astype(str)
    obs.index = [f"{species}{i}" for i in range(n)]
    var = pd.DataFrame(index=[f"{prefix}{i:011d}" for i in range(GENES)])
    return ad.AnnData(sparse.csr_matrix(generator.poisson(rates).astype(np.float32)), obs=obs, var=var)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    cells().write_h5ad(folder / "train.h5ad")
    cells(30, seed=1).write_h5ad(folder / "test.h5ad")
    both = cells(species="mouse", seed=2)
    both.var_names = cells().var_names  # as after mapping mouse genes to human orthologs
    ad.concat([cells(), both]).write_h5ad(folder / "both.h5ad")
    return folder


def test_every_method_runs_and_the_report_is_whole(checkpoint, files, tmp_path):
    settings = BenchmarkSettings.parse(**QUICK)
    text = benchmark_annotation(
        files / "train.h5ad", checkpoint, tmp_path, species="human", test=files / "test.h5ad", settings=settings
    )
    assert all(method in text for method in METHODS)
    content = json.loads((tmp_path / "annotation.json").read_text())
    rows = {(row["method"], row["metric"]): row for row in content["rows"]}
    assert rows["log counts + logistic regression", "macro_f1"]["mean"] > 0.95
    assert rows["majority", "macro_f1"]["mean"] == pytest.approx(1 / 3)
    assert rows["GeneCompass LoRA", "macro_f1"]["seeds"] == 2
    assert rows["GeneCompass LoRA", "macro_f1"]["ours"]
    assert not rows["majority", "macro_f1"]["ours"]
    assert not any(row["ours"] for (method, _), row in rows.items() if "scratch" in method or "untrained" in method)
    (difference,) = content["differences"].values()
    assert difference["baseline"] in BASELINES
    assert difference["methods"]["majority"]["verdict"] == "worse"
    assert "less the best baseline" in text
    covered = {row["method"]: row for row in content["coverage"]}
    assert set(covered) == set(METHODS)
    assert covered["majority"]["accuracy_at_50"] == covered["majority"]["accuracy_at_100"]
    assert "tie" in text
    trained = {row["method"]: row for row in content["table"]}
    assert trained["GeneCompass LoRA"]["trainable_parameters"] < trained["GeneCompass full"]["trainable_parameters"]
    assert {row["cells_per_class"] for row in content["curve"]} == {3, "all"}
    entries = eval_results(content, model_name="tiny")
    assert len(entries) == sum(row["ours"] for row in content["rows"])

    from genecompass.model_cards.benchmarks import read_scores

    shown = read_scores([tmp_path / "annotation.json"])
    assert {score.method for score in shown} == set(METHODS)


def test_a_killed_benchmark_continues(checkpoint, files, tmp_path, monkeypatch):
    settings = BenchmarkSettings.parse(**{**QUICK, "methods": "majority,PCA", "seeds": "0"})
    options = {"species": "human", "folds": 2, "settings": settings}
    first = benchmark_annotation(files / "train.h5ad", checkpoint, tmp_path, **options)
    monkeypatch.setattr("genecompass.eval.tasks.annotation._Runner.run", None)  # nothing is run twice
    assert benchmark_annotation(files / "train.h5ad", checkpoint, tmp_path, **options) == first


def test_across_species_and_by_donor(checkpoint, files, tmp_path):
    settings = BenchmarkSettings.parse(**{**QUICK, "methods": "log counts,frozen", "seeds": "0"})
    text = benchmark_cross_species(
        files / "both.h5ad", checkpoint, tmp_path, species_column="organism", gene_species="human", settings=settings
    )
    assert "both: human to mouse" in text
    assert "both: mouse to human" in text
    by_donor = benchmark_annotation(
        files / "train.h5ad", checkpoint, tmp_path, species="human", split_by="donor", settings=settings
    )
    assert "held out by donor" in by_donor
    with pytest.raises(InputError, match="one species only"):
        benchmark_cross_species(files / "train.h5ad", checkpoint, tmp_path, species_column="organism")


def test_gene_labels_in_gene_level_folds(checkpoint, files, tmp_path):
    half = [f"ENSG{i:011d}" for i in range(GENES // 2)]
    other = [f"ENSG{i:011d}" for i in range(GENES // 2, GENES)]
    pd.DataFrame({"first": half, "second": other}).to_csv(tmp_path / "labels.csv", index=False)
    text = benchmark_gene_classification(
        files / "train.h5ad",
        tmp_path / "labels.csv",
        checkpoint,
        tmp_path,
        species="human",
        seeds=[0],
        folds=2,
        folds_by="gene",
        max_steps=2,
    )
    assert "GeneCompass LoRA" in text
    assert "rule: the symbol is no zinc finger's" in text
    assert "PCA coordinates of genes" in text
    content = json.loads((tmp_path / "gene-classification.json").read_text())
    assert {row["metric"] for row in content["rows"]} == {
        "auroc", "auroc_not_c2h2", "auprc", "positives",
    }  # fmt: skip


def test_gene_families_stay_together_and_a_rule_on_names_is_a_row():
    generator = np.random.default_rng(0)
    symbols = [f"ZNF{i}" for i in range(30)] + [
        f"{stem}{i}" for stem in ("SOX", "GATA", "IRF", "NR") for i in range(12)
    ]
    codes = np.array([int(i >= 30 and i % 2 == 0) for i in range(len(symbols))])
    labels = Labels(codes, ("insensitive", "sensitive"), {})
    counts = sparse.csr_matrix(generator.poisson(1.0, (20, len(symbols))).astype(float))
    tokens = np.arange(len(symbols))
    task = GeneTask("made up", tokens, labels, symbols, None, counts, len(symbols), [], 0)
    families = np.array(families_by_name(symbols))
    for train, test in _folds(task, 2, "family", 0):
        assert not set(families[train]) & set(families[test])
    with pytest.raises(InputError, match="too few for 5 folds"):
        _folds(task, 5, "family", 0)
    mixed = any(set(families[train]) & set(families[test]) for train, test in _folds(task, 2, "gene", 0))
    assert mixed
    scores = name_rule_scores(symbols, codes, tokens)
    assert auroc(codes, scores) > 0.7
    assert auroc(codes[30:], scores[30:]) == 0.5
    assert gene_coordinates(counts, tokens, components=5).shape == (len(symbols), 5)


def test_zero_shot_and_figures(checkpoint, files, tmp_path):
    text = benchmark_zero_shot(
        [files / "train.h5ad", files / "test.h5ad"], checkpoint, tmp_path, species="human", seeds=[0], scib=False
    )
    assert "PCA of log counts" in text
    assert (tmp_path / "figures" / "umap_genecompass_mean_over_genes.png").stat().st_size > 5000


def test_counts_of_homologs_share_a_column(checkpoint, files):
    table = GeneTable.read(checkpoint)
    cells(species="mouse").write_h5ad(files / "mouse.h5ad")
    mouse = read_labelled(files / "mouse.h5ad", table, label="cell_type", species="mouse")
    human = read_labelled(files / "train.h5ad", table, label="cell_type", species="human")
    np.testing.assert_array_equal(mouse.counts.toarray(), human.counts.toarray())
    some = human.take(np.array([3, 1]))
    np.testing.assert_array_equal(some.tokenized[0]["input_ids"], human.tokenized[3]["input_ids"])
    assert some.labels.tolist() == human.labels[[3, 1]].tolist()


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_do_not_look_at_test_cells(name):
    generator = np.random.default_rng(0)
    train = sparse.csr_matrix(generator.poisson(1.0, (40, 30)).astype(float))
    test = sparse.csr_matrix(generator.poisson(1.0, (20, 30)).astype(float))
    labels = np.array(["a", "b"] * 20)
    whole = BASELINES[name](train, labels, test, 0)
    half = BASELINES[name](train, labels, test[:10], 0)
    assert whole.labels[:10].tolist() == half.labels.tolist()
    np.testing.assert_allclose(whole.scores[:10], half.scores)
    assert ((whole.scores > 0) & (whole.scores <= 1)).all()


def test_small_pieces():
    assert log_counts(sparse.csr_matrix([[2.0, 0.0]])).toarray()[0, 0] == pytest.approx(np.log1p(1e4))
    labels = np.array(["a"] * 10 + ["b"] * 4 + ["c"])
    picked = pick_per_class(labels, 5, seed=1)
    assert np.unique(labels[picked], return_counts=True)[1].tolist() == [5, 4]  # "c" has one cell: none
    assert (picked == pick_per_class(labels, 5, seed=1)).all()
    for train, test in stratified_folds(np.array(["a", "b"] * 10), 5):
        assert not set(train) & set(test)
        assert len(test) == 4
    runs = [
        {"method": "m", "seed": s, "fold": f, "macro_f1": v}
        for s, f, v in [(0, 0, 0.8), (0, 1, 1.0), (1, 0, 0.7), (1, 1, 0.7)]
    ]
    row = summarise(runs, by=["method"]).iloc[0]
    assert row["macro_f1_mean"] == pytest.approx(0.8)  # folds first, then seeds
    assert row["macro_f1_sd"] == pytest.approx(np.std([0.9, 0.7], ddof=1))
    table = pd.DataFrame({"split": "x", "method": ["base", "ours"], "macro_f1_mean": [0.9, 0.8]})
    assert winners(table, by="split", metric="macro_f1", ours=["ours"])["x"] == {
        "method": "base",
        "baseline_wins": True,
    }
    with pytest.raises(InputError, match="no method is called 'magic'"):
        choose("magic", ["a"])
    with pytest.raises(InputError, match="not a number"):
        BenchmarkSettings.parse(**{**QUICK, "seeds": "one"})


def test_figures_are_drawn(tmp_path):
    from genecompass.eval.metrics import confusion_table
    from genecompass.eval.plots import plot_confusion, plot_gene_scores, plot_learning_curve

    png, svg = plot_confusion(confusion_table(["a", "b", "b"], ["a", "b", "c"]), tmp_path / "confusion.png")
    assert png.stat().st_size > 2000
    assert svg.stat().st_size > 2000
    runs = [
        {"method": m, "cells_per_class": k, "seed": s, "macro_f1": 0.5 + s / 10}
        for m in ("a", "b")
        for k in (5, "all")
        for s in (0, 1)
    ]
    table = summarise(runs, by=["cells_per_class", "method"])
    assert plot_learning_curve(table, tmp_path / "curve", ours=["a"])[0].stat().st_size > 2000
    assert plot_gene_scores(pd.Series([0.3, -0.2], index=["INS", "GCG"]), tmp_path / "genes")[0].stat().st_size > 2000
