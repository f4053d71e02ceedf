"""Bootstrap intervals around any metric."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._checks import same_length


@dataclass(frozen=True)
class Interval:
    """A metric's value with its bootstrap interval.

    Parameters
    ----------
    value
        The metric on all entries.
    low, high
        Ends of the interval.
    level
        Its nominal coverage.

    Examples
    --------
    >>> str(Interval(0.912, 0.88, 0.93, 0.95))
    '0.912 [0.880, 0.930]'
    """

    value: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a metric over cells, or over whole donors.

    Cells of one donor are not independent: with `groups`, donors are drawn instead of cells, which gives the wider
    interval that a new donor deserves.

    Parameters
    ----------
    metric
        Called with the resampled arrays, for example `macro_f1`.
    *arrays
        The metric's arguments, one entry a cell each.
    groups
        Donor, sample or data set by cell.
    strata
        True label by cell: each label keeps its number of cells in every draw, so that a rare label is never lost.
        Without effect where groups are drawn.
    resamples
        Number of draws. Draws on which the metric is undefined (one class only) are left out; more than half
        undefined is an error.
    level
        Nominal coverage.
    seed
        Of the random draws.

    Raises
    ------
    ValueError
        Lengths differ, or the metric is undefined on most draws.

    Examples
    --------
    >>> from genecompass.eval.metrics import accuracy
    >>> interval = bootstrap_interval(accuracy, ["B", "T"] * 20, ["B", "T"] * 19 + ["B", "B"], resamples=200)
    >>> interval.low < interval.value <= interval.high
    True
    """
    columns = [np.asarray(array) for array in arrays]
    n = same_length(**{f"argument {i + 1}": column for i, column in enumerate(columns)})
    if groups is not None:
        same_length(groups=groups, values=columns[0])
    draws = []
    for rows in resampled_rows(n, groups=groups, strata=strata, resamples=resamples, seed=seed):
        try:
            draws.append(metric(*(column[rows] for column in columns)))
        except ValueError:
            continue  # one class only in this draw: the metric has no value there
    if len(draws) < resamples / 2:
        raise ValueError(f"the metric is undefined on {resamples - len(draws)} of {resamples} draws: too few entries")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(metric(*columns)), float(low), float(high), level)


def resampled_rows(
    n: int,
    *,
    groups: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each bootstrap draw: whole groups where given, else rows within their stratum.

    Examples
    --------
    >>> rows = next(resampled_rows(4, strata=["a", "a", "a", "b"]))
    >>> int(rows[-1]), len(rows)
    (3, 4)
    """
    generator = np.random.default_rng(seed)
    if groups is not None:
        members = _members(groups, n)
        for _ in range(resamples):
            yield np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])
        return
    within = _members(strata, n) if strata is not None else [np.arange(n)]
    for _ in range(resamples):
        yield np.concatenate([rows[generator.integers(0, len(rows), len(rows))] for rows in within])


def paired_difference(
    metric: Callable[..., float],
    truth: npt.ArrayLike,
    one: Sequence[npt.ArrayLike],
    other: Sequence[npt.ArrayLike],
    *,
    groups: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Metric of one method less that of another on the same cells, with its interval: both see the same draws.

    Two intervals that overlap say little; whether the difference's own interval holds 0 says whether it is a tie.

    Parameters
    ----------
    metric
        Of truth and prediction.
    truth
        (cells,).
    one, other
        Predictions, one array a seed; the metric is averaged over them.
    groups, strata, resamples, level, seed
        As for `bootstrap_interval`.

    Examples
    --------
    >>> from genecompass.eval.metrics import accuracy
    >>> truth = ["B", "T"] * 20
    >>> paired_difference(accuracy, truth, [truth], [["B"] * 40], resamples=100).low > 0
    True
    """
    actual = np.asarray(truth)
    ours, theirs = [np.asarray(x) for x in one], [np.asarray(x) for x in other]

    def difference(rows: npt.NDArray[np.int64]) -> float:
        mean = [np.mean([metric(actual[rows], x[rows]) for x in side]) for side in (ours, theirs)]
        return float(mean[0] - mean[1])

    every = resampled_rows(len(actual), groups=groups, strata=strata, resamples=resamples, seed=seed)
    draws = [difference(rows) for rows in every]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(difference(np.arange(len(actual))), float(low), float(high), level)


def _members(groups: npt.ArrayLike | None, n: int) -> list[npt.NDArray[np.int64]]:
    """Rows of each group; without groups every row is its own."""
    if groups is None:
        return [np.array([row]) for row in range(n)]
    _, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    return [np.flatnonzero(index == group) for group in range(index.max() + 1)]
