"""Noise beside every effect: intervals over cells, empirical p against matched genes, false discovery rates."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Alternative = Literal["greater", "two-sided"]


def mean_interval(values: npt.ArrayLike, *, level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean over cells with its t interval.

    Parameters
    ----------
    values
        One number per cell; NaN where the cell takes no part.
    level
        Coverage.

    Returns
    -------
    mean, low, high, n
        The bounds are NaN with fewer than two cells.

    Examples
    --------
    >>> [round(float(x), 2) for x in mean_interval([1.0, 2.0, 3.0, float("nan")])]
    [2.0, -0.48, 4.48, 3.0]
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return (float(x[0]) if len(x) else np.nan), np.nan, np.nan, len(x)
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 1)) * float(x.std(ddof=1)) / np.sqrt(len(x))
    mean = float(x.mean())
    return mean, mean - half, mean + half, len(x)


@dataclass(frozen=True)
class Comparison:
    """One perturbation's effect beside that of matched random ones.

    Parameters
    ----------
    own
        Mean effect of the perturbation, corrected for the cells that it was seen in.
    null
        That of each matched gene, corrected likewise and for what difference in rank and detection is left.
        (matched genes,)
    """

    own: float
    null: Floats

    @property
    def beyond(self) -> float:
        """Difference to the null's mean; NaN without a null."""
        return float(self.own - self.null.mean()) if len(self.null) else np.nan


def cell_levels(values: Floats, *, rounds: int = 6) -> Floats:
    """Level of each cell in a two-way layout of cells and genes with gaps: value = level of the cell + of the gene.

    Parameters
    ----------
    values
        (cells, genes); NaN where a gene was not perturbed.

    Returns
    -------
    numpy.ndarray
        (cells,), of mean 0; 0 for a cell with fewer than two values.

    Examples
    --------
    >>> cell_levels(np.array([[1.0, 2.0], [3.0, np.nan], [3.0, 4.0]])).round(6).tolist()
    [-1.0, 0.0, 1.0]
    """
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    per_cell, per_gene = known.sum(axis=1), known.sum(axis=0)
    level = np.zeros(len(values))
    for _ in range(rounds):
        gene = (filled - np.where(known, level[:, None], 0.0)).sum(axis=0) / np.maximum(per_gene, 1)
        level = (filled - np.where(known, gene[None, :], 0.0)).sum(axis=1) / np.maximum(per_cell, 1)
        level[per_cell < 2] = 0.0
        level[per_cell >= 2] -= level[per_cell >= 2].mean() if (per_cell >= 2).any() else 0.0
    return level


def compare_with_matched(
    unit: int,
    matched: npt.NDArray[np.int64],
    effects: Floats,
    places: Floats,
    *,
    level: Floats,
    scale: Floats,
) -> Comparison:
    """Mean effect of a gene beside that of each matched gene, as if all had been seen in the gene's own cells.

    A mean over few cells varies more than one over many, so every gene keeps all cells that it was perturbed in: those
    matched were seen in about as many. That some cells move more than others, whatever is done to them, is taken off
    by each cell's own level and scale. And no two genes are matched exactly; for the highest gene of a cell all others
    are lower. What a step in rank or detection makes is fitted over the matched genes (a straight line; for distances
    of their logarithm) and taken off as well: the bias correction of matching estimators (Abadie and Imbens, J. Bus.
    Econ. Stat. 29, 1, 2011).

    Parameters
    ----------
    unit, matched
        Columns of the gene and of those matched to it.
    effects, places
        Effect, and rank of the gene in the cell from 0 to 1: (cells, genes), NaN where a gene was not perturbed.
    level, scale
        Of every cell, (cells,): distances have no level but a scale, moves towards a goal have both.
    """
    own_cells = np.isfinite(effects[:, unit])
    kept = matched[np.isfinite(effects[:, matched]).any(axis=0)]
    signed = bool(np.any(level != 0)) or bool(np.nanmin(effects[:, [unit, *kept]], initial=0.0) < 0)
    if not own_cells.any():
        return Comparison(np.nan, np.zeros(0))
    chosen = np.array([unit, *kept])
    with np.errstate(invalid="ignore"):
        adjusted = (effects[:, chosen] - level[:, None]) / scale[:, None]
    means = np.nanmean(adjusted, axis=0) * scale[own_cells].mean() + level[own_cells].mean()
    own, null = float(means[0]), means[1:]
    if not len(null):
        return Comparison(own, null)
    seen = np.log(np.isfinite(effects[:, chosen]).sum(axis=0))
    features = np.stack([np.nanmean(places[:, chosen], axis=0), seen], axis=1)
    step, features = features[0] - features[1:], features[1:]
    if signed:
        null = null + step @ _slope(features, null)
        middle = float(np.median(null))
        size = np.log(np.abs(null - middle) + 1e-3 * null.std() + 1e-300)
        null = middle + (null - middle) * np.exp(np.clip(step @ _slope(features, size), -1, 1))
    elif (null > 0).all():
        null = null * np.exp(np.clip(step @ _slope(features, np.log(null)), -2, 2))
    return Comparison(own, null)


# below this many matched genes a fitted line is noise
_GENES_TO_FIT = 15


def _slope(features: Floats, values: Floats) -> Floats:
    """Least-squares slope of values on features, slightly shrunk; 0 where there are too few to fit one."""
    if len(values) < _GENES_TO_FIT:
        return np.zeros(features.shape[1])
    spread = features.std(axis=0)
    X = np.divide(features - features.mean(axis=0), spread, out=np.zeros_like(features), where=spread > 1e-9)
    slope = np.linalg.solve(X.T @ X + np.eye(X.shape[1]), X.T @ (values - values.mean()))
    return np.divide(slope, spread, out=np.zeros_like(spread), where=spread > 1e-9)


def empirical_p(observed: npt.ArrayLike, null: npt.ArrayLike, *, alternative: Alternative = "greater") -> float:
    """Share of null values at least as extreme as the observed one, with one added above and below.

    Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9, 39 (2010): never 0.

    Parameters
    ----------
    observed
        One value, or one for each null value (the mean over the cells shared with it).
    null
        (n,). Two-sided, twice the smaller of both shares.

    Examples
    --------
    >>> empirical_p(5.0, [1.0, 2.0, 3.0])
    0.25
    """
    random = np.asarray(null, dtype=np.float64)
    own = np.broadcast_to(np.asarray(observed, dtype=np.float64), random.shape)
    if not len(random):
        return float("nan")
    # equal up to rounding counts as extreme: an effect of nothing must not look rare
    tolerance = 1e-12 + 1e-9 * np.abs(own)
    above = float((1 + np.sum(random >= own - tolerance)) / (len(random) + 1))
    if alternative == "greater":
        return above
    below = float((1 + np.sum(random <= own + tolerance)) / (len(random) + 1))
    return min(1.0, 2 * min(above, below))


def smallest_p(n_null: int, alternative: Alternative = "greater") -> float:
    """Smallest p that `empirical_p` can give against so many null values; NaN for none.

    Examples
    --------
    >>> smallest_p(19), smallest_p(19, "two-sided")
    (0.05, 0.1)
    """
    return (1 if alternative == "greater" else 2) / (n_null + 1) if n_null else float("nan")


def benjamini_hochberg(p: npt.ArrayLike) -> Floats:
    """Benjamini-Hochberg adjusted p; NaN stays NaN and does not count as a test.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.5, float("nan")]).tolist()
    [0.02, 0.5, nan]
    """
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known], method="bh")
    return q


def standardised_effect(observed: float, null: npt.ArrayLike) -> float:
    """(observed - mean of null) / standard deviation of null; NaN where the null does not vary.

    Examples
    --------
    >>> round(standardised_effect(4.0, [1.0, 2.0, 3.0]), 3)
    2.0
    """
    null = np.asarray(null, dtype=np.float64)
    spread = float(null.std(ddof=1)) if len(null) > 1 else 0.0
    return (
        float((observed - null.mean()) / spread) if spread > 1e-12 * max(1e-12, float(np.abs(null).max())) else np.nan
    )


def pooled_null_p(observed: Floats, null: Floats) -> tuple[Floats, Floats, Floats]:
    """Give p of one perturbation's effect on each of many targets, against matched genes, pooled over targets.

    With n matched genes and T targets a target of its own could never get below 1 / (n + 1), far too coarse for T
    tests. So effects are made comparable between targets as in SAM (Tusher et al., PNAS 98, 5116, 2001):
    d = (effect - mean of the target's null) / (sd of the target's null + s0), s0 the median of those sd; each matched
    gene's own d leaves itself out of mean and sd; |d| of all matched genes on all targets form the null.

    Parameters
    ----------
    observed
        (targets,); NaN where not measured.
    null
        (matched genes, targets); NaN where not measured.

    Returns
    -------
    p, d, null_mean
        (targets,) each; NaN where fewer than three matched genes were measured.
    """
    known = np.isfinite(null)
    n = known.sum(axis=0).astype(np.float64)
    filled = np.where(known, null, 0.0)
    total, squares = filled.sum(axis=0), (filled**2).sum(axis=0)
    usable = (n >= 3) & np.isfinite(observed)
    p, d, centre = (np.full(observed.shape, np.nan) for _ in range(3))
    if not usable.any():
        return p, d, centre

    def moments(count: Floats, first: Floats, second: Floats) -> tuple[Floats, Floats]:
        mean = first / count
        return mean, np.sqrt(np.maximum(second / count - mean**2, 0.0) * count / np.maximum(count - 1, 1))

    with np.errstate(invalid="ignore", divide="ignore"):
        mean, spread = moments(n, total, squares)
        fudge = float(np.median(spread[usable]))
        # where nothing moves, rounding must not be blown up into effects
        fudge = max(fudge, 1e-9 * float(np.abs(np.where(known, null, 0.0)).max()), 1e-12)
        left_mean, left_spread = moments(n - 1, total - filled, squares - filled**2)
        null_d = np.abs((filled - left_mean) / (left_spread + fudge))
        d[usable] = ((observed - mean) / (spread + fudge))[usable]
    pool = np.sort(null_d[known & usable[None, :]])
    strength = np.abs(d[usable])
    above = len(pool) - np.searchsorted(pool, strength * (1 - 1e-9) - 1e-12, side="left")
    p[usable] = (1 + above) / (len(pool) + 1)
    centre[usable] = mean[usable]
    return p, d, centre
