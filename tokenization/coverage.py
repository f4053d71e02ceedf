"""What of a count matrix the vocabulary understood: counted in genes and in counts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .cell_options import LEAST_COVERAGE
from .errors import InputError
from .gene_index import AMBIGUOUS, BY_ALIAS, BY_ID, BY_PREVIOUS, BY_SYMBOL, UNKNOWN

_SHOWN = 10
# of the counts: below it there is a warning
GOOD_COVERAGE = 0.5

logger = logging.getLogger(__name__)


@dataclass
class CoverageReport:
    """Genes found and not found, and the share of counts that they carry.

    Attributes
    ----------
    genes, by_id, by_symbol, by_previous, by_alias, ambiguous, unknown
        Numbers of columns, by how their gene was found. An ambiguous name stands for several genes, or is an old
        name of a gene that the matrix also holds; it is not used.
    homolog_mapped
        Columns whose gene takes the token of another species' gene.
    rescuable
        Columns whose id is unknown although their symbol is known: ids retired by Ensembl (``rescue_ids``).
    not_shared
        Known columns that are left out, as the other cells of ``shared_genes`` do not measure them.
    counts, counts_kept
        Sum of all counts read so far, and of those in columns that were matched.

    Examples
    --------
    >>> report = CoverageReport.of(["INS", "x"], np.array([2, 0]), mapped=np.zeros(2, bool), species="human")
    >>> report.add(np.array([9.0, 1.0])); report.share_of_counts_kept, report.top_unknown()
    (0.9, [('x', 1.0)])
    """

    species: str
    genes: int
    by_id: int
    by_symbol: int
    by_previous: int
    by_alias: int
    ambiguous: int
    unknown: int
    homolog_mapped: int
    ambiguous_names: list[str]
    rescuable: int = 0
    not_shared: int = 0
    cells: int = 0
    _names: Sequence[str] = field(default=(), repr=False)
    _how: npt.NDArray[np.integer] = field(default_factory=lambda: np.empty(0, np.int8), repr=False)
    _totals: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)

    @classmethod
    def of(
        cls, names: Sequence[str], how: npt.NDArray[np.integer], *, mapped: npt.NDArray[np.bool_], species: str
    ) -> "CoverageReport":
        """Report on columns called `names` that were found as `how` says (`genecompass.tokenization.gene_index`)."""
        numbers = {
            name: int((how == way).sum())
            for name, way in (
                ("by_id", BY_ID),
                ("by_symbol", BY_SYMBOL),
                ("by_previous", BY_PREVIOUS),
                ("by_alias", BY_ALIAS),
                ("ambiguous", AMBIGUOUS),
                ("unknown", UNKNOWN),
            )
        }
        doubtful = [names[i] for i in np.flatnonzero(how == AMBIGUOUS).tolist()]
        return cls(
            species=species,
            genes=len(names),
            homolog_mapped=int(mapped.sum()),
            ambiguous_names=doubtful,
            _names=names,
            _how=how,
            _totals=np.zeros(len(names)),
            **numbers,
        )

    def add(self, column_totals: npt.NDArray[np.float64], cells: int = 0) -> None:
        """Count in more cells, given the sum of each column over them."""
        self._totals = self._totals + column_totals
        self.cells += cells

    @property
    def column_totals(self) -> npt.NDArray[np.float64]:
        """Sum of each column over the cells read so far."""
        return self._totals

    @property
    def matched(self) -> int:
        """Columns that have a token."""
        return self.by_id + self.by_symbol + self.by_previous + self.by_alias

    @property
    def counts(self) -> float:
        """Sum of all counts."""
        return float(self._totals.sum())

    @property
    def counts_kept(self) -> float:
        """Sum of counts in matched columns."""
        return float(self._totals[self._how > 0].sum())

    @property
    def share_of_counts_kept(self) -> float:
        """Counts in matched columns over all counts; NaN before any cell was read."""
        return self.counts_kept / self.counts if self.counts else float("nan")

    def top_unknown(self, number: int = _SHOWN) -> list[tuple[str, float]]:
        """The unmatched columns with the most counts, and these counts."""
        lost = np.flatnonzero(self._how <= 0)
        most = lost[np.argsort(-self._totals[lost], kind="stable")][:number]
        return [(str(self._names[i]), float(self._totals[i])) for i in most.tolist() if self._totals[i] > 0]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, fit for JSON and for ``adata.uns``."""
        names = ("genes", "by_id", "by_symbol", "by_previous", "by_alias", "ambiguous", "unknown", "homolog_mapped")
        top = self.top_unknown()
        return {
            "species": self.species,
            "matched": self.matched,
            **{name: getattr(self, name) for name in names},
            "rescuable": self.rescuable,
            "not_shared": self.not_shared,
            "ambiguous_names": self.ambiguous_names[:_SHOWN],
            "cells": self.cells,
            "counts": self.counts,
            "counts_kept": self.counts_kept,
            "share_of_counts_kept": self.share_of_counts_kept,
            "top_unknown": [name for name, _ in top],
            "top_unknown_counts": [count for _, count in top],
        }

    def __str__(self) -> str:
        ways = [
            (self.by_id, "by id"),
            (self.by_symbol, "by symbol"),
            (self.by_previous, "by previous symbol"),
            (self.by_alias, "by alias"),
        ]
        found = ", ".join(f"{number:,} {way}" for number, way in ways if number)
        text = f"{self.species}: {self.matched:,} of {self.genes:,} genes matched ({found})"
        if self.homolog_mapped:
            text += f", {self.homolog_mapped:,} on a homolog's token"
        if self.not_shared:
            text += f", {self.not_shared:,} left out as not shared"
        if self.ambiguous:
            text += f", {self.ambiguous:,} ambiguous"
        if self.counts:
            text += f"; {self.share_of_counts_kept:.1%} of counts kept"
            top = self.top_unknown(3)
            if top:
                text += f"; most expressed unknown: {', '.join(name for name, _ in top)}"
        return text


def judge(
    report: CoverageReport, *, source: str, counts_from: str, least: float = LEAST_COVERAGE, say: bool = True
) -> None:
    """Say in one line what was understood; warn where it is less than half, refuse where it is next to nothing.

    Parameters
    ----------
    report
        With the counts of at least one block of cells.
    source, counts_from
        File and matrix, for the line.
    least
        Share of counts below which cells are refused.
    say
        Whether to say anything where nothing is refused.

    Raises
    ------
    InputError
        Known genes hold less than `least` of the counts.

    Examples
    --------
    >>> report = CoverageReport.of(["INS", "x"], np.array([2, 0]), mapped=np.zeros(2, bool), species="human")
    >>> report.add(np.array([1.0, 99.0]))
    >>> judge(report, source="cells.h5ad", counts_from="X")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    InputError: cells.h5ad (X): known human genes hold 1 of 100 counts (1 of 2 genes, for example not x); ...
    """
    share = report.share_of_counts_kept
    if not report.counts:
        return
    if share < least:
        unknown = ", ".join(name for name, _ in report.top_unknown(3))
        raise InputError(
            f"{source} ({counts_from}): known {report.species} genes hold {report.counts_kept:,.0f} of "
            f"{report.counts:,.0f} counts ({report.matched:,} of {report.genes:,} genes, for example not {unknown}); "
            "check the species, name the column of var that holds ids or symbols with gene_column=..., or take them "
            "all the same with min_coverage=0"
        )
    if say:
        level = logging.INFO if share >= GOOD_COVERAGE else logging.WARNING
        low = (
            ""
            if share >= GOOD_COVERAGE
            else "; less than half of the counts is understood: check gene names and species"
        )
        logger.log(level, "%s (%s): %s%s", source, counts_from, report, low)
