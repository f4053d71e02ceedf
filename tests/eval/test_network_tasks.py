"""Benchmarks of networks and deletions on a tiny random model, in memory and from the command line."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.eval.tasks.grn import beeline_cells
from genecompass.eval.tasks.perturbation import benchmark_deletions
from genecompass.model_cards.benchmarks import read_scores
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from scipy import sparse

from genecompass.cli import main

SYMBOLS = ["SOX2", "PAX6", "KLF4", *[f"GENE{i}" for i in range(17)]]


@pytest.fixture(scope="module")
def processor():
    genes = {"gene_id": [f"ENSG{i:011d}" for i in range(20)], "symbol": SYMBOLS, "species": "human", "median": 1.0}
    return GeneCompassProcessor.from_gene_table(GeneTable.from_genes(pd.DataFrame(genes)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=22, initializer_range=0.3, max_position_embeddings=32, species=["human"])
    return GeneCompassForMaskedGeneModeling(config).eval()


@pytest.fixture(scope="module")
def cells():
    counts = np.random.default_rng(0).poisson(2.0, (20, 20))
    counts[:, 0] += 1
    obs = pd.DataFrame({"kind": ["a"] * 10 + ["b"] * 10}, index=[f"cell{i}" for i in range(20)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=SYMBOLS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, processor, cells):
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder / "checkpoint")
    processor.save_pretrained(folder / "checkpoint")
    cells.write_h5ad(folder / "cells.h5ad")
    reference = [("SOX2", "GENE1"), ("SOX2", "GENE2"), ("PAX6", "GENE3"), ("PAX6", "sox2")]
    pd.DataFrame(reference, columns=["Gene1", "Gene2"]).to_csv(folder / "reference.csv", index=False)
    return folder


def test_real_cells_against_a_reference(cells, model, processor, folder):
    methods = ["expression_level", "similarity", "pearson", "random"]
    benchmark = beeline_cells(
        cells, {"made up": folder / "reference.csv"}, species="human", model=model, processor=processor,
        regulators=["SOX2", "PAX6", "KLF4"], methods=methods, seeds=(0, 1),
    )  # fmt: skip
    assert benchmark.runs["method"].value_counts().to_dict() == {
        "random": 2, "expression_level": 1, "similarity": 1, "pearson": 1,
    }  # fmt: skip
    # KLF4 is no source of the reference; names are compared in capitals; self-edges do not count
    assert set(benchmark.runs["n_regulators"]) == {2}
    assert set(benchmark.runs["n_edges"]) == {4}
    assert benchmark.settings["regulators"] == 3
    with pytest.raises(InputError, match="unknown method"):
        beeline_cells(cells, {}, species="human", model=model, processor=processor, methods=["magic"])


def test_deletions_against_known_targets(cells, model, processor):
    targets = {"SOX2": {"GENE1", "GENE2", "GENE3", "ELSEWHERE"}, "NANOG": {"GENE1"}, "PAX6": {"GENE4"}}
    benchmark = benchmark_deletions(
        cells, model, targets, species="human", processor=processor, ks=(5, 10), min_targets=2, min_cells=3, n_null=5,
        progress=False,
    )  # fmt: skip
    table = benchmark.factors
    assert set(table["factor"]) == {"SOX2"}  # PAX6 has too few targets here
    assert benchmark.absent == ["NANOG"]
    assert set(table["ranking"]) == {"deletion", "expression_level", "correlation"}
    assert set(table["n_targets"]) == {3}
    assert set(table["n_candidates"]) == {19}
    np.testing.assert_allclose(table["random"], 3 / 19)
    dense = cells.X.toarray()
    mean = np.log1p(dense * (1e4 / dense.sum(1, keepdims=True))).mean(0)
    levels = dict(zip(SYMBOLS, mean, strict=True))
    top = sorted(set(SYMBOLS) - {"SOX2"}, key=lambda name: -levels[name])[:5]
    expected = len(set(top) & targets["SOX2"]) / 5
    assert table.query("ranking == 'expression_level' and k == 5")["precision"].item() == pytest.approx(expected)
    assert len(benchmark.table()) == 6
    with pytest.raises(InputError, match="known targets"):
        benchmark_deletions(cells, model, targets, species="human", processor=processor, min_targets=9)


def test_verbs(folder, tmp_path, capsys):
    data, checkpoint = str(folder / "cells.h5ad"), str(folder / "checkpoint")

    common = ("--model", checkpoint, "--species", "human")

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        return stop.value.code, capsys.readouterr()

    code, shown = run(
        "perturb", "genes", data, *common, "-g", "SOX2", "-g", "PAX6+KLF4", "--n-null", "4", "--groupby", "kind",
        "-t", "GENE1", "--readout", "values", "-o", str(tmp_path / "perturbed"),
    )  # fmt: skip
    assert code == 0
    assert "PAX6+KLF4" in shown.out
    assert (tmp_path / "perturbed" / "genes.parquet").exists()
    assert (tmp_path / "perturbed" / "effects.png").exists()
    code, shown = run(
        "perturb", "fate", data, *common, "--start", "kind=a", "--goal", "kind=b", "--n-null", "4", "--combinations",
        "2", "--at-dose", "0.5", "-o", str(tmp_path / "fate"),
    )  # fmt: skip
    assert code == 0
    assert {p.name for p in (tmp_path / "fate").iterdir()} == {
        "ranking.csv", "ranking.png", "ranking.svg", "combinations.csv", "doses.csv", "parameters.json",
    }  # fmt: skip
    network = tmp_path / "network.graphml"
    code, _ = run("grn", data, *common, "--top-k", "5", "--draw", "SOX2", "-o", str(network))
    assert code == 0
    assert network.exists()
    assert (tmp_path / "network_SOX2.png").exists()
    code, shown = run(
        "benchmark", "grn", "cells", data, *common, "-r", f"made-up={folder / 'reference.csv'}", "-m", "similarity",
        "-m", "random", "--seeds", "0,1", "-o", str(tmp_path / "runs.csv"),
    )  # fmt: skip
    assert code == 0
    assert "| made-up | similarity |" in shown.out
    scores = read_scores([tmp_path / "runs.json"])
    assert {(score.method, score.ours) for score in scores} == {("similarity", True), ("random", False)}
    assert all("made-up" in score.dataset for score in scores)
    code, shown = run("perturb", "genes", data, *common, "-g", "NOSUCH", "-o", str(tmp_path / "none"))
    assert code == 2
    assert shown.err.count("\n") == 2  # what was understood of the genes, and the error
    assert "NOSUCH" in shown.err
    assert not (tmp_path / "none").exists()
    code, shown = run("grn", data, *common, "-o", str(tmp_path / "network.doc"))
    assert code == 2
    assert ".graphml" in shown.err
