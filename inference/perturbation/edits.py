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
Level = Literal["quantile", "median", "max"]
Absent = Literal["skip", "insert"]
Ranks = Literal["kept", "anew"]


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
        For ``"overexpress"`` without a `dose`. ``"quantile"``, the default: the `quantile` of the gene's share of a
        cell's molecules, over the cells that express it, times the molecules of the cell at hand, so that a shallow
        cell is not given the counts of a deep one. ``"median"`` or ``"max"``: of the raw counts over those cells.
    absent
        A cell that does not express the gene is left out (``"skip"``), or given it (``"insert"``; only where the
        new count does not depend on the old one).
    quantile
        Of ``level="quantile"``.

    Raises
    ------
    InputError
        For a contradictory dose.

    Examples
    --------
    >>> Edit("knockdown", dose=0.5)
    Edit(kind='knockdown', dose=0.5, level=None, absent='skip', quantile=0.9)
    """

    kind: Kind = "delete"
    dose: float | None = None
    level: Level | None = None
    absent: Absent = "skip"
    quantile: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"unknown kind of perturbation {self.kind!r}; use one of {', '.join(get_args(Kind))}")
        if self.absent not in get_args(Absent):
            raise InputError(f"absent={self.absent!r}: use 'skip' or 'insert'")
        if self.dose is not None and not (np.isfinite(self.dose) and self.dose >= 0):
            raise InputError(f"dose {self.dose} must be a number of 0 or more")
        self._check_dose()
        if self.level is not None and (self.kind != "overexpress" or self.level not in get_args(Level)):
            known = ", ".join(get_args(Level))
            raise InputError(f"level={self.level!r}: only kind='overexpress' takes a level, one of {known}")
        if not 0 < self.quantile <= 1:
            raise InputError(f"quantile {self.quantile} must be above 0 and at most 1")
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
    def level_is_raw(self) -> bool:
        """Whether the level is a raw count rather than a share of a cell's molecules."""
        return self.level in ("median", "max")

    @property
    def label(self) -> str:
        """Short name for tables."""
        if self.kind == "overexpress":
            if self.dose is not None:
                return f"overexpress x{self.dose:g}"
            return f"overexpress to {self.level}" if self.level_is_raw else f"overexpress to quantile {self.quantile:g}"
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


def expression_levels(counts: sparse.csr_matrix, columns: npt.NDArray[np.int64], edit: Edit) -> npt.NDArray[np.float64]:
    """Level of each column over the cells that express it; 0 where none does. (columns,).

    A raw count for ``"median"`` and ``"max"``, a share of a cell's molecules for ``"quantile"``.
    """
    measured = counts[:, columns]
    if not edit.level_is_raw:
        depth = np.asarray(counts.sum(axis=1)).ravel()
        measured = sparse.csr_matrix(sparse.diags(1.0 / np.maximum(depth, 1e-12)) @ measured)
    by_gene = measured.tocsc()
    share = {"median": 0.5, "max": 1.0}.get(edit.level or "", edit.quantile)
    levels = np.zeros(len(columns))
    for position in range(len(columns)):
        expressed = by_gene.data[by_gene.indptr[position] : by_gene.indptr[position + 1]]
        expressed = expressed[expressed > 0]
        if len(expressed):
            levels[position] = np.quantile(expressed, share)
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
    positions
        Rank of each token; None where it is its place in the copy.
    place
        Mean rank of the perturbed genes in the cell as it was, as a share of its length: 0 for the highest. Where a
        gene was inserted, the rank it was given. (copies,)
    """

    perturbation: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int64] | None = None
    place: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.perturbation)

    def rows(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Tokens and values of one copy."""
        begin, end = self.indptr[index], self.indptr[index + 1]
        return self.input_ids[begin:end], self.values[begin:end]

    def ranks(self, index: int) -> npt.NDArray[np.int64]:
        """Rank of each token of one copy."""
        begin, end = self.indptr[index], self.indptr[index + 1]
        return np.arange(end - begin) if self.positions is None else self.positions[begin:end]


class CellEditor:
    """Makes the perturbed copies of cells: edits counts, then gives the model the tokens of the edited cell.

    Parameters
    ----------
    column_token, column_median
        For every column of the count matrix, the token it takes in these cells (-1: none) and its median count.
    max_length
        Genes kept per cell.
    edit
        What is done.
    level_of_column
        What ``edit.level`` stands for, per column: a count, or for ``"quantile"`` a share of the cell's molecules;
        needed for over-expression to a level.

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
        *,
        ranks: Ranks = "anew",
    ) -> Copies:
        """Copies of one cell, one for every perturbation that changes what the model would see.

        Parameters
        ----------
        columns, counts
            The cell's entries in the count matrix.
        perturbations
            Columns edited together. Where genes are skipped when absent, a cell must express them all.
        ranks
            ``"anew"``: the edited cell is ranked as a new cell would be, so that every gene below a deleted one moves
            up and one more gene comes in at the cut. ``"kept"``: all other genes keep their ranks, and only the
            perturbed genes change: what is read is then their effect, not that of the shift.
        """
        wanted = np.unique(np.concatenate([np.asarray(p, dtype=np.int64) for p in perturbations]))
        everything = np.union1d(columns, wanted)
        base = np.zeros(len(everything))
        base[np.searchsorted(everything, columns)] = counts
        original_ids, original_values = self.original(columns, counts)
        slot_of = {int(token): slot for slot, token in enumerate(original_ids)}
        seen = np.array([int(token) in slot_of for token in self.column_token[everything]], dtype=bool)
        levels = self.level_of_column
        if self.edit.kind == "overexpress" and self.edit.dose is None and not self.edit.level_is_raw:
            levels = levels * float(np.sum(counts))

        chosen: list[int] = []
        edits: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
        for index, genes in enumerate(perturbations):
            where = np.searchsorted(everything, np.asarray(genes, dtype=np.int64))
            if self.edit.absent == "skip" and not (base[where] > 0).all():
                continue
            new = self.edit.apply(base[where], levels[everything[where]])
            # lowering genes below the cut leaves the tokens as they are
            lowered_unseen = not seen[where].any() and bool((new <= base[where]).all())
            if np.array_equal(new, base[where]) or lowered_unseen:
                continue
            chosen.append(index)
            edits.append((where, new))
        if not chosen:
            empty = np.zeros(0, np.int32), np.zeros(0, np.float32)
            return Copies(np.zeros(0, np.int64), np.zeros(1, np.int64), *empty, place=np.zeros(0))
        kept = [
            self._with_ranks_kept(original_ids, original_values, everything[where], new, slot_of)
            for where, new in edits
        ]
        place = np.array([row[3] for row in kept])
        if ranks == "kept":
            indptr = np.concatenate(([0], np.cumsum([len(row[0]) for row in kept])))
            ids, values, positions = (np.concatenate([row[part] for row in kept]) for part in range(3))
            return Copies(np.asarray(chosen, np.int64), indptr, ids, values, positions, place)
        edited = np.tile(base, (len(edits), 1))
        for row, (where, new) in enumerate(edits):
            edited[row, where] = new
        indptr = np.arange(len(chosen) + 1, dtype=np.int64) * len(everything)
        ranked = self._rank(indptr, np.tile(everything, len(chosen)), edited.ravel())
        return Copies(np.asarray(chosen, dtype=np.int64), *ranked, place=place)

    def _with_ranks_kept(
        self,
        ids: npt.NDArray[np.int32],
        values: npt.NDArray[np.float32],
        columns: npt.NDArray[np.int64],
        new: npt.NDArray[np.float64],
        slot_of: dict[int, int],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64], float]:
        """Tokens, values and ranks of a copy whose other genes stay where they are; mean place of the edited genes."""
        tokens = self.column_token[columns]
        before = [slot_of.get(int(token)) for token in tokens]
        others = np.ones(len(ids), dtype=bool)
        others[[slot for slot in before if slot is not None]] = False
        new_values = np.log2(1.0 + new / self.column_median[columns]).astype(np.float32)
        # values fall along the row: those of the other genes that are larger come first
        descending = -values[others]
        ranks = np.searchsorted(descending, -new_values, side="left")
        order = np.argsort(-new_values, kind="stable")
        ranks[order] += np.arange(len(order))
        stays = (new > 0) & (ranks < self.max_length)
        stand = [rank if slot is None else slot for rank, slot in zip(ranks, before, strict=True)]
        kept = np.flatnonzero(others)[: self.max_length - int(stays.sum())]
        return (
            np.concatenate([ids[kept], tokens[stays].astype(np.int32)]),
            np.concatenate([values[kept], new_values[stays]]),
            np.concatenate([kept, np.minimum(ranks[stays], self.max_length - 1)]).astype(np.int64),
            float(np.minimum(np.mean(stand) / max(len(ids) - 1, 1), 1.0)),
        )

    def _rank(
        self, indptr: npt.NDArray[np.int64], columns: npt.NDArray[np.integer], counts: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        return rank_cells(indptr, columns, counts, self.column_token, self.column_median, max_length=self.max_length)
