"""Rows of matrices in HDF5 and zarr groups, laid out as AnnData lays them out: CSR, CSC or dense."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..errors import InputError
from .memory import SlicedRows, check_pointers, csr_from_parts
from .source import MOST_ENTRIES, Rows


def rows_of(element: Any, *, name: str) -> Rows:
    """Choose the reader for a matrix element of an AnnData file.

    Parameters
    ----------
    element
        An HDF5 or zarr group (sparse) or array (dense), as AnnData 0.6 and later write them.
    """
    if not hasattr(element, "keys"):
        if len(element.shape) != 2:
            raise InputError(f"{name}: the matrix has {len(element.shape)} dimensions; expected cells by genes")
        return SlicedRows(element, element.shape)
    attributes = element.attrs
    layout = str(attributes.get("encoding-type", attributes.get("h5sparse_format", "")))
    shape = attributes.get("shape", attributes.get("h5sparse_shape"))
    missing = [key for key in ("data", "indices", "indptr") if key not in element]
    if missing or shape is None:
        raise InputError(
            f"{name}: a sparse matrix without {missing[0] if missing else 'shape'}: damaged, or not AnnData"
        )
    size = (int(shape[0]), int(shape[1]))
    if layout.startswith("csr"):
        return CsrRows(element["data"], element["indices"], element["indptr"], size)
    if layout.startswith("csc"):
        return CscRows(element["data"], element["indices"], element["indptr"], size)
    raise InputError(f"{name}: matrix of unknown layout {layout!r}; expected csr, csc or dense")


def _pointers(indptr: Any, n_major: int, data: Any, indices: Any) -> npt.NDArray[np.int64]:
    """Row or column pointers, whole and in order: what follows them is compiled code that does not ask."""
    if any(array.ndim != 1 for array in (indptr, data, indices)) or indices.dtype.kind not in "iu":
        raise InputError("sparse matrix whose parts are no lists of numbers: damaged")
    if indptr.shape[0] != n_major + 1:
        raise InputError(f"sparse matrix with {indptr.shape[0]} pointers for {n_major} rows: truncated or damaged")
    found = np.asarray(indptr[:])
    try:
        check_pointers(found, n_major, min(data.shape[0], indices.shape[0]))
    except ValueError as error:
        raise InputError(f"sparse matrix: {error}") from error
    return found.astype(np.int64)


class CsrRows:
    """Rows of a CSR matrix on disk: each block is one contiguous read of two arrays."""

    def __init__(self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int]) -> None:
        self._data, self._indices, self.shape = data, indices, shape
        self._indptr = _pointers(indptr, shape[0], data, indices)

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows, shorter where rows are full."""
        while start < stop:
            limit = int(np.searchsorted(self._indptr, self._indptr[start] + MOST_ENTRIES, side="right")) - 1
            end = min(stop, start + block_rows, max(limit, start + 1))
            begin, finish = int(self._indptr[start]), int(self._indptr[end])
            indptr = self._indptr[start : end + 1] - begin
            yield start, csr_from_parts(self._data[begin:finish], self._indices[begin:finish], indptr, self.shape[1])
            start = end


class CscRows:
    """Rows of a CSC matrix on disk, which stores genes one after another.

    Rows are gathered window by window: each window holds as many cells as fit the memory budget, and costs one
    pass over the file. Nothing is written to disk.
    """

    def __init__(
        self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int], *, window_entries: int = 4 * MOST_ENTRIES
    ) -> None:
        self._data, self._indices, self.shape = data, indices, shape
        self._indptr = _pointers(indptr, shape[1], data, indices)
        self._window_entries = window_entries

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows, cut from windows of rows."""
        filled = np.cumsum(self._row_sizes())
        while start < stop:
            before = filled[start - 1] if start else 0
            end = int(np.searchsorted(filled, before + self._window_entries, side="right"))
            end = min(stop, max(end, start + 1))
            window = self._window(start, end)
            for first in range(start, end, block_rows):
                yield first, window[first - start : min(first + block_rows, end) - start]
            start = end

    def _pieces(self) -> Iterator[tuple[int, npt.NDArray[np.integer]]]:
        for begin in range(0, int(self._indptr[-1]), MOST_ENTRIES):
            yield begin, self._indices[begin : min(begin + MOST_ENTRIES, int(self._indptr[-1]))]

    def _row_sizes(self) -> npt.NDArray[np.int64]:
        sizes = np.zeros(self.shape[0], dtype=np.int64)
        for _, rows in self._pieces():
            if len(rows) and (rows.min() < 0 or rows.max() >= self.shape[0]):
                raise ValueError(f"row index out of range 0..{self.shape[0] - 1}")
            sizes += np.bincount(rows, minlength=self.shape[0])
        return sizes

    def _window(self, start: int, end: int) -> sparse.csr_matrix:
        data, row, column = [], [], []
        for begin, rows in self._pieces():
            mine = np.flatnonzero((rows >= start) & (rows < end))
            data.append(self._data[begin : begin + len(rows)][mine])
            row.append((rows[mine] - start).astype(np.int32))
            column.append((np.searchsorted(self._indptr, mine + begin, side="right") - 1).astype(np.int32))
        if not data:
            return sparse.csr_matrix((end - start, self.shape[1]), dtype=self._data.dtype)
        parts = (np.concatenate(data), (np.concatenate(row), np.concatenate(column)))
        return sparse.coo_matrix(parts, shape=(end - start, self.shape[1])).tocsr()
