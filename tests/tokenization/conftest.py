"""A small vocabulary of two species and counts to go with it."""

import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.gene_table import GeneTable
from scipy import sparse

N_HUMAN, N_MOUSE = 40, 30


@pytest.fixture(scope="session")
def table():
    """40 human genes, 30 mouse genes; mouse genes 0..19 take the tokens of human genes 0..19."""
    rng = np.random.default_rng(0)
    human = pd.DataFrame(
        {
            "gene_id": [f"ENSG{i:011d}" for i in range(N_HUMAN)],
            "symbol": [f"HGENE{i}" for i in range(N_HUMAN)],
            "species": "human",
            "biotype": ["protein_coding"] * 30 + ["lncRNA"] * 10,
            "median": rng.uniform(0.5, 4, N_HUMAN),
        }
    )
    human.loc[39, "symbol"] = "MT-CO1"
    human["previous_symbols"] = [f"OLD{i}" if i < 3 else "" for i in range(N_HUMAN)]
    human["alias_symbols"] = ["SHARED" if i in (4, 5) else f"ALIAS{i}" if i < 3 else "" for i in range(N_HUMAN)]
    mouse = pd.DataFrame(
        {
            "gene_id": [f"ENSMUSG{i:011d}" for i in range(N_MOUSE)],
            "symbol": [f"Hgene{i}" for i in range(N_MOUSE)],
            "species": "mouse",
            "biotype": "protein_coding",
            "median": rng.uniform(0.5, 4, N_MOUSE),
            "homolog_gene_id": [f"ENSG{i:011d}" if i < 20 else None for i in range(N_MOUSE)],
            "previous_symbols": "",
            "alias_symbols": "",
        }
    )
    return GeneTable.from_genes(pd.concat([human, mouse], ignore_index=True))


@pytest.fixture(scope="session")
def counts():
    """25 cells x 40 genes; every cell expresses something."""
    rng = np.random.default_rng(1)
    dense = rng.poisson(0.8, (25, N_HUMAN)).astype(np.float32)
    dense[:, 0] += 1
    return sparse.csr_matrix(dense)


@pytest.fixture
def adata(counts):
    """The counts as human AnnData with symbols and ids."""
    var = pd.DataFrame({"ensembl_id": [f"ENSG{i:011d}" for i in range(N_HUMAN)]})
    var.index = [f"HGENE{i}" for i in range(N_HUMAN - 1)] + ["MT-CO1"]
    obs = pd.DataFrame({"batch": ["a"] * 10 + ["b"] * 15}, index=[f"cell{i}" for i in range(25)])
    return anndata.AnnData(counts.copy(), obs=obs, var=var)
