"""Gene tables of a GeneCompass checkpoint: what it puts in for a gene, and what it makes of genes in cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...tokenization.errors import InputError
from ..checkpoint import encoder_of, gene_table_of, load_checkpoint
from ..embedding.in_memory import GENE_KEY, embed
from .features import GeneFeatures

INPUT = "genecompass input"
CONTEXT = "genecompass context"


def input_table(
    model: Any, genes: Sequence[str], *, species: str, processor: Any = None, device: str | None = None
) -> GeneFeatures:
    """What the checkpoint puts in for each gene, id and prior knowledge together, before any cell.

    Parameters
    ----------
    model, processor
        As for `load_checkpoint`.
    genes
        Symbols or Ensembl ids; those that the vocabulary does not know get no row.
    species
        Of the genes.
    device
        Where the checkpoint runs.

    Raises
    ------
    InputError
        No such checkpoint or species, or it knows fewer than two of the genes.

    Examples
    --------
    >>> input_table("my_checkpoint", ["KLF1", "MAP2K6"], species="human").table.shape  # doctest: +SKIP
    (2, 768)
    """
    network, processor = load_checkpoint(model, processor=processor, device=device)
    table = gene_table_of(processor)
    species = table.species_called(species)
    place = table.species_index(species)
    names = list(dict.fromkeys(genes))
    tokens, _ = table.index.look_up(names, species)
    found = np.flatnonzero(tokens >= 0)
    if len(found) < 2:
        raise InputError(f"the checkpoint knows {len(found)} of {len(names)} genes; is species={species!r} theirs?")
    own = torch.from_numpy(table.token_in_cell[tokens[found]])[None].to(network.device)
    with torch.inference_mode():
        slots = torch.full_like(own, place)
        rows = encoder_of(network).embeddings._gene_part(own, slots)[0].double().cpu().numpy()
    return GeneFeatures(INPUT, tuple(names[i] for i in found), np.asarray(rows, dtype=np.float64))


def context_table(
    cells: Any, model: Any, *, species: str, processor: Any = None, device: str | None = None, **reading: Any
) -> GeneFeatures:
    """Mean state of each gene over cells: what the checkpoint makes of it there.

    Parameters
    ----------
    cells
        AnnData with raw counts: control cells, or cells like them. It is not changed.
    model, processor, device
        As for `load_checkpoint`.
    species
        Of the cells.
    reading
        Options of `open_cells`.

    Raises
    ------
    InputError
        See `embed`; fewer than two genes with a state.

    Examples
    --------
    >>> context_table(control_cells, "my_checkpoint", species="human").table.shape  # doctest: +SKIP
    (500, 768)
    """
    found = embed(cells.copy(), model, species, processor=processor, pooling="mean", device=device, **reading)
    rows = np.asarray(found.varm[GENE_KEY], dtype=np.float64)
    known = np.flatnonzero(np.isfinite(rows).all(axis=1))
    if len(known) < 2:
        raise InputError("fewer than two genes of the cells have a state in the checkpoint; is the species theirs?")
    return GeneFeatures(CONTEXT, tuple(str(found.var_names[i]) for i in known), rows[known])
