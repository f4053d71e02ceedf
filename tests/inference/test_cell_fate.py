"""Cell fate: candidates ranked by the move towards a goal."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference.perturbation.cell_fate import RECIPES, rank_cell_fate, select_cells, shared_tokens
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from scipy import sparse

SYMBOLS = ["SOX2", "PAX6", "KLF4", "GATA4", *[f"GENE{i}" for i in range(26)]]


@pytest.fixture(scope="module")
def table():
    human = pd.DataFrame(
        {"gene_id": [f"ENSG{i:011d}" for i in range(30)], "symbol": SYMBOLS, "species": "human", "median": 1.0}
    )
    mouse = human.assign(
        gene_id=[f"ENSMUSG{i:011d}" for i in range(30)],
        symbol=[s.capitalize() for s in SYMBOLS],
        species="mouse",
        homolog_gene_id=[g if i < 20 else None for i, g in enumerate(human["gene_id"])],
    )
    return GeneTable.from_genes(pd.concat([human, mouse], ignore_index=True))


@pytest.fixture(scope="module")
def processor(table):
    return GeneCompassProcessor.from_gene_table(table)


@pytest.fixture(scope="module")
def model(table):
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, initializer_range=0.2, max_position_embeddings=64)
    return GeneCompassModel(config).eval()


def make_cells(names):
    """Goal cells are the start cells with PAX6 switched on."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(2.0, (24, 30))
    counts[:, :4] = rng.integers(1, 3, (24, 4))
    counts[:12, 1] = 0
    counts[12:] = counts[:12]
    counts[12:, 1] = 25
    obs = pd.DataFrame({"fate": ["start"] * 12 + ["goal"] * 12}, index=[f"c{i}" for i in range(24)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture(scope="module")
def cells():
    return make_cells(SYMBOLS)


def run(adata, model, processor, *args, **options):
    options = {"species": "human", "n_null": 12, "progress": False, **options}
    return rank_cell_fate(adata, model, *args, processor=processor, **options)


def test_the_gene_that_makes_the_difference_comes_first(cells, model, processor):
    fate = run(
        cells, model, processor, "fate=start", "fate=goal", ["SOX2", "PAX6", "KLF4", "GATA4", "NANOG"],
        kind="set", dose=25, combinations=2, n_best=3, doses=(0, 0.5, 4), ranks="anew",
    )  # fmt: skip
    assert fate.ranking.iloc[0]["mean"] == pytest.approx(1.0, abs=1e-3)
    first = fate.ranking.iloc[0]
    assert (first["perturbation"], first["rank"]) == ("PAX6", 1)
    assert first["low"] < first["mean"] < first["high"]
    assert first["p"] == pytest.approx(2 / 13)
    assert (first["n_null"], first["fold_change_rank"]) == (12, 1)
    assert fate.absent == ["NANOG"]
    assert len(fate.combinations) == 3
    assert all("+" in name for name in fate.combinations["perturbation"])
    assert set(fate.doses["dose"]) == {0, 0.5, 4}
    # PAX6 is silent in start cells: no dose of nothing can move them
    silent = fate.doses.query("perturbation == 'PAX6'")
    assert (silent["n_cells"] == 0).all()


def test_the_level_is_a_share_of_the_goal_cells_molecules_in_the_start_cells_depth(cells, table):
    from dataclasses import replace

    from genecompass.inference.perturbation.cells import take_cells
    from genecompass.inference.perturbation.edits import Edit

    start = take_cells(cells, table, species="human", cells=np.arange(12))
    goal = take_cells(cells, table, species="human", cells=np.arange(12, 24))
    deep = replace(start, level_reference=goal.counts * 50)
    editor = deep.editor(Edit("overexpress", absent="insert", quantile=0.5))
    columns, counts = start.cell(0)
    copies = editor.copies(columns, counts, [(1,)], ranks="kept")
    share = np.median(cells.X.toarray()[12:, 1] / cells.X.toarray()[12:].sum(1))
    token = start.match.cell_token[1]
    value = copies.values[copies.input_ids == token]
    expected = np.log2(1 + share * counts.sum() / start.match.column_median[1])
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_factors_are_the_default_candidates(cells, model, processor):
    fate = run(cells, model, processor, "fate=start", "fate=goal", kind="overexpress", n_null=5)
    # PAX6 is silent in start cells, but goal cells show at what level it can be inserted
    assert set(fate.ranking["perturbation"]) == {"SOX2", "PAX6", "KLF4", "GATA4"}
    deleted = run(cells, model, processor, "fate=start", "fate=goal", kind="delete", n_null=5)
    assert set(deleted.ranking["perturbation"]) == {"SOX2", "KLF4", "GATA4"}


def test_goal_of_another_species_is_read_over_shared_genes(cells, model, processor, table):
    mouse = make_cells([s.capitalize() for s in SYMBOLS])
    fate = run(
        cells, model, processor, "fate=start", "fate=goal", ["PAX6", "SOX2"], kind="set", dose=25,
        goal_adata=mouse, goal_species="mouse",
    )  # fmt: skip
    assert fate.ranking.iloc[0]["perturbation"] == "PAX6"
    assert fate.ranking.iloc[0]["mean"] > fate.ranking.iloc[1]["mean"]
    assert len(shared_tokens(table, "human", "mouse")) == 20


def test_recipes_name_their_source():
    assert RECIPES["reprogramming"].factors == ("POU5F1", "SOX2", "KLF4", "MYC")
    assert set(RECIPES["gonadal"].factors) == {"NR5A1", "GATA4", "WT1", "TCF21", "NR2F1"}
    assert all("(" in recipe.source for recipe in RECIPES.values())


@pytest.mark.parametrize(
    ("start", "goal", "candidates", "options", "message"),
    [
        ("fate=start", "fate=start", ["SOX2"], {}, "same cells"),
        ("fate=start", "fate=nothing", ["SOX2"], {}, "no cell has fate 'nothing'"),
        ("fate=start", "age=old", ["SOX2"], {}, "no column 'age'"),
        ("start", "fate=goal", ["SOX2"], {}, "column=value"),
        ("fate=start", "fate=goal", ["NANOG"], {}, "none of the 1 candidates"),
        ("fate=start", "fate=goal", ["SOX2"], {"doses": (1,)}, "changes nothing"),
        ("fate=start", "fate=goal", ["SOX2"], {"dose": 0.5}, "above 1"),
        ("fate=start", "fate=goal", ["SOX2"], {"max_cells": 50}, "50 cells asked for"),
    ],
)
def test_bad_input_is_one_clear_line(cells, model, processor, start, goal, candidates, options, message):
    with pytest.raises(InputError, match=message):
        run(cells, model, processor, start, goal, candidates, **options)


def test_cells_are_chosen_by_column(cells):
    assert select_cells(cells, "fate=start,goal").all()
    assert select_cells(cells, "fate=goal").sum() == 12


def test_the_benchmark_scores_the_recipe_and_names_what_was_not_measured(cells, model, processor):
    from genecompass.eval.tasks.fate import benchmark_fate

    found = benchmark_fate(
        cells, model, ["PAX6", "NANOG"], "fate=start", "fate=goal", species="human", processor=processor, n_null=5,
        progress=False,
    )  # fmt: skip
    assert found.absent == ["NANOG"]
    assert found.ranking.loc[found.ranking["factor"], "perturbation"].tolist() == ["PAX6"]
    # only PAX6 differs between start and goal
    assert found.scores.set_index("ranking").loc["fold change, goal over start", "auroc"] == 1.0
    assert all(row["ours"] == row["method"].startswith("GeneCompass") for row in found.record("toy")["rows"])
