"""Which gene of one species stands for which of another: homology tables, and one homolog per gene from them."""

import os
from collections.abc import Mapping, Sequence

import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_index import bare_gene_id
from .annotation import read_table

_MGI_COLUMNS = {"DB Class Key", "Common Organism Name", "Symbol"}


def read_homologs(
    path: str | os.PathLike[str], genes: pd.DataFrame, source_ids: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Pairs of homologous genes of different species.

    Parameters
    ----------
    path
        MGI's ``HOM_MouseHumanSequence.rpt``, or any table with Ensembl ids of two species in two columns (Ensembl
        BioMart, one-to-one lists).
    genes
        All genes of the vocabulary: ``gene_id``, ``symbol``, ``species``; the leading species first.
    source_ids
        HGNC and MGI accessions to gene ids, for tables that name genes so; symbols are used where there is none.

    Returns
    -------
    DataFrame
        ``leading``, ``other``: gene ids, the leading species' first. Each pair once.
    """
    table = read_table(path)
    pairs = _mgi_pairs(table, genes, source_ids or {}) if set(table.columns) >= _MGI_COLUMNS else _id_pairs(table, path)
    order = {name: place for place, name in enumerate(genes["species"].unique())}
    place = genes.set_index("gene_id")["species"].map(order)
    pairs = pairs[pairs["a"].isin(place.index) & pairs["b"].isin(place.index)]
    if pairs.empty:
        raise InputError(f"{path}: none of its pairs has two genes of this vocabulary")
    first, second = place.loc[pairs["a"]].to_numpy(), place.loc[pairs["b"]].to_numpy()
    turned = first > second
    leading = pairs["a"].where(~turned, pairs["b"])
    other = pairs["b"].where(~turned, pairs["a"])
    return pd.DataFrame({"leading": leading, "other": other})[first != second].drop_duplicates(ignore_index=True)


def _id_pairs(table: pd.DataFrame, path: str | os.PathLike[str]) -> pd.DataFrame:
    """The first two columns that hold Ensembl gene ids."""
    columns = []
    for name in table.columns:
        filled = table[name][table[name] != ""]
        if len(filled) and filled.head(200).map(lambda text: bare_gene_id(text) is not None).mean() > 0.5:
            columns.append(name)
    if len(columns) < 2:
        raise InputError(f"{path}: expected two columns of Ensembl gene ids, found {', '.join(columns) or 'none'}")
    return pd.DataFrame({end: table[name].map(bare_gene_id) for end, name in zip("ab", columns, strict=False)}).dropna()


def _mgi_pairs(table: pd.DataFrame, genes: pd.DataFrame, source_ids: Mapping[str, str]) -> pd.DataFrame:
    species = table["Common Organism Name"].str.split(",").str[0]
    named = genes[genes["symbol"] != ""].drop_duplicates(["species", "symbol"], keep=False)
    by_symbol = named.set_index(["species", "symbol"])["gene_id"].to_dict()
    found = []
    for name, symbol, hgnc, mgi in zip(
        species, table["Symbol"], table.get("HGNC ID", ""), table.get("Mouse MGI ID", ""), strict=True
    ):
        found.append(source_ids.get(hgnc) or source_ids.get(mgi) or by_symbol.get((name, symbol)))
    members = pd.DataFrame({"key": table["DB Class Key"], "gene": found, "species": species}).dropna()
    joined = members.merge(members, on="key")
    joined = joined[joined["species_x"] < joined["species_y"]]
    return pd.DataFrame({"a": joined["gene_x"], "b": joined["gene_y"]})


def choose_homologs(pairs: pd.DataFrame, genes: pd.DataFrame) -> pd.Series:
    """Give each gene at most one homolog in the leading species, and each leading gene at most one per species.

    One-to-one pairs stand. Where a gene has several partners, pairs are taken in this order, each if both its genes
    are still free: pairs whose symbols are equal but for capitals first, then by leading gene id, then by the other.
    Genes that are left over keep their own tokens.

    Parameters
    ----------
    pairs
        From `read_homologs`, of one or several files.
    genes
        ``gene_id``, ``symbol``, ``species``.

    Returns
    -------
    Series
        Leading gene id, indexed by the other gene's id.

    Examples
    --------
    >>> genes = pd.DataFrame({"gene_id": ["H1", "M1", "M2"], "symbol": ["INS", "Ins1", "Ins"],
    ...                       "species": ["human", "mouse", "mouse"]})
    >>> choose_homologs(pd.DataFrame({"leading": ["H1", "H1"], "other": ["M1", "M2"]}), genes).to_dict()
    {'M2': 'H1'}
    """
    described = genes.set_index("gene_id")
    symbol = described["symbol"].str.casefold()
    pairs = pairs.drop_duplicates()
    same = (symbol.loc[pairs["leading"]].to_numpy() == symbol.loc[pairs["other"]].to_numpy()) & (
        symbol.loc[pairs["leading"]].to_numpy() != ""
    )
    ordered = pairs.assign(same=~same).sort_values(["same", "leading", "other"])
    # pairs alone on both sides come first: nothing can take either of their genes
    alone = ~pairs["leading"].duplicated(keep=False) & ~pairs["other"].duplicated(keep=False)
    ordered = pd.concat([ordered[alone.loc[ordered.index]], ordered[~alone.loc[ordered.index]]])
    species = described["species"].to_dict()
    taken: set[tuple[str, str]] = set()
    chosen: dict[str, str] = {}
    for leading, other in zip(ordered["leading"], ordered["other"], strict=True):
        if other not in chosen and (leading, species[other]) not in taken:
            chosen[other] = leading
            taken.add((leading, species[other]))
    return pd.Series(chosen, dtype=object)


def pairs_of_files(
    paths: Sequence[str | os.PathLike[str]], genes: pd.DataFrame, source_ids: Mapping[str, str]
) -> pd.DataFrame:
    """Pairs of several homology tables together."""
    return pd.concat([read_homologs(path, genes, source_ids) for path in paths]).drop_duplicates(ignore_index=True)
