"""Cells for the speed benchmarks: real ones where a folder of them is at hand, else synthetic ones of like lengths."""

from pathlib import Path
from typing import Any

import numpy as np

# Median and spread of genes per cell in 10x PBMC and pancreas data, for synthetic cells.
_MEDIAN_GENES, _SPREAD, _VOCABULARY = 900, 0.45, 50558
_FILES = {
    "pbmc_human/pbmc3k_10x.h5ad": "human",
    "pbmc_human/pbmc_facs_sorted_10x.h5ad": "human",
    "pbmc_human/pbmc_frozen_donorA_10x.h5ad": "human",
    "baron_pancreas/baron_mouse1.h5ad": "mouse",
}


def draw_cells(
    count: int, *, data: Path | None, genes: Path | None, full_length: bool, seed: int
) -> tuple[list[dict[str, Any]], str]:
    """Draw `count` tokenised cells; give them and one line that says what they are.

    Parameters
    ----------
    data, genes
        Folder with ``pbmc_human`` and ``baron_pancreas``, and a gene table (``genes.tsv.gz``).
    full_length
        Synthetic cells of exactly 2,048 genes instead.
    """
    generator = np.random.default_rng(seed)
    if full_length:
        return [_synthetic(generator, 2048) for _ in range(count)], "synthetic cells of 2,048 genes"
    if data is None or genes is None:
        lengths = np.exp(generator.normal(np.log(_MEDIAN_GENES), _SPREAD, count)).clip(200, 2048).astype(int)
        cells = [_synthetic(generator, length) for length in lengths]
        return cells, f"synthetic cells, {np.mean(lengths):.0f} genes on average"
    from genecompass.tokenization import GeneTable
    from genecompass.tokenization.tokenize import tokenize_cells

    table = GeneTable.read(genes)
    pool = [
        (cells, i)
        for name, species in _FILES.items()
        for cells in [tokenize_cells(data / name, table, species=species)]
        for i in range(len(cells))
    ]
    chosen = generator.choice(len(pool), size=count, replace=count > len(pool))
    cells = [pool[i][0][pool[i][1]] for i in chosen]
    mean = np.mean([len(cell["input_ids"]) for cell in cells])
    return cells, f"PBMC and pancreas cells, {mean:.0f} genes on average"


def _synthetic(generator: np.random.Generator, length: int) -> dict[str, Any]:
    """A cell whose genes are drawn by a heavy-tailed popularity, so that cells share most of their genes."""
    popularity = 1.0 / np.arange(50, _VOCABULARY + 48)
    ids = generator.choice(np.arange(2, _VOCABULARY), size=length, replace=False, p=popularity / popularity.sum())
    values = np.sort(generator.gamma(2.0, 0.8, length))[::-1]
    return {
        "input_ids": ids.astype(np.int32),
        "values": values.astype(np.float32),
        "species": int(generator.random() < 0.3),
    }
