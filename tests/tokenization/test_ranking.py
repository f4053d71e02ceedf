import itertools

import numpy as np
import pytest
from genecompass.tokenization.ranking import merge_shared_tokens, rank_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

dense_counts = st.integers(1, 6).flatmap(
    lambda rows: st.lists(
        st.lists(st.integers(0, 4) | st.integers(0, 100_000), min_size=12, max_size=12), min_size=rows, max_size=rows
    )
)


def _slow(dense, token, median, max_length=2048):
    """The definition, one cell and one gene at a time."""
    cells = []
    for row in np.asarray(dense, dtype=np.float64):
        total, scale = {}, {}
        for count, t, m in zip(row, token, median, strict=True):
            if t >= 0 and count > 0:
                total[t] = total.get(t, 0) + count
            scale.setdefault(t, m)
        pairs = [(-np.float32(np.log2(1 + c / scale[t])), t) for t, c in total.items()]
        cells.append([(t, -v) for v, t in sorted(pairs)][:max_length])
    return cells


def _fast(matrix, token, median, **kw):
    csr = sparse.csr_matrix(matrix)
    csr.sum_duplicates()
    bounds, ids, values = rank_cells(csr.indptr, csr.indices, csr.data, token, median, **kw)
    return [list(zip(ids[b:e].tolist(), values[b:e], strict=True)) for b, e in itertools.pairwise(bounds)]


@settings(max_examples=60, deadline=None)
@given(dense=dense_counts, seed=st.integers(0, 1000), ties=st.booleans(), max_length=st.sampled_from([3, 2048]))
def test_is_the_definition(dense, seed, ties, max_length):
    rng = np.random.default_rng(seed)
    token = rng.permutation(12).astype(np.int32) + 2
    token[rng.integers(0, 12)] = -1
    median = np.ones(12) if ties else rng.uniform(0.1, 9, 12)
    assert _fast(dense, token, median, max_length=max_length) == _slow(dense, token, median, max_length)


@settings(max_examples=40, deadline=None)
@given(dense=dense_counts, seed=st.integers(0, 1000))
def test_order_of_genes_and_cells_and_dtype_do_not_matter(dense, seed):
    rng = np.random.default_rng(seed)
    dense = np.array(dense)
    token, median = np.arange(2, 14, dtype=np.int32), rng.uniform(0.2, 5, 12)
    expected = _fast(dense, token, median)
    genes, cells = rng.permutation(12), rng.permutation(len(dense))
    turned = _fast(dense[cells][:, genes].astype(np.float32), token[genes], median[genes])
    assert turned == [expected[c] for c in cells]
    assert _fast(dense.astype(np.uint32), token, median) == expected


@settings(max_examples=30, deadline=None)
@given(dense=dense_counts)
def test_duplicated_columns_are_summed(dense):
    dense = np.array(dense)
    token, median = np.arange(2, 14, dtype=np.int32), np.linspace(0.5, 3, 12)
    half = dense // 2
    split = np.hstack([half, dense - half])
    assert _fast(split, np.tile(token, 2), np.tile(median, 2)) == _fast(dense, token, median)


def test_doubled_counts_change_values_as_the_formula_says():
    count, median = np.array([[1.0, 3.0, 10.0]]), np.array([2.0, 1.0, 4.0])
    token = np.array([2, 3, 4], np.int32)
    once = dict(_fast(count, token, median)[0])
    twice = dict(_fast(2 * count, token, median)[0])
    for t in token.tolist():
        assert 2 * (2.0 ** once[t] - 1) == pytest.approx(2.0 ** twice[t] - 1, rel=1e-5)


def test_ties_go_by_token():
    token = np.array([9, 4, 7, 5], np.int32)
    assert [t for t, _ in _fast(np.ones((1, 4)), token, np.ones(4))[0]] == [4, 5, 7, 9]


def test_many_cells_in_chunks_equal_one_by_one():
    rng = np.random.default_rng(0)
    matrix = sparse.random(300, 2000, 0.5, "csr", dtype=np.float64, random_state=0)
    matrix.data = np.ceil(matrix.data * 50)
    for token, median in (
        (np.arange(2, 2002, dtype=np.int32), rng.uniform(0.5, 4, 2000)),
        (rng.permutation(2000).astype(np.int32), np.ones(2000)),
    ):
        together = _fast(matrix, token, median, max_length=700)
        for cell in (0, 150, 299):
            assert _fast(matrix[cell], token, median, max_length=700)[0] == together[cell]
        assert together[7] == _slow(matrix[7].toarray(), token, median, 700)[0]


def test_library_size():
    token = np.array([2, 3, -1], np.int32)
    values = dict(_fast(np.array([[1.0, 1.0, 2.0], [10.0, 10.0, 20.0]]), token, np.ones(3), library_size=100)[1])
    assert values[2] == np.float32(np.log2(1 + 25))
    same = _fast(np.array([[1.0, 1.0, 2.0], [10.0, 10.0, 20.0]]), token, np.ones(3), library_size=100)
    assert same[0] == same[1]


def test_extreme_counts_and_empty_rows():
    token = np.array([2, 3, 4], np.int32)
    cells = _fast(np.array([[0, 0, 0], [1e9, 1, 1e-3], [0, 0, 0]]), token, np.array([1e-4, 1, 1e4]))
    assert [t for t, _ in cells[1]] == [2, 3, 4]
    assert cells[0] == cells[2] == []


def test_merge_leaves_unshared_counts_alone():
    counts = np.array([1, 2])
    assert merge_shared_tokens(np.array([0, 2]), np.array([0, 1]), counts, np.array([3, 4], np.int32)) is counts
