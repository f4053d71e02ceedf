"""Cells in blocks of rows, checked to be raw counts as they pass."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ..cell_options import LEAST_COVERAGE
from ..errors import InputError
from .counts import check_counts

# no block holds more entries than this, however many rows were asked for: about 50 MB with indices
MOST_ENTRIES = 4_000_000
# where AnnData files say what a column is, and what a gene is called there
_FEATURE_TYPES = ("feature_types", "feature_type")
_EXPRESSION = ("gene expression", "gene", "rna", "gex", "expression")


class Rows(Protocol):
    """A count matrix, cells by genes, that gives out blocks of rows."""

    shape: tuple[int, int]

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Consecutive blocks of at most `block_rows` rows from `start` to `stop`, with the first row of each."""
        ...


class CellSource:
    """Cells of one file or AnnData, as their raw counts.

    Attributes
    ----------
    name
        File name, for messages and as the name of the data set.
    n_cells, n_genes
        Shape of the matrix.
    var, obs
        What is known of genes and cells; the index holds their names.
    counts_from
        Where the raw counts were found: ``"X"``, ``"raw"`` or a layer.
    gene_column, rescue_ids, min_coverage, shared_genes
        How its genes are looked up, how many must be known, and by whom else measured: see `CellOptions`.

    Examples
    --------
    >>> import anndata
    >>> from genecompass.tokenization.readers import open_cells
    >>> source = open_cells(anndata.AnnData(sparse.csr_matrix([[1, 0, 2], [0, 3, 0]])))
    >>> [(first, block.toarray().tolist()) for first, block in source.blocks()]
    [(0, [[1, 0, 2], [0, 3, 0]])]
    """

    def __init__(
        self,
        rows: Rows,
        *,
        name: str,
        obs: pd.DataFrame,
        var: pd.DataFrame,
        counts_from: str = "X",
        block_rows: int = 4096,
        allow_fractional: bool = False,
        keep_columns: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        if rows.shape != (len(obs), len(var)):
            raise InputError(f"{name}: the matrix is {rows.shape}, but there are {len(obs)} cells and {len(var)} genes")
        if not len(obs) or not len(var):
            raise InputError(f"{name}: holds {len(obs)} cells and {len(var)} genes; nothing to read")
        self.name, self.obs, self.counts_from = name, obs, counts_from
        self.block_rows, self.allow_fractional = block_rows, allow_fractional
        self.gene_column: str | None = None
        self.rescue_ids = False
        self.min_coverage = LEAST_COVERAGE
        self.shared_genes: CellSource | None = None
        self._rows = rows
        keep_columns = _expression_columns(var) if keep_columns is None else keep_columns
        self._columns = None if keep_columns is None or keep_columns.all() else np.flatnonzero(keep_columns)
        self.var = var if self._columns is None else var.iloc[self._columns]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self._rows.shape[0]

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.var)

    def __repr__(self) -> str:
        return f"CellSource({self.name!r}, {self.n_cells} cells x {self.n_genes} genes, counts from {self.counts_from})"

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of consecutive cells with their first row's number, each at most `block_rows` long.

        Raises
        ------
        InputError
            When a value is not a raw count: which cell, which value, and what to do.
        """
        stop = self.n_cells if stop is None else min(stop, self.n_cells)
        names = self._all_genes()
        for first, block in readable(self._rows.blocks(start, stop, self.block_rows), self.name):
            check_counts(
                block,
                where=f"{self.name} ({self.counts_from})",
                cells=self.obs.index[first : first + block.shape[0]],
                genes=names,
                allow_fractional=self.allow_fractional,
            )
            if self._columns is not None:
                block = block[:, self._columns]
            if not block.has_canonical_format:
                block = block.copy()  # the arrays may be the user's own
                block.sum_duplicates()
            yield first, block

    def _all_genes(self) -> pd.Index:
        return self.var.index if self._columns is None else pd.RangeIndex(self._rows.shape[1])


def _expression_columns(var: pd.DataFrame) -> npt.NDArray[np.bool_] | None:
    """Columns of gene expression, where a matrix holds antibodies or guides beside them; None where it does not say."""
    column = next((name for name in _FEATURE_TYPES if name in var.columns), None)
    if column is None:
        return None
    expression = var[column].astype(str).str.lower().isin(_EXPRESSION).to_numpy()
    return expression if expression.any() else None


def readable(blocks: Iterator[tuple[int, sparse.csr_matrix]], name: str) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Turn a storage library's complaint about a damaged file into one line that says so."""
    while True:
        try:
            item = next(blocks)
        except StopIteration:
            return
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{name}: cannot be read to its end, it may be truncated or damaged ({reason})") from error
        yield item
