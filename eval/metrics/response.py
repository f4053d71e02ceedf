"""How well predicted effects of perturbations agree with measured ones: one number a condition."""

import numpy as np
import numpy.typing as npt
from scipy import stats

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# less spread than this share of the size is rounding, not a prediction
_FLAT = 1e-9


def effect_scores(
    truth: Matrix,
    predicted: Matrix,
    *,
    reference: Matrix,
    left_out: Mask | None = None,
    top: npt.NDArray[np.int64] | None = None,
    at: tuple[int, ...] = (10, 50, 100),
) -> dict[str, Matrix]:
    """Every score of predicted effects, by condition.

    Parameters
    ----------
    truth, predicted
        (conditions, genes) effects against control.
    reference
        (genes,) mean effect of training: what `pearson_reference` is measured from.
    left_out
        (conditions, genes) True for genes that do not count: the perturbed ones.
    top
        (conditions, n) the genes that truly change most; chosen with the truth, so an oracle's choice.
    at
        Lengths of the lists of genes that rise and fall most.

    Returns
    -------
    dict
        Score to (conditions,): ``rmse``, ``mae``, ``pearson``, ``pearson_reference``, ``spearman``,
        ``discrimination``, ``overlap_20``, ``up_10`` and so on; with `top` also ``mse_top`` and ``direction_top``.

    Examples
    --------
    >>> truth = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    >>> scores = effect_scores(truth, truth, reference=truth.mean(axis=0), at=(1,))
    >>> scores["rmse"].tolist(), scores["discrimination"].tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape} but the prediction {predicted.shape}; give one row a condition")
    out = np.zeros(truth.shape, dtype=np.bool_) if left_out is None else left_out
    rows: list[dict[str, float]] = []
    for i in range(len(truth)):
        keep = ~out[i]
        t, p, r = truth[i, keep], predicted[i, keep], reference[keep]
        row = {
            "rmse": float(np.sqrt(np.mean((t - p) ** 2))),
            "mae": float(np.mean(np.abs(t - p))),
            "pearson": correlation(t, p),
            "pearson_reference": correlation(t - r, p - r),
            "spearman": correlation(stats.rankdata(t), stats.rankdata(p)) if not _is_flat(p) else 0.0,
            "overlap_20": overlap(np.abs(t), np.abs(p), 20),
        }
        for k in at:
            row[f"up_{k}"] = overlap(t, p, k)
            row[f"down_{k}"] = overlap(-t, -p, k)
        if top is not None:
            genes = top[i][keep[top[i]]]
            row["mse_top"] = float(np.mean((truth[i, genes] - predicted[i, genes]) ** 2)) if len(genes) else np.nan
            row["direction_top"] = direction(truth[i, genes], predicted[i, genes])
        rows.append(row)
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
    return scores | {"discrimination": discrimination(truth, predicted, left_out=left_out)}


def correlation(one: Matrix, other: Matrix) -> float:
    """Pearson's correlation; 0 where one side is constant and so says nothing.

    Examples
    --------
    >>> correlation(np.array([0.0, 1.0]), np.array([0.0, 2.0])), correlation(np.array([0.0, 1.0]), np.zeros(2))
    (1.0, 0.0)
    """
    if _is_flat(one) or _is_flat(other):
        return 0.0
    a, b = one - one.mean(), other - other.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def discrimination(truth: Matrix, predicted: Matrix, *, left_out: Mask | None = None) -> Matrix:
    """How often a prediction is nearer to its own condition than to another, by mean absolute difference.

    Parameters
    ----------
    truth, predicted
        (conditions, genes).
    left_out
        (conditions, genes): genes of a condition that do not count when its prediction is compared.

    Returns
    -------
    numpy.ndarray
        (conditions,) 1 best, 0.5 chance; equal distances share. NaN where there is only one condition.

    Examples
    --------
    >>> discrimination(np.array([[0.0], [1.0]]), np.array([[0.5], [0.9]])).tolist()
    [0.5, 1.0]
    """
    n = len(truth)
    found = np.full(n, np.nan)
    if n < 2:
        return found
    for i in range(n):
        keep = slice(None) if left_out is None else ~left_out[i]
        distance = np.abs(truth[:, keep] - predicted[i, keep]).mean(axis=1)
        others = np.delete(distance, i)
        same = np.isclose(others, distance[i], rtol=1e-12, atol=1e-15)
        found[i] = float(np.mean(np.where(same, 0.5, others > distance[i])))
    return found


def direction(truth: Matrix, predicted: Matrix) -> float:
    """Share of genes that are predicted to move the way they do; predicting no movement counts as half.

    Examples
    --------
    >>> direction(np.array([1.0, -1.0]), np.array([2.0, 0.0]))
    0.75
    """
    if len(truth) == 0:
        return float("nan")
    return float(np.mean(np.where(predicted == 0, 0.5, np.sign(predicted) == np.sign(truth))))


def overlap(truth: Matrix, predicted: Matrix, k: int) -> float:
    """Share of the `k` largest of the prediction that are among the `k` largest of the truth; ties count by share.

    A prediction that is the same for every gene has the value of a random list, `k` / genes.

    Examples
    --------
    >>> overlap(np.array([3.0, 2.0, 1.0, 0.0]), np.array([3.0, 0.0, 2.0, 0.0]), 2)
    0.5
    """
    k = min(k, len(truth))
    best = np.zeros(len(truth), dtype=np.bool_)
    best[np.argpartition(-truth, k - 1)[:k]] = True
    edge = np.partition(predicted, len(predicted) - k)[len(predicted) - k]
    sure, tied = predicted > edge, predicted == edge
    places = k - int(sure.sum())
    return float((best[sure].sum() + places * best[tied].mean()) / k)


def r_squared(truth: Matrix, predicted: Matrix) -> float:
    """Share of the variance of `truth` over genes that `predicted` accounts for, as CPA prints it for means.

    Examples
    --------
    >>> r_squared(np.array([0.0, 2.0]), np.array([1.0, 1.0]))
    0.0
    """
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((truth - predicted) ** 2).sum()) / spread if spread > 0 else float("nan")


def energy_distance(one: Matrix, other: Matrix) -> float:
    """Energy distance of two groups of cells: 2 E|x - y| - E|x - x'| - E|y - y'|, Euclidean.

    Examples
    --------
    >>> energy_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]])) <= 0
    True
    """

    def mean_distance(a: Matrix, b: Matrix, pairs: int) -> float:
        square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
        return float(np.sqrt(np.maximum(square, 0)).sum() / pairs)

    n, m = len(one), len(other)
    if min(n, m) < 2:
        raise ValueError("an energy distance needs two cells in each group")
    return 2 * mean_distance(one, other, n * m) - mean_distance(one, one, n * (n - 1)) - mean_distance(
        other, other, m * (m - 1)
    )  # fmt: skip


def share_of_possible(score: float, baseline: float, ceiling: float) -> float:
    """(score - baseline) / (ceiling - baseline); NaN where the ceiling is not better than the baseline.

    Parameters
    ----------
    score, baseline, ceiling
        Of a measure where more is better.

    Examples
    --------
    >>> share_of_possible(0.5, 0.25, 0.75)
    0.5
    """
    return (score - baseline) / (ceiling - baseline) if ceiling > baseline else float("nan")


def clustered_interval(
    values: npt.ArrayLike, groups: npt.ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean with its bootstrap interval, whole groups drawn: a condition that several seeds test is one condition.

    Returns
    -------
    tuple
        Mean, low, high; NaN are left out.

    Examples
    --------
    >>> clustered_interval([1.0, 1.0, 1.0], ["a", "a", "b"])
    (1.0, 1.0, 1.0)
    """
    x, g = np.asarray(values, dtype=np.float64), np.asarray(groups)
    x, g = x[np.isfinite(x)], g[np.isfinite(x)]
    if len(x) == 0:
        return float("nan"), float("nan"), float("nan")
    _, index = np.unique(g, return_inverse=True)
    total, size = np.bincount(index, weights=x), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(0, len(total), (resamples, len(total)))
    means = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(x.mean()), float(low), float(high)


def _is_flat(values: Matrix) -> bool:
    if len(values) == 0:
        return True
    size = float(np.abs(values).max())
    return bool(np.ptp(values) <= _FLAT * max(size, _FLAT))
