import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.tokenize import TokenizedCells, iter_tokenized, tokenize_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse


def _same(a, b):
    for name in ("indptr", "input_ids", "values", "species", "rows"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def _by_name(cells, names):
    return {
        names[row]: (c["input_ids"].tolist(), c["values"].tolist()) for row, c in zip(cells.rows, cells, strict=True)
    }


def test_types_and_report(adata, table):
    cells = tokenize_cells(adata, table, species="human")
    assert isinstance(cells, TokenizedCells)
    assert len(cells) == 25
    types = {name: getattr(cells, name).dtype.name for name in ("indptr", "input_ids", "values", "species", "rows")}
    assert types == {"indptr": "int64", "input_ids": "int32", "values": "float32", "species": "int16", "rows": "int64"}
    assert cells.report.share_of_counts_kept == 1
    written = adata.uns["genecompass"]["coverage"]
    assert written["coverage"]["human"]["by_id"] == 40
    assert written["kept"] == 25
    assert "40 of 40 genes matched (40 by id)" in str(cells.report)
    assert cells[-1]["species"] == 0
    with pytest.raises(IndexError):
        cells[25]


def test_the_report_in_uns_can_be_saved(adata, table, tmp_path):
    tokenize_cells(adata, table, species="human")
    adata.write_h5ad(tmp_path / "with_report.h5ad")
    again = anndata.read_h5ad(tmp_path / "with_report.h5ad")
    assert again.uns["genecompass"]["coverage"]["coverage"]["human"]["genes"] == 40


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), block_rows=st.integers(1, 30), split=st.integers(1, 24))
def test_permutation_blocks_and_dtype_never_change_a_cell(table, counts, seed, block_rows, split):
    rng = np.random.default_rng(seed)
    names = [f"HGENE{i}" for i in range(39)] + ["MT-CO1"]
    obs = pd.DataFrame(index=[f"c{i}" for i in range(25)])
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=names))
    expected = _by_name(tokenize_cells(adata, table, species="human"), adata.obs_names)
    other = adata[rng.permutation(25)][:, rng.permutation(40)].copy()
    other.X = other.X.astype(rng.choice(["int32", "float64", "uint16", "int64"]))
    if rng.random() < 0.5:
        other.X = other.X.toarray() if rng.random() < 0.5 else other.X.tocsc()
    parts = [
        *iter_tokenized(other, table, species="human", block_rows=block_rows, stop=split),
        *iter_tokenized(other, table, species="human", block_rows=block_rows, start=split),
    ]
    assert _by_name(TokenizedCells.concatenate(parts), other.obs_names) == expected


@pytest.mark.parametrize("ending", ["h5ad", "zarr", "csv"])
def test_storage_format_never_changes_a_cell(adata, table, tmp_path, ending):
    expected = tokenize_cells(adata, table, species="human")
    path = tmp_path / f"cells.{ending}"
    if ending == "csv":
        adata.to_df().astype(int).to_csv(path)
    else:
        getattr(adata, f"write_{ending}")(path)
    _same(tokenize_cells(path, table, species="human"), expected)


def test_duplicated_columns_are_summed_before_the_logarithm(adata, table):
    expected = tokenize_cells(adata, table, species="human")
    half = sparse.csr_matrix(np.floor(adata.X.toarray() / 2))
    doubled = anndata.AnnData(sparse.hstack([half, adata.X - half]).tocsr(), var=pd.concat([adata.var, adata.var]))
    cells = tokenize_cells(doubled, table, species="human")
    _same(cells, expected)


def test_species_column(adata, table):
    mouse = [f"Hgene{i}" for i in range(30)]
    adata.obs["organism"] = ["human", "mouse", "mouse", "human", "human"] * 5
    cells = tokenize_cells(adata, table, species="organism", gene_species="human")
    assert cells.rows.tolist() == list(range(25))
    assert cells.species.tolist() == [0, 1, 1, 0, 0] * 5
    human = tokenize_cells(adata[adata.obs["organism"] == "human"], table, species="human")
    np.testing.assert_array_equal(cells[3]["values"], human[1]["values"])
    assert set(cells.report.coverage) == {"human", "mouse"}
    assert cells.report.coverage["mouse"].cells == 10
    # the mouse cell has the human token, scaled by the mouse median
    token, row = 2 + 3, adata.X[1].toarray().ravel()
    place = cells[1]["input_ids"].tolist().index(token)
    assert cells[1]["values"][place] == np.float32(np.log2(1 + row[3] / table.medians[42 + 3]))
    assert mouse[3] == "Hgene3"


def test_bad_species_column(adata, table):
    with pytest.raises(
        InputError, match=r"'organism' is neither a species .*\(human, mouse\) nor an obs column \(batch\)"
    ):
        tokenize_cells(adata, table, species="organism")
    adata.obs["organism"] = ["human"] * 24 + ["zebrafish"]
    with pytest.raises(InputError, match="unknown species 'zebrafish'"):
        tokenize_cells(adata, table, species="organism")


class TestEmptyCells:
    @pytest.fixture
    def holed(self, adata):
        dense = adata.X.toarray()
        dense[[3, 24]] = 0
        adata.X = sparse.csr_matrix(dense)
        return adata

    def test_are_an_error(self, holed, table):
        with pytest.raises(InputError, match="cell 'cell3' has no counts of any known gene; drop such cells"):
            tokenize_cells(holed, table, species="human")

    def test_are_dropped_or_kept_when_told(self, holed, table):
        dropped = tokenize_cells(holed, table, species="human", empty_cells="drop")
        assert len(dropped) == 23
        assert dropped.report.removed == {"empty": 2}
        assert 3 not in dropped.rows
        kept = tokenize_cells(holed, table, species="human", empty_cells="keep")
        assert kept.lengths[[3, 24]].tolist() == [0, 0]
        np.testing.assert_array_equal(kept.input_ids, dropped.input_ids)

    def test_all_of_them(self, adata, table):
        adata.X = sparse.csr_matrix(adata.shape)
        with pytest.raises(InputError, match="no cells left of 25"):
            tokenize_cells(adata, table, species="human", empty_cells="drop")


@pytest.mark.parametrize(("option", "message"), [({"max_length": 0}, "max_length is 0"), ({"empty_cells": "x"}, "'x'")])
def test_bad_options(adata, table, option, message):
    with pytest.raises(InputError, match=message):
        tokenize_cells(adata, table, species="human", **option)


def test_max_length_keeps_the_largest(adata, table):
    full = tokenize_cells(adata, table, species="human")
    short = tokenize_cells(adata, table, species="human", max_length=5)
    for a, b in zip(full, short, strict=True):
        np.testing.assert_array_equal(a["input_ids"][:5], b["input_ids"])
