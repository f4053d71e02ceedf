"""Quality control as the builder runs it: measure block by block in the first pass, decide when a file is read."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.matching import match_genes
from genecompass.tokenization.quality import QualityControl, measure_cells

from .sources import Source

Measurer = Callable[[sp.csr_matrix, npt.NDArray[np.str_]], npt.NDArray[np.float64]]


@lru_cache(maxsize=2)
def _table(path: str) -> GeneTable:
    return GeneTable.read(path)


def measurer(source: Source, var: pd.DataFrame, species: list[str], *, quality: str, table: str | None) -> Measurer:
    """A function that measures the cells of a block.

    Parameters
    ----------
    source, var
        The input and its genes.
    species
        Species of its cells.
    quality
        Preset of `QualityControl`; ``"none"`` needs no gene table and measures total counts and expressed genes.
    table
        Path of the gene table.

    Returns
    -------
    callable
        Takes a block (cells, genes) and the cells' species (cells,), gives float64 (cells, 4) as `measure_cells`.

    Raises
    ------
    InputError
        When quality control is asked for without a gene table, or no gene is known to it.
    """
    control = QualityControl.named(quality)
    if not control.removes_cells:
        return _measure_plainly
    if table is None:
        raise InputError(f"quality control {quality!r} needs a gene table: pass --gene-table, or --quality none")
    genes = _table(table)
    matches = {
        name: match_genes(var, genes, species=name, gene_species=source.gene_species or name) for name in species
    }

    def measure(block: sp.csr_matrix, of: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
        measures = np.zeros((block.shape[0], 4))
        for name, match in matches.items():
            mine = np.flatnonzero(of == name)
            if len(mine):
                measures[mine] = measure_cells(block[mine], match, genes)
        return measures

    return measure


def _measure_plainly(block: sp.csr_matrix, _: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    total = np.asarray(block.sum(axis=1)).ravel().astype(np.float64)
    nothing = np.zeros(len(total))
    return np.column_stack([total, np.diff(block.indptr), nothing, nothing])


def decide(
    measures: npt.NDArray[np.float64], *, quality: str, samples: npt.NDArray[Any] | None, table: str | None
) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Which cells of an input to keep, and how many each rule removed."""
    has_biotypes = table is not None and bool((_table(table).frame["biotype"] != "").any())
    decision = QualityControl.named(quality).decide(measures, samples, has_biotypes=has_biotypes)
    return decision.keep, {rule: number for rule, number in decision.removed.items() if number}


def matched_ids(var: pd.DataFrame, gene_species: str, table: str | None) -> npt.NDArray[np.str_] | None:
    """Gene ids that a vocabulary gives to an input's columns, empty where it knows none. Shape (n_genes,)."""
    if table is None:
        return None
    genes = _table(table)
    try:
        tokens = match_genes(var, genes, species=gene_species).column_token
    except InputError:
        return None  # genes that the vocabulary does not know keep the names of the source
    ids = genes.frame["gene_id"].to_numpy(dtype=object)
    return np.where(tokens >= 0, ids[np.maximum(tokens, 0)], "")
