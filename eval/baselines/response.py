"""What a method for responses to perturbed genes has to beat: means, additive models, ridges on gene tables.

Every function takes known effects (conditions, genes), which genes were perturbed in them, and conditions to predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor

from ...inference.response.additive import (
    choose_penalty,
    fit_additive,
    mean_of_order,
    order_means,
    ridge_weights,
)
from ...inference.response.conditions import all_genes, design
from ...inference.response.features import GeneFeatures

Matrix = npt.NDArray[np.float64]
Perturbed = Sequence[Sequence[str]]
TABLE_PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
AXES = 10


@dataclass(frozen=True)
class Known:
    """What a baseline may read.

    Parameters
    ----------
    delta
        (conditions, measured genes).
    perturbed
        Perturbed genes of each condition.
    genes
        Names of the measured genes.
    """

    delta: Matrix
    perturbed: tuple[tuple[str, ...], ...]
    genes: tuple[str, ...]

    def singles(self) -> dict[str, Matrix]:
        """Effect of each gene that was perturbed alone."""
        return {p[0]: row for p, row in zip(self.perturbed, self.delta, strict=True) if len(p) == 1}


def no_change(known: Known, wanted: Perturbed) -> Matrix:
    """No effect.

    Examples
    --------
    >>> no_change(Known(np.ones((1, 2)), (("A",),), ("x", "y")), [("B",)]).tolist()
    [[0.0, 0.0]]
    """
    return np.zeros((len(wanted), known.delta.shape[1]))


def train_mean(known: Known, wanted: Perturbed) -> Matrix:
    """Mean of all known effects.

    Examples
    --------
    >>> train_mean(Known(np.array([[1.0], [3.0]]), (("A",), ("B",)), ("x",)), [("C",)]).tolist()
    [[2.0]]
    """
    return np.repeat(known.delta.mean(axis=0, keepdims=True), len(wanted), axis=0)


def order_mean(known: Known, wanted: Perturbed) -> Matrix:
    """Mean of the known singles for a single, of the known pairs for a pair.

    Examples
    --------
    >>> order_mean(Known(np.array([[1.0], [3.0]]), (("A",), ("A", "B")), ("x",)), [("C",), ("B", "C")]).tolist()
    [[1.0], [3.0]]
    """
    return mean_of_order(order_means(known.delta, known.perturbed), wanted)


def matching_mean(known: Known, wanted: Perturbed) -> Matrix:
    """Mean of the known single effects of a condition's genes; the mean of all where none is known.

    Examples
    --------
    >>> matching_mean(Known(np.array([[1.0], [3.0]]), (("A",), ("B",)), ("x",)), [("A", "C"), ("C",)]).tolist()
    [[1.0], [2.0]]
    """
    singles, mean = known.singles(), known.delta.mean(axis=0)
    found = [[singles[gene] for gene in condition if gene in singles] for condition in wanted]
    return np.stack([np.mean(rows, axis=0) if rows else mean for rows in found])


def additive(known: Known, wanted: Perturbed, *, unseen: str = "nothing") -> Matrix:
    """Sum of the known single effects of a condition's genes.

    Parameters
    ----------
    unseen
        What a gene without a known single effect adds: ``"nothing"``, or ``"mean"``, the mean single.

    Examples
    --------
    >>> additive(Known(np.array([[1.0], [3.0]]), (("A",), ("B",)), ("x",)), [("A", "B"), ("A", "C")]).tolist()
    [[4.0], [1.0]]
    """
    singles = known.singles()
    other = np.zeros(known.delta.shape[1])
    if unseen == "mean" and singles:
        other = np.mean(list(singles.values()), axis=0)
    return np.stack([np.sum([singles.get(gene, other) for gene in condition], axis=0) for condition in wanted])


def scaled_additive(known: Known, wanted: Perturbed) -> Matrix:
    """The additive sum times one factor, fitted on known combinations whose singles are known.

    Examples
    --------
    >>> known = Known(np.array([[1.0], [3.0], [2.0]]), (("A",), ("B",), ("A", "B")), ("x",))
    >>> scaled_additive(known, [("A", "B")]).tolist()
    [[2.0]]
    """
    singles = known.singles()
    rows = [i for i, p in enumerate(known.perturbed) if len(p) > 1 and all(gene in singles for gene in p)]
    factor = 1.0
    if rows:
        summed = additive(known, [known.perturbed[i] for i in rows])
        factor = float((summed * known.delta[rows]).sum() / max((summed**2).sum(), 1e-12))
    predicted = additive(known, wanted, unseen="mean")
    several = np.array([len(condition) > 1 for condition in wanted])
    return np.where(several[:, None], factor * predicted, predicted)


def learned_additive(known: Known, wanted: Perturbed, *, seed: int = 0) -> Matrix:
    """One-hot ridge around the mean of a condition's order: the one to beat.

    Examples
    --------
    >>> known = Known(np.array([[1.0], [3.0]]), (("A",), ("B",)), ("x",))
    >>> learned_additive(known, [("C",)]).tolist()
    [[2.0]]
    """
    return fit_additive(known.delta, known.perturbed, seed=seed).predict(wanted)


def bilinear(known: Known, wanted: Perturbed, *, penalty: float = 0.1, axes: int = AXES) -> Matrix:
    """Read-out axes times the perturbed gene's own place on them, as Ahlmann-Eltze et al. (2025) do.

    Y = mean + P W G', G the first axes of the known effects by measured gene and P the rows of G of the perturbed
    genes, summed; a gene that is not measured has a row of zeros.

    Examples
    --------
    >>> known = Known(np.eye(2), (("x",), ("y",)), ("x", "y"))
    >>> bilinear(known, [("absent",)]).tolist()
    [[0.5, 0.5]]
    """
    mean = known.delta.mean(axis=0)
    centred = known.delta - mean
    k = min(axes, len(centred), centred.shape[1])
    G = np.linalg.svd(centred, full_matrices=False)[2][:k].T * np.sqrt(centred.shape[1])
    table = dict(zip(known.genes, G, strict=True))

    def rows(perturbed: Perturbed) -> Matrix:
        return np.stack([np.sum([table.get(gene, np.zeros(k)) for gene in p], axis=0) for p in perturbed])

    scores = centred @ G / centred.shape[1]
    W = ridge_weights(rows(known.perturbed), scores, penalty * len(centred))
    return mean + rows(wanted) @ W @ G.T


def table_ridge(known: Known, wanted: Perturbed, features: GeneFeatures, *, seed: int = 0) -> Matrix:
    """Ridge on the sum of a gene table's rows over the perturbed genes, around the mean of the order.

    Examples
    --------
    >>> known = Known(np.array([[1.0], [3.0]]), (("A",), ("B",)), ("x",))
    >>> table_ridge(known, [("C",)], GeneFeatures("t", ("A", "B"), np.eye(2))).tolist()
    [[2.0]]
    """
    X, X_wanted = _sums(features, known.perturbed), _sums(features, wanted)

    def fit(rows: npt.NDArray[np.int64], penalty: float) -> tuple[dict[int, Matrix], Matrix]:
        some = [known.perturbed[i] for i in rows]
        means = order_means(known.delta[rows], some)
        return means, ridge_weights(X[rows], known.delta[rows] - mean_of_order(means, some), penalty)

    def error(rows: npt.NDArray[np.int64], held: npt.NDArray[np.int64], penalty: float) -> float:
        means, W = fit(rows, penalty)
        predicted = mean_of_order(means, [known.perturbed[i] for i in held]) + X[held] @ W
        return float(((predicted - known.delta[held]) ** 2).sum())

    penalty = choose_penalty(len(X), TABLE_PENALTIES, error, seed=seed)
    means, W = fit(np.arange(len(X)), penalty)
    return mean_of_order(means, wanted) + X_wanted @ W


def table_neighbours(known: Known, wanted: Perturbed, features: GeneFeatures, *, k: int = 5) -> Matrix:
    """Mean of the `k` known conditions of the same order whose summed table rows are nearest by cosine.

    Examples
    --------
    >>> known = Known(np.array([[1.0], [3.0]]), (("A",), ("B",)), ("x",))
    >>> table_neighbours(known, [("A",)], GeneFeatures("t", ("A", "B"), np.eye(2)), k=1).tolist()
    [[1.0]]
    """
    X, X_wanted = _unit(_sums(features, known.perturbed)), _unit(_sums(features, wanted))
    order = np.array([len(p) for p in known.perturbed])
    predicted = []
    for x, condition in zip(X_wanted, wanted, strict=True):
        rows = np.flatnonzero(order == len(condition))
        rows = rows if len(rows) else np.arange(len(order))
        nearest = rows[np.argsort(-(X[rows] @ x), kind="stable")[:k]]
        # a gene without a row is near to nothing: the mean of all
        predicted.append(known.delta[nearest if np.any(x) else rows].mean(axis=0))
    return np.stack(predicted)


def table_forest(
    known: Known, wanted: Perturbed, features: GeneFeatures, *, axes: int = 20, trees: int = 100, seed: int = 0
) -> Matrix:
    """Forest from summed table rows and the order to the first axes of the known effects.

    Examples
    --------
    >>> known = Known(np.ones((3, 2)), (("A",), ("B",), ("C",)), ("x", "y"))
    >>> table_forest(known, [("A",)], GeneFeatures("t", ("A", "B"), np.eye(2)), trees=2).shape
    (1, 2)
    """

    def rows(perturbed: Perturbed) -> Matrix:
        return np.column_stack([_sums(features, perturbed), [len(p) for p in perturbed]])

    mean = known.delta.mean(axis=0)
    u, s, vt = np.linalg.svd(known.delta - mean, full_matrices=False)
    k = min(axes, len(s))
    forest = RandomForestRegressor(trees, min_samples_leaf=2, max_features=0.3, random_state=seed, n_jobs=1)
    forest.fit(rows(known.perturbed), u[:, :k] * s[:k])
    return mean + forest.predict(rows(wanted)).reshape(len(wanted), k) @ vt[:k]


def gene_baselines(
    known: Known, wanted: Perturbed, *, tables: Sequence[GeneFeatures] = (), seed: int = 0
) -> dict[str, Matrix]:
    """Every baseline's prediction of `wanted`.

    Parameters
    ----------
    known
        What was measured.
    wanted
        Perturbed genes of each condition to predict.
    tables
        Gene tables; each gives a ridge and five neighbours, and the first also a forest.
    seed
        Of folds and forests.

    Returns
    -------
    dict
        Name to (conditions, measured genes).

    Examples
    --------
    >>> sorted(gene_baselines(Known(np.ones((4, 2)), (("A",), ("B",), ("C",), ("D",)), ("x", "y")), [("E",)]))[:2]
    ['additive', 'additive, unseen gene = mean']
    """
    found = {
        "no change": no_change(known, wanted),
        "train mean": train_mean(known, wanted),
        "mean of order": order_mean(known, wanted),
        "matching mean": matching_mean(known, wanted),
        "additive": additive(known, wanted),
        "additive, unseen gene = mean": additive(known, wanted, unseen="mean"),
        "scaled additive": scaled_additive(known, wanted),
        "learned additive": learned_additive(known, wanted, seed=seed),
        "bilinear": bilinear(known, wanted),
    }
    for i, features in enumerate(tables):
        found[f"ridge on {features.name}"] = table_ridge(known, wanted, features, seed=seed)
        found[f"5 nearest on {features.name}"] = table_neighbours(known, wanted, features)
        if i == 0:
            found[f"forest on {features.name}"] = table_forest(known, wanted, features, seed=seed)
    return found


def _sums(features: GeneFeatures, perturbed: Perturbed) -> Matrix:
    """(conditions, width) sum of standardised rows over the perturbed genes."""
    names = all_genes(perturbed)
    return design(perturbed, names) @ features.rows(names)


def _unit(X: Matrix) -> Matrix:
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(length > 0, length, 1.0)
