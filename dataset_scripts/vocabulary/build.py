"""Gene tables from annotation, or from the gene axis of the data at hand."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_index import bare_gene_id
from ...tokenization.gene_table import GeneTable
from ...tokenization.matching import column_names
from ...tokenization.readers import open_cells
from .annotation import BIOTYPES, read_annotation
from .homologs import choose_homologs, pairs_of_files
from .names import add_names, read_names

PathLike = str | os.PathLike[str]


def build_vocabulary(
    annotations: Mapping[str, PathLike],
    *,
    homologs: Sequence[PathLike] = (),
    names: Sequence[PathLike] = (),
    biotypes: Sequence[str] = BIOTYPES,
    medians: Mapping[str, float] | None = None,
) -> GeneTable:
    """Make a gene table from annotation and homology tables as their publishers ship them.

    Parameters
    ----------
    annotations
        Species name to annotation (GTF, or a table with id, symbol and biotype). The first species leads: others
        take its tokens where they have a homolog. Genes are numbered by species, then by id.
    homologs
        MGI's ``HOM_MouseHumanSequence.rpt``, or tables with two columns of Ensembl ids.
    names
        HGNC's complete set, MGI's marker lists: previous symbols and aliases, and the ids behind accessions.
    biotypes
        Kinds of gene to keep.
    medians
        Gene id to non-zero median.

    Returns
    -------
    GeneTable

    Raises
    ------
    InputError
        For unreadable tables, or when nothing is left.

    Examples
    --------
    ``build_vocabulary({"human": "gencode.v47.gtf.gz", "mouse": "gencode.vM36.gtf.gz"},
    homologs=["HOM_MouseHumanSequence.rpt"], names=["hgnc_complete_set.txt"])``
    """
    if not annotations:
        raise InputError("no annotation given; name at least one species and its annotation file")
    sources = [read_names(path) for path in names]
    parts = []
    for species, path in annotations.items():
        genes = read_annotation(path)
        genes = genes[genes["biotype"].isin(list(biotypes))].sort_values("gene_id", ignore_index=True)
        if genes.empty:
            raise InputError(f"{path}: no gene of the biotypes {', '.join(biotypes)}")
        parts.append(genes.assign(species=species))
        for source in sources:
            if _belongs(source, parts[-1]):
                parts[-1] = add_names(parts[-1], source)
    genes = pd.concat(parts, ignore_index=True)
    repeated = genes["gene_id"].duplicated()
    if repeated.any():
        raise InputError(f"gene id {genes['gene_id'][repeated].iloc[0]} occurs in the annotation of two species")
    return _finish(genes, homologs, sources, medians)


def _belongs(source: pd.DataFrame, genes: pd.DataFrame) -> bool:
    """Whether a source of names is about this species: it shares ids, or without ids, most symbols."""
    if (source["gene_id"] != "").any():
        return bool(source["gene_id"].isin(genes["gene_id"]).any())
    return bool(genes["symbol"].isin(source["symbol"]).mean() > 0.5)


def _finish(
    genes: pd.DataFrame,
    homologs: Sequence[PathLike],
    sources: Sequence[pd.DataFrame],
    medians: Mapping[str, float] | None,
) -> GeneTable:
    if homologs:
        accessions = {
            source_id: gene
            for source in sources
            for source_id, gene in zip(source["source_id"], source["gene_id"], strict=True)
            if source_id and gene
        }
        chosen = choose_homologs(pairs_of_files(homologs, genes, accessions), genes)
        genes["homolog_gene_id"] = genes["gene_id"].map(chosen)
    if medians is not None:
        genes["median"] = genes["gene_id"].map(dict(medians)).astype(float)
    return GeneTable.from_genes(genes)


def from_data(
    sources: Any,
    species: str | Sequence[str],
    *,
    homologs: Sequence[PathLike] = (),
    names: Sequence[PathLike] = (),
) -> GeneTable:
    """Make a gene table from the gene axis of the data itself, when no annotation is at hand.

    Parameters
    ----------
    sources
        Path, AnnData or `CellSource`, or a list of them.
    species
        Species of the genes: one name, or one per source; the first source's leads.
    homologs, names
        As for `build_vocabulary`; homology tables need Ensembl ids in the data, or symbols for MGI's.

    Returns
    -------
    GeneTable
        A gene's id is its Ensembl id where the data have one, else its symbol. Biotypes and medians are unknown.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.ones((1, 2)), var=pd.DataFrame(index=["INS", "GCG"]))
    >>> from_data(adata, "human").frame["gene_id"].tolist()
    ['<pad>', '<mask>', 'GCG', 'INS']
    """
    several = list(sources) if isinstance(sources, list | tuple) else [sources]
    labels = [species] * len(several) if isinstance(species, str) else list(species)
    if not several or len(labels) != len(several):
        raise InputError(f"{len(several)} data sets and {len(labels)} species; give one species, or one per data set")
    parts: dict[str, list[pd.DataFrame]] = {}
    for source, label in zip(several, labels, strict=True):
        ids, symbols = column_names(open_cells(source).var)
        parts.setdefault(label, []).append(pd.DataFrame({"gene_id": ids, "symbol": symbols}))
    opened = [read_names(path) for path in names]
    tables = []
    for label, pieces in parts.items():
        tables.append(_one_row_per_gene(pd.concat(pieces, ignore_index=True)).assign(species=label))
        for source_names in opened:
            if _belongs(source_names, tables[-1]):
                tables[-1] = add_names(tables[-1], source_names)
    genes = pd.concat(tables, ignore_index=True)
    shared = genes["gene_id"].duplicated(keep=False)
    # two species that write a symbol alike are still two genes
    genes["gene_id"] = genes["gene_id"].where(~shared, genes["species"] + ":" + genes["gene_id"])
    return _finish(genes, homologs, opened, None)


def _one_row_per_gene(genes: pd.DataFrame) -> pd.DataFrame:
    genes["gene_id"] = [bare_gene_id(name) or "" for name in genes["gene_id"]]
    named = genes[(genes["gene_id"] != "") & (genes["symbol"] != "")].drop_duplicates("symbol")
    id_of = named.set_index("symbol")["gene_id"]
    known = genes["symbol"].map(id_of).fillna("")
    genes["gene_id"] = genes["gene_id"].where(genes["gene_id"] != "", known)
    genes["gene_id"] = genes["gene_id"].where(genes["gene_id"] != "", genes["symbol"])
    genes = genes[genes["gene_id"] != ""].drop_duplicates("gene_id")
    return genes.sort_values("gene_id", ignore_index=True)
