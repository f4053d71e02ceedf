"""Which gene table a run uses: the one given, the one named, or the corpus' own; limited to its genes if asked."""

import os
from pathlib import Path

import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from .config import PretrainConfig
from .model_setup import limit_table
from .sources import Corpus


def gene_table_for(config: PretrainConfig, corpus: Corpus, table: GeneTable | None) -> GeneTable:
    """The gene table of a run.

    Parameters
    ----------
    config
        `gene_table` names a table, `data.limit_to_corpus_genes` leaves out genes that the corpus never measures.
    corpus
        Folder of the corpus, or rows in memory (already tokenised: their table has to be given).
    table
        A table that is at hand; wins over the configuration.

    Raises
    ------
    InputError
        No table to be found, or none of its genes is in the corpus.
    """
    folder = Path(corpus) if isinstance(corpus, (str, os.PathLike)) else None
    if table is None:
        if config.gene_table is not None:
            table = GeneTable.read(config.gene_table)
        elif folder is not None and (folder / "genes.parquet").is_file():
            table = GeneTable.read(folder / "genes.parquet")
        else:
            raise InputError(
                "no gene table: set `gene_table` to a table made by `genecompass vocabulary build`, or to a checkpoint"
            )
    if config.data.limit_to_corpus_genes and folder is not None and folder.is_dir():
        table = limit_table(table, _gene_ids(folder, table))
    return table


def _gene_ids(corpus: Path, table: GeneTable) -> set[str]:
    """Gene ids on the corpus' axes, genes known by their symbol alone included."""
    found: set[str] = set()
    by_symbol = table.frame[table.frame["symbol"] != ""].drop_duplicates(["species", "symbol"])
    ids = pd.Series(by_symbol["gene_id"].to_numpy(), index=pd.MultiIndex.from_frame(by_symbol[["species", "symbol"]]))
    for path in sorted((corpus / "genes").glob("*.parquet")):
        axis = pd.read_parquet(path)
        found |= set(axis["gene_id"]) - {""}
        bare = axis[axis["gene_id"] == ""]
        keys = pd.MultiIndex.from_frame(bare[["gene_species", "symbol"]])
        found |= set(ids.reindex(keys).dropna())
    return found
