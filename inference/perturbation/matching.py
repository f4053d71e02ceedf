"""Which genes to compare a gene with: as often detected, of the same rank, and met in the same cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
# A matched gene must be expressed in this part of the gene's cells, and in one at the least: genes that never meet
# belong to different kinds of cells.
SHARED_CELLS = 0.1
# A gene that is itself asked for may serve as another's null, but counts as this much further away, on a scale on
# which all genes span 1: it is drawn only where next to no other gene is alike. Without it, the highest genes asked
# for together would be compared with lower ones.
ASKED_PENALTY = 0.05
# genes nearer than this are all as good as each other
RADIUS = 0.03


def shared_cells_needed(n_cells: int) -> int:
    """Cells that a matched gene must share with a gene perturbed in `n_cells`."""
    return max(1, int(np.ceil(SHARED_CELLS * n_cells)))


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
    places
        (cells, columns): 1 + place of each expressed gene in each cell.
    """

    columns: npt.NDArray[np.int64]
    detection: Floats
    rank: Floats
    places: sparse.csr_matrix

    @classmethod
    def measure(
        cls,
        indptr: npt.NDArray[np.int64],
        columns: npt.NDArray[np.integer],
        values: npt.NDArray[np.floating],
        n_columns: int,
    ) -> "GeneProfile":
        """From the cells' entries: `columns` and model `values` (only of genes the model knows, all above 0)."""
        place = np.zeros(len(columns))
        for begin, end in pairwise(indptr.tolist()):
            order = np.argsort(-values[begin:end], kind="stable")
            place[begin:end][order] = np.arange(end - begin) / max(end - begin - 1, 1)
        seen = np.bincount(columns, minlength=n_columns)
        total = np.bincount(columns, weights=place, minlength=n_columns)
        kept = np.flatnonzero(seen)
        places = sparse.csr_matrix((1.0 + place, columns, indptr), shape=(len(indptr) - 1, n_columns))
        return cls(kept, seen[kept] / max(len(indptr) - 1, 1), total[kept] / seen[kept], places)

    def cells_with(self, unit: Sequence[int]) -> npt.NDArray[np.int64]:
        """Cells that express all of some columns."""
        counted = (self.places[:, list(unit)] > 0).sum(axis=1)
        return np.flatnonzero(np.asarray(counted).ravel() == len(unit))


def matched_genes(
    profile: GeneProfile,
    column: int,
    *,
    n: int,
    exclude: Sequence[int] | npt.NDArray[np.int64] = (),
    cells: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Draw genes like one gene: as often detected, and of about its rank.

    Both are compared on the scale of their order among all genes, so that neither outweighs the other. Candidates share
    enough of the cells (`shared_cells_needed`). Of those nearest (2 `n`, or all within `RADIUS`) the `n` first in a
    random order that the seed alone decides are taken: genes alike draw the same ones, so that hundreds of genes need
    no null each of their own.

    Parameters
    ----------
    profile
        Of the cells at hand.
    column
        The gene.
    n
        How many; fewer come back only if there are no more.
    exclude
        Columns to draw only where next to no other gene is alike; the gene itself is never drawn.
    cells
        The cells in which the gene is perturbed; default those that express it. An empty array: all, whatever they
        express.

    Returns
    -------
    numpy.ndarray
        Columns, in the order drawn.
    """
    own = np.flatnonzero(profile.columns == column)
    usable = profile.columns != column
    if cells is None:
        cells = profile.cells_with([column])
    if len(cells):
        shared = np.bincount(profile.places[cells].indices, minlength=profile.places.shape[1])[profile.columns]
        usable &= shared >= shared_cells_needed(len(cells))
    if not usable.any():
        return np.zeros(0, dtype=np.int64)
    detection, rank = _order(profile.detection), _order(profile.rank)
    # a gene expressed nowhere: the least detected genes are the nearest there are
    distance = np.hypot(detection - detection[own[0]], rank - rank[own[0]]) if len(own) else detection.copy()
    distance = distance + ASKED_PENALTY * np.isin(profile.columns, exclude)
    candidates = np.flatnonzero(usable)
    priority = np.random.default_rng(seed).permutation(profile.places.shape[1])[profile.columns]
    nearest = candidates[np.lexsort((priority[candidates], distance[candidates]))]
    enough = max(2 * n, int(np.sum(distance[nearest] <= RADIUS)))
    nearest = nearest[:enough]
    return profile.columns[nearest[np.argsort(priority[nearest])][:n]]


def _order(values: Floats) -> Floats:
    """Place of each value among all, 0 to 1; equal values share one."""
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return (middle / max(len(values) - 1, 1))[inverse] if len(unique) > 1 else np.zeros(len(values))
