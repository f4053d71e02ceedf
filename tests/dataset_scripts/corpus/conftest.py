"""Small made-up inputs for corpus tests: human and mouse cells with depth, dropout and annotations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from genecompass.dataset_scripts.corpus.builder import build
from genecompass.tokenization.gene_table import GeneTable

PREFIX = {"human": "ENSG", "mouse": "ENSMUSG"}
N_GENES = 300


def gene_frame(species: str) -> pd.DataFrame:
    """The made-up genes of a species."""
    symbols = [f"GENE{i}" if species == "human" else f"Gene{i}" for i in range(N_GENES)]
    ids = [f"{PREFIX[species]}{i:011d}" for i in range(N_GENES)]
    return pd.DataFrame({"gene_id": ids, "symbol": symbols, "species": species, "biotype": "protein_coding"})


@pytest.fixture(scope="session")
def table() -> GeneTable:
    genes = pd.concat([gene_frame("human"), gene_frame("mouse")], ignore_index=True)
    genes["median"] = 1.0 + np.arange(len(genes)) % 3
    return GeneTable.from_genes(genes)


@pytest.fixture(scope="session")
def make_cells() -> Callable[..., ad.AnnData]:
    """Make an AnnData of raw counts: ``make_cells(n_cells, seed, species=...)``."""

    def make(
        n_cells: int, seed: int, *, species: str = "human", n_genes: int = N_GENES, prefix: str = ""
    ) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        frame = gene_frame(species).iloc[rng.permutation(N_GENES)[:n_genes]]
        rate = rng.gamma(0.4, 2.0, size=n_genes) * rng.uniform(0.5, 2.0, size=(n_cells, 1))
        counts = sp.csr_matrix(rng.poisson(rate).astype(np.int32))
        obs = pd.DataFrame(
            {
                "cell_type": pd.Categorical(rng.choice(["alpha", "beta"], n_cells)),
                "tissue": rng.choice(["liver", "lung"], n_cells),
                "organism": species,
            },
            index=[f"{prefix or species}{seed}-{i}" for i in range(n_cells)],
        )
        var = pd.DataFrame({"ensembl_id": frame["gene_id"].to_numpy()}, index=frame["symbol"].to_numpy())
        return ad.AnnData(counts, obs=obs, var=var)

    return make


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, make_cells: Callable[..., ad.AnnData]) -> Path:
    """A folder with three inputs and their manifest ``inputs.tsv``."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = []
    for name, species, n_cells, seed in (("a", "human", 1500, 1), ("b", "mouse", 900, 2), ("c", "human", 700, 3)):
        make_cells(n_cells, seed, species=species).write_h5ad(folder / f"{name}.h5ad", compression="gzip")
        rows.append({"path": f"{name}.h5ad", "species": species, "licence": "CC0", "citation": f"study {name}"})
    pd.DataFrame(rows).to_csv(folder / "inputs.tsv", sep="\t", index=False)
    return folder


@pytest.fixture(scope="session")
def corpus(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus of the three inputs."""
    folder = tmp_path_factory.mktemp("corpus") / "built"
    build(inputs / "inputs.tsv", folder)
    return folder


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return read


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., Path]:
    """Write a manifest: ``manifest_of(path, [{...}, ...])``."""

    def write(path: Path, rows: list[dict[str, Any]]) -> Path:
        pd.DataFrame(rows).fillna("").to_csv(path, sep="\t", index=False)
        return path

    return write
