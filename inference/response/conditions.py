"""Which rows are control and what was done to the others, read from labels such as ``KLF1+MAP2K6``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError

# what data sets write for "nothing was done" inside a label, as in ``AHR+ctrl``
FILLERS = frozenset({"ctrl", "control", "non-targeting", "nt", ""})


@dataclass(frozen=True)
class Conditions:
    """Distinct conditions of a data set and which row belongs to which.

    Parameters
    ----------
    names
        Of each condition, its genes sorted and joined by ``+``; in order of name.
    genes
        What was perturbed in each.
    of_row
        (rows,) index into `names`; -1 for control.
    """

    names: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    of_row: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """(conditions,) how many genes were perturbed at once."""
        return np.array([len(genes) for genes in self.genes], dtype=np.int64)


def parse_genes(label: str, *, control: str | None = None) -> tuple[str, ...]:
    """Genes in a label, sorted, each once; empty for control.

    Parameters
    ----------
    label
        ``A``, ``A+B``, or ``A+ctrl``.
    control
        Label of control cells, beside the usual ones.

    Examples
    --------
    >>> parse_genes("MAP2K6+KLF1"), parse_genes("AHR+ctrl"), parse_genes("ctrl")
    (('KLF1', 'MAP2K6'), ('AHR',), ())
    """
    if label == control:
        return ()
    parts = {part.strip() for part in label.split("+")}
    return tuple(sorted(part for part in parts if part.lower() not in FILLERS and part != control))


def read_conditions(obs: pd.DataFrame, column: str, *, control: str | None, where: str = "cells") -> Conditions:
    """Conditions by row.

    Parameters
    ----------
    obs
        One row a cell, or one a condition where the data are effects already.
    column
        That holds the labels.
    control
        Label of control rows; None where there are none, because X holds effects: then every label has one row.
    where
        Name of the data in messages.

    Raises
    ------
    InputError
        No such column, an empty label, no row with the control label, or with no control several rows of one label.

    Examples
    --------
    >>> obs = pd.DataFrame({"condition": ["ctrl", "A", "B+A", "A+B"]})
    >>> found = read_conditions(obs, "condition", control="ctrl")
    >>> found.names, found.of_row.tolist()
    (('A', 'A+B'), [-1, 0, 1, 1])
    """
    labels = text_column(obs, column, where=where)
    if control is not None and control not in set(labels):
        some = ", ".join(repr(label) for label in list(dict.fromkeys(labels))[:5])
        raise InputError(
            f"{where}: no row has {control!r} in obs column {column!r}, which holds {some}, ...; "
            "give the label of control cells as control"
        )
    known = {label: parse_genes(label, control=control) for label in set(labels)}
    genes = sorted({found for found in known.values() if found}, key="+".join)
    if not genes:
        raise InputError(f"{where}: obs column {column!r} holds control rows only; there is no condition to learn from")
    index = {found: i for i, found in enumerate(genes)} | {(): -1}
    of_row = np.array([index[known[label]] for label in labels], dtype=np.int64)
    names = tuple("+".join(found) for found in genes)
    if control is None:
        often = np.flatnonzero(np.bincount(of_row[of_row >= 0], minlength=len(names)) > 1)
        if len(often):
            raise InputError(
                f"{where}: {names[often[0]]!r} has several rows in obs column {column!r}: cells, not effects; "
                "give the label of control cells as control"
            )
    return Conditions(names, tuple(genes), of_row)


def text_column(obs: pd.DataFrame, column: str, *, where: str = "cells") -> list[str]:
    """A column of labels as text.

    Raises
    ------
    InputError
        No such column, or a row without a label.

    Examples
    --------
    >>> text_column(pd.DataFrame({"drug": ["a", "b"]}), "drug")
    ['a', 'b']
    """
    if column not in obs:
        raise InputError(f"{where}: no obs column {column!r}; there are {', '.join(map(str, obs.columns))}")
    values = obs[column]
    if values.isna().any():
        row = int(np.flatnonzero(values.isna().to_numpy())[0])
        raise InputError(f"{where}: row {row} has nothing in obs column {column!r}; label it or leave it out")
    return [str(value).strip() for value in values]


def number_column(obs: pd.DataFrame, column: str, *, where: str = "cells") -> npt.NDArray[np.float64]:
    """A column of doses or times: numbers, not negative.

    Raises
    ------
    InputError
        No such column, text in it, or a number below zero.

    Examples
    --------
    >>> number_column(pd.DataFrame({"dose": ["0", "1.5"]}), "dose").tolist()
    [0.0, 1.5]
    """
    labels = text_column(obs, column, where=where)
    numbers = pd.to_numeric(pd.Series(labels), errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
    if len(bad):
        raise InputError(
            f"{where}: row {int(bad[0])} has {labels[bad[0]]!r} in obs column {column!r}; "
            "doses have to be numbers of 0 or more, without a unit"
        )
    return numbers


def parse_wanted(wanted: Iterable[str], *, control: str | None = None) -> list[tuple[str, ...]]:
    """Conditions that a user asks for.

    Raises
    ------
    InputError
        One that names no gene.

    Examples
    --------
    >>> parse_wanted(["KLF1+MAP2K6", "FOXO4"])
    [('KLF1', 'MAP2K6'), ('FOXO4',)]
    """
    found = [parse_genes(label, control=control) for label in wanted]
    for label, genes in zip(wanted, found, strict=True):
        if not genes:
            raise InputError(f"condition {label!r} names no gene; write a symbol, or two as A+B")
    return found


def all_genes(genes: Sequence[Sequence[str]]) -> list[str]:
    """Every perturbed gene once, by name.

    Examples
    --------
    >>> all_genes([("B",), ("A", "B")])
    ['A', 'B']
    """
    return sorted({gene for condition in genes for gene in condition})


def design(genes: Sequence[Sequence[str]], columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """(conditions, columns) 1 where a gene is perturbed; genes that are no column are left out.

    Examples
    --------
    >>> design([("A",), ("A", "B")], ["A", "B"]).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    place = {gene: j for j, gene in enumerate(columns)}
    X = np.zeros((len(genes), len(columns)))
    for i, condition in enumerate(genes):
        for gene in condition:
            if gene in place:
                X[i, place[gene]] = 1.0
    return X
