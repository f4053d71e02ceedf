"""Conditions, effects, splits, tables and the learned additive model."""

import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.inference.response.additive import fit_additive
from genecompass.inference.response.conditions import number_column, parse_genes, parse_wanted, read_conditions
from genecompass.inference.response.effects import log_normalised, read_effects
from genecompass.inference.response.features import go_table, read_go, read_table, shuffled
from genecompass.inference.response.splits import folds, split_by_gene, split_by_label
from genecompass.tokenization.errors import InputError
from hypothesis import given
from hypothesis import strategies as st


def cells(labels, counts=None):
    n = len(labels)
    X = np.random.default_rng(0).poisson(3, (n, 6)).astype(float) if counts is None else counts
    obs = pd.DataFrame({"condition": labels}, index=[f"c{i}" for i in range(n)])
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(X.shape[1])]))


def test_effects_are_differences_of_means_of_log_normalised_counts():
    adata = cells(["ctrl"] * 5 + ["A+ctrl"] * 4 + ["B+A"] * 3 + ["A+B"] * 3)
    effects = read_effects(adata, "condition", control="ctrl")
    X = log_normalised(adata.X)
    assert effects.conditions.names == ("A", "A+B")
    np.testing.assert_allclose(effects.delta[1], X[9:].mean(0) - X[:5].mean(0))
    assert effects.n_cells.tolist() == [4, 6]
    assert np.isfinite(effects.halves).all()
    assert np.isfinite(effects.standard_error).all()


def test_half_and_half_make_the_whole():
    adata = cells(["ctrl"] * 8 + ["A"] * 6)
    effects = read_effects(adata, "condition", control="ctrl")
    np.testing.assert_allclose(effects.halves.mean(axis=0), effects.delta)


def test_effects_as_given_keep_their_rows():
    adata = cells(["B", "A+B", "A"], np.arange(9.0).reshape(3, 3) - 4)
    effects = read_effects(adata, "condition")
    assert effects.conditions.names == ("A", "A+B", "B")
    assert effects.delta[:, 0].tolist() == [2.0, -1.0, -4.0]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["ctrl", "A"], {"perturbation": "drug"}, "no obs column 'drug'"),
        (["ctrl", "A"], {"control": "DMSO"}, "no row has 'DMSO'"),
        (["ctrl", "ctrl"], {"control": "ctrl"}, "control rows only"),
        (["A", "A"], {}, "several rows"),
        (["ctrl", None], {"control": "ctrl"}, "row 1 has nothing"),
    ],
)
def test_bad_labels_are_one_line(labels, options, message):
    options = {"perturbation": "condition", **options}
    with pytest.raises(InputError, match=message):
        read_effects(cells(labels), options.pop("perturbation"), **options)


def test_other_bad_input():
    with pytest.raises(InputError, match="no counts"):
        read_effects(cells(["ctrl", "A"], np.array([[0.5, 1], [1, 1]])), "condition", control="ctrl")
    with pytest.raises(InputError, match="no such file"):
        read_effects("absent.h5ad", "condition")
    with pytest.raises(InputError, match="'3 uM'"):
        number_column(pd.DataFrame({"dose": ["0", "3 uM"]}), "dose")
    with pytest.raises(InputError, match="names no gene"):
        parse_wanted(["ctrl"])


@given(st.lists(st.text("ABCDE", min_size=1, max_size=2), min_size=1, max_size=4), st.randoms())
def test_order_of_genes_in_a_label_does_not_matter(genes, random):
    other = list(genes)
    random.shuffle(other)
    assert parse_genes("+".join(genes)) == parse_genes("+".join(other)) == tuple(sorted(set(genes)))


GENES = [(f"g{i}",) for i in range(20)] + [(f"g{i}", f"g{j}") for i in range(8) for j in range(i)]


@pytest.mark.parametrize("seed", range(5))
def test_splits_keep_unseen_genes_unseen(seed):
    split = split_by_gene(GENES, seed=seed)
    seen = {gene for i in split.known for gene in GENES[i]}
    assert seen == split.seen
    parts = [split.train, split.validation, *split.test.values()]
    assert sorted(np.concatenate(parts)) == list(range(len(GENES)))
    for group, expected in (("unseen_single", 0), ("pair_seen0", 0), ("pair_seen1", 1), ("pair_seen2", 2)):
        for i in split.test.get(group, []):
            assert sum(gene in seen for gene in GENES[i]) == expected
    again = split_by_gene(GENES, seed=seed)
    assert again.train.tolist() == split.train.tolist()


def test_splits_by_label():
    drugs = ["a", "a", "b", "b", "c", "c"]
    split = split_by_label(drugs, ["a"], seed=0, validation=0.5, by=drugs)
    assert split.test["held_out"].tolist() == [0, 1]
    assert len(split.validation) == 2
    assert sorted(label for fold in folds(drugs, n=3, seed=1) for label in fold) == ["a", "b", "c"]
    with pytest.raises(InputError, match="nothing has"):
        split_by_label(drugs, ["z"], seed=0)
    with pytest.raises(InputError, match="too few"):
        split_by_gene([("A",), ("B",)], seed=0)


def test_learned_additive_finds_additive_effects():
    generator = np.random.default_rng(0)
    single = {f"g{i}": generator.normal(size=15) for i in range(8)}
    genes = [(f"g{i}",) for i in range(8)] + [(f"g{i}", f"g{j}") for i in range(8) for j in range(i)]
    delta = np.stack([sum(single[g] for g in condition) for condition in genes])
    known = [i for i in range(len(genes)) if i % 4]
    model = fit_additive(delta[known], [genes[i] for i in known])
    held = [i for i in range(len(genes)) if i % 4 == 0]
    predicted = model.predict([genes[i] for i in held])
    assert np.sqrt(np.mean((predicted - delta[held]) ** 2)) < 0.15 * delta[held].std()
    assert np.isfinite(model.predict([("new",), ("g0", "g1", "g2")])).all()


def test_tables(tmp_path):
    (tmp_path / "go.tsv").write_text("go_id\tgene_symbols\nt1\tA|B\nt2\tB|C\n")
    terms = read_go(tmp_path / "go.tsv")
    assert terms["B"] == {"t1", "t2"}
    table = go_table(terms, ["A", "B", "C", "D"])
    assert table.genes == ("A", "B", "C")
    assert table.coverage(["A", "D"]) == 0.5
    twin = shuffled(table, seed=3)
    np.testing.assert_allclose(np.sort(twin.table, axis=0), np.sort(table.table, axis=0))
    (tmp_path / "t.csv").write_text("gene,x\nA,1\nB,2\n")
    assert read_table("t", tmp_path / "t.csv").genes == ("A", "B")
    (tmp_path / "bad.csv").write_text("gene,x\nA,1\nA,2\n")
    with pytest.raises(InputError, match="'A' has two rows"):
        read_table("t", tmp_path / "bad.csv")
    (tmp_path / "text.csv").write_text("gene,x\nA,one\n")
    with pytest.raises(InputError, match="holds no numbers"):
        read_table("t", tmp_path / "text.csv")
    with pytest.raises(InputError, match="needs columns go_id"):
        read_go(tmp_path / "t.csv")


def test_real_files_are_read(data):
    effects = read_effects(str(data / "response/carpool2023_effects/carpool2023_effects.h5ad"), "perturbation")
    assert effects.delta.shape == (186, 2000)
    assert np.isfinite(effects.halves[:, effects.conditions.order == 2]).all()
    adata = anndata.read_h5ad(data / "response/norman2019_cells/norman2019_cells.h5ad")
    found = read_conditions(adata.obs, "condition", control="control")
    assert len(found) == 33
