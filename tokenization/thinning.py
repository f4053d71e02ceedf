"""Cells as if sequenced less deeply: each counted molecule is kept with the same chance."""

import numpy as np
from scipy import sparse

from .errors import InputError


def thin_counts(counts: sparse.csr_matrix, share: float, *, seed: int = 0, first_row: int = 0) -> sparse.csr_matrix:
    """Keep each molecule with chance `share`.

    A cell comes out the same whatever block it stands in: its random numbers depend on `seed` and its row alone.

    Parameters
    ----------
    counts
        Raw counts, cells x genes; fractions are rounded.
    share
        Above 0, at most 1.
    seed
        Of the draw.
    first_row
        Row of the first cell in its source.

    Returns
    -------
    scipy.sparse.csr_matrix
        Same shape, float32, without explicit zeros.

    Raises
    ------
    InputError
        A share outside (0, 1].

    Examples
    --------
    >>> thin_counts(sparse.csr_matrix([[40.0, 0.0, 2.0]]), 0.5).toarray().tolist()
    [[21.0, 0.0, 1.0]]
    """
    if not 0 < share <= 1:
        raise InputError(f"cannot thin counts to {share} of themselves; choose above 0 and at most 1")
    thinned = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    whole = np.rint(thinned.data).astype(np.int64)
    for row in range(thinned.shape[0]):
        part = slice(thinned.indptr[row], thinned.indptr[row + 1])
        thinned.data[part] = np.random.default_rng([seed, first_row + row]).binomial(whole[part], share)
    thinned.eliminate_zeros()
    return thinned
