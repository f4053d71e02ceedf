"""Cells of one data set on disk, to be read again and again in blocks of cells and genes: memory stays flat."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ...tokenization.errors import InputError

Transform = Literal["counts", "log_counts", "log_normalized"]
TRANSFORMS = ("counts", "log_counts", "log_normalized")

_CELLS_A_CHUNK = 4096


class _MatrixFile:
    """CSR matrices appended to one file; each is read back whole by its number."""

    def __init__(self, path: Path) -> None:
        self.handle = open(path, "w+b")  # noqa: SIM115 - closed by the spool
        self.places: list[tuple[int, tuple[int, int], int]] = []

    def append(self, matrix: sp.csr_matrix) -> None:
        self.handle.seek(0, os.SEEK_END)
        self.places.append((self.handle.tell(), matrix.shape, matrix.nnz))
        for array, kind in ((matrix.indptr, np.int64), (matrix.indices, np.int32), (matrix.data, np.float64)):
            self.handle.write(np.ascontiguousarray(array, dtype=kind).data)

    def read(self, number: int) -> sp.csr_matrix:
        start, shape, entries = self.places[number]
        self.handle.seek(start)
        indptr = np.fromfile(self.handle, np.int64, shape[0] + 1)
        indices = np.fromfile(self.handle, np.int32, entries)
        data = np.fromfile(self.handle, np.float64, entries)
        return sp.csr_matrix((data, indices, indptr), shape=shape)


class CellSpool:
    """A temporary store of cells x genes on disk. Use it as a context manager.

    Parameters
    ----------
    tokens
        Own token of each column of the blocks that will be added, -1 where unknown. Columns of the same token are
        summed. Shape (columns,).
    transform
        ``counts``: as they are. ``log_counts``: log(1 + count), which tames single cells with very many reads.
        ``log_normalized``: log(1 + 10,000 * count / total of the cell). Counts below 1 are dropped in all three.
        Beware of the last with UMI counts: where two genes have one count each, both values depend on the cell's
        total alone, and every pair of rare genes comes out correlated (377,000 pairs at r >= 0.8 in 2,700 blood
        cells, against 19,000 on counts).
    folder
        Where the temporary files go; by default the system's.

    Examples
    --------
    >>> with CellSpool(np.array([2, 3])) as spool:
    ...     spool.add(sp.csr_matrix([[1, 2], [0, 4]]))
    ...     spool.n_cells, spool.expressed.tolist()
    (2, [1, 2])
    """

    def __init__(
        self,
        tokens: npt.NDArray[np.int64],
        *,
        transform: Transform = "counts",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if transform not in TRANSFORMS:
            raise InputError(f"transform {transform!r} is not known; choose one of {', '.join(TRANSFORMS)}")
        self.transform = transform
        self.genes = np.unique(tokens[tokens >= 0])
        known = np.flatnonzero(tokens >= 0)
        places = (known, np.searchsorted(self.genes, tokens[known]))
        self._to_genes = sp.csr_matrix((np.ones(len(known)), places), shape=(len(tokens), len(self.genes)))
        self.n_cells = 0
        self.expressed = np.zeros(len(self.genes), dtype=np.int64)
        self._sum = np.zeros(len(self.genes))
        self._square = np.zeros(len(self.genes))
        self._folder = tempfile.TemporaryDirectory(prefix="genecompass-cells-", dir=folder)
        self._cells = _MatrixFile(Path(self._folder.name) / "cells")
        self._split: list[_MatrixFile] = []

    def add(self, counts: sp.csr_matrix) -> None:
        """Add cells: raw counts, shape (cells, columns)."""
        counts = sp.csr_matrix(counts)
        totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        genes = sp.csr_matrix(counts @ self._to_genes)
        genes.data[genes.data < 1] = 0
        genes.eliminate_zeros()
        if self.transform == "log_counts":
            genes.data = np.log1p(genes.data)
        elif self.transform == "log_normalized":
            genes.data = np.log1p(genes.data * 1e4 / np.repeat(totals, np.diff(genes.indptr)))
        self.n_cells += genes.shape[0]
        self.expressed += np.bincount(genes.indices, minlength=len(self.genes))
        self._sum += np.bincount(genes.indices, genes.data, minlength=len(self.genes))
        self._square += np.bincount(genes.indices, genes.data**2, minlength=len(self.genes))
        self._cells.append(genes)

    def split_genes(self, keep: npt.NDArray[np.int64], size: int) -> None:
        """Lay the cells out anew in blocks of genes, each gene shifted by its mean and divided by its deviation.

        Pearson's r does not change with that, but sums of squares no longer cancel. Whole numbers are shifted by
        a whole number and not divided, so that their sums stay exact.

        Parameters
        ----------
        keep
            Columns (places in `genes`) in the order in which blocks take them.
        size
            Genes a block.
        """
        count = np.maximum(self.expressed, 1)
        shift = self._sum / count
        scale = np.sqrt(np.maximum(self._square / count - shift**2, 0))
        scale[scale == 0] = 1
        if self.transform == "counts":
            shift, scale = np.rint(shift), np.ones_like(scale)
        folder = Path(self._folder.name)
        starts = range(0, len(keep), size)
        self._split = [_MatrixFile(folder / f"genes-{number}") for number in range(len(starts))]
        for cells in self._chunks():
            cells.data = (cells.data - shift[cells.indices]) / scale[cells.indices]
            columns = cells.tocsc()[:, keep]
            for file, start in zip(self._split, starts, strict=True):
                file.append(columns[:, start : start + size].tocsr())

    def _chunks(self) -> Iterator[sp.csr_matrix]:
        """All cells in chunks of about equal size, whatever the sizes in which they were added."""
        waiting: list[sp.csr_matrix] = []
        for number in range(len(self._cells.places)):
            waiting.append(self._cells.read(number))
            while sum(part.shape[0] for part in waiting) >= _CELLS_A_CHUNK:
                together = sp.vstack(waiting, format="csr")
                yield together[:_CELLS_A_CHUNK]
                waiting = [together[_CELLS_A_CHUNK:]] if together.shape[0] > _CELLS_A_CHUNK else []
        if waiting:
            yield sp.vstack(waiting, format="csr")

    @property
    def n_chunks(self) -> int:
        """Chunks of cells after `split_genes`."""
        return len(self._split[0].places) if self._split else 0

    @property
    def n_blocks(self) -> int:
        """Blocks of genes after `split_genes`."""
        return len(self._split)

    def piece(self, chunk: int, block: int) -> sp.csr_matrix:
        """One chunk of cells of one block of genes, shifted and scaled; a stored zero is an expressed gene."""
        return self._split[block].read(chunk)

    def close(self) -> None:
        """Remove the temporary files."""
        for file in [self._cells, *self._split]:
            file.handle.close()
        self._folder.cleanup()

    def __enter__(self) -> "CellSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def dense_piece(piece: sp.csr_matrix, dtype: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Values and 0/1 of expressed, both dense, shape (cells, genes)."""
    rows = np.repeat(np.arange(piece.shape[0]), np.diff(piece.indptr))
    values = np.zeros(piece.shape, dtype=dtype)
    expressed = np.zeros(piece.shape, dtype=dtype)
    values[rows, piece.indices] = piece.data
    expressed[rows, piece.indices] = 1
    return values, expressed
