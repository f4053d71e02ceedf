"""Second pass of a build: collect the cells that were dealt to a shard, order them by lot and write the shard."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
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
    """Cells of a shard as flat arrays; `lengths` says how many genes each has, `about` what else is known of them."""

    genes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    counts: list[npt.NDArray[Any]] = field(default_factory=list)
    lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)
    about: list[pa.Table] = field(default_factory=list)
    lots: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def matrix(self) -> sp.csr_matrix:
        """All of them as one matrix, cells by genes of the axis; genes in the order of the sources."""
        genes = np.concatenate(self.genes)
        starts = np.concatenate(([0], np.cumsum(np.concatenate(self.lengths))))
        shape = (len(starts) - 1, int(genes.max(initial=0)) + 1)
        return sp.csr_matrix((np.concatenate(self.counts), genes, starts), shape=shape)


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
    cells = _Cells()
    for spill in task.spills:
        _collect(spill, task, cells)
    if not cells.about:
        return None
    matrix = cells.matrix()
    # Cells lie in the order of their lots: without one of them, or beside new ones, the others keep theirs.
    order = np.argsort(np.concatenate(cells.lots), kind="stable")
    about = pa.concat_tables(cells.about).take(order)
    shard_schema = schema(task.obs_columns, task.count_type)
    with atomic_path(target) as temporary:
        with pq.ParquetWriter(temporary, shard_schema, **writer_options(task.obs_columns)) as writer:
            for first in range(0, len(order), ROW_GROUP_CELLS):
                block = matrix[order[first : first + ROW_GROUP_CELLS]]
                table = _row_group(block, about.slice(first, block.shape[0]), task, shard_schema)
                writer.write_table(table, row_group_size=ROW_GROUP_CELLS)
        checksum, size = sha256_of(temporary), temporary.stat().st_size
    return {
        "rows": len(order),
        "bytes": size,
        "sha256": checksum,
        "genes": matrix.nnz,
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
            if not len(rows):
                continue
            into.lots.append(batch["lot"].to_numpy()[kept])
            into.genes.append(axis_index[column])
            into.counts.append(np.array(count))
            into.lengths.append(lengths)
            dataset = pa.array([spill.dataset] * len(rows), pa.string())
            into.about.append(table.take(rows).append_column("dataset", dataset))


def _flat(lists: pa.LargeListArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Values and lengths of a slice of a list column."""
    return lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy())


def _row_group(block: sp.csr_matrix, about: pa.Table, task: ShardTask, shard_schema: pa.Schema) -> pa.Table:
    """Some cells as one table, each cell's genes in ascending order."""
    totals = block @ np.ones(block.shape[1])
    # Transposing twice is two counting sorts: several times faster than sorting the genes of each cell.
    block = block.tocsc().tocsr()
    offsets = block.indptr.astype(np.int32)
    columns: dict[str, Any] = {name: about[name] for name in ("dataset", "cell_id", *task.obs_columns)}
    columns |= {
        "genes": pa.ListArray.from_arrays(offsets, block.indices, type=shard_schema.field("genes").type),
        "counts": pa.ListArray.from_arrays(offsets, block.data, type=shard_schema.field("counts").type),
        "n_counts": pa.array(totals).cast(shard_schema.field("n_counts").type),
        "species": pa.array([task.species] * len(totals), pa.string()),
    }
    return pa.table([columns[name] for name in shard_schema.names], schema=shard_schema)


def _count_values(about: pa.Table, obs_columns: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Per column, the cells of each value (missing ones under the empty text): lets a reader skip whole shards."""
    counted = {}
    for name in ("dataset", *obs_columns):
        values = pc.value_counts(about[name].fill_null("")).to_pylist()
        if len(values) <= COUNTED_VALUES:
            counted[name] = {entry["values"]: entry["counts"] for entry in sorted(values, key=lambda e: e["values"])}
    return counted
