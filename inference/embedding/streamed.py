"""Embed a file that is larger than memory: stream in, stream out, continue where a killed run stopped."""

import itertools
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from ...tokenization.devices import check_device
from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, sole_writer, write_json
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import CellOptions, CellSource, open_cells
from ...tokenization.readers.hdf5 import open_hdf5
from ...tokenization.sources import model_or_default
from ..cells import CHUNK, Coverage, Reading, chunks, provenance, require_species
from ..checkpoint import digest_of, gene_table_of, load_checkpoint
from ..h5ad import add_to_h5ad, check_key
from .encode import MAX_TOKENS, GeneMeans
from .in_memory import CELL_KEY, GENE_KEY, gene_rows
from .pooling import Pooling

_SAVE_EVERY = 8  # chunks between two saved states: gene sums of a large model are hundreds of megabytes


@dataclass(frozen=True)
class EmbedPlan:
    """Everything that the numbers depend on; a resumed run must have the same."""

    source: str
    source_bytes: int
    source_modified: float
    cells: int
    model: str
    model_digest: str
    cells_read: dict[str, Any]
    reading: dict[str, Any]
    pooling: str
    layer: int
    genes: bool
    bf16: bool
    max_tokens: int
    parts: list[list[int]]


def embed_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    species: str | None = None,
    *,
    pooling: str = "auto",
    layer: int = -1,
    genes: bool = True,
    key: str = CELL_KEY,
    gene_species: str | None = None,
    max_length: int | None = None,
    max_tokens: int = MAX_TOKENS,
    bf16: bool = False,
    devices: list[str] | None = None,
    processes: int = 1,
    restart: bool = False,
    progress: bool = False,
    **reading: Unpack[CellOptions],
) -> Path:
    """Embed an ``.h5ad`` file into a copy that keeps every other entry.

    Finished cells are kept in ``<output>.partial`` while the run lasts; called again after a crash, it continues
    there and ends with the same bytes of numbers as an undisturbed run. Memory does not grow with the file.

    Parameters
    ----------
    source, output
        ``.h5ad`` files; may not be the same.
    model, species, pooling, layer, genes, key, gene_species, max_length, max_tokens, bf16, **reading
        As for `embed`.
    devices
        ``["cuda:0", "cuda:1"]``: processes take them in turn.
    processes
        Processes that share the cells.
    restart
        Throw away what an earlier run left.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    InputError
        As `embed`; or what an earlier run left belongs to another file, model or setting.

    Examples
    --------
    >>> embed_file("atlas.h5ad", "atlas_embedded.h5ad", "runs/tiny", "human")  # doctest: +SKIP
    PosixPath('atlas_embedded.h5ad')
    """
    source, output = Path(source), Path(output)
    model, species = model_or_default(model), require_species(species)
    check_key(key, "obsm")
    if source.suffix != ".h5ad" or output.suffix != ".h5ad":
        raise InputError(
            f"{source} -> {output}: streaming reads and writes .h5ad; for others read the file, call embed"
        )
    if output.exists() and source.samefile(output):
        raise InputError(f"{output}: would overwrite its own input; choose another output")
    for device in devices or ():
        check_device(device)
    cells = open_cells(source, **reading)
    network, processor = load_checkpoint(model, device="cpu")
    how = Pooling.choose(pooling, network.config)
    how.width(network.config)  # refuses what this model does not have, before the work
    genes = genes and how.network is not None
    length = max_length or network.config.max_position_embeddings
    taken = Reading(species, gene_species, length, how.whole_cells(network.config))
    plan = EmbedPlan(
        source=str(source.resolve()),
        source_bytes=source.stat().st_size,
        source_modified=source.stat().st_mtime,
        cells=cells.n_cells,
        model=str(model),
        model_digest=digest_of(network),
        cells_read={name: str(value) if name == "shared_genes" and value else value for name, value in reading.items()},
        reading=asdict(taken),
        pooling=how.name,
        layer=layer,
        genes=genes,
        bf16=bf16,
        max_tokens=max_tokens,
        parts=_parts(cells.n_cells, processes),
    )
    work = output.with_name(output.name + ".partial")
    with sole_writer(work):
        _open_work(work, plan, restart)
        _run_parts(plan, work, devices, progress)
        _write(plan, work, output, cells, network, gene_table_of(processor), key)
        shutil.rmtree(work)
    return output


def _write(
    plan: EmbedPlan, work: Path, output: Path, cells: CellSource, network: Any, table: GeneTable, key: str
) -> None:
    """Join what the parts left into a copy of the input."""
    source, reading = Path(plan.source), Reading(**plan.reading)
    means, coverage = _gather(plan, work, table.vocab_size, network.config.hidden_size)
    varm = {}
    if means is not None:
        names = cells.var.index if cells.counts_from != "raw" else _var_names(source)
        varm[GENE_KEY] = gene_rows(cells, names, table, reading, means)
    uns = {
        **provenance(network, plan.model),
        "coverage": coverage.to_dict(),
        "counts_from": cells.counts_from,
        "embedding": {"key": key, "pooling": plan.pooling, "layer": plan.layer, "max_length": reading.max_length},
    }
    blocks = [np.load(_part_folder(work, i) / "cells.npy", mmap_mode="r") for i in range(len(plan.parts))]
    add_to_h5ad(source, output, obsm={key: blocks}, varm=varm, uns={"genecompass": uns})


def _parts(cells: int, processes: int) -> list[list[int]]:
    """Rows of each process; borders are borders of chunks, so the numbers do not depend on how many there are."""
    if processes < 1:
        raise InputError(f"processes is {processes}; it must be at least 1")
    number = -(-cells // CHUNK)
    borders = [round(i * number / processes) * CHUNK for i in range(processes + 1)]
    pairs = itertools.pairwise(borders)
    return [[start, min(stop, cells)] for start, stop in pairs if start < min(stop, cells)]


def _open_work(work: Path, plan: EmbedPlan, restart: bool) -> None:
    if restart:
        for path in work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if (work / "plan.json").exists():
        try:
            found = dict(json.loads((work / "plan.json").read_text(encoding="utf-8")))
        except ValueError as error:
            raise InputError(f"{work / 'plan.json'}: damaged ({error}); start over (--restart)") from error
        changed = [name for name, value in asdict(plan).items() if found.get(name) != value]
        # a run that was refused before it saved a cell binds nobody
        if found and changed and any(work.glob("part-*/state.npz")):
            raise InputError(
                f"{work}: was begun with another {changed[0]}; "
                "finish it with the same settings, or start over (--restart)"
            )
    write_json(work / "plan.json", asdict(plan))


def _run_parts(plan: EmbedPlan, work: Path, devices: list[str] | None, progress: bool) -> None:
    device = [(devices or [None])[i % len(devices or [None])] for i in range(len(plan.parts))]  # type: ignore[list-item]
    if len(plan.parts) == 1:
        _embed_part(plan, work, 0, device[0], progress)
        return
    context = multiprocessing.get_context("spawn")
    # each process would otherwise start as many threads as there are cores
    threads = max(1, torch.get_num_threads() // len(plan.parts))
    with ProcessPoolExecutor(
        len(plan.parts), mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        jobs = [pool.submit(_embed_part, plan, work, i, device[i], progress and i == 0) for i in range(len(plan.parts))]
        for job in jobs:
            job.result()


def _embed_part(plan: EmbedPlan, work: Path, part: int, device: str | None, progress: bool) -> None:
    """Embed the rows of one part, continuing after the last saved chunk."""
    from ...tokenization.progress import Progress

    network, processor = load_checkpoint(plan.model, device=device, fold=True)
    table = gene_table_of(processor)
    how = Pooling.choose(plan.pooling, network.config)
    width = how.width(network.config)
    start, stop = plan.parts[part]
    folder = _part_folder(work, part)
    folder.mkdir(parents=True, exist_ok=True)
    means = GeneMeans(table.vocab_size, network.config.hidden_size)
    coverage = Coverage()
    done = _load_state(folder, means, coverage) if (folder / "state.npz").exists() else start
    if done >= stop:
        return
    embedding = _open_rows(folder / "cells.npy", (stop - start, width), fresh=done == start)
    source = open_cells(plan.source, **plan.cells_read)
    reading = Reading(**plan.reading)
    with Progress(total=stop - start, initial=done - start, unit="cell", disable=not progress) as bar:
        for number, (first, tokenized) in enumerate(
            chunks(source, table, reading, start=done, stop=stop, coverage=coverage), start=1
        ):
            rows = how.embed(
                network,
                tokenized,
                table,
                layer=plan.layer,
                max_tokens=plan.max_tokens,
                bf16=plan.bf16,
                gene_means=means if plan.genes else None,
            )
            end = first + len(rows)
            embedding[first - start : end - start] = rows
            bar.update(len(rows))
            if number % _SAVE_EVERY == 0 or end == stop:
                embedding.flush()
                _save_state(folder, end, means, coverage)


def _part_folder(work: Path, part: int) -> Path:
    return work / f"part-{part:03d}"


def _open_rows(path: Path, shape: tuple[int, int], *, fresh: bool) -> np.memmap:
    if fresh or not path.exists():
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    try:
        rows = np.lib.format.open_memmap(path, mode="r+")
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); start over (--restart)") from error
    if rows.shape != shape or rows.dtype != np.float32:
        raise InputError(f"{path}: damaged (shape {rows.shape}); start over (--restart)")
    return rows


def _save_state(folder: Path, done: int, means: GeneMeans, coverage: Coverage) -> None:
    with atomic_path(folder / "state.npz") as temporary, open(temporary, "wb") as handle:
        np.savez(handle, done=done, sums=means.sums, cells=means.cells, coverage=json.dumps(asdict(coverage)))


def _load_state(folder: Path, means: GeneMeans, coverage: Coverage) -> int:
    """Fill `means` and `coverage` with what was saved; give the row to continue at."""
    try:
        with np.load(folder / "state.npz", allow_pickle=False) as state:
            means.sums[:], means.cells[:] = state["sums"], state["cells"]
            coverage.merge(Coverage(**json.loads(str(state["coverage"]))))
            return int(state["done"])
    except Exception as error:  # a damaged archive: zlib, zipfile and NumPy have an error each
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder / 'state.npz'}: damaged ({reason}); start over (--restart)") from error


def _gather(plan: EmbedPlan, work: Path, vocab_size: int, hidden_size: int) -> tuple[GeneMeans | None, Coverage]:
    total, coverage = GeneMeans(vocab_size, hidden_size), Coverage()
    for part in range(len(plan.parts)):
        means = GeneMeans(vocab_size, hidden_size)
        _load_state(_part_folder(work, part), means, coverage)
        total.sums += means.sums
        total.cells += means.cells
    return (total if plan.genes else None), coverage


def _var_names(path: Path) -> Any:
    from anndata.io import read_elem

    with open_hdf5(path) as file:
        return read_elem(file["var"]).index
