"""The cells to perturb, and which of their columns a gene's name means."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.files import read_text
from ...tokenization.gene_table import GeneTable
from ...tokenization.matching import GeneMatch, match_columns
from ...tokenization.readers import CellOptions, open_cells
from ...tokenization.tokenize import judge_coverage
from .edits import CellEditor, Edit, expression_levels
from .matching import GeneProfile

# what the column of genes is called, in lists that people keep
_HEADINGS = ("tf", "gene", "gene_symbol", "symbol", "gene_name", "gene_id", "ensembl_id", "regulator", "name")


@dataclass(frozen=True)
class PerturbedCells:
    """Counts of the chosen cells with what is needed to turn them into tokens.

    Parameters
    ----------
    counts
        (cells, columns) raw counts; columns that share a token are summed into the first.
    rows
        Where each cell stands in the source.
    names
        Name of every column.
    match
        Tokens and medians of the columns.
    obs
        Annotation of the chosen cells.
    max_length
        Genes a model sees per cell.
    reference
        Counts, with the same columns, of the cells by which ranks, detection and who is expressed are judged; these
        cells themselves where None.
    level_reference
        Counts, with the same columns, of the cells whose levels over-expression takes; `reference` where None.
    """

    counts: sparse.csr_matrix
    rows: npt.NDArray[np.int64]
    names: npt.NDArray[np.object_]
    match: GeneMatch
    obs: pd.DataFrame
    table: GeneTable
    max_length: int
    reference: sparse.csr_matrix | None = None
    level_reference: sparse.csr_matrix | None = None

    @property
    def levels_by(self) -> sparse.csr_matrix:
        """Counts that show at what level a gene is expressed."""
        return self.judged_by if self.level_reference is None else self.level_reference

    @property
    def judged_by(self) -> sparse.csr_matrix:
        """Counts by which expression is judged."""
        return self.counts if self.reference is None else self.reference

    def __len__(self) -> int:
        return self.counts.shape[0]

    def cell(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Columns and counts of a cell's expressed genes that the model knows."""
        begin, end = self.counts.indptr[index], self.counts.indptr[index + 1]
        return self.counts.indices[begin:end].astype(np.int64), self.counts.data[begin:end]

    def gene_id(self, column: int) -> str:
        """Gene id of a column in the model's table."""
        frame = self.table.frame
        known = np.flatnonzero(
            (self.table.token_in_cell == self.match.cell_token[column])
            & (frame["species"].to_numpy() == self.match.species)
        )
        return str(frame["gene_id"].iloc[known[0]]) if len(known) else ""

    def human_symbols(self, columns: npt.ArrayLike) -> list[str]:
        """Symbols by which columns are looked up in lists of human genes: that of the human homolog, else their own."""
        frame = self.table.frame
        human = np.flatnonzero(frame["species"].to_numpy() == "human")
        symbols = frame["symbol"].astype(str).to_numpy()
        of_token = {int(self.table.token_in_cell[row]): symbols[row] for row in human[::-1]}
        wanted = np.asarray(columns, dtype=np.int64)
        return [str(of_token.get(int(self.match.cell_token[column]), self.names[column])) for column in wanted]

    def editor(self, edit: Edit) -> CellEditor:
        """What makes the perturbed copies of these cells."""
        levels = None
        if edit.kind == "overexpress" and edit.dose is None:
            known = np.flatnonzero(self.match.cell_token >= 0)
            levels = np.zeros(self.counts.shape[1])
            levels[known] = expression_levels(self.levels_by, known, edit)
        return CellEditor(self.match.cell_token, self.match.column_median, self.max_length, edit, levels)

    def profile(self) -> GeneProfile:
        """Rank and detection rate of every gene in these cells."""
        counts = self.judged_by
        values = counts.data / self.match.column_median[counts.indices]
        return GeneProfile.measure(counts.indptr, counts.indices, values, counts.shape[1])

    def draw(self, n: int, *, seed: int = 0) -> "PerturbedCells":
        """`n` of these cells at random; an `InputError` if there are fewer."""
        if not 1 <= n <= len(self):
            raise InputError(f"{n} cells asked for, but there are {len(self)}; ask for fewer")
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False))
        return replace(self, counts=self.counts[chosen], rows=self.rows[chosen], obs=self.obs.iloc[chosen])

    def with_tokens(self, tokens: npt.NDArray[np.int64]) -> "PerturbedCells":
        """These cells with the genes of some tokens alone."""
        counts = self.counts.copy()
        counts.data[~np.isin(self.match.cell_token[counts.indices], tokens)] = 0
        counts.eliminate_zeros()
        if (np.diff(counts.indptr) == 0).any():
            raise InputError("a cell expresses none of the genes that both species share; leave it out")
        return replace(self, counts=counts)

    def expressed(self, min_cells: int = 1) -> npt.NDArray[np.int64]:
        """Columns that at least `min_cells` cells express and the model knows."""
        counts = self.judged_by
        return np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]) >= max(min_cells, 1))


def take_cells(
    source: Any,
    table: GeneTable,
    *,
    species: str,
    gene_species: str | None = None,
    cells: npt.ArrayLike | None = None,
    max_cells: int | None = None,
    max_length: int = 2048,
    seed: int = 0,
    **reading: Unpack[CellOptions],
) -> PerturbedCells:
    """Read the cells to work on.

    Parameters
    ----------
    source
        Path or AnnData.
    table
        The model's gene table.
    species, gene_species
        As for tokenising.
    cells
        Boolean mask or row numbers; default all.
    max_cells
        Draw this many of them at random.
    seed
        Of that draw.
    **reading
        How the file is read: `CellOptions`.

    Raises
    ------
    InputError
        If there are no cells, or fewer than `max_cells`.
    """
    opened = open_cells(source, **reading)
    rows = _rows_of(cells, opened.n_cells)
    if not len(rows):
        raise InputError(f"{opened.name}: no cell chosen out of {opened.n_cells}")
    if max_cells is not None:
        if not 1 <= max_cells <= len(rows):
            raise InputError(f"{opened.name}: {max_cells} cells asked for, but there are {len(rows)}; ask for fewer")
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
    match = match_columns(opened, table, species=species, gene_species=gene_species)
    matrix = _read_rows(opened, rows)
    match.report.add(np.asarray(matrix.sum(axis=0)).ravel(), cells=len(rows))
    judge_coverage(opened, [match])
    matrix.data[match.cell_token[matrix.indices] < 0] = 0
    # genes that share a token are one gene to the model: they are counted in the first of their columns
    matrix.indices = _first_of_token(match.cell_token)[matrix.indices].astype(matrix.indices.dtype)
    matrix.has_canonical_format = False
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    empty = np.flatnonzero(np.diff(matrix.indptr) == 0)
    if len(empty):
        where = opened.obs.index[rows[empty[0]]]
        raise InputError(f"{opened.name}: cell {where!r} expresses no gene that the model knows; leave it out")
    names = np.asarray(match.names, dtype=object)
    return PerturbedCells(matrix, rows, names, match, opened.obs.iloc[rows], table, max_length)


def _rows_of(cells: npt.ArrayLike | None, n_cells: int) -> npt.NDArray[np.int64]:
    if cells is None:
        return np.arange(n_cells)
    chosen = np.asarray(cells)
    if chosen.dtype == bool:
        if chosen.shape != (n_cells,):
            raise InputError(f"the mask of cells has {chosen.size} entries, but there are {n_cells} cells")
        return np.flatnonzero(chosen)
    chosen = np.unique(chosen.astype(np.int64))
    if len(chosen) and (chosen[0] < 0 or chosen[-1] >= n_cells):
        raise InputError(f"row {chosen[-1] if chosen[0] >= 0 else chosen[0]} is not one of {n_cells} cells")
    return chosen


def _read_rows(source: Any, rows: npt.NDArray[np.int64]) -> sparse.csr_matrix:
    """Chosen rows, streamed: never more than a block of the others in memory."""
    kept = []
    for start, block in source.blocks():
        mine = rows[(rows >= start) & (rows < start + block.shape[0])] - start
        if len(mine):
            kept.append(sparse.csr_matrix(block)[mine])
    return sparse.vstack(kept, format="csr").astype(np.float64)


def _first_of_token(cell_token: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """For every column the first one that has its token; itself where it has none."""
    first = np.arange(len(cell_token))
    known = np.flatnonzero(cell_token >= 0)
    _, start, group = np.unique(cell_token[known], return_index=True, return_inverse=True)
    first[known] = known[start][group]
    return first


class GeneColumns:
    """Looks up which column of the cells a gene's name means.

    Names are those of the matrix, symbols or Ensembl ids, of the cells' species or, by homology, of another.

    Parameters
    ----------
    cells
        Cells with their matched genes.
    must_be_expressed
        Refuse a gene that no cell expresses.
    """

    def __init__(self, cells: PerturbedCells, *, must_be_expressed: bool = True) -> None:
        self.cells, self.must_be_expressed = cells, must_be_expressed
        token = cells.match.cell_token
        # The first column of several with one name or token is where they are counted. A gene of another biotype may
        # share its symbol with one that the model knows: the known one is meant.
        backwards = np.arange(len(token) - 1, -1, -1)
        unknown_first = backwards[np.argsort(token[backwards] >= 0, kind="stable")]
        self._by_name = {str(cells.names[column]): int(column) for column in unknown_first}
        self._by_token = {int(token[column]): column for column in range(len(token) - 1, -1, -1) if token[column] >= 0}
        self._expressed = set(cells.expressed().tolist())

    def column(self, name: str) -> int:
        """Column of a gene.

        Raises
        ------
        InputError
            For a gene that the vocabulary does not know, that the matrix does not hold, or that no cell expresses.
        """
        column = self._by_name.get(name)
        if column is None:
            column = self._by_token.get(self._token(name))
            if column is None:
                raise InputError(f"gene {name!r} is known to the model, but was not measured in these cells")
        elif self.cells.match.cell_token[column] < 0:
            raise InputError(f"gene {name!r} is in the matrix, but the model's gene table does not know it")
        column = self._by_token[int(self.cells.match.cell_token[column])]
        if self.must_be_expressed and column not in self._expressed:
            raise InputError(
                f"gene {name!r} is not expressed in any of the {len(self.cells)} cells; choose other cells, or insert "
                "it (kind='set' or 'overexpress' with absent='insert')"
            )
        return int(column)

    def _token(self, name: str) -> int:
        """Token that a gene takes in a cell, looked up in the cells' own species first, then in the others."""
        table, own_species = self.cells.table, self.cells.match.species
        for species in (own_species, *(other for other in table.species if other != own_species)):
            own = int(table.index.look_up([name], species)[0][0])
            if own >= 0:
                return int(table.token_in_cell[own])
        raise InputError(f"gene {name!r} is unknown to the model's gene table; use a symbol or Ensembl id that it has")


def columns_of_genes(names: Sequence[str], cells: PerturbedCells, *, must_be_expressed: bool = True) -> list[int]:
    """Columns that gene names stand for; an `InputError` for the first that has none. See `GeneColumns`."""
    columns = GeneColumns(cells, must_be_expressed=must_be_expressed)
    return [columns.column(str(name)) for name in names]


def measured_genes(
    names: Iterable[str], cells: PerturbedCells, *, must_be_expressed: bool = True
) -> tuple[list[str], list[str]]:
    """Split names into those measured (and expressed by some chosen cell), and those absent, in their order."""
    columns = GeneColumns(cells, must_be_expressed=must_be_expressed)
    here, absent = [], []
    for name in dict.fromkeys(map(str, names)):
        try:
            columns.column(name)
        except InputError:
            absent.append(name)
        else:
            here.append(name)
    return here, absent


def read_gene_list(source: str | os.PathLike[str] | Iterable[str]) -> list[str]:
    """Gene names from a list, or from the first column of a text, CSV or TSV file (a header is skipped).

    Examples
    --------
    >>> read_gene_list(["SOX2", "POU5F1", "SOX2"])
    ['SOX2', 'POU5F1']
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{path}: no such file; a gene list is a text file with one gene in a line")
        rows = [
            [cell.strip().strip('"') for cell in re.split(r"[,;\t]", line)] for line in read_text(path).splitlines()
        ]
        rows = [row for row in rows if any(row)]
        # the column under a known heading; else the first
        heading = [cell.lower() for cell in rows[0]] if rows else []
        place = next((heading.index(name) for name in _HEADINGS if name in heading), None)
        names = [row[place or 0] for row in rows[place is not None :] if len(row) > (place or 0)]
    else:
        names = [str(name) for name in source]
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise InputError(f"{source if isinstance(source, (str, os.PathLike)) else 'gene list'}: holds no gene")
    return names
