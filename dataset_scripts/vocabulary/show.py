"""What a vocabulary knows of a gene, in plain lines."""

import numpy as np

from ...tokenization.errors import InputError
from ...tokenization.gene_index import AMBIGUOUS, BY_ALIAS, BY_ID, BY_PREVIOUS, BY_SYMBOL
from ...tokenization.gene_table import GeneTable

_WAYS = {BY_ID: "gene id", BY_SYMBOL: "symbol", BY_PREVIOUS: "previous symbol", BY_ALIAS: "alias"}


def describe(table: GeneTable, name: str, *, species: str | None = None) -> list[str]:
    """Lines that say what `name` means in each species, with its homologs.

    Parameters
    ----------
    name
        Gene id, symbol, previous symbol or alias, of any species.
    species
        Tell of this species' genes only: those called so, and the homologs of those called so elsewhere.

    Raises
    ------
    InputError
        If no gene is called so.

    Examples
    --------
    >>> import pandas as pd
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG00000254647", "ENSMUSG00000000215"],
    ...     "symbol": ["INS", "Ins2"], "species": ["human", "mouse"], "homolog_gene_id": [None, "ENSG00000254647"]}))
    >>> describe(table, "INS", species="mouse")
    ['INS (human): in mouse Ins2, ENSMUSG00000000215, token 3 (in cells token 2), median unknown']
    """
    if species is not None:
        table.species_index(species)
    lines: list[str] = []
    doubtful = []
    for home in table.species:
        (token,), (way,) = table.index.look_up([name], home)
        if way == AMBIGUOUS:
            doubtful.append(home)
        if token < 0:
            continue
        if species in (None, home):
            lines.append(f"{name} ({home}, by {_WAYS[int(way)]}): {_gene(table, int(token))}")
        shared = table.token_in_cell[token]
        for other in np.flatnonzero(table.token_in_cell == shared).tolist():
            other_species = table.index.gene_species[other]
            if other != token and other_species != home and species in (None, other_species):
                lines.append(f"{name} ({home}): in {other_species} {_gene(table, other)}")
    lines += [f"{name} ({home}): stands for more than one gene; use a gene id" for home in doubtful]
    if not lines:
        where = f" of {species}" if species else ""
        raise InputError(f"{name!r}: no gene{where} is called so in this vocabulary ({', '.join(table.species)})")
    return lines


def _gene(table: GeneTable, token: int) -> str:
    index = table.index
    taken = int(index.token_in_cell[token])
    median = index.known_medians[token]
    parts = [index.symbols[token], index.gene_ids[token]]
    parts.append(f"token {token}" + (f" (in cells token {taken})" if taken != token else ""))
    parts.append(index.biotypes[token])
    parts.append(f"median {median:g}" if median > 0 else "median unknown")
    for label, names in (("previously", index.previous_symbols[token]), ("also", index.alias_symbols[token])):
        if names:
            parts.append(f"{label} {names.replace('|', ', ')}")
    return ", ".join(part for part in parts if part)
