"""Tokenised cells on disk, in the columns of the published corpus: for users who want them fixed beforehand."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .cell_options import take_reading
from .errors import InputError
from .files import atomic_path, write_json
from .gene_table import GeneTable
from .readers import open_cells
from .tokenize import TokenizationReport, TokenizedCells, iter_tokenized

FORMATS = ("parquet", "arrow")
_ROW_GROUP = 512


@dataclass(frozen=True)
class _Task:
    """One shard: some rows of one source."""

    input_number: int
    source: Any
    species: str
    start: int
    stop: int | None
    path: Path
    options: dict[str, Any] = field(default_factory=dict)


def write_tokens(
    sources: Sequence[tuple[Any, str]],
    out: str | os.PathLike[str],
    table: GeneTable,
    *,
    file_format: str = "parquet",
    max_length: int = 2048,
    pad: bool = True,
    cells_per_shard: int = 20_000,
    jobs: int = 1,
    progress: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Tokenise files into a folder of shards with columns ``input_ids``, ``values``, ``length``, ``species``.

    Parameters
    ----------
    sources
        Pairs of a path (or AnnData) and a species (or ``obs`` column).
    out
        Folder to make; it must not exist. ``genes.tsv.gz`` and ``report.json`` are put in as well.
    table
        The vocabulary.
    file_format
        ``"parquet"``, or ``"arrow"``: a folder that `datasets.load_from_disk` opens, as the published corpus.
    max_length
        Genes kept per cell.
    pad
        Fill ids and values up to `max_length` with 0, as published; otherwise each cell has its own length.
    cells_per_shard
        Most cells in a shard. With quality control a file is one shard, since its rules look at all cells of it.
    jobs
        Processes. The result does not depend on it.
    progress
        Show a progress bar.
    **options
        As for `iter_tokenized`.

    Returns
    -------
    dict
        The report of each source, as in ``report.json``.

    Raises
    ------
    InputError
        For bad input; nothing is left behind then, nor when the disk is full.
    """
    from joblib import Parallel, delayed

    from .progress import Progress

    if file_format not in FORMATS:
        raise InputError(f"file format {file_format!r}; choose one of {', '.join(FORMATS)}")
    if Path(out).exists():
        raise InputError(f"{out}: exists already; choose a new folder")
    with atomic_path(out) as folder:
        folder.mkdir()
        tasks = list(_tasks(sources, folder, file_format, cells_per_shard, {**options, "max_length": max_length}))
        runs = Parallel(n_jobs=jobs, return_as="generator")(delayed(_write_shard)(task, table, pad) for task in tasks)
        reports = list(Progress(runs, total=len(tasks), desc="tokenize", unit="shard", disable=not progress))
        summary = _merge(tasks, reports)
        _number_shards(tasks, folder, file_format, _features(max_length, pad) if file_format == "arrow" else None)
        table.write(folder / "genes.tsv.gz")
        write_json(folder / "report.json", summary)
    return summary


def _tasks(
    sources: Sequence[tuple[Any, str]], folder: Path, file_format: str, cells_per_shard: int, options: dict[str, Any]
) -> Iterator[_Task]:
    number = 0
    whole = options.get("quality", "none") != "none"
    reading = take_reading(dict(options))
    for input_number, (source, species) in enumerate(sources):
        size = open_cells(source, **reading).n_cells
        step = size if whole else cells_per_shard
        for start in range(0, size, step):
            path = folder / f"shard-{number:05d}.{file_format}"
            yield _Task(input_number, source, species, start, min(start + step, size), path, options)
            number += 1


def _write_shard(task: _Task, table: GeneTable, pad: bool) -> TokenizationReport:
    width = int(task.options["max_length"])
    schema = _schema(width, pad)
    report: TokenizationReport | None = None
    writer: Any = None
    sink = pa.OSFile(str(task.path), "wb")
    try:
        if task.path.suffix == ".parquet":
            writer = pq.ParquetWriter(sink, schema, compression="zstd", store_schema=True)
        else:
            writer = pa.ipc.new_stream(sink, schema)
        blocks = iter_tokenized(
            task.source, table, species=task.species, start=task.start, stop=task.stop, **task.options
        )
        for cells in blocks:
            report = cells.report
            for begin in range(0, len(cells), _ROW_GROUP):
                writer.write_batch(_batch(cells, begin, min(begin + _ROW_GROUP, len(cells)), width, pad, schema))
        writer.close()
    except BaseException:
        if writer is not None:
            writer.is_open = False  # a Parquet writer that is collected would try to write its footer
        raise
    finally:
        sink.close()
    assert report is not None
    return report


def _schema(width: int, pad: bool) -> pa.Schema:
    size = width if pad else -1
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.int32(), size) if pad else pa.list_(pa.int32())),
            ("values", pa.list_(pa.float32(), size) if pad else pa.list_(pa.float32())),
            ("length", pa.int16()),
            ("species", pa.int16()),
        ]
    )


def _batch(cells: TokenizedCells, begin: int, end: int, width: int, pad: bool, schema: pa.Schema) -> pa.RecordBatch:
    first, last = int(cells.indptr[begin]), int(cells.indptr[end])
    lengths = cells.lengths[begin:end]
    ids, values = cells.input_ids[first:last], cells.values[first:last]
    if pad:
        where = np.repeat(np.arange(end - begin) * width - (cells.indptr[begin:end] - first), lengths)
        where += np.arange(last - first)
        wide = (np.zeros((end - begin) * width, np.int32), np.zeros((end - begin) * width, np.float32))
        for target, given in zip(wide, (ids, values), strict=True):
            target[where] = given
        lists = [pa.FixedSizeListArray.from_arrays(pa.array(flat), width) for flat in wide]
    else:
        bounds = pa.array((cells.indptr[begin : end + 1] - first).astype(np.int32))
        lists = [pa.ListArray.from_arrays(bounds, pa.array(flat)) for flat in (ids, values)]
    columns = [*lists, pa.array(lengths.astype(np.int16)), pa.array(cells.species[begin:end])]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _merge(tasks: list[_Task], reports: list[TokenizationReport]) -> dict[str, Any]:
    """One report a source, from those of its shards."""
    merged: dict[int, TokenizationReport] = {}
    for task, report in zip(tasks, reports, strict=True):
        key = task.input_number
        if key not in merged:
            merged[key] = report
            continue
        whole = merged[key]
        whole.cells += report.cells
        whole.kept += report.kept
        for rule, number in report.removed.items():
            whole.removed[rule] = whole.removed.get(rule, 0) + number
        for name, part in report.coverage.items():
            if name in whole.coverage:
                whole.coverage[name].add(part.column_totals, part.cells)
    return {
        "cells": sum(report.kept for report in merged.values()),
        "sources": [report.to_dict() for report in merged.values()],
    }


def _features(width: int, pad: bool) -> Any:
    from datasets import Features, List, Value

    length = width if pad else -1
    return Features(
        {
            "input_ids": List(Value("int32"), length=length),
            "values": List(Value("float32"), length=length),
            "length": Value("int16"),
            "species": Value("int16"),
        }
    )


def _number_shards(tasks: list[_Task], folder: Path, file_format: str, features: Any) -> None:
    """Give shards their final names, and an Arrow folder the two files that `datasets` wants."""
    names = [f"data-{number:05d}-of-{len(tasks):05d}.{file_format}" for number in range(len(tasks))]
    for task, name in zip(tasks, names, strict=True):
        task.path.rename(folder / name)
    if file_format != "arrow":
        return
    from datasets import DatasetInfo

    DatasetInfo(features=features).write_to_directory(str(folder))
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0" * 16,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
