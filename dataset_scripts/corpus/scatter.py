"""First pass of a build: read an input once, in blocks, and lay its cells out by the shard that they will go to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import atomic_path
from genecompass.tokenization.readers import CellSource

from .gene_axis import source_genes
from .inputs import cell_names, cell_samples, cell_species, obs_values, open_source
from .measures import matched_ids, measurer
from .sources import Source

PIECE_CELLS = 16_384
"""Cells laid out at a time: bounds memory, and within a piece the cells of one shard lie together."""

TASK_CELLS = 131_072
"""Rows of an input that one task reads: a large input feeds several processes."""


@dataclass(frozen=True)
class Task:
    """A range of rows of one input.

    Parameters
    ----------
    name
        Unique in the build.
    source
        The input.
    start, stop
        Its rows.
    shards
        Per species, how many shards its cells are dealt to.
    seed
        Decides the cells' lots, whatever engine runs the task and whatever other inputs there are.
    count_type
        ``"int32"`` or ``"float32"``.
    quality, table
        Preset of quality control, and the gene table that it asks for biotypes.
    obs_columns
        Obs columns of the corpus.
    stamp
        Size and times of the input when the build was planned.
    """

    name: str
    source: Source
    start: int
    stop: int
    shards: dict[str, int]
    seed: tuple[int, ...]
    count_type: str = "int32"
    quality: str = "none"
    table: str | None = None
    obs_columns: tuple[str, ...] = ()
    stamp: tuple[tuple[int, ...], ...] = ()


def scatter(task: Task, target: Path) -> dict[str, Any]:
    """Read a task's rows and write them, grouped by shard, to one Arrow file.

    Parameters
    ----------
    task
        What to read.
    target
        The Arrow file: one record batch per piece, rows ordered by species, shard and row number; ``column`` and
        ``count`` are lists, ``row`` is the row in the input, ``lot`` what was drawn for it: from 0 to 1, its place in
        the corpus. Read it memory-mapped. Beside it, under the same name
        and other endings: names and obs columns of the cells, quality measures, samples, in how many cells of each
        species each column is expressed, and what the columns are called on the species' gene axes.

    Returns
    -------
    dict
        ``species`` of the cells, and ``pieces``: per piece and species, where each shard's rows begin.

    Raises
    ------
    InputError
        When the input cannot be read as raw counts.
    """
    cells = open_source(task.source, task.count_type, task.table)
    _write_about(task, cells, target)
    species = cell_species(task.source, cells.obs)[task.start : task.stop].astype(str)
    names = sorted(set(species))
    code = np.searchsorted(names, species)
    lot = np.random.default_rng(task.seed).random(len(code))
    shards = np.array([task.shards[name] for name in names], dtype=np.int64)
    bucket = (lot * shards[code]).astype(np.int64)
    measure = measurer(task.source, cells.var, names, quality=task.quality, table=task.table)
    detected = np.zeros((len(names), cells.n_genes), dtype=np.int64)
    measures: list[npt.NDArray[np.float64]] = []
    pieces: list[dict[str, list[int]]] = []
    schema = _spill_schema(cells.n_genes, task.count_type)
    with (
        atomic_path(target) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as out,
    ):
        for first, block in _pieces(cells, task.start, task.stop):
            block = _clean(block, task)
            local = slice(first - task.start, first - task.start + block.shape[0])
            measures.append(measure(block, species[local]))
            for number in range(len(names)):
                mine = block if len(names) == 1 else block[code[local] == number]
                detected[number] += np.bincount(mine.indices, minlength=cells.n_genes)
            order = np.lexsort((bucket[local], code[local]))
            out.write_batch(_spill_batch(block[order], order + first, lot[local][order], schema))
            pieces.append(_boundaries(code[local][order], bucket[local][order], names, task.shards))
    _save(target.with_suffix(".measures.npy"), np.concatenate(measures))
    _save(target.with_suffix(".detected.npy"), detected)
    return {"pieces": pieces, "species": names}


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array)


def _write_about(task: Task, cells: CellSource, target: Path) -> None:
    """Lay down what the later steps need to know of the task's cells, and once per input what its columns are."""
    source, rows = task.source, slice(task.start, task.stop)
    kept_obs, samples = obs_values(source, cells.obs), cell_samples(source, cells.obs)
    columns = {"cell_id": cell_names(cells.obs), **{name: kept_obs.get(name) for name in task.obs_columns}}
    batch = pa.record_batch({name: _text(values, rows) for name, values in columns.items()})
    with (
        atomic_path(target.with_suffix(".cells.arrow")) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as out,
    ):
        out.write_batch(batch)
    if samples is not None:
        _save(target.with_suffix(".samples.npy"), samples[rows].astype(str))
    if task.start == 0:
        for name in sorted(set(cell_species(source, cells.obs).astype(str))):
            gene_species = source.gene_species or name
            ids = matched_ids(cells.var, gene_species, task.table)
            genes = source_genes(cells.var, gene_species=gene_species, matched_ids=ids)
            with atomic_path(target.with_suffix(f".{name}.genes.parquet")) as temporary:
                genes.to_parquet(temporary, index=False)


def _text(values: npt.NDArray[np.str_] | None, rows: slice) -> pa.Array:
    return pa.nulls(rows.stop - rows.start, pa.string()) if values is None else pa.array(values[rows], pa.string())


def _pieces(cells: CellSource, start: int, stop: int) -> Iterator[tuple[int, sp.csr_matrix]]:
    """The reader's blocks, put together into pieces."""
    gathered: list[sp.csr_matrix] = []
    first = start
    for row, block in cells.blocks(start, stop):
        if not gathered:
            first = row
        gathered.append(block)
        if sum(part.shape[0] for part in gathered) >= PIECE_CELLS:
            yield first, sp.vstack(gathered, format="csr")
            gathered = []
    if gathered:
        yield first, sp.vstack(gathered, format="csr")


def _clean(block: sp.csr_matrix, task: Task) -> sp.csr_matrix:
    """Counts without stored zeros, in the corpus's type; refuses what would not be lossless."""
    block = sp.csr_matrix(block)
    block.sum_duplicates()
    block.eliminate_zeros()
    block.sort_indices()
    if task.count_type == "int32":
        data = block.data
        if len(data) and not (data.min() >= 0 and data.max() < 2**31 and (data == np.floor(data)).all()):
            raise InputError(
                f"{task.source.dataset}: counts are not integers from 0 to 2^31-1; name the raw counts in column "
                "'counts', or build a corpus of its own for non-integer counts (--count-type float32)"
            )
    return sp.csr_matrix((block.data.astype(task.count_type), block.indices, block.indptr), shape=block.shape)


def _spill_schema(n_genes: int, count_type: str) -> pa.Schema:
    column = pa.uint16() if n_genes <= 2**16 else pa.uint32()
    count = pa.int32() if count_type == "int32" else pa.float32()
    return pa.schema(
        [("column", pa.large_list(column)), ("count", pa.large_list(count)), ("row", pa.int64()), ("lot", pa.float64())]
    )


def _spill_batch(
    block: sp.csr_matrix, rows: npt.NDArray[np.int64], lot: npt.NDArray[np.float64], schema: pa.Schema
) -> pa.RecordBatch:
    offsets = pa.array(block.indptr.astype(np.int64))
    columns = pa.array(block.indices.astype(schema.field("column").type.value_type.to_pandas_dtype()))
    arrays = [
        pa.LargeListArray.from_arrays(offsets, columns),
        pa.LargeListArray.from_arrays(offsets, pa.array(block.data)),
        pa.array(rows),
        pa.array(lot),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _boundaries(
    code: npt.NDArray[np.int64], bucket: npt.NDArray[np.int64], names: list[str], shards: dict[str, int]
) -> dict[str, list[int]]:
    """Per species, where each shard's rows begin in a sorted piece; one entry more than shards."""
    found = {}
    for number, name in enumerate(names):
        begin, end = np.searchsorted(code, [number, number + 1])
        found[name] = (begin + np.searchsorted(bucket[begin:end], np.arange(shards[name] + 1))).tolist()
    return found
