"""Names of genes in public files to tokens of a vocabulary."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_index import AMBIGUOUS
from ...tokenization.gene_table import GeneTable


@dataclass(frozen=True)
class NameMatch:
    """Tokens of a list of names, and how many were found.

    Parameters
    ----------
    tokens
        Own token of each name, -1 where unknown or ambiguous. Shape (n,).
    report
        Counts of distinct names: ``names``, ``matched``, ``ambiguous``, ``unknown``, with examples of the unknown.
    """

    tokens: npt.NDArray[np.int64]
    report: dict[str, Any]


def match_names(
    names: Iterable[str], table: GeneTable, species: str, *, ignore_case: bool = False, where: str = "input"
) -> NameMatch:
    """Find the tokens of Ensembl ids (with or without version) or symbols, previous symbols and aliases.

    Parameters
    ----------
    names
        Ids or symbols; repeats are fine.
    table
        The vocabulary.
    species
        The species whose genes these are.
    ignore_case
        Also take a symbol in another capitalisation if it fits one gene only. Some networks of mouse are printed
        in capitals.
    where
        Named in error messages.

    Raises
    ------
    InputError
        If the species is unknown, no name is known, or the names are rather those of another species.

    Examples
    --------
    >>> genes = pd.DataFrame({"gene_id": ["ENSG00000254647"], "symbol": ["INS"], "species": ["human"]})
    >>> match_names(["INS", "ENSG00000254647.7", "MYC"], GeneTable.from_genes(genes), "human").tokens.tolist()
    [2, 2, -1]
    """
    table.species_index(species)
    codes, distinct = pd.factorize(pd.Series(list(names), dtype=str).str.strip())
    distinct_names = pd.Index(distinct)

    tokens, ambiguous = _look_up(distinct_names, table, species, ignore_case)
    found = int((tokens >= 0).sum())
    _refuse_other_species(distinct_names, found, table, species, ignore_case, where)
    unknown = distinct_names[(tokens < 0) & ~ambiguous]
    report = {
        "names": len(distinct_names),
        "matched": found,
        "ambiguous": int(ambiguous.sum()),
        "unknown": len(unknown),
        "unknown_examples": [str(name) for name in unknown[:5]],
    }
    return NameMatch(np.where(codes >= 0, tokens[codes], -1), report)


def _look_up(
    names: pd.Index, table: GeneTable, species: str, ignore_case: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Token of each distinct name (-1 where there is none), and which names fit several genes."""
    tokens, how = table.index.look_up(list(names), species)
    ambiguous = how == AMBIGUOUS
    if ignore_case:
        mine = table.frame[(table.frame["species"] == species) & (table.frame["symbol"] != "")]
        capitals = mine["symbol"].str.upper()
        once = mine[~capitals.duplicated(keep=False)]
        token_of = pd.Series(once["token"].to_numpy(), index=once["symbol"].str.upper())
        rest = np.flatnonzero((tokens < 0) & ~ambiguous)
        tokens[rest] = token_of.reindex(names[rest].str.upper()).fillna(-1).astype(np.int64).to_numpy()
        ambiguous[rest] |= (tokens[rest] < 0) & names[rest].str.upper().isin(capitals)
    return tokens, ambiguous


def _refuse_other_species(
    names: pd.Index, found: int, table: GeneTable, species: str, ignore_case: bool, where: str
) -> None:
    for other in table.species:
        if other == species:
            continue
        elsewhere = int((_look_up(names, table, other, ignore_case=False)[0] >= 0).sum())
        if elsewhere > 2 * found:
            hint = "" if ignore_case else ", or ignore case if these are its genes in another capitalisation"
            raise InputError(
                f"{where}: {found} of {len(names)} names are {species} genes, {elsewhere} are {other} genes; "
                f"give the file as {other}{hint}"
            )
    if not found:
        example = ", ".join(map(str, names[:3]))
        raise InputError(
            f"{where}: none of {len(names)} names ({example}, ...) is a {species} gene of this vocabulary; "
            "give Ensembl ids or symbols"
        )
