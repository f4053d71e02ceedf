"""Networks from expression alone: correlation, tree ensembles, and random weights to compare with.

Every function takes expression as (cells, genes) and gives scores as (regulators, targets).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy.stats import rankdata
from sklearn.covariance import ledoit_wolf
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor

Matrix = npt.NDArray[np.float64]
TreeKind = Literal["extra_trees", "random_forest", "gradient_boosting"]


def correlation_scores(
    expression: npt.ArrayLike,
    regulators: Sequence[int],
    targets: Sequence[int],
    *,
    kind: Literal["pearson", "spearman"] = "spearman",
) -> Matrix:
    """Correlation of every regulator with every target over cells; 0 for a gene that never varies.

    Parameters
    ----------
    expression
        (cells, genes), log-normalised.
    regulators, targets
        Columns of `expression`.

    Returns
    -------
    numpy.ndarray
        (regulators, targets), signed, in [-1, 1].

    Examples
    --------
    >>> correlation_scores([[0, 1], [1, 0], [2, -1]], [0], [1]).round(3).tolist()
    [[-1.0]]
    """
    X = np.asarray(expression, dtype=np.float64)
    if kind == "spearman":
        X = rankdata(X, axis=0)
    X = X - X.mean(axis=0)
    length = np.linalg.norm(X, axis=0)
    X = np.divide(X, length, out=np.zeros_like(X), where=length > 1e-12)
    return X[:, list(regulators)].T @ X[:, list(targets)]


def partial_correlation_scores(expression: npt.ArrayLike, regulators: Sequence[int], targets: Sequence[int]) -> Matrix:
    """Correlation that is left when all other genes are held, from the Ledoit-Wolf shrunken covariance.

    Ledoit and Wolf, Journal of Multivariate Analysis 88, 365-411 (2004).
    """
    X = np.asarray(expression, dtype=np.float64)
    scale = X.std(axis=0)
    X = np.divide(X - X.mean(axis=0), scale, out=np.zeros_like(X), where=scale > 1e-12)
    covariance, shrinkage = ledoit_wolf(X, assume_centered=True)
    # genes that never vary leave a zero row; a small ridge keeps the inverse finite
    precision = np.linalg.inv(covariance + (1e-6 + 1e-6 * shrinkage) * np.eye(X.shape[1]))
    root = np.sqrt(np.diag(precision))
    partial = -precision / np.outer(root, root)
    np.fill_diagonal(partial, 0.0)
    return partial[np.ix_(list(regulators), list(targets))]


def tree_scores(
    expression: npt.ArrayLike,
    regulators: Sequence[int],
    targets: Sequence[int],
    *,
    kind: TreeKind = "extra_trees",
    n_trees: int = 500,
    seed: int = 0,
    n_jobs: int = 1,
) -> Matrix:
    """Importance of regulators in a tree ensemble that predicts each target.

    GENIE3 (Huynh-Thu et al., PLoS ONE 5, e12776, 2010) with ``"random_forest"`` or ``"extra_trees"`` (square root
    of the number of regulators tried at a split, targets scaled to unit variance); GRNBoost2 (Moerman et al.,
    Bioinformatics 35, 2159, 2019) is much like ``"gradient_boosting"`` (shallow trees, learning rate 0.01,
    row subsampling, stopped early on out-of-bag improvement).

    Parameters
    ----------
    expression
        (cells, genes).
    regulators, targets
        Columns of `expression`. A target is never its own regulator.
    n_trees
        Trees per target; for gradient boosting the most there can be.
    seed
        Of the ensembles; target j uses ``seed`` and j.
    n_jobs
        Targets fitted at a time.

    Returns
    -------
    numpy.ndarray
        (regulators, targets), >= 0; unsigned.
    """
    X = np.asarray(expression, dtype=np.float32)
    rows = np.asarray(regulators, dtype=np.int64)

    def importance(position: int, target: int) -> npt.NDArray[np.float64]:
        scores = np.zeros(len(rows))
        y = X[:, target].astype(np.float64)
        others = np.flatnonzero(rows != target)
        if y.std() < 1e-12 or not len(others):
            return scores
        state = (seed * 100_003 + position) % (2**31)
        model = _tree_model(kind, n_trees, state)
        scale = y.std() if kind != "gradient_boosting" else 1.0
        model.fit(X[:, rows[others]], (y - y.mean()) / scale, **_early_stop(kind))
        weights = model.feature_importances_
        if kind == "gradient_boosting":
            # arboreto's weights are total gains, which grow with the number of trees; sklearn's sum to one
            weights = weights * len(model.estimators_)
        scores[others] = weights
        return scores

    columns = Parallel(n_jobs=n_jobs)(delayed(importance)(i, t) for i, t in enumerate(targets))
    return np.stack(list(columns), axis=1)


def _tree_model(kind: TreeKind, n_trees: int, state: int) -> ExtraTreesRegressor | GradientBoostingRegressor:
    if kind == "extra_trees":
        return ExtraTreesRegressor(n_trees, max_features="sqrt", random_state=state, n_jobs=1)
    if kind == "random_forest":
        return RandomForestRegressor(n_trees, max_features="sqrt", random_state=state, n_jobs=1)
    if kind == "gradient_boosting":
        return GradientBoostingRegressor(
            n_estimators=n_trees, learning_rate=0.01, max_features=0.1, subsample=0.9, max_depth=3, random_state=state
        )
    raise ValueError(f"unknown tree ensemble {kind!r}: extra_trees, random_forest or gradient_boosting")


def _early_stop(kind: TreeKind, window: int = 25) -> dict[str, object]:
    """Stop boosting once the out-of-bag improvement of the last `window` trees is negative on average."""
    if kind != "gradient_boosting":
        return {}

    def done(round_number: int, model: GradientBoostingRegressor, _: object) -> bool:
        start = round_number - window + 1
        return start > 0 and float(np.mean(model.oob_improvement_[start : round_number + 1])) < 0

    return {"monitor": done}


def random_scores(n_regulators: int, n_targets: int, *, seed: int = 0) -> Matrix:
    """Uniform random weights, for comparison. (regulators, targets)."""
    return np.random.default_rng(seed).random((n_regulators, n_targets))
