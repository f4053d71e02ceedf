"""Thinned counts: the same cell from any block, the expected share, and nothing that was not there."""

import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.thinning import thin_counts
from genecompass.tokenization.tokenize import tokenize_cells
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse


@given(st.integers(0, 5), st.floats(0.05, 1), st.integers(0, 9))
def test_a_cell_is_thinned_alike_in_any_block(cut, share, seed):
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.5, (6, 20)).astype(np.float32))
    whole = thin_counts(counts, share, seed=seed)
    parts = [thin_counts(counts[:cut], share, seed=seed), thin_counts(counts[cut:], share, seed=seed, first_row=cut)]
    assert (whole != sparse.vstack(parts)).nnz == 0
    assert (whole > counts).nnz == 0
    assert whole.data.all()


def test_the_share_is_kept_on_average():
    counts = sparse.csr_matrix(np.full((50, 200), 10, dtype=np.float32))
    assert thin_counts(counts, 0.3).sum() / counts.sum() == pytest.approx(0.3, abs=0.01)
    assert (thin_counts(counts, 1.0) != counts).nnz == 0
    assert counts.sum() == 50 * 200 * 10


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_other_shares_are_refused(share):
    with pytest.raises(InputError, match="cannot thin counts"):
        thin_counts(sparse.csr_matrix((1, 1)), share)


def test_tokenising_thinned_cells_does_not_depend_on_blocks():
    table = GeneTable.from_genes(
        pd.DataFrame(
            {
                "gene_id": [f"ENSG{i:011d}" for i in range(30)],
                "symbol": [f"G{i}" for i in range(30)],
                "species": "human",
            }
        )
    )
    counts = np.random.default_rng(1).poisson(2.0, (40, 30)).astype(np.float32)
    adata = anndata.AnnData(counts, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))
    options = {"species": "human", "empty_cells": "keep", "keep_share": 0.5, "seed": 3}
    whole, blocks = (tokenize_cells(adata, table, block_rows=rows, **options) for rows in (4096, 7))
    assert np.array_equal(whole.input_ids, blocks.input_ids)
    assert np.array_equal(whole.values, blocks.values)
    assert whole.lengths.sum() < (counts > 0).sum()
