"""First pass of a build: read an input once, in blocks, and lay its cells out by the shard that they will go to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import atomic_path
from genecompass.tokenization.readers import CellSource, open_cells

from .measures import measurer
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
        Together with the rows' numbers it decides which cell goes where, whatever engine runs the task.
    count_type
        ``"int32"`` or ``"float32"``.
    quality, table
        Preset of quality control, and the gene table that it asks for biotypes.
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


def open_source(source: Source, count_type: str) -> CellSource:
    """Open an input; estimated, non-integer counts only go into a corpus of their own."""
    return open_cells(source.path, counts=source.counts, allow_fractional=count_type != "int32")


def cell_species(source: Source, obs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Species of every cell of an input, from its name or from a column of ``obs``. Shape (n_cells,).

    Raises
    ------
    InputError
        When the column is missing or a cell has no species.
    """
    column, name = source.column_or_constant("species")
    if column is None:
        return np.full(len(obs), name, dtype=object)
    if column not in obs.columns:
        raise InputError(f"{source.dataset}: obs has no column {column!r} to name the species; it has {list(obs)}")
    species = obs[column].astype(str).to_numpy(dtype=object)
    missing = pd.isna(obs[column]).to_numpy() | (species == "")
    if missing.any():
        raise InputError(f"{source.dataset}: cell {obs.index[missing][0]!r} has no species in obs column {column!r}")
    return species


def cell_names(obs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Names of the cells, made unique as AnnData does where a file repeats one. Shape (n_cells,)."""
    names = pd.Series(obs.index.astype(str).to_numpy(), dtype=object)
    repeat = names.groupby(names).cumcount()
    return (names + repeat.map(lambda n: f"-{n}" if n else "")).to_numpy(dtype=object)


def obs_values(source: Source, obs: pd.DataFrame) -> dict[str, npt.NDArray[np.str_] | None]:
    """The obs columns that the corpus keeps, as text; None for one that this input lacks. Shapes (n_cells,)."""
    values: dict[str, Any] = {}
    for name, filling in source.obs_columns:
        if filling.startswith("'"):
            values[name] = np.full(len(obs), filling.strip("'"), dtype=object)
        elif filling in obs.columns:
            text = obs[filling].astype(object)
            values[name] = text.where(text.isna(), text.astype(str)).where(text.notna(), None).to_numpy()
        elif filling != name:
            raise InputError(f"{source.dataset}: obs has no column {filling!r} for {name!r}; it has {list(obs)}")
        else:
            values[name] = None
    return values


def scatter(task: Task, target: Path) -> dict[str, Any]:
    """Read a task's rows and write them, grouped by shard, to one Arrow file.

    Parameters
    ----------
    task
        What to read.
    target
        The Arrow file: one record batch per piece, rows ordered by species, shard and row number; ``column`` and
        ``count`` are lists, ``row`` is the row in the input. Read it memory-mapped.

    Returns
    -------
    dict
        ``pieces`` (per piece and species, where each shard's rows begin), ``detected`` (per species, in how many
        cells each column is expressed). Quality measures of the cells lie beside `target`.

    Raises
    ------
    InputError
        When the input cannot be read as raw counts.
    """
    cells = open_source(task.source, task.count_type)
    species = cell_species(task.source, cells.obs)[task.start : task.stop]
    names = sorted(set(species))
    rng = np.random.default_rng(task.seed)
    uniform = rng.random(len(species))
    bucket = np.empty(len(species), dtype=np.int64)
    for name in names:
        mine = species == name
        bucket[mine] = (uniform[mine] * task.shards[name]).astype(np.int64)
    code = np.searchsorted(names, species.astype(str)) if names else np.empty(0, np.int64)
    measure = measurer(task.source, cells.var, names, quality=task.quality, table=task.table)
    detected = {name: np.zeros(cells.n_genes, dtype=np.int64) for name in names}
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
            for number, name in enumerate(names):
                mine = block[code[local] == number]
                detected[name] += np.bincount(mine.indices, minlength=cells.n_genes)
            order = np.lexsort((bucket[local], code[local]))
            out.write_batch(_spill_batch(block[order], order + first, schema))
            pieces.append(_boundaries(code[local][order], bucket[local][order], names, task.shards))
    with atomic_path(target.with_suffix(".measures.npy")) as temporary:
        np.save(temporary, np.concatenate(measures))
    return {
        "pieces": pieces,
        "detected": {name: counts.tolist() for name, counts in detected.items()},
    }


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
    return pa.schema([("column", pa.large_list(column)), ("count", pa.large_list(count)), ("row", pa.int64())])


def _spill_batch(block: sp.csr_matrix, rows: npt.NDArray[np.int64], schema: pa.Schema) -> pa.RecordBatch:
    offsets = pa.array(block.indptr.astype(np.int64))
    columns = pa.array(block.indices.astype(schema.field("column").type.value_type.to_pandas_dtype()))
    arrays = [
        pa.LargeListArray.from_arrays(offsets, columns),
        pa.LargeListArray.from_arrays(offsets, pa.array(block.data)),
        pa.array(rows),
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
