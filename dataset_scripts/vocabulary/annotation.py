"""Genes of a species, from annotation as its publishers ship it: GTF of GENCODE and Ensembl, or biotype tables."""

import gzip
import os
import re
from collections.abc import Iterator
from typing import IO

import pandas as pd

from ...tokenization import tables
from ...tokenization.errors import InputError
from ...tokenization.gene_index import bare_gene_id

BIOTYPES = ("protein_coding", "lncRNA", "miRNA")
# what Ensembl called kinds of long non-coding RNA before 2019
_LONG_NON_CODING = {
    "lincRNA",
    "antisense",
    "antisense_RNA",
    "sense_intronic",
    "sense_overlapping",
    "3prime_overlapping_ncRNA",
    "3prime_overlapping_ncrna",
    "bidirectional_promoter_lncRNA",
    "macro_lncRNA",
    "non_coding",
    "processed_transcript",
}
_ID = ("gene_id", "ensembl_id", "ensembl_gene_id", "Gene stable ID", "Ensembl Gene ID")
_SYMBOL = ("gene_name", "symbol", "gene_symbol", "Gene name", "Marker Symbol")
_BIOTYPE = ("biotype", "gene_type", "gene_biotype", "Gene type")
_ATTRIBUTE = re.compile(r'(\w+) "?([^";]*)"?;?')


def read_annotation(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Genes with symbol and biotype.

    Parameters
    ----------
    path
        ``.gtf`` (GENCODE or Ensembl), or a ``.csv`` / ``.tsv`` table with columns for Ensembl id, symbol and
        biotype; also gzipped.

    Returns
    -------
    DataFrame
        ``gene_id`` (without version, each once), ``symbol`` ("" for genes without a name), ``biotype`` (older names
        for long non-coding RNA become ``lncRNA``).

    Raises
    ------
    InputError
        For a missing file, missing columns, or no Ensembl gene in it.
    """
    name = str(path).lower().removesuffix(".gz")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such annotation file")
    genes = _read_gtf(path) if name.endswith((".gtf", ".gff")) else _read_table(path)
    genes["gene_id"] = genes["gene_id"].map(lambda text: bare_gene_id(str(text)))
    genes = genes.dropna(subset="gene_id").drop_duplicates("gene_id")
    if genes.empty:
        raise InputError(f"{path}: holds no Ensembl gene ids")
    genes["symbol"] = genes["symbol"].fillna("").astype(str)
    unnamed = genes["symbol"].map(lambda text: bare_gene_id(text) is not None)
    genes["symbol"] = genes["symbol"].mask(unnamed, "")
    genes["biotype"] = genes["biotype"].fillna("").map(lambda kind: "lncRNA" if kind in _LONG_NON_CODING else kind)
    return genes.reset_index(drop=True)


def _open(path: str | os.PathLike[str]) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if str(path).endswith(".gz") else open(path, encoding="utf-8")


def _read_gtf(path: str | os.PathLike[str]) -> pd.DataFrame:
    return pd.DataFrame(_genes_of_gtf(path), columns=["gene_id", "symbol", "biotype"])


def _genes_of_gtf(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, str]]:
    with _open(path) as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) < 9 or fields[2] != "gene":
                continue
            given = dict(_ATTRIBUTE.findall(fields[8]))
            kind = given.get("gene_type") or given.get("gene_biotype") or ""
            yield given.get("gene_id", ""), given.get("gene_name", ""), kind


def _read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    table = read_table(path)
    return pd.DataFrame(
        {
            "gene_id": table[pick(table, _ID, path)],
            "symbol": table[pick(table, _SYMBOL, path)],
            "biotype": table[pick(table, _BIOTYPE, path)],
        }
    )


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a ``.csv``, ``.tsv``, ``.txt`` or ``.rpt`` table as text, gzipped or not; "" where a field is empty."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    name = str(path).lower().removesuffix(".gz")
    separator = "," if name.endswith(".csv") else "\t"
    # MGI's reports end lines with a tab that their header lacks
    table = tables.read_table(path, sep=separator, dtype=str, keep_default_na=False, index_col=False, low_memory=False)
    if len(table.columns) < 2:
        raise InputError(
            f"{path}: only one column; expected a table separated by {'commas' if separator == ',' else 'tabs'}"
        )
    return table


def pick(table: pd.DataFrame, names: tuple[str, ...], path: str | os.PathLike[str]) -> str:
    """The first of `names` that is a column of `table`."""
    for name in names:
        if name in table.columns:
            return name
    raise InputError(f"{path}: no column {' or '.join(names[:3])}; there are {', '.join(table.columns[:8])}")
