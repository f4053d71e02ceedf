"""Rankings that know nothing of regulation: what a network or a list of targets has to beat."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd


def expression_level_network(
    levels: npt.ArrayLike, regulators: Sequence[str], targets: Sequence[str], *, genes: Sequence[str]
) -> pd.DataFrame:
    """Edges weighted by how highly both ends are expressed: the pull of abundance alone.

    Parameters
    ----------
    levels
        Mean expression of each of `genes`, >= 0.

    Returns
    -------
    pandas.DataFrame
        ``regulator``, ``target``, ``weight``.

    Examples
    --------
    >>> expression_level_network([1.0, 2.0], ["A"], ["B"], genes=["A", "B"])["weight"].tolist()
    [2.0]
    """
    level = dict(zip(genes, np.asarray(levels, dtype=np.float64), strict=True))
    pairs = [(r, t, level[r] * level[t]) for r in regulators for t in targets if r != t]
    return pd.DataFrame(pairs, columns=["regulator", "target", "weight"])


def random_precision(n_positives: int, n_candidates: int) -> float:
    """Precision that a random list is expected to have, at any length.

    Examples
    --------
    >>> random_precision(5, 100)
    0.05
    """
    if not 0 <= n_positives <= n_candidates or n_candidates < 1:
        raise ValueError(f"{n_positives} positives among {n_candidates} candidates")
    return n_positives / n_candidates


def by_level(levels: npt.ArrayLike, genes: Sequence[str]) -> list[str]:
    """Genes, the highest expressed first; ties by name.

    Examples
    --------
    >>> by_level([1.0, 3.0, 3.0], ["A", "C", "B"])
    ['B', 'C', 'A']
    """
    level = np.asarray(levels, dtype=np.float64)
    return [genes[i] for i in sorted(range(len(genes)), key=lambda i: (-level[i], genes[i]))]
