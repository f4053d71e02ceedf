"""Noise beside every effect: intervals over cells, empirical p against matched genes, false discovery rates."""

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


def common_cell_means(own: Floats, others: Floats, *, min_cells: int = 1) -> tuple[Floats, Floats]:
    """Mean effect of a gene and of each matched gene over the cells in which both were perturbed.

    Parameters
    ----------
    own
        (cells,); NaN where the gene was not perturbed.
    others
        (cells, matched genes).
    min_cells
        Matched genes that share fewer cells are left out.

    Returns
    -------
    own_means, other_means
        (kept matched genes,) each.
    """
    both = np.isfinite(own)[:, None] & np.isfinite(others)
    n = both.sum(axis=0)
    keep = n >= max(min_cells, 1)
    own_sum = np.where(both, own[:, None], 0.0).sum(axis=0)
    other_sum = np.where(both, others, 0.0).sum(axis=0)
    return own_sum[keep] / n[keep], other_sum[keep] / n[keep]


def empirical_p(observed: npt.ArrayLike, null: npt.ArrayLike, *, alternative: Alternative = "greater") -> float:
    """Share of null values at least as extreme as the observed one, with one added above and below.

    Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9, 39 (2010): never 0.

    Parameters
    ----------
    observed
        One value, or one for each null value (the mean over the cells shared with it).
    null
        (n,). Two-sided, distance from the null's mean counts.

    Examples
    --------
    >>> empirical_p(5.0, [1.0, 2.0, 3.0])
    0.25
    """
    random = np.asarray(null, dtype=np.float64)
    own = np.broadcast_to(np.asarray(observed, dtype=np.float64), random.shape)
    if not len(random):
        return float("nan")
    if alternative == "two-sided":
        random, own = np.abs(random - random.mean()), np.abs(own - random.mean())
    # equal up to rounding counts as extreme: an effect of nothing must not look rare
    tolerance = 1e-12 + 1e-9 * np.abs(own)
    return float((1 + np.sum(random >= own - tolerance)) / (len(random) + 1))


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
