"""The learned additive model: what the genes of a condition do, each for itself, around the mean of its order.

The one to beat, and what the gene network starts from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .conditions import all_genes, design

Matrix = npt.NDArray[np.float64]
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Additive:
    """A fitted learned additive model.

    Parameters
    ----------
    genes
        Perturbed genes that training saw.
    weights
        (genes, measured genes): what each adds.
    means
        Order (1, 2, ...) to the mean effect of conditions of that order.
    penalty
        Of the ridge, chosen within training.
    """

    genes: tuple[str, ...]
    weights: Matrix
    means: dict[int, Matrix]
    penalty: float

    def predict(self, genes: Sequence[Sequence[str]]) -> Matrix:
        """(conditions, measured genes); a gene that training never saw perturbed adds nothing to the mean.

        Examples
        --------
        >>> model = fit_additive(np.array([[1.0], [3.0]]), [("A",), ("B",)], penalties=(0.0,))
        >>> model.predict([("A",), ("new",)]).round(6).tolist()
        [[1.0], [2.0]]
        """
        return mean_of_order(self.means, genes) + design(genes, self.genes) @ self.weights


def fit_additive(
    delta: Matrix, genes: Sequence[Sequence[str]], *, penalties: Sequence[float] = PENALTIES, seed: int = 0
) -> Additive:
    """Ridge of effects less the mean of their order on which genes were perturbed.

    Parameters
    ----------
    delta
        (conditions, measured genes).
    genes
        Perturbed genes of each condition.
    penalties
        To choose from by five-fold cross-validation over the conditions.
    seed
        Of the folds.

    Examples
    --------
    >>> delta = np.array([[1.0], [3.0], [4.0]])
    >>> fit_additive(delta, [("A",), ("B",), ("A", "B")], penalties=(1.0,)).genes
    ('A', 'B')
    """
    names = tuple(all_genes(genes))
    X = design(genes, names)

    def fit(rows: npt.NDArray[np.int64], penalty: float) -> tuple[dict[int, Matrix], Matrix]:
        mine = [genes[i] for i in rows]
        means = order_means(delta[rows], mine)
        return means, ridge_weights(X[rows], delta[rows] - mean_of_order(means, mine), penalty)

    def error(rows: npt.NDArray[np.int64], held: npt.NDArray[np.int64], penalty: float) -> float:
        means, weights = fit(rows, penalty)
        predicted = mean_of_order(means, [genes[i] for i in held]) + X[held] @ weights
        return float(((predicted - delta[held]) ** 2).sum())

    penalty = choose_penalty(len(delta), penalties, error, seed=seed)
    means, weights = fit(np.arange(len(delta)), penalty)
    return Additive(names, weights, means, penalty)


def order_means(delta: Matrix, genes: Sequence[Sequence[str]]) -> dict[int, Matrix]:
    """Mean effect of single conditions, of pairs, and so on.

    Examples
    --------
    >>> order_means(np.array([[1.0], [3.0]]), [("A",), ("A", "B")])
    {1: array([1.]), 2: array([3.])}
    """
    order = np.array([len(condition) for condition in genes])
    return {int(k): delta[order == k].mean(axis=0) for k in np.unique(order)}


def mean_of_order(means: dict[int, Matrix], genes: Sequence[Sequence[str]]) -> Matrix:
    """(conditions, measured genes): the mean of each one's order; of an order never seen, the nearest one's, scaled.

    Examples
    --------
    >>> mean_of_order({1: np.array([2.0])}, [("A",), ("A", "B")]).tolist()
    [[2.0], [4.0]]
    """

    def mean(order: int) -> Matrix:
        nearest = min(means, key=lambda known: abs(known - order))
        return means[nearest] * (order / nearest)

    return np.stack([mean(len(condition)) for condition in genes])


def ridge_weights(X: Matrix, Y: Matrix, penalty: float) -> Matrix:
    """(features, outputs) of a ridge without intercept.

    Examples
    --------
    >>> ridge_weights(np.array([[1.0], [1.0]]), np.array([[2.0], [4.0]]), 0.0).round(6).tolist()
    [[3.0]]
    """
    if X.shape[1] > len(X) and penalty > 0:  # the dual is smaller
        return np.asarray(X.T @ np.linalg.solve(X @ X.T + penalty * np.eye(len(X)), Y), dtype=np.float64)
    gram = X.T @ X + (penalty + 1e-9) * np.eye(X.shape[1])
    return np.asarray(np.linalg.solve(gram, X.T @ Y), dtype=np.float64)


def choose_penalty(
    n: int,
    penalties: Sequence[float],
    error: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], float], float],
    *,
    n_folds: int = 5,
    seed: int = 0,
) -> float:
    """The penalty with the smallest summed error over folds of `n` training conditions.

    Parameters
    ----------
    n
        How many conditions.
    penalties
        To choose from.
    error
        Called with training rows, held-out rows and a penalty.
    n_folds, seed
        Of the folds.

    Examples
    --------
    >>> choose_penalty(10, (1.0, 2.0), lambda rows, held, penalty: penalty)
    1.0
    """
    if len(penalties) == 1 or n < 3:
        return float(penalties[len(penalties) // 2])
    order = np.random.default_rng(seed).permutation(n)
    parts = [order[k::n_folds] for k in range(min(n_folds, n))]
    total = [sum(error(np.setdiff1d(order, part), part, penalty) for part in parts) for penalty in penalties]
    return float(penalties[int(np.argmin(total))])
