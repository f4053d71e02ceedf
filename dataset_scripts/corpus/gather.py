"""Second pass of a build: collect the cells that were dealt to a shard, order them by lot and write the shard."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from genecompass.tokenization.files import atomic_path, sha256_of

from .layout import ROW_GROUP_CELLS, schema, writer_options

COUNTED_VALUES = 1000
"""A column with more distinct values than this in a shard is not counted in the manifest."""


@dataclass(frozen=True)
class Spill:
    """A finished first-pass task, as a shard's writer needs it.

    Parameters
    ----------
    path
        Its Arrow file; what is known of its cells lies beside it.
    pieces
        Per piece, per species, where each shard's rows begin.
    axis_index
        Per species, the index on the corpus's gene axis of each of the input's columns (a ``.npy`` file).
    first_row
        Row of the input that the task began with.
    dataset
        Name of the input.
    """

    path: str
    pieces: list[dict[str, list[int]]]
    axis_index: dict[str, str]
    first_row: int
    dataset: str


@dataclass(frozen=True)
class ShardTask:
    """One shard to write.

    Parameters
    ----------
    name
        Its path in the corpus.
    species
        Species of its cells.
    bucket
        Which part of the deal it takes.
    spills
        All first-pass tasks that hold cells of this species, in the order of the inputs.
    obs_columns
        Kept obs columns.
    count_type
        ``"int32"`` or ``"float32"``.
    """

    name: str
    species: str
    bucket: int
    spills: list[Spill]
    obs_columns: tuple[str, ...] = field(default=())
    count_type: str = "int32"


@dataclass
class _Cells:
    """Cells of a shard as flat arrays; `lengths` says how many genes each has."""

    genes: list[npt.NDArray[np.int32]]
    counts: list[npt.NDArray[Any]]
    lengths: list[npt.NDArray[np.int64]]
    about: list[pd.DataFrame]
    lots: list[npt.NDArray[np.float64]]


def gather(task: ShardTask, target: Path) -> dict[str, Any] | None:
    """Write one shard.

    Parameters
    ----------
    task
        What goes into it.
    target
        Where to write it.

    Returns
    -------
    dict or None
        ``rows``, ``bytes``, ``sha256``, ``genes`` (expressed genes in all), ``values`` (per column, how many cells
        have each value); None when quality control left no cell for it, and then nothing is written.
    """
    cells = _Cells([], [], [], [], [])
    for spill in task.spills:
        _collect(spill, task, cells)
    about = pd.concat(cells.about, ignore_index=True) if cells.about else pd.DataFrame()
    if about.empty:
        return None
    genes, counts = np.concatenate(cells.genes), np.concatenate(cells.counts)
    lengths = np.concatenate(cells.lengths)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    # Cells lie in the order of their lots: without one of them, or beside new ones, the others keep theirs.
    order = np.argsort(np.concatenate(cells.lots), kind="stable")
    shard_schema = schema(task.obs_columns, task.count_type)
    with atomic_path(target) as temporary:
        with pq.ParquetWriter(temporary, shard_schema, **writer_options(task.obs_columns)) as writer:
            for first in range(0, len(order), ROW_GROUP_CELLS):
                rows = order[first : first + ROW_GROUP_CELLS]
                table = _row_group(rows, about, genes, counts, starts, task, shard_schema)
                writer.write_table(table, row_group_size=ROW_GROUP_CELLS)
        checksum, size = sha256_of(temporary), temporary.stat().st_size
    return {
        "rows": len(about),
        "bytes": size,
        "sha256": checksum,
        "genes": len(genes),
        "values": _count_values(about, task.obs_columns),
    }


def _collect(spill: Spill, task: ShardTask, into: _Cells) -> None:
    """Append one input's cells of this shard, without those that quality control removed."""
    axis_index = np.load(spill.axis_index[task.species], allow_pickle=False)
    path = Path(spill.path)
    keep = np.load(path.with_suffix(".keep.npy"), allow_pickle=False)
    with pa.memory_map(str(path.with_suffix(".cells.arrow"))) as about, pa.memory_map(spill.path) as source:
        table = pa.ipc.open_file(about).read_all()
        reader = pa.ipc.open_file(source)
        for number, piece in enumerate(spill.pieces):
            if task.species not in piece:
                continue
            begin, end = piece[task.species][task.bucket : task.bucket + 2]
            if begin == end:
                continue
            batch = reader.get_batch(number).slice(begin, end - begin)
            rows = batch["row"].to_numpy() - spill.first_row
            kept = keep[rows]
            column, lengths = _flat(batch["column"])
            count, _ = _flat(batch["count"])
            if not kept.all():
                entries = np.repeat(kept, lengths)
                column, count, lengths, rows = column[entries], count[entries], lengths[kept], rows[kept]
            into.lots.append(batch["lot"].to_numpy()[kept])
            into.genes.append(axis_index[column])
            into.counts.append(np.array(count))
            into.lengths.append(lengths)
            into.about.append(table.take(rows).to_pandas().assign(dataset=spill.dataset))


def _flat(lists: pa.LargeListArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Values and lengths of a slice of a list column."""
    return lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy())


def _row_group(
    rows: npt.NDArray[np.int64],
    about: pd.DataFrame,
    genes: npt.NDArray[np.int32],
    counts: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    task: ShardTask,
    shard_schema: pa.Schema,
) -> pa.Table:
    """The given cells as one table, each cell's genes in ascending order."""
    lengths = starts[rows + 1] - starts[rows]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    entries = np.repeat(starts[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
    row_genes, row_counts = genes[entries], counts[entries]
    row_genes, row_counts = _by_gene(np.repeat(np.arange(len(rows)), lengths), row_genes, row_counts)
    sums = np.add.reduceat(np.concatenate((row_counts, [0])).astype(np.float64), offsets[:-1])
    sums[lengths == 0] = 0
    mine = about.iloc[rows]
    columns: list[pa.Array] = [
        pa.ListArray.from_arrays(offsets.astype(np.int32), row_genes, type=shard_schema.field("genes").type),
        pa.ListArray.from_arrays(offsets.astype(np.int32), row_counts, type=shard_schema.field("counts").type),
        pa.array(sums).cast(shard_schema.field("n_counts").type),
        pa.array([task.species] * len(rows), pa.string()),
        pa.array(mine["dataset"], pa.string()),
        pa.array(mine["cell_id"], pa.string()),
    ]
    columns += [pa.array(mine[name], pa.string(), from_pandas=True) for name in task.obs_columns]
    return pa.Table.from_arrays(columns, schema=shard_schema)


def _by_gene(
    row: npt.NDArray[np.int64], genes: npt.NDArray[np.int32], counts: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
    """Sort the entries of each row by gene; `row` ascends already."""
    if counts.dtype == np.int32 and len(genes) and genes.max() < 2**20 and row[-1] < 2**12:
        # Row, gene and count fit one 64-bit key: sorting keys is several times faster than sorting positions.
        keys = (row << 51) | (genes.astype(np.int64) << 31) | counts
        keys.sort()
        return ((keys >> 31) & (2**20 - 1)).astype(np.int32), (keys & (2**31 - 1)).astype(np.int32)
    order = np.argsort((row << 32) | genes)
    return genes[order], counts[order]


def _count_values(about: pd.DataFrame, obs_columns: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Per column, the cells of each value (missing ones under the empty text): lets a reader skip whole shards."""
    counted = {}
    for name in ("dataset", *obs_columns):
        values = about[name].fillna("").value_counts().sort_index()
        if len(values) <= COUNTED_VALUES:
            counted[name] = {str(value): int(n) for value, n in values.items()}
    return counted
