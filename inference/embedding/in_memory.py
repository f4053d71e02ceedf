"""Embeddings of cells and genes into an AnnData in memory."""

from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.gene_table import GeneTable
from ...tokenization.matching import match_columns
from ...tokenization.readers import CellOptions, CellSource, open_cells
from ...tokenization.sources import model_or_default
from ..cells import Coverage, Reading, chunks, name_of, provenance, require_species
from ..checkpoint import Model, gene_table_of, load_checkpoint
from ..h5ad import check_key
from .encode import MAX_TOKENS, GeneMeans
from .pooling import Pooling

CELL_KEY = "X_genecompass"
GENE_KEY = "genecompass"


def embed(
    adata: Any,
    model: Model = None,
    species: str | None = None,
    *,
    processor: Any = None,
    pooling: str = "auto",
    layer: int = -1,
    genes: bool = True,
    key: str = CELL_KEY,
    gene_species: str | None = None,
    max_length: int | None = None,
    max_tokens: int = MAX_TOKENS,
    bf16: bool = False,
    device: str | None = None,
    progress: bool = False,
    **reading: Unpack[CellOptions],
) -> Any:
    """Embed cells and genes, in place.

    Parameters
    ----------
    adata
        AnnData with raw counts.
    model
        Checkpoint or adapter (folder or ``owner/name[@revision]``), or a loaded model with its `processor`; the
        checkpoint that travels with the package by default.
    species
        Species of the cells, or an ``obs`` column that says it; has to be said.
    processor
        Needed with a loaded model only.
    pooling
        ``"mean"`` over a cell's genes, ``"species"`` for the species token, ``"both"`` side by side; ``"cell"``, the
        cell vector of a model that has one; ``"profile"``, weighted log counts through a fixed matrix, for which no
        network is run; ``"mean+profile"`` side by side. ``"auto"``: the cell vector, else the mean.
    layer
        Layer to read: 0 is the input of the first, -1 the last.
    genes
        Also write gene embeddings.
    key
        Name in ``obsm``.
    gene_species
        Species of the gene names, where it is not the cells'.
    max_length
        Genes a cell; None for the model's longest.
    max_tokens, bf16, device, progress
        Slots a batch; mixed precision; where to compute; a progress bar.
    **reading
        How counts and genes are found: `CellOptions`.

    Returns
    -------
    AnnData
        `adata` itself, with ``obsm[key]`` (cells x H, float32), ``varm["genecompass"]`` (genes x H; the mean over
        all cells that express the gene, NaN where none does or the gene is not known) and ``uns["genecompass"]``.

    Raises
    ------
    InputError
        Not raw counts, genes of another species, no known gene, no such layer or pooling.

    Examples
    --------
    >>> import genecompass as gc
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> adata = gc.embed(blood_cells()[:40].copy(), species="human")
    >>> adata.obsm["X_genecompass"].shape
    (40, 640)
    """
    model, species = model_or_default(model), require_species(species)
    check_key(key, "obsm")
    network, processor = load_checkpoint(model, processor=processor, device=device, fold=isinstance(model, str))
    table = gene_table_of(processor)
    source = open_cells(adata, **reading)
    how = Pooling.choose(pooling, network.config)
    length = max_length or network.config.max_position_embeddings
    taken = Reading(species, gene_species, length, how.whole_cells(network.config))
    how.width(network.config)  # refuses what this model does not have, before the work
    genes = genes and how.network is not None
    means = GeneMeans(table.vocab_size, network.config.hidden_size) if genes else None
    coverage = Coverage()
    parts = [
        how.embed(
            network,
            tokenized,
            table,
            layer=layer,
            max_tokens=max_tokens,
            bf16=bf16,
            gene_means=means,
            progress=f"cells from {first:,}" if progress else None,
        )
        for first, tokenized in chunks(source, table, taken, coverage=coverage)
    ]
    adata.obsm[key] = np.concatenate(parts)
    if means is not None:
        adata.varm[GENE_KEY] = gene_rows(source, adata.var_names, table, taken, means)
    adata.uns["genecompass"] = {
        **adata.uns.get("genecompass", {}),
        **provenance(network, name_of(model)),
        "coverage": coverage.to_dict(),
        "counts_from": source.counts_from,
        "embedding": {"key": key, "pooling": how.name, "layer": layer, "max_length": taken.max_length},
    }
    return adata


def gene_rows(
    cells: CellSource,
    names: pd.Index,
    table: GeneTable,
    reading: Reading,
    means: GeneMeans,
) -> npt.NDArray[np.float32]:
    """Gene embeddings in the order of `names`; NaN rows for genes without one.

    Parameters
    ----------
    cells
        What was read; ``raw`` may hold more genes than the AnnData. Genes are named in one species: with a species
        column, the most frequent one counts.
    names
        ``var_names`` of the AnnData.
    table, reading, means
        Vocabulary, how cells were read, and the means by token.
    """
    species, var = reading.species, cells.var
    if species in cells.obs:
        species = str(cells.obs[species].astype(str).mode().iloc[0])
    mixed = reading.species in cells.obs
    match = match_columns(cells, table, species=species, gene_species=reading.gene_species, mixed=mixed)
    by_token = np.vstack([means.means(), np.full((1, means.sums.shape[1]), np.nan, dtype=np.float32)])
    rows = by_token[match.cell_token]  # token -1 takes the last row: NaN
    if len(var) == len(names) and (var.index == names).all():
        return rows
    first = pd.Series(np.arange(len(var)), index=var.index)
    place = first[~first.index.duplicated()].reindex(names)
    found = place.notna().to_numpy()
    wanted = np.full((len(names), rows.shape[1]), np.nan, dtype=np.float32)
    wanted[found] = rows[place[found].astype(int).to_numpy()]
    return wanted
