"""Text matrices, parsed once in pieces into a temporary binary matrix that can be read in any order.

Memory stays bounded; the temporary files go when the source is no longer in use.
"""

import gzip
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ..errors import InputError
from ..packed import LONGEST_LINE
from .on_disk import CscRows, CsrRows

_LINES = 1_000_000

Piece = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


class Spool:
    """A sparse matrix written piece by piece to temporary files, sorted by its major axis; then read as rows.

    Parameters
    ----------
    shape
        Cells by genes.
    by_cell
        Whether pieces come cell by cell (else gene by gene).
    """

    def __init__(self, shape: tuple[int, int], *, by_cell: bool) -> None:
        self.shape = shape
        self._by_cell = by_cell
        self._folder = tempfile.mkdtemp(prefix="genecompass-")
        self._close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._data = Path(self._folder, "data")
        self._minor = Path(self._folder, "indices")
        self._sizes = np.zeros(shape[0] if by_cell else shape[1], dtype=np.int64)
        self._rows: CsrRows | CscRows | None = None

    def add(self, major: npt.NDArray[np.int64], minor: npt.NDArray[np.int64], data: npt.NDArray[np.float64]) -> None:
        """Append entries, in the order of `major`."""
        self._sizes += np.bincount(major, minlength=len(self._sizes))
        with open(self._data, "ab") as handle:
            handle.write(np.ascontiguousarray(data, dtype=np.float64).tobytes())
        with open(self._minor, "ab") as handle:
            handle.write(np.ascontiguousarray(minor, dtype=np.int32).tobytes())

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows."""
        if self._rows is None:
            indptr = np.concatenate(([0], np.cumsum(self._sizes)))
            size = int(indptr[-1])
            data = np.memmap(self._data, np.float64, "r", shape=(size,)) if size else np.empty(0)
            minor = np.memmap(self._minor, np.int32, "r", shape=(size,)) if size else np.empty(0, np.int32)
            kind = CsrRows if self._by_cell else CscRows
            self._rows = kind(data, minor, indptr, self.shape)
        return self._rows.blocks(start, stop, block_rows)


def spool_triplets(path: Path, *, n_cells: int, n_genes: int) -> Spool:
    """Parse a Matrix Market file, genes by cells (as 10x writes it) or cells by genes.

    Entries may stand in any order; one sorted by cell, as 10x writes it, is parsed in one pass.
    """
    with _open(path) as lines:
        shape, size = _header(lines, path)
        if shape not in ((n_genes, n_cells), (n_cells, n_genes)):
            raise InputError(f"{path}: is {shape[0]} x {shape[1]}, but there are {n_genes} genes and {n_cells} cells")
        genes_first = shape == (n_genes, n_cells)
        spool = Spool((n_cells, n_genes), by_cell=True)
        last, seen = -1, 0
        for cell, gene, value in _triplets(lines, path, genes_first):
            seen += len(cell)
            if len(cell) and (cell[0] < last or bool((np.diff(cell) < 0).any())):
                break
            _check_range(cell, gene, n_cells, n_genes, path)
            spool.add(cell, gene, value)
            last = int(cell[-1]) if len(cell) else last
        else:
            _check_size(seen, size, path)
            return spool
    return _spool_unsorted(path, n_cells, n_genes, genes_first, size)


def _spool_unsorted(path: Path, n_cells: int, n_genes: int, genes_first: bool, size: int) -> Spool:
    """Entries in another order, mostly gene by gene: sort each piece by cell and merge the pieces window by window."""

    def pieces() -> Iterator[Piece]:
        seen = 0
        with _open(path) as lines:
            _header(lines, path)
            for cell, gene, value in _triplets(lines, path, genes_first):
                seen += len(cell)
                _check_range(cell, gene, n_cells, n_genes, path)
                yield cell, gene, value
        _check_size(seen, size, path)

    return spool_by_cell(pieces, (n_cells, n_genes), size)


def spool_by_cell(pieces_of: Callable[[], Iterator[Piece]], shape: tuple[int, int], size: int) -> Spool:
    """Entries in any order as a matrix by cells: each piece is sorted by cell, then all are merged window by window.

    Parameters
    ----------
    pieces_of
        Gives cells, genes and values of so many entries at a time.
    shape
        Cells by genes.
    size
        Number of entries, by which windows are sized.
    """
    n_cells, n_genes = shape
    pieces: list[Spool] = []
    for cell, gene, value in pieces_of():
        order = np.argsort(cell, kind="stable")
        pieces.append(Spool(shape, by_cell=True))
        pieces[-1].add(cell[order], gene[order], value[order])
    merged = Spool(shape, by_cell=True)
    step = max(1, int(n_cells * _LINES / max(size, 1)))
    for start in range(0, n_cells, step):
        stop = min(start + step, n_cells)
        window = sum(
            (block for piece in pieces for _, block in piece.blocks(start, stop, stop - start)),
            sparse.csr_matrix((stop - start, n_genes)),
        )
        coo = sparse.csr_matrix(window).tocoo()
        order = np.argsort(coo.row, kind="stable")
        merged.add(coo.row[order].astype(np.int64) + start, coo.col[order].astype(np.int64), coo.data[order])
    return merged


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8")


def _header(lines: IO[str], path: Path) -> tuple[tuple[int, int], int]:
    first = lines.readline(LONGEST_LINE)
    if not first.startswith("%%MatrixMarket matrix coordinate"):
        raise InputError(f"{path}: not a sparse Matrix Market file")
    line = lines.readline(LONGEST_LINE)
    while line.startswith("%"):
        line = lines.readline(LONGEST_LINE)
    try:
        n_rows, n_columns, size = (int(part) for part in line.split())
    except ValueError as error:
        raise InputError(f"{path}: no size line 'rows columns entries'") from error
    return (n_rows, n_columns), size


def _triplets(lines: IO[str], path: Path, genes_first: bool) -> Iterator[Piece]:
    try:
        for piece in pd.read_csv(lines, sep=r"\s+", header=None, comment="%", chunksize=_LINES, engine="c"):
            if piece.shape[1] != 3:
                raise InputError(f"{path}: expected three numbers a line, found {piece.shape[1]}")
            first = piece[0].to_numpy(np.int64) - 1
            second = piece[1].to_numpy(np.int64) - 1
            cell, gene = (second, first) if genes_first else (first, second)
            yield cell, gene, piece[2].to_numpy(np.float64)
    except pd.errors.EmptyDataError:
        return
    except (EOFError, OSError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated or damaged ({' '.join(str(error).split())[:120]})") from error


def _check_range(cell: np.ndarray, gene: np.ndarray, n_cells: int, n_genes: int, path: Path) -> None:
    if len(cell) and (min(cell.min(), gene.min()) < 0 or cell.max() >= n_cells or gene.max() >= n_genes):
        raise InputError(f"{path}: an entry lies outside of {n_genes} genes x {n_cells} cells")


def _check_size(seen: int, size: int, path: Path) -> None:
    if seen != size:
        raise InputError(f"{path}: truncated: {seen} entries, where its header says {size}")
