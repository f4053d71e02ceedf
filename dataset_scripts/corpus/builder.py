"""Building a corpus: plan, read every input once, deal its cells to shards by lot, write, publish."""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import atomic_path, sha256_of

from . import layout
from .engines import engine
from .gather import ShardTask, Spill, gather
from .gene_axis import axis_keys, axis_positions, extend_axis
from .inputs import cell_samples, cell_species, obs_values, open_source
from .judge import Verdict, judge
from .ledger import Ledger, digest, sole_builder
from .publish import already_published, publish, read_corpus_manifest
from .scatter import TASK_CELLS, Task, scatter
from .sources import Source, read_sources, source_from

Run = Callable[..., list[Any]]


@dataclass(frozen=True)
class BuildOptions:
    """What decides a corpus's bytes beside its inputs.

    Parameters
    ----------
    seed
        Decides the shuffle.
    quality
        Quality control: ``"none"``, or ``"paper"`` or ``"published_code"``, which need a gene table.
    gene_table
        Gene table that gives Ensembl ids to columns without one, and biotypes to quality control; None for none.
    count_type
        ``"int32"``, or ``"float32"`` for a corpus of non-integer counts.
    cells_per_shard
        Most cells in a shard.
    """

    seed: int = 0
    quality: str = "none"
    gene_table: str | None = None
    count_type: str = "int32"
    cells_per_shard: int = layout.CELLS_PER_SHARD

    def recorded(self) -> dict[str, Any]:
        """The options as the manifest keeps them: without a local path."""
        table = None if self.gene_table is None else Path(self.gene_table).name
        return {
            "seed": self.seed,
            "quality": self.quality,
            "gene_table": table,
            "count_type": self.count_type,
            "cells_per_shard": self.cells_per_shard,
        }


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Parameters
    ----------
    folder
        The corpus.
    cells
        Per species, the cells of the whole corpus.
    added
        Cells that this build added.
    removed
        Cells that quality control removed from the inputs of this build.
    failed
        Inputs that could not be read: dataset and reason.
    """

    folder: Path
    cells: dict[str, int]
    added: int
    removed: int
    failed: dict[str, str] = field(default_factory=dict)


def build(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    options: BuildOptions | None = None,
    reshuffle: bool = False,
    engine_name: str = "loky",
    jobs: int = 1,
    address: str | None = None,
) -> BuildReport:
    """Build a corpus from a table of inputs, or append to it the inputs that it does not hold yet.

    A killed build goes on where it was when it is started again with the same arguments, and ends with the same
    bytes. Appended cells go into new shards, shuffled among themselves; no old shard is touched.

    Parameters
    ----------
    manifest
        The table of inputs (see `read_sources`).
    out
        Folder of the corpus.
    options
        Seed, quality control, gene table, type of the counts, size of shards.
    reshuffle
        Build all shards anew from the inputs, old and new mixed.
    engine_name, jobs, address
        Where the work is done (see `engine`). The bytes do not depend on it.

    Returns
    -------
    BuildReport

    Raises
    ------
    InputError
        When no input can be read, or the folder holds something that does not fit.

    Examples
    --------
    >>> build("inputs.tsv", "corpus", jobs=4)  # doctest: +SKIP
    """
    options = options or BuildOptions()
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    sources = read_sources(manifest)
    with sole_builder(folder), engine(engine_name, jobs=jobs, address=address) as run:
        ledger = Ledger(folder)
        ledger.sweep()
        plan = _plan(ledger, sources, options, reshuffle, run)
        if already_published(folder, plan) or not plan["inputs"]:
            ledger.clear()
            if read_corpus_manifest(folder) is None:
                raise InputError(_nothing_read(plan["failed"]))
            return _report(folder, plan["failed"])
        return _carry_out(ledger, plan, run)


def _plan(ledger: Ledger, sources: list[Source], options: BuildOptions, reshuffle: bool, run: Run) -> dict[str, Any]:
    """Decide what is new, how many shards it fills and which seeds are drawn; settled on disk before work begins."""
    recorded = ledger.recorded_plan()
    old = read_corpus_manifest(ledger.folder)
    if recorded is None and old is not None and old["options"] | options.recorded() != old["options"] and not reshuffle:
        raise InputError(f"{ledger.folder}: was built with other options ({old['options']}); use those or --reshuffle")
    table_sum = None if options.gene_table is None else sha256_of(options.gene_table)
    asked = {
        "sources": [source.to_dict() for source in sources],
        "options": options.recorded() | {"gene_table_sha256": table_sum},
        "reshuffle": reshuffle,
    }
    if recorded is not None:
        settled = ledger.plan({"asked": asked})
        _refuse_changed(ledger, settled, run)
        return settled
    before = None if reshuffle else old
    known = {} if old is None else {entry["dataset"]: entry for entry in old["sources"]}
    if reshuffle and (lost := sorted(known.keys() - {source.dataset for source in sources})):
        raise InputError(f"{ledger.folder}: --reshuffle needs every input; the table lacks dataset {lost[0]!r}")
    new = [source for source in sources if before is None or source.dataset not in known]
    _refuse_replaced(ledger.folder, [s for s in sources if s not in new], known, run)
    columns = _columns(ledger.folder, sources, before)
    failed: dict[str, str] = {}
    inputs: list[dict[str, Any]] = []
    for source, header in zip(new, run(partial(_header, options), new, "looking at inputs"), strict=True):
        if "error" in header:
            failed[source.dataset] = header["error"]
        else:
            inputs.append({"source": source.to_dict(), **header})
    totals: dict[str, int] = {}
    for entry in inputs:
        for species, n_cells in entry["species"].items():
            totals[species] = totals.get(species, 0) + n_cells
    return ledger.plan(
        {
            "asked": asked,
            "inputs": inputs,
            "failed": failed,
            "options": options.recorded(),
            "gene_table": options.gene_table and os.path.abspath(options.gene_table),
            "round": 0 if before is None else before["rounds"],
            "fresh": before is None,
            "obs_columns": list(columns),
            "shards": {s: layout.shards_for(n, options.cells_per_shard) for s, n in sorted(totals.items())},
        }
    )


def _refuse_changed(ledger: Ledger, plan: dict[str, Any], run: Run) -> None:
    """An unfinished build goes on with the very files that it began with."""
    entries = plan["inputs"]
    paths = [entry["source"]["path"] for entry in entries]
    for entry, changed in zip(entries, run(_differs, list(zip(paths, entries, strict=True)), "inputs"), strict=True):
        if changed:
            raise InputError(
                f"{entry['source']['path']}: changed since the unfinished build in {ledger.folder} began; put the old "
                f"file back, or delete {ledger.work} to begin anew"
            )


def _differs(job: tuple[str, dict[str, Any]]) -> bool:
    path, recorded = Path(job[0]), job[1]
    if not path.exists():
        return False  # what is still to be read of it fails by itself
    # a file that was not touched need not be read again to know that
    return _stamp(path) != recorded.get("stamp") and _fingerprint(path) != recorded["sha256"]


def _refuse_replaced(folder: Path, held: list[Source], known: dict[str, dict[str, Any]], run: Run) -> None:
    """A data set that the corpus holds, from another file now: its new cells would be left out in silence."""
    present = [source for source in held if Path(source.path).exists()]
    sums = run(_fingerprint_of, present, "comparing inputs with the corpus")
    for source, found in zip(present, sums, strict=True):
        if found != known[source.dataset]["sha256"]:
            raise InputError(
                f"{source.path}: the corpus {folder} holds data set {source.dataset!r} already, from a file of other "
                "content; give the new file a data set name of its own, take it out of the table, or --reshuffle"
            )


def _fingerprint_of(source: Source) -> str:
    return _fingerprint(Path(source.path))


def _stamp(path: Path) -> list[list[int]]:
    """Size, times and number of a file, or of each file of a folder: what changes when one is replaced."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    states = [file.stat() for file in files]
    return [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in states]


def _columns(folder: Path, sources: list[Source], old: dict[str, Any] | None) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(name for source in sources for name, _ in source.obs_columns))
    if old is None:
        return wanted
    if missing := [name for name in wanted if name not in old["obs_columns"]]:
        raise InputError(
            f"{folder}: this corpus has no column {missing[0]!r} and its shards stay as they are; "
            "leave the column out of 'obs_columns', or rebuild with --reshuffle"
        )
    return tuple(old["obs_columns"])


def _header(options: BuildOptions, source: Source) -> dict[str, Any]:
    """An input's checksum, its rows and its cells per species; its error instead when it cannot be read."""
    try:
        stamp = _stamp(Path(source.path))
        cells = open_source(source, options.count_type, options.gene_table)
        names, numbers = np.unique(cell_species(source, cells.obs).astype(str), return_counts=True)
        obs_values(source, cells.obs.iloc[:0])
        cell_samples(source, cells.obs.iloc[:0])
        return {
            "rows": cells.n_cells,
            "genes": cells.n_genes,
            "species": dict(zip(names.tolist(), numbers.tolist(), strict=True)),
            "sha256": _fingerprint(Path(source.path)),
            "stamp": stamp,
        }
    except (ValueError, OSError, KeyError) as error:
        return {"error": _one_line(error)}


def _fingerprint(path: Path) -> str:
    """SHA-256 of a file; of a folder, of its files' names and checksums."""
    if path.is_file():
        return sha256_of(path)
    return digest([[p.relative_to(path).as_posix(), sha256_of(p)] for p in sorted(path.rglob("*")) if p.is_file()])


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.replace(
        "allow estimated counts with allow_fractional=True", "build a corpus of estimated counts (--count-type float32)"
    )


def _carry_out(ledger: Ledger, plan: dict[str, Any], run: Run) -> BuildReport:
    """Do what is planned and not yet done: scatter, judge, axis, gather, publish."""
    tasks = _scatter_tasks(plan)
    scattered = dict(zip(tasks, run(partial(_scatter_one, ledger), tasks.values(), "reading cells"), strict=True))
    failed = dict(plan["failed"])
    for name, record in scattered.items():
        if "error" in record:
            failed.setdefault(tasks[name].source.dataset, record["error"])
    inputs = [entry for entry in plan["inputs"] if entry["source"]["dataset"] not in failed]
    if not inputs:
        ledger.clear()
        raise InputError(_nothing_read(failed))
    by_source = [[t for t in tasks.values() if t.source.dataset == e["source"]["dataset"]] for e in inputs]
    verdicts: list[Verdict] = run(partial(_judge_one, ledger), by_source, "quality control")
    spills = _lay_axes(ledger, plan, by_source, scattered)
    shards = _shard_tasks(plan, spills)
    written = run(partial(_gather_one, ledger), shards, "writing shards")
    publish(ledger, plan, inputs, verdicts, failed, shards, written)
    ledger.clear()
    removed = sum(sum(verdict.removed.values()) for verdict in verdicts)
    return _report(ledger.folder, failed, added=sum(shard["rows"] for shard in written if shard), removed=removed)


def _nothing_read(failed: dict[str, str]) -> str:
    dataset, reason = next(iter(failed.items()))
    return f"none of the inputs could be read; {dataset}: {reason}"


def _report(folder: Path, failed: dict[str, str], *, added: int = 0, removed: int = 0) -> BuildReport:
    content = read_corpus_manifest(folder)
    assert content is not None
    cells = {species: entry["cells"] for species, entry in content["species"].items()}
    return BuildReport(folder, cells, added, removed, failed)


def _scatter_tasks(plan: dict[str, Any]) -> dict[str, Task]:
    tasks = {}
    options = plan["options"]
    for number, entry in enumerate(plan["inputs"]):
        source = source_from(entry["source"])
        for start in range(0, max(entry["rows"], 1), TASK_CELLS):
            name = f"scatter-{number:05d}-{start // TASK_CELLS:05d}"
            seed = (options["seed"], plan["round"], zlib.crc32(source.dataset.encode()), start)
            stop = min(start + TASK_CELLS, entry["rows"])
            tasks[name] = Task(
                *(name, source, start, stop, plan["shards"], seed, options["count_type"]),
                *(options["quality"], plan["gene_table"], tuple(plan["obs_columns"])),
                stamp=tuple(tuple(part) for part in entry.get("stamp", ())),
            )
    return tasks


def _scatter_one(ledger: Ledger, task: Task) -> dict[str, Any]:
    if (record := ledger.finished(task.name)) is not None:
        return record
    try:
        record = scatter(task, ledger.work / f"{task.name}.arrow")
        if task.stamp and _stamp(Path(task.source.path)) != [list(part) for part in task.stamp]:
            raise InputError(f"{task.source.path}: changed while it was read; build again when it is complete")
    except (ValueError, KeyError) as error:
        # readers turn whatever an input does into one of these
        return {"error": _one_line(error)}
    except OSError as error:
        raise InputError(_cannot_write(ledger, error)) from error
    return ledger.finish(task.name, record)


def _cannot_write(ledger: Ledger, error: OSError) -> str:
    return (
        f"{ledger.work}: cannot be written ({_one_line(error)}); what is finished is kept: "
        "make room, then start the same build again"
    )


def _judge_one(ledger: Ledger, tasks: list[Task]) -> Verdict:
    """Quality control of one input; quick, so a resumed build does it again."""
    return judge(tasks, ledger.work)


def _lay_axes(
    ledger: Ledger, plan: dict[str, Any], by_source: list[list[Task]], scattered: dict[str, dict[str, Any]]
) -> dict[str, list[Spill]]:
    """Extend every species' gene axis by the new inputs and say where their columns are on it."""
    work = ledger.work
    spills: dict[str, list[Spill]] = {}
    for species in plan["shards"]:
        mine = [tasks for tasks in by_source if (work / f"{tasks[0].name}.{species}.genes.parquet").exists()]
        genes = [pd.read_parquet(work / f"{tasks[0].name}.{species}.genes.parquet") for tasks in mine]
        detected = [_detected(work, tasks, scattered, species) for tasks in mine]
        old_path = ledger.folder / layout.gene_axis_path(species)
        old = pd.read_parquet(old_path) if old_path.exists() and not plan["fresh"] else None
        axis = extend_axis(old, genes, detected)
        with atomic_path(work / "genes" / f"{species}.parquet") as temporary:
            axis.to_parquet(temporary, index=False, compression="zstd")
        known = axis_keys(axis)
        spills[species] = []
        for tasks, names in zip(mine, genes, strict=True):
            index_path = work / f"{tasks[0].name}.{species}.axis.npy"
            with atomic_path(index_path) as temporary:
                np.save(temporary, axis_positions(known, names))
            for task in tasks:
                spill = str(work / f"{task.name}.arrow")
                pieces = scattered[task.name]["pieces"]
                spills[species].append(
                    Spill(spill, pieces, {species: str(index_path)}, task.start, task.source.dataset)
                )
    return spills


def _detected(
    work: Path, tasks: list[Task], scattered: dict[str, dict[str, Any]], species: str
) -> npt.NDArray[np.int64]:
    """In how many cells of a species each column of an input is expressed. Shape (n_genes,)."""
    counts = []
    for task in tasks:
        if species in (names := scattered[task.name]["species"]):
            found = np.load(work / f"{task.name}.detected.npy", allow_pickle=False)
            counts.append(found[names.index(species)])
    return np.asarray(np.sum(counts, axis=0))


def _shard_tasks(plan: dict[str, Any], spills: dict[str, list[Spill]]) -> list[ShardTask]:
    options = plan["options"]
    return [
        ShardTask(
            f"gather-{species}-{bucket:05d}",
            species,
            bucket,
            spills[species],
            tuple(plan["obs_columns"]),
            options["count_type"],
        )
        for species, n_shards in plan["shards"].items()
        for bucket in range(n_shards)
    ]


def _gather_one(ledger: Ledger, task: ShardTask) -> dict[str, Any] | None:
    if (record := ledger.finished(task.name)) is not None:
        return record["shard"]
    try:
        shard = gather(task, ledger.work / f"{task.name}.parquet")
    except OSError as error:
        raise InputError(_cannot_write(ledger, error)) from error
    return ledger.finish(task.name, {"shard": shard})["shard"]
