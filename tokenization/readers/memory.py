"""Rows of matrices in memory: sparse of any layout, or dense."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from .source import MOST_ENTRIES


class MemoryRows:
    """Rows of a SciPy sparse matrix or a NumPy array.

    Parameters
    ----------
    matrix
        Cells by genes. CSC is turned to CSR once, when the first block is asked for.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix, self._checked = matrix, False
        self.shape = (int(matrix.shape[0]), int(matrix.shape[1]))

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows; the arrays of a CSR matrix are shared, not copied."""
        if sparse.issparse(self._matrix) and not self._checked:
            check_sparse(self._matrix)
            self._matrix, self._checked = self._matrix.tocsr(), True
        for first in range(start, stop, block_rows):
            last = min(first + block_rows, stop)
            if sparse.issparse(self._matrix):
                yield first, _csr_rows(self._matrix, first, last)
            else:
                yield first, dense_to_csr(np.asarray(self._matrix[first:last]))


class SlicedRows:
    """Rows of anything that gives a matrix for ``matrix[start:stop]``: backed AnnData, HDF5 and zarr arrays."""

    def __init__(self, matrix: Any, shape: tuple[int, int]) -> None:
        self._matrix, self.shape = matrix, (int(shape[0]), int(shape[1]))

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows, shorter where the matrix is wide."""
        step = max(1, min(block_rows, MOST_ENTRIES // max(1, self.shape[1])))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            block = self._matrix[first:last]
            yield first, block.tocsr() if sparse.issparse(block) else dense_to_csr(np.asarray(block))


def _csr_rows(matrix: Any, first: int, last: int) -> sparse.csr_matrix:
    begin, end = matrix.indptr[first], matrix.indptr[last]
    return csr_from_parts(
        matrix.data[begin:end], matrix.indices[begin:end], matrix.indptr[first : last + 1] - begin, matrix.shape[1]
    )


def csr_from_parts(data: Any, indices: Any, indptr: Any, n_columns: int) -> sparse.csr_matrix:
    """Build a CSR block without copies; indices and pointers out of range are an error, as in a damaged file."""
    check_pointers(indptr, len(indptr) - 1, min(len(indices), len(data)))
    if len(indices) and (indices.min() < 0 or indices.max() >= n_columns):
        raise ValueError(f"column index out of range 0..{n_columns - 1}")
    return sparse.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, n_columns), copy=False)


def check_pointers(indptr: Any, n_major: int, entries: int) -> None:
    """Refuse row or column pointers that lead outside of the entries: compiled code follows them unasked.

    Parameters
    ----------
    indptr
        Pointers, one more than there are rows (or columns).
    n_major
        Number of rows (or columns).
    entries
        Number of entries.

    Raises
    ------
    ValueError
        Too few pointers, not ascending, or beyond the entries.

    Examples
    --------
    >>> check_pointers(np.array([0, 2, 3]), 2, 3)
    """
    indptr = np.asarray(indptr)
    if indptr.ndim != 1 or indptr.dtype.kind not in "iu":
        raise ValueError(f"pointers of type {indptr.dtype} and {indptr.ndim} dimensions: damaged")
    if len(indptr) != n_major + 1:
        raise ValueError(f"{len(indptr)} pointers for {n_major} rows: truncated or damaged")
    if indptr[0] != 0 or bool((indptr[1:] < indptr[:-1]).any()) or int(indptr[-1]) > entries:
        raise ValueError(f"pointers must rise from 0 to at most {entries} entries: truncated or damaged")


def check_sparse(matrix: Any) -> None:
    """Refuse a SciPy matrix whose pointers or indices lead outside of it; ValueError says which.

    Examples
    --------
    >>> check_sparse(sparse.csr_matrix([[1, 0], [0, 2]]))
    """
    if matrix.format in ("csr", "csc"):
        n_major, n_minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
        check_pointers(matrix.indptr, n_major, min(len(matrix.indices), len(matrix.data)))
        _check_indices(matrix.indices, n_minor)
    elif matrix.format == "coo":
        for axis, indices in enumerate((matrix.row, matrix.col)):
            _check_indices(indices, matrix.shape[axis])


def _check_indices(indices: Any, n: int) -> None:
    if len(indices) and (indices.min() < 0 or indices.max() >= n):
        raise ValueError(f"index out of range 0..{n - 1}: damaged")


def dense_to_csr(block: Any) -> sparse.csr_matrix:
    """Non-zero entries of a dense block; NaN counts as an entry, so that the check for raw counts sees it."""
    rows, columns = np.nonzero(block)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=block.shape[0]))))
    return sparse.csr_matrix((block[rows, columns], columns.astype(np.int32), indptr), shape=block.shape)
