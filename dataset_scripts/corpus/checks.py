"""Is this corpus what its manifest says, and is it sound? Checksums, schema, counts, duplicates."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from genecompass.tokenization.manifest import check_manifest
from genecompass.tokenization.progress import Progress

from .catalogue import Corpus, Shard
from .duplicates import find_duplicates
from .layout import schema


@dataclass
class VerifyReport:
    """What a check of a corpus found.

    Parameters
    ----------
    problems
        What is wrong, one line each, beginning with the file.
    duplicates
        Cells that are in the corpus twice (see `find_duplicates`), with their ``species``.
    cells
        Cells that were looked at.
    """

    problems: list[str] = field(default_factory=list)
    duplicates: pd.DataFrame = field(default_factory=pd.DataFrame)
    cells: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong; duplicates are for the user to judge."""
        return not self.problems

    def duplicate_pairs(self) -> dict[tuple[str, str], int]:
        """How many cells each two data sets share, or one holds twice."""
        if self.duplicates.empty:
            return {}
        ends = zip(self.duplicates["dataset"], self.duplicates["other_dataset"], strict=True)
        return dict(Counter((min(pair), max(pair)) for pair in ends).most_common())


def verify(folder: str | os.PathLike[str], *, duplicates: bool = True) -> VerifyReport:
    """Check a local corpus.

    Every file against its checksum; every shard's schema and number of cells; every cell's gene indices (ascending,
    on the axis), counts (positive, adding up to ``n_counts``) and name (unique in its dataset).

    Parameters
    ----------
    folder
        The corpus.
    duplicates
        Look for cells that are in it twice; needs memory in proportion to the cells.

    Returns
    -------
    VerifyReport

    Raises
    ------
    InputError
        When there is no corpus.

    Examples
    --------
    >>> verify("corpus").problems  # doctest: +SKIP
    ['data/human/train-00003.parquet: changed since the manifest was written (sha256 differs)']
    """
    corpus = Corpus(folder)
    report = VerifyReport(check_manifest(folder))
    damaged = {problem.split(":")[0] for problem in report.problems}
    axis_sizes = {name: corpus.manifest["species"][name]["genes"] for name in corpus.species}
    names: list[pd.Series] = []
    for shard in Progress(corpus.shards, desc="checking shards"):
        if shard.path in damaged:
            continue
        try:
            names.append(_check_shard(corpus, Path(folder), shard, axis_sizes[shard.species], report))
        except (OSError, ValueError, pa.ArrowException) as error:
            report.problems.append(f"{shard.path}: cannot be read ({' '.join(str(error).split())[:200]})")
    _check_names(names, report)
    if duplicates and report.sound:
        found = [find_duplicates(corpus, name).assign(species=name) for name in corpus.species]
        some = [frame for frame in found if len(frame)]
        report.duplicates = pd.concat(some, ignore_index=True) if some else found[0]
    return report


def _check_shard(corpus: Corpus, folder: Path, shard: Shard, n_genes: int, report: VerifyReport) -> pd.Series:
    """Check one shard; returns what identifies each of its cells, hashed."""
    file = pq.ParquetFile(folder / shard.path, page_checksum_verification=True)
    expected = schema(corpus.obs_columns, corpus.manifest["options"]["count_type"])
    if not file.schema_arrow.equals(expected):
        report.problems.append(f"{shard.path}: columns or types differ from the corpus's ({file.schema_arrow.names})")
        return pd.Series(dtype=np.uint64)
    if file.metadata.num_rows != shard.rows:
        report.problems.append(f"{shard.path}: {file.metadata.num_rows} cells, the manifest says {shard.rows}")
    names = []
    for row_group in range(file.num_row_groups):
        table = file.read_row_group(row_group)
        if complaint := _complaint(table, shard, n_genes):
            report.problems.append(f"{shard.path}: row group {row_group}: {complaint}")
        names.append(pd.util.hash_pandas_object(table.select(["dataset", "cell_id"]).to_pandas(), index=False))
        report.cells += table.num_rows
    return pd.concat(names, ignore_index=True) if names else pd.Series(dtype=np.uint64)


def _complaint(table: pa.Table, shard: Shard, n_genes: int) -> str | None:
    """The first thing that is wrong with the cells of a row group."""
    lists, counts = table["genes"].combine_chunks(), table["counts"].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    if not np.array_equal(np.diff(offsets), np.diff(counts.offsets.to_numpy())):
        return "a cell has more genes than counts, or fewer"
    genes, values = lists.flatten().to_numpy(), counts.flatten().to_numpy()
    if len(genes) and (genes.min() < 0 or genes.max() >= n_genes):
        return f"a gene index is not on the axis of {n_genes} genes"
    rising = np.diff(genes) > 0
    rising[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(genes))] - 1] = True
    if not rising.all():
        return "gene indices of a cell do not ascend"
    if len(values) and values.min() <= 0:
        return "a count is not positive"
    sums = np.diff(np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))[offsets - offsets[0]])
    if not np.allclose(sums, table["n_counts"].to_numpy(), rtol=1e-5):
        return "n_counts is not the sum of a cell's counts"
    if set(table["species"].unique().to_pylist()) != {shard.species}:
        return f"a cell is not of species {shard.species!r}"
    return None


def _check_names(names: list[pd.Series], report: VerifyReport) -> None:
    if names and (repeated := int(pd.concat(names, ignore_index=True).duplicated().sum())):
        report.problems.append(f"data: {repeated} cells have the same dataset and cell_id as another")
