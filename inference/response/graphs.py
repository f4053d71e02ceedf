"""Graphs over genes for one hop of mixing: common GO terms, and co-expression in training data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

Matrix = npt.NDArray[np.float64]
NEAREST = 20


@dataclass(frozen=True)
class GeneGraph:
    """A normalised graph, as the entries of its matrix.

    Parameters
    ----------
    row, column
        Where; `column` speaks to `row`.
    weight
        How much, self-loops included, D^-1/2 (A + I) D^-1/2.
    size
        Number of genes.
    """

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    size: int

    def dense(self) -> Matrix:
        """(genes, genes).

        Examples
        --------
        >>> self_loops(2).dense().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        entries = (self.weight.astype(np.float64), (self.row, self.column))
        return np.asarray(sparse.coo_matrix(entries, shape=(self.size, self.size)).todense())


def self_loops(size: int) -> GeneGraph:
    """No neighbours: every gene speaks to itself.

    Examples
    --------
    >>> self_loops(3).weight.tolist()
    [1.0, 1.0, 1.0]
    """
    every = np.arange(size, dtype=np.int64)
    return GeneGraph(every, every, np.ones(size, dtype=np.float32), size)


def go_graph(
    terms: Mapping[str, frozenset[str]], genes: Sequence[str], *, least: float = 0.1, nearest: int = NEAREST
) -> GeneGraph:
    """Genes that share GO terms: Jaccard index of their terms above `least`, the `nearest` of each gene, weights kept.

    Examples
    --------
    >>> graph = go_graph({"A": frozenset("x"), "B": frozenset("x")}, ["A", "B", "C"])
    >>> graph.dense().round(2).tolist()
    [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """
    names = sorted({term for gene in genes for term in terms.get(gene, ())})
    place = {term: j for j, term in enumerate(names)}
    pairs = [(i, place[term]) for i, gene in enumerate(genes) for term in terms.get(gene, ())]
    if not pairs:
        return self_loops(len(genes))
    rows, columns = np.array(pairs).T
    X = sparse.csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(genes), len(names)))
    both = np.asarray((X @ X.T).todense())
    size = both.diagonal()
    either = size[:, None] + size[None, :] - both
    return _nearest(np.divide(both, either, out=np.zeros_like(both), where=either > 0), least, nearest)


def co_expression_graph(X: npt.ArrayLike, *, least: float = 0.4, nearest: int = NEAREST) -> GeneGraph:
    """Genes that go together over rows: absolute Pearson correlation above `least`, the `nearest`, weights kept.

    Parameters
    ----------
    X
        (rows, genes): log-normalised training cells, or training effects where there are no cells.

    Examples
    --------
    >>> co_expression_graph(np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])).dense().round(2).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    values = np.asarray(X, dtype=np.float64)
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(length > 0, length, 1.0)
    return _nearest(np.abs(unit.T @ unit), least, nearest)


def _nearest(weight: Matrix, least: float, nearest: int) -> GeneGraph:
    A = np.where(weight > least, weight, 0.0)
    np.fill_diagonal(A, 0.0)
    k = min(nearest, len(A) - 1)
    if k < len(A) - 1:
        cut = np.partition(A, len(A) - k, axis=1)[:, len(A) - k][:, None]
        A = np.where(cut <= A, A, 0.0)
    np.fill_diagonal(A, 1.0)
    out, into = np.sqrt(A.sum(axis=1)), np.sqrt(A.sum(axis=0))
    A = A / out[:, None] / into[None, :]
    row, column = np.nonzero(A)
    return GeneGraph(row.astype(np.int64), column.astype(np.int64), A[row, column].astype(np.float32), len(A))
