"""Other names of genes: previous symbols and aliases, as HGNC and MGI ship them."""

import os

import pandas as pd

from ...tokenization.errors import InputError
from .annotation import read_table

_MARKER_SYNONYMS = "Marker Synonyms (pipe-separated)"


def read_names(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Names of genes from HGNC's complete set, MGI's marker list (``MRK_List2.rpt``) or a table of markers with ids.

    Returns
    -------
    DataFrame
        ``gene_id`` ("" where the source has none), ``symbol`` (the current one), ``previous_symbols``,
        ``alias_symbols`` (joined by ``|``), ``source_id`` (HGNC or MGI accession).
    """
    table = read_table(path)
    if {"ensembl_gene_id", "prev_symbol", "alias_symbol"} <= set(table.columns):
        parts = {"gene_id": "ensembl_gene_id", "symbol": "symbol", "previous": "prev_symbol", "alias": "alias_symbol"}
        source = "hgnc_id"
    elif {"Marker Symbol", "MGI Accession ID"} <= set(table.columns):
        parts = {"gene_id": "Ensembl Gene ID", "symbol": "Marker Symbol", "previous": "", "alias": _MARKER_SYNONYMS}
        source = "MGI Accession ID"
    else:
        raise InputError(
            f"{path}: neither HGNC's complete set (ensembl_gene_id, prev_symbol, alias_symbol) nor MGI's markers "
            f"(MGI Accession ID, Marker Symbol); there are {', '.join(table.columns[:6])}"
        )

    def column(name: str) -> pd.Series:
        return table[name].replace("null", "") if name in table.columns else pd.Series("", index=table.index)

    return pd.DataFrame(
        {
            "gene_id": column(parts["gene_id"]),
            "symbol": column(parts["symbol"]),
            "previous_symbols": column(parts["previous"]),
            "alias_symbols": column(parts["alias"]),
            "source_id": column(source),
        }
    )


def add_names(genes: pd.DataFrame, names: pd.DataFrame) -> pd.DataFrame:
    """Give genes of one species their previous and alias symbols.

    A source's row belongs to the gene with its Ensembl id, else to the gene with its symbol. Where the source's
    current symbol differs from the annotation's, it becomes an alias. Where several genes have one symbol and the
    source gives it to one of them, the others lose it, so that the symbol means one gene.
    """
    genes = genes.copy()
    if "previous_symbols" not in genes:
        genes["previous_symbols"], genes["alias_symbols"] = "", ""
    by_id = {gene: row for row, gene in enumerate(genes["gene_id"])}
    by_symbol: dict[str, list[int]] = {}
    for row, symbol in enumerate(genes["symbol"]):
        if symbol:
            by_symbol.setdefault(symbol, []).append(row)
    symbols = genes["symbol"].tolist()
    previous = [set(filter(None, text.split("|"))) for text in genes["previous_symbols"]]
    alias = [set(filter(None, text.split("|"))) for text in genes["alias_symbols"]]
    for gene_id, symbol, old, other in zip(
        names["gene_id"], names["symbol"], names["previous_symbols"], names["alias_symbols"], strict=True
    ):
        same_name = by_symbol.get(symbol, [])
        row = by_id.get(gene_id, same_name[0] if len(same_name) == 1 and not gene_id else -1)
        if row < 0:
            continue
        previous[row] |= set(filter(None, old.split("|")))
        alias[row] |= set(filter(None, other.split("|")))
        if symbol and symbol != symbols[row]:
            alias[row].add(symbol)
        elif len(same_name) > 1:
            for twin in same_name:
                symbols[twin] = symbols[twin] if twin == row else ""
    genes["symbol"] = symbols
    genes["previous_symbols"] = ["|".join(sorted(s - {own})) for s, own in zip(previous, symbols, strict=True)]
    genes["alias_symbols"] = ["|".join(sorted(s - {own})) for s, own in zip(alias, symbols, strict=True)]
    return genes
