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

    What fits the memory budget is transposed in memory, once; a larger matrix is transposed once into temporary files.
    Either way every further block costs no more than a block of a matrix that is stored by cells.
    """

    def __init__(
        self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int], *, window_entries: int = 4 * MOST_ENTRIES
    ) -> None:
        self._data, self._indices, self.shape = data, indices, shape
        self._indptr = _pointers(indptr, shape[1], data, indices)
        self._window_entries = window_entries
        self._by_cell: Any = None

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows."""
        if self._by_cell is None:
            self._by_cell = self._transposed()
        if not sparse.issparse(self._by_cell):
            yield from self._by_cell.blocks(start, stop, block_rows)
            return
        for first in range(start, stop, block_rows):
            yield first, self._by_cell[first : min(first + block_rows, stop)]

    def _transposed(self) -> Any:
        """The matrix by cells: in memory, or spooled."""
        if int(self._indptr[-1]) > self._window_entries:
            from .spool import spool_by_cell

            return spool_by_cell(self._pieces, self.shape, int(self._indptr[-1]))
        cells = np.asarray(self._indices[:])
        self._check(cells)
        return sparse.csc_matrix((self._data[:], cells, self._indptr), shape=self.shape).tocsr()

    def _check(self, cells: npt.NDArray[np.integer]) -> None:
        if len(cells) and (cells.min() < 0 or cells.max() >= self.shape[0]):
            raise ValueError(f"row index out of range 0..{self.shape[0] - 1}")

    def _pieces(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Cells, genes and values of stretches of entries, gene by gene."""
        for begin in range(0, int(self._indptr[-1]), MOST_ENTRIES):
            end = min(begin + MOST_ENTRIES, int(self._indptr[-1]))
            cell = np.asarray(self._indices[begin:end]).astype(np.int64)
            self._check(cell)
            gene = np.searchsorted(self._indptr, np.arange(begin, end), side="right") - 1
            yield cell, gene.astype(np.int64), self._data[begin:end]
