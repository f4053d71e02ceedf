"""Cells to tokens, from any source, in blocks of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .coverage import CoverageReport, judge
from .errors import InputError
from .gene_table import GeneTable
from .matching import GeneMatch, match_columns
from .quality import QualityControl, measure_cells
from .ranking import rank_cells
from .readers import CellOptions, CellSource, open_cells
from .thinning import thin_counts

EMPTY_CELLS = ("error", "drop", "keep")
# more than any cell expresses
ALL_GENES = 1_000_000


@dataclass
class TokenizationReport:
    """What was read, matched, removed and kept.

    Attributes
    ----------
    coverage
        One `CoverageReport` per species of cells.
    removed
        Cells removed by each quality-control rule, and those without a known gene.
    removed_by_sample
        The same per sample, where a sample column was given.
    """

    source: str
    counts_from: str
    cells: int
    kept: int = 0
    quality: str = "none"
    coverage: dict[str, CoverageReport] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    removed_by_sample: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def share_of_counts_kept(self) -> float:
        """Counts in matched genes over all counts."""
        counts = sum(report.counts for report in self.coverage.values())
        return sum(report.counts_kept for report in self.coverage.values()) / counts if counts else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, fit for JSON and for ``adata.uns``."""
        return {
            "source": self.source,
            "counts_from": self.counts_from,
            "cells": self.cells,
            "kept": self.kept,
            "quality": self.quality,
            "share_of_counts_kept": self.share_of_counts_kept,
            "coverage": {name: report.to_dict() for name, report in self.coverage.items()},
            "removed": dict(self.removed),
            "removed_by_sample": {name: dict(rules) for name, rules in self.removed_by_sample.items()},
        }

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.kept:,} of {self.cells:,} cells (counts from {self.counts_from})"]
        lines += [f"  {report}" for report in self.coverage.values()]
        removed = ", ".join(f"{number:,} {rule}" for rule, number in self.removed.items() if number)
        if removed:
            lines.append(f"  removed by quality control {self.quality!r}: {removed}")
        return "\n".join(lines)


@dataclass
class TokenizedCells:
    """Token sequences of many cells in flat arrays.

    Attributes
    ----------
    indptr
        Where each cell begins; int64 (cells + 1,).
    input_ids, values
        Tokens, largest value first, and ``log2(1 + count / median)``; int32 and float32.
    species
        Index of each cell's species; int16 (cells,).
    rows
        Row of each cell in its source; int64 (cells,).
    report
        What was understood; complete once all cells were read.
    read_length
        Genes of a cell that a network reads, where the arrays hold all of them: a cell then has ``input_ids`` and
        ``values`` of so many, and ``profile_ids`` and ``profile_values`` of all, for its cell vector.

    Examples
    --------
    >>> cells = TokenizedCells(np.array([0, 2]), np.array([7, 5], np.int32), np.ones(2, np.float32),
    ...                        np.zeros(1, np.int16), np.zeros(1, np.int64), None)
    >>> len(cells), cells[0]["input_ids"].tolist()
    (1, [7, 5])
    """

    indptr: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    species: npt.NDArray[np.int16]
    rows: npt.NDArray[np.int64]
    report: TokenizationReport | None
    read_length: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, cell: int) -> dict[str, Any]:
        if not -len(self) <= cell < len(self):
            raise IndexError(cell)
        cell %= len(self)
        part = slice(int(self.indptr[cell]), int(self.indptr[cell + 1]))
        ids, values, species = self.input_ids[part], self.values[part], int(self.species[cell])
        if self.read_length is None:
            return {"input_ids": ids, "values": values, "species": species}
        read = slice(self.read_length)
        return {
            "input_ids": ids[read],
            "values": values[read],
            "species": species,
            "profile_ids": ids,
            "profile_values": values,
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[cell] for cell in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Genes of each cell that a network reads; int64 (cells,)."""
        held = np.diff(self.indptr)
        return held if self.read_length is None else np.minimum(held, self.read_length)

    @staticmethod
    def concatenate(parts: list["TokenizedCells"]) -> "TokenizedCells":
        """Join blocks in order; the report is the first block's, which all blocks of one run share."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([np.diff(part.indptr) for part in parts])
        return TokenizedCells(
            indptr=np.concatenate(([0], np.cumsum(lengths))),
            input_ids=np.concatenate([part.input_ids for part in parts]),
            values=np.concatenate([part.values for part in parts]),
            species=np.concatenate([part.species for part in parts]),
            rows=np.concatenate([part.rows for part in parts]),
            report=parts[0].report,
            read_length=parts[0].read_length,
        )


def tokenize_cells(source: Any, table: GeneTable, *, species: str, **options: Any) -> TokenizedCells:
    """Tokenise all cells of a file or AnnData.

    Parameters
    ----------
    source
        Path, AnnData or `CellSource`.
    table
        The vocabulary.
    species
        Name of a species, or an ``obs`` column that holds names.
    **options
        As for `iter_tokenized`.

    Returns
    -------
    TokenizedCells
        An AnnData also gets the report as ``adata.uns["genecompass"]["coverage"]``.

    Raises
    ------
    InputError
        For anything in the input that does not make sense; see `open_cells`, `match_genes`, `iter_tokenized`.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG00000254647", "ENSG00000115263"],
    ...     "symbol": ["INS", "GCG"], "species": ["human", "human"]}))
    >>> adata = anndata.AnnData(np.array([[1.0, 3.0]]), var=pd.DataFrame(index=["INS", "GCG"]))
    >>> tokenize_cells(adata, table, species="human")[0]["input_ids"].tolist()
    [3, 2]
    """
    cells = TokenizedCells.concatenate(list(iter_tokenized(source, table, species=species, **options)))
    if hasattr(source, "uns") and cells.report is not None:
        source.uns["genecompass"] = {**source.uns.get("genecompass", {}), "coverage": cells.report.to_dict()}
    return cells


def iter_tokenized(
    source: Any,
    table: GeneTable,
    *,
    species: str,
    gene_species: str | None = None,
    max_length: int = 2048,
    whole_cells: bool = False,
    quality: str | QualityControl = "none",
    sample: str | None = None,
    empty_cells: str = "error",
    library_size: float | None = None,
    keep_share: float | None = None,
    seed: int = 0,
    block_rows: int = 4096,
    start: int = 0,
    stop: int | None = None,
    **reading: Unpack[CellOptions],
) -> Iterator[TokenizedCells]:
    """Tokenise cells block by block, with memory that does not grow with their number.

    Parameters
    ----------
    source, table, species
        As for `tokenize_cells`.
    gene_species
        Species of the gene names, where it is not the cells' (mouse cells mapped to human orthologs).
    max_length
        Genes kept per cell.
    whole_cells
        Keep all genes beside those, as models with a cell vector read them; see `TokenizedCells`.
    block_rows
        As for `open_cells`.
    quality
        ``"paper"``, ``"published_code"``, ``"none"`` or a `QualityControl`. Rules need a pass over the cells first.
    sample
        ``obs`` column whose values are samples, for quality control per sample.
    empty_cells
        A cell without counts of any known gene is an ``"error"``; ``"drop"`` removes it, ``"keep"`` gives it length
        0. Quality control other than "none" removes such cells by itself.
    library_size
        Scale each cell to this total first; None, as GeneCompass does it, takes counts as they are.
    keep_share, seed
        Thin counts first, as if cells had been sequenced less deeply; see `thin_counts`.
    start, stop
        Rows to read.
    **reading
        How the file is read: `CellOptions`.

    Yields
    ------
    TokenizedCells
        At least one block; all share one report, complete after the last.

    Raises
    ------
    InputError
        For bad input, or when no cell is left.
    """
    if empty_cells not in EMPTY_CELLS:
        raise InputError(f"empty_cells={empty_cells!r}; choose one of {', '.join(EMPTY_CELLS)}")
    if max_length < 1:
        raise InputError(f"max_length is {max_length}; it must be at least 1")
    cells = open_cells(source, block_rows=block_rows, **reading)
    stop = cells.n_cells if stop is None else min(stop, cells.n_cells)
    codes, matches = match_cells(cells, table, species=species, gene_species=gene_species)
    control = QualityControl.named(quality)
    report = TokenizationReport(
        cells.name,
        cells.counts_from,
        stop - start,
        quality=control.name,
        coverage={m.species: m.report for m in matches},
    )
    keep = _quality_pass(cells, table, matches, codes, control, sample, report, start, stop)
    for first, block in cells.blocks(start, stop):
        if keep_share is not None:
            block = thin_counts(block, keep_share, seed=seed, first_row=first)
        for code, match in enumerate(matches):
            _count_columns(match, block if len(matches) == 1 else block[codes[first : first + block.shape[0]] == code])
        if first == start:
            judge_coverage(cells, matches, say=start == 0 and keep_share is None)
        chosen = np.arange(block.shape[0]) if keep is None else np.flatnonzero(keep[first - start :][: block.shape[0]])
        kept = ALL_GENES if whole_cells else max_length
        part = _tokenize_block(block, chosen, first, codes, matches, kept, library_size, report)
        if whole_cells:
            part = replace(part, read_length=max_length)
        yield _without_empty(part, cells, "drop" if control.removes_cells else empty_cells)
    if not report.kept:
        removed = ", ".join(f"{rule}: {number}" for rule, number in report.removed.items() if number)
        raise InputError(f"{cells.name}: no cells left of {report.cells} ({removed}); loosen quality control")


def match_cells(
    cells: CellSource,
    table: GeneTable,
    *,
    species: str,
    gene_species: str | None = None,
) -> tuple[npt.NDArray[np.int64], list[GeneMatch]]:
    """Species of every cell, and the gene match for each species that occurs.

    Returns
    -------
    codes : int64 array (cells,)
        Position of each cell's species in the list.
    matches : list of GeneMatch
    """
    species = species if species in cells.obs.columns else table.species_called(species)
    if species in table.species or species not in cells.obs.columns:
        if species not in table.species:
            raise InputError(
                f"{cells.name}: {species!r} is neither a species of this vocabulary ({', '.join(table.species)}) "
                f"nor an obs column ({', '.join(map(str, cells.obs.columns)) or 'there are none'})"
            )
        labels = [species]
        codes: npt.NDArray[np.int64] = np.zeros(cells.n_cells, dtype=np.int64)
    else:
        column = cells.obs[species].astype(str).map(table.species_called)
        labels = list(column.unique())
        codes = np.asarray(column.map({label: i for i, label in enumerate(labels)}), dtype=np.int64)
    several = len(labels) > 1
    return codes, [
        match_columns(cells, table, species=label, gene_species=gene_species, mixed=several) for label in labels
    ]


def judge_coverage(cells: CellSource, matches: list[GeneMatch], *, say: bool = True) -> None:
    """Say what was understood of the cells read so far; refuse cells of which next to nothing was."""
    for match in matches:
        judge(match.report, source=cells.name, counts_from=cells.counts_from, least=cells.min_coverage, say=say)


def _quality_pass(
    cells: CellSource,
    table: GeneTable,
    matches: list[GeneMatch],
    codes: npt.NDArray[np.int64],
    control: QualityControl,
    sample: str | None,
    report: TokenizationReport,
    start: int,
    stop: int,
) -> npt.NDArray[np.bool_] | None:
    if not control.removes_cells:
        return None
    samples = None
    if sample is not None:
        if sample not in cells.obs.columns:
            raise InputError(
                f"{cells.name}: no obs column {sample!r}; there are {', '.join(map(str, cells.obs.columns))}"
            )
        samples = cells.obs[sample].astype(str).to_numpy()[start:stop]
    measures = np.empty((stop - start, 4))
    for first, block in cells.blocks(start, stop):
        here = codes[first : first + block.shape[0]]
        for code, match in enumerate(matches):
            mine = np.flatnonzero(here == code)
            if len(mine):
                part = block if len(mine) == block.shape[0] else block[mine]
                measures[first - start + mine] = measure_cells(part, match, table)
    decision = control.decide(measures, samples, has_biotypes=any(table.index.biotypes))
    report.removed.update(decision.removed)
    report.removed_by_sample.update(decision.removed_by_sample)
    return decision.keep


def _count_columns(match: GeneMatch, block: sparse.csr_matrix) -> None:
    totals = block.T @ np.ones(block.shape[0])
    match.report.add(totals, cells=block.shape[0])


def _tokenize_block(
    block: sparse.csr_matrix,
    chosen: npt.NDArray[np.int64],
    first: int,
    codes: npt.NDArray[np.int64],
    matches: list[GeneMatch],
    max_length: int,
    library_size: float | None,
    report: TokenizationReport,
) -> TokenizedCells:
    parts = []
    for code, match in enumerate(matches):
        mine = chosen[codes[first + chosen] == code]
        if not len(mine) and (len(matches) > 1 or len(chosen)):
            continue
        part = block if len(mine) == block.shape[0] else block[mine]
        indptr, ids, values = rank_cells(
            part.indptr,
            part.indices,
            part.data,
            match.cell_token,
            match.column_median,
            max_length=max_length,
            library_size=library_size,
        )
        species = np.full(len(mine), match.species_index, dtype=np.int16)
        parts.append(TokenizedCells(indptr, ids, values, species, first + mine, report))
    if not parts:
        nothing = np.empty(0)
        return TokenizedCells(
            np.zeros(1, np.int64),
            nothing.astype(np.int32),
            nothing.astype(np.float32),
            nothing.astype(np.int16),
            nothing.astype(np.int64),
            report,
        )
    joined = TokenizedCells.concatenate(parts)
    return joined if len(parts) == 1 else take_tokenized(joined, np.argsort(joined.rows, kind="stable"))


def take_tokenized(cells: TokenizedCells, order: npt.NDArray[np.integer]) -> TokenizedCells:
    """Cells in another order, or some of them."""
    lengths = np.diff(cells.indptr)[order]
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    where = np.repeat(cells.indptr[order] - indptr[:-1], lengths) + np.arange(indptr[-1])
    return TokenizedCells(
        indptr,
        cells.input_ids[where],
        cells.values[where],
        cells.species[order],
        cells.rows[order],
        cells.report,
        cells.read_length,
    )


def _without_empty(part: TokenizedCells, cells: CellSource, empty_cells: str) -> TokenizedCells:
    report = part.report
    assert report is not None
    empty = np.flatnonzero(part.lengths == 0)
    if len(empty) and empty_cells == "error":
        row = int(part.rows[empty[0]])
        raise InputError(
            f"{cells.name}: cell {cells.obs.index[row]!r} has no counts of any known gene; drop such cells with "
            "empty_cells='drop' or quality control"
        )
    if len(empty) and empty_cells == "drop":
        report.removed["empty"] = report.removed.get("empty", 0) + len(empty)
        part = take_tokenized(part, np.flatnonzero(part.lengths > 0))
    report.kept += len(part)
    return part
