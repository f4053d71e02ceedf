"""One look at a data set through a checkpoint: coverage, a map, groups with scores, their genes, one deletion."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import CellOptions, open_cells
from ..annotation.in_memory import annotate
from ..checkpoint import gene_table_of, load_checkpoint, read_finetuning
from ..embedding.in_memory import embed
from ..perturbation.perturb import perturb

MOST_CELLS = 2000
DELETION_CELLS = 100
DELETION_NULL = 19


@dataclass(frozen=True)
class Exploration:
    """What there is to see of a data set.

    Parameters
    ----------
    n_cells, n_shown
        Cells in the file, and how many of them were drawn.
    coverage
        What was understood of the genes, in words.
    positions
        Map of the shown cells, (cells, 2).
    projection
        How it was made: ``UMAP`` or ``PCA``.
    groups
        Label of each shown cell.
    labelled
        True if the labels come from a classifier, False if they are clusters of the embedding.
    summary
        One row a group: ``group``, ``cells``, ``mean score``, ``top genes``.
    genes
        Symbols or ids of the known genes, the most expressed first.
    adata
        The shown cells with all results in the usual slots.
    """

    n_cells: int
    n_shown: int
    coverage: str
    positions: npt.NDArray[np.float64]
    projection: str
    groups: pd.Series
    labelled: bool
    summary: pd.DataFrame
    genes: list[str]
    adata: Any


def explore(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str],
    species: str,
    *,
    max_cells: int = MOST_CELLS,
    clusters: int = 8,
    seed: int = 0,
    **reading: Unpack[CellOptions],
) -> Exploration:
    """Embed a file's cells, label or cluster them, and lay them out on a map.

    Parameters
    ----------
    path
        ``.h5ad`` with raw counts.
    model
        Checkpoint or adapter: folder or ``owner/name[@revision]``. One that is fine-tuned for cells gives labels.
    species
        Species of the cells.
    max_cells
        More cells than this are drawn at random.
    clusters
        Groups to make where the model gives no labels.
    seed
        Of the draw, the clusters and the map.
    **reading
        How the file is read: `CellOptions`.

    Raises
    ------
    InputError
        The file is no AnnData, has no raw counts, or its genes are not known.

    Examples
    --------
    >>> found = explore("pbmc.h5ad", "runs/tiny", "human")  # doctest: +SKIP
    >>> found.summary  # doctest: +SKIP
    """
    adata, n_cells = _read(path, max_cells, seed, reading)
    named: CellOptions = {**reading, "counts": "X"}
    embed(adata, model, species, **named)
    embedding = np.asarray(adata.obsm["X_genecompass"], dtype=np.float64)
    positions, projection = _project(embedding, seed)
    if labelled := has_labels(model):
        annotate(adata, model, species, **named)
        groups = adata.obs["genecompass_cell_type"].astype(str)
        scores = adata.obs["genecompass_cell_type_score"].astype(float)
    else:
        groups = _clusters(embedding, clusters, seed, adata.obs_names)
        scores = pd.Series(np.nan, index=adata.obs_names)
    expression, names = _known_expression(adata)
    coverage = adata.uns["genecompass"]["coverage"]
    words = "; ".join(coverage["genes"].values())
    return Exploration(
        n_cells=n_cells,
        n_shown=adata.n_obs,
        coverage=f"{coverage['share_of_counts_kept']:.1%} of all counts are in genes that the model knows. {words}",
        positions=positions,
        projection=projection,
        groups=groups,
        labelled=labelled,
        summary=_summary(groups, scores, expression, names),
        genes=[names[gene] for gene in np.argsort(-np.asarray(expression.mean(axis=0)).ravel(), kind="stable")[:200]],
        adata=adata,
    )


def delete_gene(found: Exploration, model: str | os.PathLike[str], species: str, gene: str) -> pd.DataFrame:
    """Delete one gene in silico, beside matched random genes, group by group.

    Parameters
    ----------
    found
        From `explore`.
    model, species
        As there.
    gene
        Ensembl id or symbol, as the file names it.

    Returns
    -------
    pandas.DataFrame
        The perturbation's summary: effect, group, mean shift, the null's mean, p and q.
    """
    if not gene.strip():
        raise InputError("no gene given; type the id or symbol of a gene that the cells express")
    adata = found.adata.copy()
    adata.obs["group"] = found.groups.to_numpy()
    result = perturb(
        adata,
        model,
        gene.strip(),
        species=species,
        groupby="group",
        max_cells=DELETION_CELLS,
        n_null=DELETION_NULL,
        progress=False,
    )
    return result.summary


def has_labels(model: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint or adapter is fine-tuned for cells."""
    import json

    from ...tokenization.sources import resolve

    folder = resolve(model)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        return json.loads(adapter.read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = any("SequenceClassification" in name for name in config.get("architectures") or [])
    return named and bool(read_finetuning(folder).labels)


def species_of(model: str | os.PathLike[str]) -> list[str]:
    """Species that a checkpoint knows."""
    return list(_table(model).species)


def _table(model: str | os.PathLike[str]) -> GeneTable:
    return gene_table_of(load_checkpoint(model)[1])


def _read(path: str | os.PathLike[str], max_cells: int, seed: int, reading: CellOptions) -> tuple[Any, int]:
    import anndata as ad
    import scipy.sparse as sp

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file.name}: no such file")
    # counts and names alone, through the readers, which check what they read; the rest of the file stays unread
    source = open_cells(file, **reading)
    n_cells = source.n_cells
    rows = np.arange(n_cells)
    if n_cells > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(n_cells, max_cells, replace=False))
    drawn = [block[rows[(rows >= first) & (rows < first + block.shape[0])] - first] for first, block in source.blocks()]
    counts = sp.csr_matrix(sp.vstack(drawn))
    return ad.AnnData(counts, obs=source.obs.iloc[rows], var=source.var), n_cells


def _project(embedding: npt.NDArray[np.float64], seed: int) -> tuple[npt.NDArray[np.float64], str]:
    """UMAP where it is installed and there are cells enough for neighbours; principal components otherwise."""
    from sklearn.decomposition import PCA

    if importlib.util.find_spec("umap") is not None and len(embedding) > 15:
        import umap

        return umap.UMAP(random_state=seed, n_jobs=1).fit_transform(embedding), "UMAP"
    n_components = min(2, *embedding.shape)
    positions = PCA(n_components, random_state=seed).fit_transform(embedding)
    return np.pad(positions, ((0, 0), (0, 2 - n_components))), "PCA"


def _clusters(embedding: npt.NDArray[np.float64], number: int, seed: int, index: pd.Index) -> pd.Series:
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(embedding)
    found = KMeans(min(number, len(embedding)), n_init=4, random_state=seed).fit_predict(scaled)
    by_size = pd.Series(found).value_counts().index
    names = {cluster: f"cluster {place + 1}" for place, cluster in enumerate(by_size)}
    return pd.Series([names[cluster] for cluster in found], index=index)


def _known_expression(adata: Any) -> tuple[Any, list[str]]:
    """log(1 + counts per 10,000) of the genes that the model knows, sparse, and their names.

    Whatever else the file calls a gene is not shown: it may be anything.
    """
    import scipy.sparse as sp

    source = open_cells(adata)
    blocks = [block for _, block in source.blocks()]
    counts = sp.vstack(blocks).astype(np.float64).tocsr()
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    expression = sp.diags_array(1e4 / totals) @ counts
    expression.data = np.log1p(expression.data)
    known = np.flatnonzero(~np.isnan(np.asarray(adata.varm["genecompass"])[:, 0]))
    return sp.csr_matrix(expression)[:, known], source.var.index[known].astype(str).tolist()


def _summary(groups: pd.Series, scores: pd.Series, expression: Any, names: list[str]) -> pd.DataFrame:
    """Groups by size, with the genes that stand out most in each."""
    overall = np.asarray(expression.sum(axis=0)).ravel()
    n_cells = expression.shape[0]
    rows = []
    for group, size in groups.value_counts().items():
        inside = np.asarray(expression[(groups == group).to_numpy()].sum(axis=0)).ravel()
        rest = (overall - inside) / max(1, n_cells - size)
        best = np.argsort(rest - inside / size, kind="stable")[:5]
        score = scores[groups == group].mean()
        shown = "-" if np.isnan(score) else f"{score:.2f}"
        top = ", ".join(names[gene] for gene in best)
        rows.append({"group": str(group), "cells": int(size), "mean score": shown, "top genes": top})
    return pd.DataFrame(rows)
