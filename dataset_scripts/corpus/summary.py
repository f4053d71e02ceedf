"""What is in a corpus: cells by species, tissue, type and data set; genes per cell; the most expressed genes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from genecompass.tokenization.files import atomic_path
from genecompass.tokenization.progress import Progress

from .catalogue import Corpus

LENGTH_BINS = np.concatenate(([0, 1], 100 * 2 ** np.arange(0, 9, 0.5))).round()


@dataclass(frozen=True)
class CorpusSummary:
    """A corpus in numbers.

    Parameters
    ----------
    cells
        ``species``, ``column``, ``value``, ``cells``: how many cells have each value of each column.
    lengths
        ``species``, ``from``, ``to``, ``cells``: expressed genes per cell.
    genes
        ``species``, ``gene_id``, ``symbol``, ``counts``, ``cells``: the most expressed genes.
    """

    cells: pd.DataFrame
    lengths: pd.DataFrame
    genes: pd.DataFrame

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the three tables as TSV."""
        for name in ("cells", "lengths", "genes"):
            with atomic_path(Path(folder) / f"{name}.tsv") as temporary:
                getattr(self, name).to_csv(temporary, sep="\t", index=False)


def summarize(path_or_repo: str | os.PathLike[str], *, top: int = 20) -> CorpusSummary:
    """Count what is in a corpus.

    Cells by value come from the manifest alone; lengths and genes take one pass over the shards.

    Parameters
    ----------
    path_or_repo
        The corpus.
    top
        Genes to list per species.

    Examples
    --------
    >>> summarize("corpus").cells.head(1)  # doctest: +SKIP
      species   column      value  cells
    0   human  dataset  pbmc3k_10x   2700
    """
    corpus = Corpus(path_or_repo)
    cells, lengths, genes = [], [], []
    for species in corpus.species:
        cells.append(_cells_by_value(corpus, species))
        histogram, counts, detected = _read_through(corpus, species)
        edges = {"from": LENGTH_BINS[:-1].astype(int), "to": LENGTH_BINS[1:].astype(int) - 1}
        lengths.append(pd.DataFrame({"species": species, **edges, "cells": histogram}))
        axis = corpus.gene_axis(species)[["gene_id", "symbol"]].assign(counts=counts, cells=detected)
        genes.append(axis.nlargest(top, "counts").assign(species=species))
    columns = ["species", "gene_id", "symbol", "counts", "cells"]
    return CorpusSummary(
        pd.concat(cells, ignore_index=True),
        pd.concat(lengths, ignore_index=True),
        pd.concat(genes, ignore_index=True)[columns],
    )


def _cells_by_value(corpus: Corpus, species: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    shards = [shard for shard in corpus.shards if shard.species == species]
    for column in ("dataset", *corpus.obs_columns):
        totals: dict[str, int] = {}
        for shard in shards:
            for value, number in shard.values.get(column, {}).items():
                totals[value] = totals.get(value, 0) + number
        ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        rows += [{"species": species, "column": column, "value": v or "(unknown)", "cells": n} for v, n in ordered]
    return pd.DataFrame(rows)


def _read_through(
    corpus: Corpus, species: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Histogram of genes per cell; total counts and number of expressing cells per gene."""
    n_genes = corpus.manifest["species"][species]["genes"]
    histogram = np.zeros(len(LENGTH_BINS) - 1, dtype=np.int64)
    counts, detected = np.zeros(n_genes), np.zeros(n_genes, dtype=np.int64)
    shards = [shard for shard in corpus.shards if shard.species == species]
    for shard in Progress(shards, desc=f"reading {species}"):
        for row_group in range(corpus.n_row_groups(shard)):
            table = corpus.read(shard, row_group, ["genes", "counts"])
            lists = table["genes"].combine_chunks()
            genes = lists.flatten().to_numpy()
            values = table["counts"].combine_chunks().flatten().to_numpy()
            counts += np.bincount(genes, weights=values, minlength=n_genes)
            detected += np.bincount(genes, minlength=n_genes)
            histogram += np.histogram(np.diff(lists.offsets.to_numpy()), bins=LENGTH_BINS)[0]
    return histogram, counts, detected


def describe(summary: CorpusSummary) -> str:
    """A summary as text, a few lines per species."""
    lines = []
    for species, cells in summary.cells.groupby("species"):
        lines.append(str(species))
        for column, values in cells.groupby("column", sort=False):
            shown = [f"{value} {number:,}" for value, number in zip(values["value"], values["cells"], strict=True)]
            lines.append(f"  {column}: {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}")
        lengths = summary.lengths[(summary.lengths["species"] == species) & (summary.lengths["cells"] > 0)]
        ranges = zip(lengths["from"], lengths["to"], lengths["cells"], strict=True)
        lines.append("  genes per cell: " + ", ".join(f"{low}-{high}: {number:,}" for low, high, number in ranges))
        genes = summary.genes.loc[summary.genes["species"] == species, "symbol"]
        lines.append(f"  most expressed: {', '.join(genes)}")
    return "\n".join(lines)


def draw(summary: CorpusSummary, path: str | os.PathLike[str]) -> None:
    """Draw a summary as a figure: PNG or SVG by the ending.

    Parameters
    ----------
    summary
        From `summarize`.
    path
        The file to write.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need: pip install "genecompass[plots]"') from error
    species = list(dict.fromkeys(summary.lengths["species"]))
    figure = Figure(figsize=(15, 4 * len(species)), layout="constrained")
    axes = figure.subplots(len(species), 3, squeeze=False)
    for (by_type, by_length, by_gene), name in zip(axes, species, strict=True):
        cells = summary.cells[summary.cells["species"] == name]
        column = next((c for c in ("cell_type", "tissue") if c in set(cells["column"])), "dataset")
        shown = cells[cells["column"] == column].head(20)[::-1]
        by_type.barh(shown["value"], shown["cells"])
        by_type.set(title=f"{name}: {column.replace('_', ' ')}", xlabel="cells")
        lengths = summary.lengths[summary.lengths["species"] == name]
        by_length.stairs(lengths["cells"], [*lengths["from"], lengths["to"].iloc[-1] + 1], fill=True)
        by_length.set(title=f"{name}: genes per cell", xlabel="expressed genes", ylabel="cells", xscale="symlog")
        genes = summary.genes[summary.genes["species"] == name][::-1]
        by_gene.barh(genes["symbol"].where(genes["symbol"] != "", genes["gene_id"]), genes["counts"])
        by_gene.set(title=f"{name}: most expressed genes", xlabel="counts", xscale="log")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
