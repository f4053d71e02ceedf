"""Which genes to compare a gene with: those of the same expression rank and detection rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GeneProfile:
    """How genes are expressed in the cells at hand.

    Parameters
    ----------
    columns
        Columns of the count matrix whose genes the model knows and some cell expresses. (genes,)
    detection
        Share of cells that express each.
    rank
        Mean over expressing cells of the gene's place in the cell, from 0 (highest value) to 1.
    """

    columns: npt.NDArray[np.int64]
    detection: Floats
    rank: Floats

    @classmethod
    def measure(
        cls,
        indptr: npt.NDArray[np.int64],
        columns: npt.NDArray[np.integer],
        values: npt.NDArray[np.floating],
        n_columns: int,
    ) -> "GeneProfile":
        """From the cells' entries: `columns` and model `values` (only of genes the model knows, all above 0)."""
        seen = np.zeros(n_columns)
        place = np.zeros(n_columns)
        for begin, end in pairwise(indptr.tolist()):
            order = np.argsort(-values[begin:end], kind="stable")
            mine = columns[begin:end][order]
            seen[mine] += 1
            place[mine] += np.arange(len(mine)) / max(len(mine) - 1, 1)
        kept = np.flatnonzero(seen)
        return cls(kept, seen[kept] / max(len(indptr) - 1, 1), place[kept] / seen[kept])


def matched_genes(
    profile: GeneProfile, column: int, *, n: int, exclude: Sequence[int] | npt.NDArray[np.int64] = (), seed: int = 0
) -> npt.NDArray[np.int64]:
    """Draw genes with about the same rank and detection rate as one gene.

    Both are compared on the scale of their order among all genes, so that neither outweighs the other; `n` genes are
    drawn at random from the 2 `n` nearest. The draw depends on the gene and the seed alone, not on other genes asked
    for.

    Parameters
    ----------
    profile
        Of the cells at hand.
    column
        The gene.
    n
        How many; fewer come back only if there are no more.
    exclude
        Columns that may not be drawn; the gene itself never is.

    Returns
    -------
    numpy.ndarray
        Columns, in the order drawn.
    """
    own = np.flatnonzero(profile.columns == column)
    allowed = ~np.isin(profile.columns, [*exclude, column])
    if not allowed.any():
        return np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng([seed, column])
    if not len(own):
        # expressed nowhere: the least detected genes are the nearest there are
        distance = _order(profile.detection)
    else:
        detection, rank = _order(profile.detection), _order(profile.rank)
        distance = np.hypot(detection - detection[own[0]], rank - rank[own[0]])
    candidates = np.flatnonzero(allowed)
    jitter = rng.random(len(candidates)) * 1e-9
    nearest = candidates[np.argsort(distance[candidates] + jitter, kind="stable")[: 2 * n]]
    return profile.columns[rng.permutation(nearest)[:n]]


def _order(values: Floats) -> Floats:
    """Place of each value among all, 0 to 1; equal values share one."""
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return (middle / max(len(values) - 1, 1))[inverse] if len(unique) > 1 else np.zeros(len(values))
