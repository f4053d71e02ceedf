"""Co-expression: exact against brute force, the same in any blocks, from files and from a corpus, bad input."""

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from genecompass.dataset_scripts.prior_knowledge import correlation
from genecompass.dataset_scripts.prior_knowledge.cell_spool import CellSpool
from genecompass.dataset_scripts.prior_knowledge.co_expression import (
    CellsOf,
    build_co_expression,
    cells_of_corpus,
    cells_of_file,
    dataset_pairs,
    pool_pairs,
)
from genecompass.dataset_scripts.prior_knowledge.correlation import CorrelationSettings, correlated_pairs
from genecompass.dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings
from genecompass.dataset_scripts.prior_knowledge.tables import write_priors
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from hypothesis import given, settings
from hypothesis import strategies as st


def some_counts(cells=200, genes=60, seed=0):
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.7, 1, (cells, 1)) * rng.gamma(0.5, 4, (1, genes))
    program = rng.gamma(0.5, 4, (cells, 4))[:, rng.integers(0, 4, genes)]
    return sp.csr_matrix(rng.poisson(rate * program).astype(np.float64))


def brute_force(counts, transform, threshold, min_shared):
    X = counts.toarray()
    values = {
        "counts": X,
        "log_counts": np.log1p(X),
        "log_normalized": np.log1p(X * 1e4 / np.maximum(X.sum(1, keepdims=True), 1)),
    }[transform]
    found = {}
    for i in range(X.shape[1]):
        for j in range(i + 1, X.shape[1]):
            both = (X[:, i] >= 1) & (X[:, j] >= 1)
            x, y = values[both, i], values[both, j]
            if both.sum() < min_shared or np.ptp(x) == 0 or np.ptp(y) == 0:
                continue
            r = np.corrcoef(x, y)[0, 1]
            if r >= threshold:
                found[i, j] = (both.sum(), r)
    return found


def pairs_of(counts, transform, wanted, parts=1):
    with CellSpool(np.arange(counts.shape[1]), transform=transform) as spool:
        for rows in np.array_split(np.arange(counts.shape[0]), parts):
            spool.add(counts[rows])
        return correlated_pairs(spool, wanted)


@pytest.mark.parametrize("sparse_below", [0, 2])
@pytest.mark.parametrize("transform", ["counts", "log_counts", "log_normalized"])
def test_exact_against_brute_force(monkeypatch, transform, sparse_below):
    monkeypatch.setattr(correlation, "_SPARSE", sparse_below)
    counts = some_counts()
    found = pairs_of(counts, transform, CorrelationSettings(0.4, 8))
    expected = brute_force(counts, transform, 0.4, 8)
    assert len(expected) > 50
    assert {(a, b) for a, b in zip(found["left"], found["right"], strict=True)} == set(expected)
    for row in found.itertuples():
        shared, r = expected[row.left, row.right]
        assert row.shared == shared
        assert row.r == pytest.approx(r, abs=2e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), transform=st.sampled_from(["counts", "log_counts"]))
def test_exact_on_tiny_counts_with_many_ties(seed, transform):
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.integers(0, 3, (25, 12)).astype(float))
    found = pairs_of(counts, transform, CorrelationSettings(0.1999, 3))
    expected = brute_force(counts, transform, 0.1999, 3)
    assert {(a, b) for a, b in zip(found["left"], found["right"], strict=True)} == set(expected)


def test_pairs_that_a_few_cells_carry_are_dropped():
    rng = np.random.default_rng(0)
    together = rng.poisson(4, 80) + 1
    carried = np.ones(80)
    carried[[3, 50]] = 3
    counts = sp.csr_matrix(np.stack([together, together, carried, carried], axis=1))
    every = pairs_of(counts, "counts", CorrelationSettings())
    assert every[["left", "right"]].to_numpy().tolist() == [[0, 1], [2, 3]]
    stable = pairs_of(counts, "counts", CorrelationSettings(stability=0.5))
    assert stable[["left", "right"]].to_numpy().tolist() == [[0, 1]]


def test_least_r_of_halves_against_numpy():
    counts = some_counts(seed=4)
    values = np.log1p(counts.toarray())
    inside = np.random.default_rng(10).random((10, 200)) < 0.5
    stable = pairs_of(counts, "log_counts", CorrelationSettings(0.4, 8, stability=0.3))
    found = set(zip(stable["left"], stable["right"], strict=True))
    every = brute_force(counts, "log_counts", 0.4, 8)
    assert 10 < len(found) < len(every)
    for i, j in every:
        both = (counts.toarray()[:, [i, j]] >= 1).all(axis=1)
        halves = [values[both & half][:, [i, j]] for mask in inside for half in (mask, ~mask)]
        constant = any(len(half) == 0 or (np.ptp(half, axis=0) == 0).any() for half in halves)
        least = 0 if constant else min(np.corrcoef(half.T)[0, 1] for half in halves)
        assert ((i, j) in found) == (least >= 0.3)


def test_block_sizes_and_parts_change_nothing(monkeypatch):
    counts = some_counts(seed=1)
    wanted = CorrelationSettings(0.5, 8, stability=0.2)
    whole = pairs_of(counts, "log_counts", wanted)
    assert len(whole) > 20
    monkeypatch.setattr(correlation, "_GENES_A_BLOCK", 7)
    monkeypatch.setattr("genecompass.dataset_scripts.prior_knowledge.cell_spool._CELLS_A_CHUNK", 33)
    pieces = pairs_of(counts, "log_counts", wanted, parts=9)
    pd.testing.assert_frame_equal(whole.drop(columns="r"), pieces.drop(columns="r"))
    np.testing.assert_allclose(whole["r"], pieces["r"], atol=2e-6)


def test_columns_of_one_gene_are_summed_and_unknown_ones_left_out():
    counts = some_counts(genes=10)
    doubled = sp.hstack([counts[:, :3], counts], format="csr")
    summed = counts.toarray()
    summed[:, :3] *= 2
    tokens = np.r_[[5, 6, 7], 5 + np.arange(10)]
    tokens[-1] = -1
    with CellSpool(tokens) as spool:
        spool.add(doubled)
        assert spool.genes.tolist() == list(range(5, 14))
        found = correlated_pairs(spool, CorrelationSettings(0.2, 5))
    expected = brute_force(sp.csr_matrix(summed[:, :9]), "counts", 0.2, 5)
    assert {(a - 5, b - 5) for a, b in zip(found["left"], found["right"], strict=True)} == set(expected)


def test_spool_leaves_no_files(tmp_path):
    with CellSpool(np.arange(5), folder=tmp_path) as spool:
        spool.add(some_counts(genes=5))
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


# ---- data sets


@pytest.fixture
def table():
    genes = pd.DataFrame({"gene_id": [f"ENSG{i:011d}" for i in range(60)], "symbol": [f"HX{i}" for i in range(60)]})
    mouse = pd.DataFrame({"gene_id": [f"ENSMUSG{i:011d}" for i in range(60)], "symbol": [f"Hx{i}" for i in range(60)]})
    mouse["homolog_gene_id"] = genes["gene_id"]
    return GeneTable.from_genes(pd.concat([genes.assign(species="human"), mouse.assign(species="mouse")]))


def as_anndata(counts, prefix="HX"):
    var = pd.DataFrame(index=[f"{prefix}{i}" for i in range(counts.shape[1])])
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(counts.shape[0])])
    return ad.AnnData(counts.astype(np.float32), obs=obs, var=var)


def test_from_anndata_to_table_twice_the_same(tmp_path, table):
    cells = [
        cells_of_file(as_anndata(some_counts()), table, "human", name="a"),
        cells_of_file(as_anndata(some_counts(seed=3), "Hx"), table, "mouse", name="b"),
    ]
    wanted = CorrelationSettings(0.5, 10)
    options = {"correlation": wanted, "settings": Gene2VecSettings(width=8, epochs=3), "transform": "log_counts"}
    for name, order in (("1", cells), ("2", cells[::-1])):
        write_priors(tmp_path / f"{name}.safetensors", [build_co_expression(order, table, **options)])
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    prior = build_co_expression(cells, table, **options)
    assert prior.metadata["coverage"]["mouse"]["known"] > 10
    assert {record["dataset"] for record in prior.metadata["sources"]} == {"a", "b"}


def write_corpus(folder, counts, species="human", dataset=None):
    """The corpus layout, with its gene axis in reverse order."""
    flipped = counts[:, ::-1].tocsr()
    flipped.sort_indices()
    axis = pd.DataFrame(
        {"gene_id": [f"ENSG{i:011d}" for i in range(59, -1, -1)], "symbol": "", "gene_species": "human"}
    )
    (folder / "genes").mkdir(parents=True)
    (folder / "data" / species).mkdir(parents=True)
    axis.to_parquet(folder / "genes" / f"{species}.parquet")
    n = counts.shape[0]
    dataset = np.array(["a", "b"])[np.arange(n) % 2] if dataset is None else dataset
    split = np.split(np.arange(n), [n // 3])
    for number, rows in enumerate(split):
        part = flipped[rows]
        spans = list(zip(part.indptr[:-1], part.indptr[1:], strict=True))
        columns = {
            "genes": pa.array([part.indices[a:b] for a, b in spans], pa.list_(pa.int32())),
            "counts": pa.array([part.data[a:b].astype(np.int32) for a, b in spans], pa.list_(pa.int32())),
            "dataset": pa.array(dataset[rows]),
        }
        pq.write_table(pa.table(columns), folder / "data" / species / f"train-{number:05d}.parquet", row_group_size=16)
    return folder


def test_corpus_gives_the_same_pairs_as_the_matrix(tmp_path, table):
    counts = some_counts(cells=300)
    found = cells_of_corpus(write_corpus(tmp_path, counts), table)
    assert [(part.name, part.n_cells) for part in found] == [("a", 150), ("b", 150)]
    wanted = CorrelationSettings(0.5, 10)
    pairs, records = dataset_pairs(found, settings=wanted, transform="counts")
    assert [record["sampled"] for record in records] == [150, 150]
    for name, start in (("a", 0), ("b", 1)):
        mine = pairs[pairs["dataset"] == name]
        expected = brute_force(counts[start::2], "counts", 0.5, 10)
        assert {(a - 2, b - 2) for a, b in zip(mine["left"], mine["right"], strict=True)} == set(expected)


def test_mouse_cells_on_human_names_count_for_mouse_genes(tmp_path, table):
    found = cells_of_corpus(write_corpus(tmp_path, some_counts(), species="mouse"), table)
    pairs, _ = dataset_pairs(found, settings=CorrelationSettings(0.3, 10))
    assert (pairs[["left", "right"]].to_numpy() >= 62).all()


def test_sample_is_bounded_and_seeded(table):
    whole = some_counts(cells=400)
    cells = [cells_of_file(as_anndata(whole), table, "human", name="a")]
    wanted = CorrelationSettings(0.3, 10)
    first, records = dataset_pairs(cells, cells_per_dataset=100, settings=wanted)
    assert records[0]["sampled"] == 100
    again, _ = dataset_pairs(cells, cells_per_dataset=100, settings=wanted)
    pd.testing.assert_frame_equal(first, again)
    other, _ = dataset_pairs(cells, cells_per_dataset=100, settings=wanted, seed=1)
    assert not first.equals(other)


def test_two_parts_of_one_data_set_are_one(table):
    counts = some_counts(cells=200)
    parts = [
        cells_of_file(as_anndata(counts[rows]), table, "human", name="a") for rows in (slice(0, 90), slice(90, 200))
    ]
    wanted = CorrelationSettings(0.4, 10)
    pairs, _ = dataset_pairs(parts, settings=wanted, transform="counts")
    assert {(a - 2, b - 2) for a, b in zip(pairs["left"], pairs["right"], strict=True)} == set(
        brute_force(counts, "counts", 0.4, 10)
    )


def test_pooling():
    pairs = pd.DataFrame({"species": "human", "dataset": ["a", "b", "b"], "left": 2, "right": [3, 3, 4]})
    assert pool_pairs(pairs, "once")["human"].weight.tolist() == [1, 1]
    assert pool_pairs(pairs, "datasets")["human"].weight.tolist() == [2, 1]
    assert pool_pairs(pairs, "balanced")["human"].weight.tolist() == [2, 1]
    with pytest.raises(InputError, match="pooling"):
        pool_pairs(pairs, "twice")


def test_balanced_pooling_bounds_a_data_set():
    first, second = np.triu_indices(100, 1)
    pairs = pd.DataFrame({"species": "human", "dataset": "deep", "left": first, "right": second})
    assert pool_pairs(pairs, "balanced")["human"].weight.sum() == pytest.approx(20 * 100)


def test_too_few_cells_and_no_pairs(tmp_path, table):
    few = CellsOf("a", "human", np.arange(2, 12), 5, lambda: [some_counts(5, 10)])
    with pytest.raises(InputError, match="no data set has the 50 cells"):
        dataset_pairs([few])
    rng = np.random.default_rng(0)
    noise = CellsOf("a", "human", np.arange(2, 12), 80, lambda: [sp.csr_matrix(rng.poisson(5, (80, 10)))])
    with pytest.raises(InputError, match="no pair of genes reaches"):
        build_co_expression([noise], table)
    with pytest.raises(InputError, match="no corpus with cells of human, mouse"):
        cells_of_corpus(tmp_path, table)
    with pytest.raises(InputError, match="transform"):
        CellSpool(np.arange(3), transform="sqrt")


def test_read_counts_are_normalized_and_molecules_are_not(table):
    molecules = some_counts(cells=100)
    molecules.data = np.minimum(molecules.data, 3)
    reads = molecules * 50
    cells = [cells_of_file(as_anndata(x), table, "human", name=name) for name, x in (("m", molecules), ("r", reads))]
    _, records = dataset_pairs(cells, settings=CorrelationSettings(0.3, 10))
    assert {record["dataset"]: record["transform"] for record in records} == {"m": "counts", "r": "log_normalized"}
