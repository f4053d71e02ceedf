"""Synthetic inputs for the corpus benchmark: 10x-like cells in h5ad files, written with flat memory."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from genecompass.tokenization.gene_table import GeneTable

PBMC = [f"pbmc_human/{name}.h5ad" for name in ("pbmc3k_10x", "pbmc_frozen_donorA_10x", "pbmc_facs_sorted_10x")]


def gene_ids(n_genes: int) -> list[str]:
    return [f"ENSG{number:011d}" for number in range(n_genes)]


def synthetic_table(n_genes: int) -> GeneTable:
    """A vocabulary of made-up human genes."""
    return GeneTable.from_genes(pd.DataFrame({"gene_id": gene_ids(n_genes), "species": "human"}))


def synthetic_inputs(folder: Path, n_cells: int, *, n_files: int, genes_per_cell: int, n_genes: int) -> Path:
    """Write files of made-up cells, numbered from 0 through all files, and their manifest.

    Genes are drawn by a heavy-tailed popularity; most counts are 1, as in 10x data.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    popularity = 1.0 / np.arange(20, n_genes + 20)
    detected = popularity * genes_per_cell / popularity.sum()
    detected = np.minimum(detected, 0.95) * genes_per_cell / np.minimum(detected, 0.95).sum()
    order = rng.permutation(n_genes)
    paths = []
    for number, cells in enumerate(np.array_split(np.arange(n_cells), n_files)):
        path = folder / f"part{number:03d}.h5ad"
        blocks = []
        for start in range(0, len(cells), 2000):
            drawn = rng.random((min(2000, len(cells) - start), n_genes), dtype=np.float32) < detected
            block = sp.csr_matrix(drawn[:, order], dtype=np.int32)
            block.data[:] = rng.geometric(0.6, len(block.data))
            blocks.append(block)
        obs = pd.DataFrame({"tissue": rng.choice(["blood", "lung"], len(cells))}, index=[f"cell-{n}" for n in cells])
        var = pd.DataFrame(index=gene_ids(n_genes))
        ad.AnnData(sp.vstack(blocks, format="csr"), obs=obs, var=var).write_h5ad(path, compression="gzip")
        paths.append(path.name)
    manifest = folder / "inputs.tsv"
    pd.DataFrame({"path": paths, "species": "human"}).to_csv(manifest, sep="\t", index=False)
    return manifest
