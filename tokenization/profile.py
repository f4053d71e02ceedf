"""A cell's profile: its weighted log counts as one vector of unit length, read without any network.

``x_g = log(1 + counts per 10,000) * weight_g``, to unit length, then through a fixed matrix. What a gene weighs was
counted on many data sets: minus the logarithm of the share of cells that express it. No training is needed, and a
network that does not beat this has learned nothing that linear algebra did not know.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

PER_CELL = 10_000.0
BAG_COLUMNS = 512
# a gene of fewer than one in a thousand cells tells no more than one of one in a thousand
_RAREST = 1e-3


def gene_weights(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights of genes from the share of cells that express them, root mean square 1.

    Parameters
    ----------
    share
        Mean over data sets of the share of their cells that express the gene; NaN where none measures it.
        Shape (genes,).

    Returns
    -------
    float64 array (genes,)
        NaN where `share` is.

    Examples
    --------
    >>> gene_weights(np.array([0.5, 0.01, np.nan])).round(2).tolist()
    [0.21, 1.4, nan]
    """
    weight = -np.log(np.clip(share, _RAREST, 1.0))
    known = np.isfinite(weight)
    scale = np.sqrt(np.mean(np.square(weight[known]))) if known.any() else 1.0
    return weight / scale if scale > 0 else np.where(known, 1.0, np.nan)


def profiles(
    indptr: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.integer],
    counts: npt.NDArray[np.floating],
    weights: npt.NDArray[np.float32],
) -> sparse.csr_matrix:
    """Profiles of cells, before any projection.

    Parameters
    ----------
    indptr, tokens, counts
        Cells end to end: where each begins, tokens of its genes, their counts. Shapes (cells + 1,), (n,), (n,).
    weights
        Of every token. Shape (vocab,).

    Returns
    -------
    scipy.sparse.csr_matrix
        float32, shape (cells, vocab); rows have unit length, or are empty for a cell without counts.

    Examples
    --------
    >>> profiles(np.array([0, 2]), np.array([2, 3]), np.array([1.0, 1.0]), np.ones(4, np.float32)).toarray().round(2)
    array([[0.  , 0.  , 0.71, 0.71]], dtype=float32)
    """
    lengths = np.diff(indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.asarray(counts, dtype=np.float64)
    total = np.bincount(row, weights=counts, minlength=len(lengths))
    value = np.log1p(PER_CELL * counts / np.maximum(total, 1e-6)[row]) * weights[tokens]
    length = np.sqrt(np.bincount(row, weights=np.square(value), minlength=len(lengths)))
    value /= np.maximum(length, 1e-6)[row]
    shape = (len(lengths), len(weights))
    return sparse.csr_matrix((value.astype(np.float32), np.asarray(tokens, np.int64), indptr), shape)


def bag_matrix(vocab_size: int, columns: int = BAG_COLUMNS, seed: int = 0) -> npt.NDArray[np.float32]:
    """A fixed random matrix that keeps angles between profiles: entries 1 and -1, equal for equal sizes and seeds.

    Signs do what normal numbers do for such a projection (Achlioptas 2003), and their generator is one that NumPy has
    promised never to change, so that no file has to carry the matrix.

    Examples
    --------
    >>> bag_matrix(4, columns=8).shape
    (4, 8)
    """
    bits = np.frombuffer(np.random.RandomState(seed).bytes(vocab_size * -(-columns // 8)), dtype=np.uint8)
    signs = np.unpackbits(bits.reshape(vocab_size, -1), axis=1)[:, :columns]
    return signs.astype(np.float32) * 2 - 1


def bag(profile: sparse.csr_matrix, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Profiles through `bag_matrix`, each to length sqrt(columns), so that a column has about unit variance.

    Examples
    --------
    >>> profile = profiles(np.array([0, 1]), np.array([2]), np.array([5.0]), np.ones(4, np.float32))
    >>> float(np.square(bag(profile, bag_matrix(4, columns=8))).sum())
    8.0
    """
    read = np.asarray(profile @ matrix, dtype=np.float32)
    length = np.linalg.norm(read, axis=1, keepdims=True)
    return read * np.float32(np.sqrt(matrix.shape[1])) / np.maximum(length, 1e-6)


def counts_of_values(
    values: npt.NDArray[np.floating], tokens: npt.NDArray[np.integer], medians: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The counts that values were made of: ``median * (2 ** value - 1)``.

    Parameters
    ----------
    values, tokens
        Of some genes. Shapes (n,).
    medians
        Of every token in cells of their species, `GeneTable.cell_medians`. Shape (vocab,).

    Examples
    --------
    >>> counts_of_values(np.array([2.0]), np.array([1]), np.array([1.0, 4.0])).tolist()
    [12.0]
    """
    return (np.exp2(np.maximum(np.asarray(values, dtype=np.float64), 0.0)) - 1) * medians[tokens]
