"""The demo's cells: 700 human blood cells that ship inside scanpy, turned back into the counts they came from."""

import anndata as ad
import numpy as np
import scipy.sparse as sp

from ...tokenization.errors import InputError

LABEL = "cell_type"
SPECIES = "human"


def blood_cells() -> ad.AnnData:
    """Raw counts of scanpy's ``pbmc68k_reduced``: 700 cells, 765 genes, 10 sorted cell types (Zheng et al. 2017).

    scanpy ships them as ``log1p(count * 10,000 / n_counts)`` with ``n_counts`` rounded, so the inverse is a whole
    number within 0.1, which is checked.

    Returns
    -------
    AnnData
        Counts as float32 CSR in ``X``, labels in ``obs["cell_type"]``, genes by symbol.

    Raises
    ------
    ImportError
        If scanpy is not installed.
    InputError
        If the recovered counts are not whole numbers.
    """
    try:
        import scanpy
    except ImportError as error:
        raise ImportError('the demo\'s cells ship inside scanpy: pip install "genecompass[plots]"') from error

    shipped = scanpy.datasets.pbmc68k_reduced()
    counts = sp.csr_matrix(shipped.raw.X, dtype=np.float64)
    totals = shipped.obs["n_counts"].to_numpy(dtype=np.float64)
    counts.data = np.expm1(counts.data) * np.repeat(totals, np.diff(counts.indptr)) / 1e4
    whole = np.rint(counts.data)
    if np.abs(counts.data - whole).max() > 0.1:
        raise InputError("scanpy's pbmc68k_reduced: the recovered counts are not whole numbers; pass --data FILE.h5ad")
    counts.data = whole
    counts.eliminate_zeros()

    obs = shipped.obs[["bulk_labels"]].rename(columns={"bulk_labels": LABEL})
    return ad.AnnData(counts.astype(np.float32), obs=obs, var=shipped.raw.var[[]].copy())
