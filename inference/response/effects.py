"""The estimand: the mean effect of a condition on each gene, from cells or as a file gives it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from ...tokenization.errors import InputError
from .conditions import Conditions, read_conditions

Matrix = npt.NDArray[np.float64]
SCALE = 1e4
TOP = 20


@dataclass(frozen=True)
class Effects:
    """Mean effects by condition.

    Parameters
    ----------
    conditions
        What was done; `of_row` refers to the rows they were computed from.
    genes
        Names of the measured genes.
    delta
        (conditions, genes): mean of log1p(count / total * 1e4) less that of control.
    n_cells
        (conditions,) cells behind each; 0 where the file does not say.
    control_mean
        (genes,) where known.
    halves
        (2, conditions, genes): the same from one half of the cells and from the other; NaN where not known.
    standard_error
        (conditions, genes) of `delta`, where there are cells.
    top
        (conditions, at most 20): genes that differ most from control, by a rank test on the condition's own cells
        (or by the size of the effect where there are no cells). Only to score with, never to predict with.
    """

    conditions: Conditions
    genes: tuple[str, ...]
    delta: Matrix
    n_cells: npt.NDArray[np.int64]
    control_mean: Matrix | None = None
    halves: Matrix | None = None
    standard_error: Matrix | None = None
    top: npt.NDArray[np.int64] | None = None

    def targets(self) -> npt.NDArray[np.bool_]:
        """(conditions, genes) True for the perturbed genes themselves, which are left out of scores.

        Examples
        --------
        >>> effects_of_table(np.ones((1, 2)), ["A", "B"], ["A"]).targets().tolist()
        [[True, False]]
        """
        place = {gene: j for j, gene in enumerate(self.genes)}
        found = np.zeros(self.delta.shape, dtype=np.bool_)
        for i, perturbed in enumerate(self.conditions.genes):
            for gene in perturbed:
                if gene in place:
                    found[i, place[gene]] = True
        return found


def log_normalised(counts: Any) -> Matrix:
    """(cells, genes) log1p(count / total * 1e4), dense; a cell without a count stays 0.

    Examples
    --------
    >>> log_normalised(np.array([[1, 1], [0, 0]])).round(2).tolist()
    [[8.52, 8.52], [0.0, 0.0]]
    """
    X = np.asarray(counts.todense() if sparse.issparse(counts) else counts, dtype=np.float64)
    total = X.sum(axis=1, keepdims=True)
    return np.log1p(X / np.where(total > 0, total, 1.0) * SCALE)


def read_effects(
    adata: Any, perturbation: str, *, control: str | None = None, seed: int = 0, where: str = "cells"
) -> Effects:
    """Effects of a file of cells with control cells, or of a file that holds effects.

    Parameters
    ----------
    adata
        Cells with raw counts in X, or one row a condition with its effect in X and perhaps layers ``half1`` and
        ``half2``; or the path of such an h5ad file.
    perturbation
        obs column of labels.
    control
        Label of control cells; None says that X holds effects.
    seed
        Which cells fall into which half.
    where
        Name of the data in messages.

    Raises
    ------
    InputError
        No such file or column; see also `read_conditions`; counts that are negative or not whole; effects that are
        not finite.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> obs = pd.DataFrame({"p": ["ctrl", "ctrl", "A", "A"]}, index=list("abcd"))
    >>> cells = anndata.AnnData(np.array([[1.0, 1], [1, 1], [3, 1], [3, 1]]), obs=obs)
    >>> read_effects(cells, "p", control="ctrl").delta.round(2).tolist()
    [[0.41, -0.69]]
    """
    adata, where = open_h5ad(adata, where)
    conditions = read_conditions(adata.obs, perturbation, control=control, where=where)
    genes = tuple(str(name) for name in adata.var_names)
    if control is None:
        return _given_effects(adata, conditions, genes, where)
    check_counts(adata.X, where)
    return effects_of_cells(log_normalised(adata.X), conditions, genes, seed=seed)


def open_h5ad(source: Any, where: str = "cells") -> tuple[Any, str]:
    """An AnnData object from an object or a path, and its name for messages.

    Raises
    ------
    InputError
        If there is no such file, or it is not an h5ad file.

    Examples
    --------
    >>> import anndata
    >>> open_h5ad(anndata.AnnData(np.ones((1, 1))))[1]
    'cells'
    """
    if not isinstance(source, str | Path):
        return source, where
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    import anndata

    try:
        return anndata.read_h5ad(path), str(path)
    except OSError as error:
        raise InputError(f"{path}: not an h5ad file ({str(error).splitlines()[0][:80]})") from error


def check_counts(X: Any, where: str) -> None:
    """Refuse what are no raw counts.

    Raises
    ------
    InputError
        A value that is negative, not finite or not whole.

    Examples
    --------
    >>> check_counts(np.array([[0.0, 2.0]]), "cells")
    """
    values = X.data if sparse.issparse(X) else np.asarray(X)
    if values.size and (not np.isfinite(values).all() or values.min() < 0 or (values != np.round(values)).any()):
        raise InputError(
            f"{where}: X holds values that are no counts; put raw counts into X, "
            "or leave control out if each row is the effect of a condition"
        )


def effects_of_cells(X: Matrix, conditions: Conditions, genes: tuple[str, ...], *, seed: int = 0) -> Effects:
    """Effects, halves, standard errors and most changed genes from log-normalised cells.

    Parameters
    ----------
    X
        (cells, genes) log-normalised.
    conditions
        Of the cells.
    genes
        Names.
    seed
        Which cells fall into which half; control cells are halved too, so that halves share nothing.

    Examples
    --------
    >>> from genecompass.inference.response.conditions import Conditions
    >>> found = Conditions(("A",), (("A",),), np.array([-1, -1, 0, 0]))
    >>> effects_of_cells(np.array([[0.0], [0], [1], [3]]), found, ("G",)).delta.tolist()
    [[2.0]]
    """
    half = _half_of_each(conditions.of_row, np.random.default_rng(seed))
    control = conditions.of_row < 0
    base = X[control]
    sides = [X[control & (half == h)] for h in (0, 1)]
    n = len(conditions)
    delta, error = np.zeros((n, X.shape[1])), np.zeros((n, X.shape[1]))
    halves = np.full((2, n, X.shape[1]), np.nan)
    top = np.zeros((n, min(TOP, X.shape[1])), dtype=np.int64)
    for i in range(n):
        mine = conditions.of_row == i
        cells = X[mine]
        delta[i] = cells.mean(axis=0) - base.mean(axis=0)
        error[i] = np.sqrt(_variance_of_mean(cells) + _variance_of_mean(base))
        for h in (0, 1):
            if (mine & (half == h)).any() and len(sides[h]):
                halves[h, i] = X[mine & (half == h)].mean(axis=0) - sides[h].mean(axis=0)
        top[i] = most_changed(cells, base, top.shape[1])
    counts = np.bincount(conditions.of_row[~control], minlength=n)
    return Effects(conditions, genes, delta, counts, base.mean(axis=0), halves, error, top)


def most_changed(cells: Matrix, control: Matrix, n: int = TOP) -> npt.NDArray[np.int64]:
    """The `n` genes that a Wilcoxon rank-sum test tells most clearly from control, the clearest first.

    Examples
    --------
    >>> most_changed(np.array([[0.0, 5], [0, 6], [1, 7]]), np.array([[0.0, 1], [1, 2], [0, 0]]), 1).tolist()
    [1]
    """
    statistic, _ = stats.ranksums(cells, control, axis=0)
    # the size of the difference breaks ties
    size = np.abs(cells.mean(axis=0) - control.mean(axis=0))
    return np.lexsort((-size, -np.nan_to_num(np.abs(statistic))))[:n].astype(np.int64)


def effects_of_table(delta: npt.ArrayLike, genes: Any, labels: Any) -> Effects:
    """Effects from a plain table.

    Parameters
    ----------
    delta
        (conditions, genes).
    genes
        Names of the columns.
    labels
        One a row, ``A`` or ``A+B``.

    Examples
    --------
    >>> effects_of_table([[1.0, 2.0]], ["x", "y"], ["B+A"]).conditions.names
    ('A+B',)
    """
    Y = np.asarray(delta, dtype=np.float64)
    conditions = read_conditions(pd.DataFrame({"label": list(labels)}), "label", control=None)
    rows = np.argsort(conditions.of_row)
    return _with_top(Effects(conditions, tuple(genes), Y[rows], np.zeros(len(Y), dtype=np.int64)))


def _given_effects(adata: Any, conditions: Conditions, genes: tuple[str, ...], where: str) -> Effects:
    rows = np.argsort(conditions.of_row, kind="stable")
    rows = rows[conditions.of_row[rows] >= 0]

    def dense(X: Any) -> Matrix:
        return np.asarray(X.todense() if sparse.issparse(X) else X, dtype=np.float64)[rows]

    delta = dense(adata.X)
    if not np.isfinite(delta).all():
        raise InputError(f"{where}: X holds effects that are not finite; leave such genes or conditions out")
    halves = None
    if "half1" in adata.layers and "half2" in adata.layers:
        halves = np.stack([dense(adata.layers["half1"]), dense(adata.layers["half2"])])
    mean = np.asarray(adata.var["control_mean"], dtype=np.float64) if "control_mean" in adata.var else None
    return _with_top(Effects(conditions, genes, delta, np.zeros(len(rows), dtype=np.int64), mean, halves))


def _with_top(effects: Effects) -> Effects:
    return replace(effects, top=np.argsort(-np.abs(effects.delta), axis=1, kind="stable")[:, :TOP])


def _half_of_each(of_row: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """0 or 1 by cell, even within each condition."""
    half = np.zeros(len(of_row), dtype=np.int64)
    for condition in np.unique(of_row):
        rows = generator.permutation(np.flatnonzero(of_row == condition))
        half[rows[len(rows) // 2 :]] = 1
    return half


def _variance_of_mean(X: Matrix) -> Matrix:
    return X.var(axis=0, ddof=1) / len(X) if len(X) > 1 else np.full(X.shape[1], np.nan)
