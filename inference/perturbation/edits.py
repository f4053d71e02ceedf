"""Counts before and after: what a perturbation does to a cell, and the tokens of every perturbed copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.ranking import rank_cells

Kind = Literal["delete", "overexpress", "knockdown", "set"]
Level = Literal["median", "max"]
Absent = Literal["skip", "insert"]


@dataclass(frozen=True)
class Edit:
    """What is done to the counts of a gene.

    Parameters
    ----------
    kind
        ``"delete"``: to 0. ``"knockdown"``: times a `dose` below 1. ``"overexpress"``: to a `level`, or times a
        `dose` above 1; a cell that has more already stays as it is. ``"set"``: to the count `dose`.
    dose
        A factor, or for ``"set"`` a count.
    level
        For ``"overexpress"`` without a `dose`: the ``"median"`` or the ``"max"`` of the gene over the cells that
        express it.
    absent
        A cell that does not express the gene is left out (``"skip"``), or given it (``"insert"``; only where the
        new count does not depend on the old one).

    Raises
    ------
    InputError
        For a contradictory dose.

    Examples
    --------
    >>> Edit("knockdown", dose=0.5)
    Edit(kind='knockdown', dose=0.5, level=None, absent='skip')
    """

    kind: Kind = "delete"
    dose: float | None = None
    level: Level | None = None
    absent: Absent = "skip"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"unknown kind of perturbation {self.kind!r}; use one of {', '.join(get_args(Kind))}")
        if self.absent not in get_args(Absent):
            raise InputError(f"absent={self.absent!r}: use 'skip' or 'insert'")
        if self.dose is not None and not (np.isfinite(self.dose) and self.dose >= 0):
            raise InputError(f"dose {self.dose} must be a number of 0 or more")
        self._check_dose()
        if self.level is not None and (self.kind != "overexpress" or self.level not in get_args(Level)):
            raise InputError(f"level={self.level!r}: only kind='overexpress' takes a level, 'median' or 'max'")
        if self.absent == "insert" and not self.inserts:
            raise InputError(f"kind={self.kind!r} cannot insert a gene that a cell does not express; use absent='skip'")

    def _check_dose(self) -> None:
        if self.kind == "delete" and self.dose not in (None, 0):
            raise InputError(f"kind='delete' with dose {self.dose} contradicts itself; use kind='knockdown' or 'set'")
        if self.kind == "knockdown" and (self.dose is None or not 0 <= self.dose < 1):
            raise InputError(
                f"kind='knockdown' needs a dose from 0 to below 1 (a factor on the count), not {self.dose}"
            )
        if self.kind == "set" and self.dose is None:
            raise InputError("kind='set' needs a dose: the count to set")
        if self.kind == "overexpress" and self.dose is not None:
            if self.level is not None:
                raise InputError("kind='overexpress' takes a dose (a factor) or a level, not both")
            if self.dose <= 1:
                raise InputError(f"kind='overexpress' needs a dose above 1 (a factor on the count), not {self.dose}")

    @property
    def inserts(self) -> bool:
        """Whether a cell without the gene could be given it."""
        if self.kind == "set":
            return bool(self.dose)
        return self.kind == "overexpress" and self.dose is None

    @property
    def label(self) -> str:
        """Short name for tables."""
        if self.kind == "overexpress":
            return f"overexpress x{self.dose:g}" if self.dose is not None else f"overexpress to {self.level or 'max'}"
        return self.kind if self.kind == "delete" else f"{self.kind} {self.dose:g}"

    def apply(self, counts: npt.NDArray[np.float64], levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """New counts of some genes. `levels` are their counts at the level asked for; same shape."""
        if self.kind == "delete":
            return np.zeros_like(counts)
        if self.kind == "knockdown":
            return counts * float(self.dose or 0)
        if self.kind == "set":
            new = np.full_like(counts, float(self.dose or 0))
        elif self.dose is not None:
            return counts * self.dose
        else:
            new = np.maximum(counts, levels)
        return new if self.absent == "insert" else np.where(counts > 0, new, 0.0)


def expression_levels(
    counts: sparse.csr_matrix, columns: npt.NDArray[np.int64], level: Level
) -> npt.NDArray[np.float64]:
    """Median or maximum count of each column over the cells that express it; 0 where none does. (columns,)."""
    by_gene = counts[:, columns].tocsc()
    measure = np.median if level == "median" else np.max
    levels = np.zeros(len(columns))
    for position in range(len(columns)):
        expressed = by_gene.data[by_gene.indptr[position] : by_gene.indptr[position + 1]]
        expressed = expressed[expressed > 0]
        if len(expressed):
            levels[position] = measure(expressed)
    return levels


@dataclass(frozen=True)
class Copies:
    """Tokens of the perturbed copies of one cell.

    Parameters
    ----------
    perturbation
        For every copy, which perturbation it is: an index into the list asked for. (copies,)
    indptr, input_ids, values
        Tokens and values of the copies, one after the other.
    """

    perturbation: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.perturbation)

    def rows(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Tokens and values of one copy."""
        begin, end = self.indptr[index], self.indptr[index + 1]
        return self.input_ids[begin:end], self.values[begin:end]


class CellEditor:
    """Makes the perturbed copies of cells: edits counts, then ranks anew, so that ranks, values and cut are right.

    Parameters
    ----------
    column_token, column_median
        For every column of the count matrix, the token it takes in these cells (-1: none) and its median count.
    max_length
        Genes kept per cell.
    edit
        What is done.
    level_of_column
        Count that ``edit.level`` stands for, per column; needed for over-expression to a level.

    Examples
    --------
    >>> editor = CellEditor(np.array([5, 6], np.int32), np.ones(2), 2048, Edit("delete"))
    >>> copies = editor.copies(np.array([0, 1]), np.array([1.0, 3.0]), [(0,), (1,)])
    >>> copies.input_ids.tolist(), copies.values.tolist()
    ([6, 5], [2.0, 1.0])
    """

    def __init__(
        self,
        column_token: npt.NDArray[np.int32],
        column_median: npt.NDArray[np.float64],
        max_length: int,
        edit: Edit,
        level_of_column: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.column_token, self.column_median = column_token, column_median
        self.max_length, self.edit = max_length, edit
        self.level_of_column = np.zeros(len(column_token)) if level_of_column is None else level_of_column

    def original(
        self, columns: npt.NDArray[np.integer], counts: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Tokens and values of the cell as it is."""
        return self._rank(np.array([0, len(columns)]), columns, counts)[1:]

    def copies(
        self,
        columns: npt.NDArray[np.integer],
        counts: npt.NDArray[np.floating],
        perturbations: Sequence[tuple[int, ...]],
    ) -> Copies:
        """Copies of one cell, one for every perturbation that changes what the model would see.

        Parameters
        ----------
        columns, counts
            The cell's entries in the count matrix.
        perturbations
            Columns edited together. Where genes are skipped when absent, a cell must express them all.
        """
        wanted = np.unique(np.concatenate([np.asarray(p, dtype=np.int64) for p in perturbations]))
        everything = np.union1d(columns, wanted)
        base = np.zeros(len(everything))
        base[np.searchsorted(everything, columns)] = counts
        seen = np.zeros(len(everything), dtype=bool)
        original_ids, _ = self.original(columns, counts)
        seen_tokens = set(original_ids.tolist())
        seen[:] = [int(token) in seen_tokens for token in self.column_token[everything]]

        chosen: list[int] = []
        edited: list[npt.NDArray[np.float64]] = []
        for index, genes in enumerate(perturbations):
            where = np.searchsorted(everything, np.asarray(genes, dtype=np.int64))
            if self.edit.absent == "skip" and not (base[where] > 0).all():
                continue
            new = self.edit.apply(base[where], self.level_of_column[everything[where]])
            # lowering genes below the cut leaves the tokens as they are
            lowered_unseen = not seen[where].any() and bool((new <= base[where]).all())
            if np.array_equal(new, base[where]) or lowered_unseen:
                continue
            row = base.copy()
            row[where] = new
            chosen.append(index)
            edited.append(row)
        if not chosen:
            empty = np.zeros(0, np.int32), np.zeros(0, np.float32)
            return Copies(np.zeros(0, np.int64), np.zeros(1, np.int64), *empty)
        indptr = np.arange(len(chosen) + 1, dtype=np.int64) * len(everything)
        ranked = self._rank(indptr, np.tile(everything, len(chosen)), np.concatenate(edited))
        return Copies(np.asarray(chosen, dtype=np.int64), *ranked)

    def _rank(
        self, indptr: npt.NDArray[np.int64], columns: npt.NDArray[np.integer], counts: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        return rank_cells(indptr, columns, counts, self.column_token, self.column_median, max_length=self.max_length)
