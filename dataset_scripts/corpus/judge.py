"""Quality control of one input: which of its cells the corpus takes, and what they are called there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from genecompass.tokenization.files import atomic_path

from .gene_axis import source_genes
from .measures import decide, matched_ids
from .scatter import Task, cell_names, cell_species, obs_values, open_source


@dataclass(frozen=True)
class Verdict:
    """What quality control says about an input.

    Parameters
    ----------
    dataset
        Name of the input.
    kept
        Cells that go into the corpus.
    removed
        Per reason, how many do not.
    genes
        Per species of its cells, what its columns are called on that species' gene axis.
    """

    dataset: str
    kept: int
    removed: dict[str, int]
    genes: dict[str, pd.DataFrame]


def judge(tasks: list[Task], work: Path, obs_columns: list[str], *, quality: str, table: str | None) -> Verdict:
    """Decide which cells of an input to keep and lay down, beside each task's counts, what is known of its cells.

    Parameters
    ----------
    tasks
        All first-pass tasks of the input, finished.
    work
        The folder that holds their output. Writes ``<task>.cells.arrow``: ``row``, ``keep``, ``cell_id`` and the obs
        columns.
    obs_columns
        Obs columns of the corpus.
    quality, table
        Preset of quality control, and the gene table to look biotypes and ids up in.

    Returns
    -------
    Verdict
    """
    source = tasks[0].source
    cells = open_source(source, tasks[0].count_type)
    measures = np.concatenate([np.load(work / f"{task.name}.measures.npy", allow_pickle=False) for task in tasks])
    column, _ = source.column_or_constant("sample")
    samples = None if column is None else cells.obs[column].astype(str).to_numpy()
    keep, removed = decide(measures, quality=quality, samples=samples, table=table)
    names, kept_obs = cell_names(cells.obs), obs_values(source, cells.obs)
    for task in tasks:
        rows = slice(task.start, task.stop)
        columns = [pa.array(np.arange(task.start, task.stop)), pa.array(keep[rows]), pa.array(names[rows], pa.string())]
        for name in obs_columns:
            values = kept_obs.get(name)
            text = pa.nulls(task.stop - task.start, pa.string())
            columns.append(text if values is None else pa.array(values[rows], pa.string()))
        batch = pa.record_batch(columns, names=["row", "keep", "cell_id", *obs_columns])
        with (
            atomic_path(work / f"{task.name}.cells.arrow") as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as out,
        ):
            out.write_batch(batch)
    genes = {}
    for species in np.unique(cell_species(source, cells.obs).astype(str)):
        gene_species = source.gene_species or str(species)
        ids = matched_ids(cells.var, gene_species, table)
        genes[str(species)] = source_genes(cells.var, gene_species=gene_species, matched_ids=ids)
    return Verdict(source.dataset, int(keep.sum()), removed, genes)
