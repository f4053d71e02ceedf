"""Gene-family prior: families of genes, over orthologs where a species has none of its own, to gene vectors."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.tables import read_table
from .gene2vec import Gene2VecSettings, Pairs, vectors_of_all_species
from .gene_names import match_names
from .tables import Missing, PriorTable, assemble, source_record, versions_of

# a gene is read with this many relatives of each of its families an epoch, whatever their size: a family's share of
# the sentences grows with its size and not with the square of it, and its small families say as much as its large ones
RELATIVES_PER_GENE = 10


@dataclass(frozen=True)
class FamilySource:
    """Families of one species: HGNC's complete set, or a table with the columns ``gene`` and ``family``.

    Parameters
    ----------
    path
        ``hgnc_complete_set.txt(.gz)`` (several groups per gene split by ``|``), or TSV/CSV with ``gene`` and
        ``family``, one membership a row.
    species
        Whose genes these are.
    ignore_case
        See `match_names`.
    """

    path: str | os.PathLike[str]
    species: str
    ignore_case: bool = False


def read_families(source: FamilySource, table: GeneTable) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the families of one species.

    Returns
    -------
    members
        ``token``, ``family``; one row per membership, sorted.
    report
        Memberships and families read, and how the names matched.

    Raises
    ------
    InputError
        If the file has no known columns, holds no family, or its genes are not of this species.
    """
    listed = _read_memberships(Path(source.path))
    if listed.empty:
        raise InputError(f"{source.path}: no gene belongs to a family; the family column is empty")
    matched = match_names(listed["gene"], table, source.species, ignore_case=source.ignore_case, where=str(source.path))
    tokens = matched.tokens
    if "symbol" in listed and (tokens < 0).any():
        # HGNC: a gene without (or with another) Ensembl id is found by its symbol
        again = match_names(listed["symbol"], table, source.species, where=str(source.path))
        tokens = np.where(tokens >= 0, tokens, again.tokens)
    members = pd.DataFrame({"token": tokens, "family": listed["family"].to_numpy()})
    members = members[members.token >= 0].drop_duplicates().sort_values(["family", "token"], ignore_index=True)
    report = {
        "memberships": len(listed),
        "families_listed": int(listed["family"].nunique()),
        "genes_found": int(members.token.nunique()),
        "genes": matched.report,
    }
    return members, report


def _read_memberships(path: Path) -> pd.DataFrame:
    """One row per gene and family: ``gene``, ``family``, for HGNC also ``symbol``."""
    if not path.is_file():
        raise InputError(f"{path}: no such family file")
    separator = "," if ".csv" in path.name else "\t"
    try:
        raw = read_table(path, sep=separator, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path}: not a readable family table ({error})") from error
    if {"symbol", "gene_group"} <= set(raw.columns):
        identifier = raw["ensembl_gene_id"] if "ensembl_gene_id" in raw else raw["symbol"]
        listed = pd.DataFrame({"gene": identifier, "symbol": raw["symbol"], "family": raw["gene_group"].str.split("|")})
        listed = listed.explode("family", ignore_index=True)
        listed["gene"] = listed["gene"].where(listed["gene"] != "", listed["symbol"])
    elif {"gene", "family"} <= set(raw.columns):
        listed = raw[["gene", "family"]].copy()
    else:
        raise InputError(
            f"{path}: needs the columns gene and family (or HGNC's symbol and gene_group); "
            f"there are {', '.join(map(str, raw.columns[:8]))}"
        )
    listed["family"] = listed["family"].fillna("").str.strip()
    return listed[(listed["family"] != "") & (listed["gene"] != "")].reset_index(drop=True)


def families_by_homologs(members: pd.DataFrame, table: GeneTable, species: str) -> pd.DataFrame:
    """Give a species the families of its homologs: same columns as `members`, tokens of `species`.

    A gene follows the homolog whose token it takes (``homolog_token``). Where `species` leads the vocabulary and
    the members are another's, the arrow is read backwards.
    """
    frame = table.frame[table.frame["homolog_token"] >= 0]
    own, homolog = frame["token"], frame["homolog_token"]
    forward = pd.DataFrame({"token": homolog, "relative": own})
    backward = pd.DataFrame({"token": own, "relative": homolog})
    links = pd.concat([forward, backward])
    links = links[(table.frame["species"].to_numpy()[links["relative"]] == species)]
    found = members.merge(links, on="token")[["relative", "family"]].rename(columns={"relative": "token"})
    return found.drop_duplicates().sort_values(["family", "token"], ignore_index=True)


def all_families(
    sources: Sequence[FamilySource], table: GeneTable, *, minimum: int = 2
) -> tuple[dict[str, pd.DataFrame], list[dict[str, Any]], dict[str, Any]]:
    """Families of every species of the vocabulary: from its own source, else over homologs of the first source's.

    Returns
    -------
    members
        Species -> ``token``, ``family``, families of at least `minimum` genes only.
    records
        One per source, for the metadata.
    summary
        Species -> families, genes, largest family, and where they come from.
    """
    if not sources:
        raise InputError("gene families: no family table given")
    members: dict[str, pd.DataFrame] = {}
    records = []
    for source in sources:
        found, report = read_families(source, table)
        earlier = [members[source.species]] if source.species in members else []
        members[source.species] = pd.concat([*earlier, found], ignore_index=True).drop_duplicates(ignore_index=True)
        records.append(source_record(source.path, species=source.species, **report))

    donor = sources[0].species
    origin = dict.fromkeys(members, "own table")
    for species in table.species:
        if species not in members:
            borrowed = families_by_homologs(members[donor], table, species)
            if len(borrowed):
                members[species], origin[species] = borrowed, f"homologs of {donor}"

    kept: dict[str, pd.DataFrame] = {}
    summary = {}
    for species, everyone in members.items():
        size = everyone.groupby("family")["token"].transform("size")
        listed = everyone.loc[size >= minimum].reset_index(drop=True)
        kept[species] = listed
        sizes = listed.groupby("family").size()
        if sizes.empty:
            raise InputError(f"gene families: no {species} family has {minimum} or more genes of this vocabulary")
        summary[species] = {
            "origin": origin[species],
            "families": len(sizes),
            "genes_in_families": int(listed.token.nunique()),
            "largest": {"family": str(sizes.idxmax()), "genes": int(sizes.max())},
        }
    return kept, records, summary


def family_pairs(members: pd.DataFrame, relatives_per_gene: int = RELATIVES_PER_GENE) -> Pairs:
    """All pairs within families, large families weighted down.

    A pair in a family of n genes weighs ``relatives_per_gene / (n - 1)``: each gene is read with
    `relatives_per_gene` relatives per family and epoch. The weights of a pair that shares several families add up.

    Examples
    --------
    >>> pairs = family_pairs(pd.DataFrame({"token": [2, 3, 4], "family": ["a", "a", "a"]}))
    >>> len(pairs), pairs.weight.tolist()
    (3, [5.0, 5.0, 5.0])
    """
    left, right, weight = [], [], []
    for _, tokens in members.groupby("family")["token"]:
        genes = np.sort(tokens.to_numpy(np.int64))
        first, second = np.triu_indices(len(genes), k=1)
        left.append(genes[first])
        right.append(genes[second])
        weight.append(np.full(len(first), relatives_per_gene / max(1, len(genes) - 1)))
    every = pd.DataFrame(
        {"left": np.concatenate(left), "right": np.concatenate(right), "weight": np.concatenate(weight)}
    )
    pooled = every.groupby(["left", "right"], as_index=False).agg({"weight": "sum"})
    return Pairs(pooled["left"].to_numpy(), pooled["right"].to_numpy(), pooled["weight"].to_numpy())


def build_gene_family(
    sources: Sequence[FamilySource],
    table: GeneTable,
    *,
    settings: Gene2VecSettings | None = None,
    relatives_per_gene: int = RELATIVES_PER_GENE,
    align: bool = True,
    missing: Missing = "zero",
    dtype: Literal["float32", "float16"] = "float32",
) -> PriorTable:
    """Build the gene-family table.

    Parameters
    ----------
    sources
        One per species that has a family table of its own; the others take their homologs' families.
    table
        The vocabulary.
    settings
        Of gene2vec.
    relatives_per_gene
        See `family_pairs`.
    align
        See `vectors_of_all_species`.
    missing, dtype
        See `assemble`.

    Returns
    -------
    PriorTable

    Examples
    --------
    >>> table = GeneTable.read("genes.parquet")                                          # doctest: +SKIP
    >>> prior = build_gene_family([FamilySource("hgnc_complete_set.txt", "human")], table)  # doctest: +SKIP
    """
    settings = settings or Gene2VecSettings()
    members, records, summary = all_families(sources, table)
    pairs = {species: family_pairs(listed, relatives_per_gene) for species, listed in members.items()}
    tokens, vectors, learned = vectors_of_all_species(pairs, table, settings, align=align)
    metadata = {
        "method": "gene2vec over pairs within families",
        "sources": records,
        "settings": {**settings.record(), "relatives_per_gene": relatives_per_gene, "minimum": 2, "align": align},
        "species": {name: {**summary[name], **learned[name]} for name in learned},
        "versions": versions_of("gensim"),
    }
    return assemble(
        "gene_family", tokens, vectors, table, missing=missing, seed=settings.seed, dtype=dtype, metadata=metadata
    )
