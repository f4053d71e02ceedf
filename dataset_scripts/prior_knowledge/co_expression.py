"""Co-expression prior: genes whose counts rise and fall together, pooled over data sets, to gene vectors."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import CellOptions
from .cell_spool import CellSpool, Transform
from .correlation import CorrelationSettings, correlated_pairs
from .gene2vec import Gene2VecSettings, Pairs, vectors_of_all_species
from .gene_names import match_names
from .tables import Missing, PriorTable, assemble, source_record, versions_of

CELLS_PER_DATASET = 3000
# with balanced pooling, what a data set adds is bounded by this many pairs per gene that it has in pairs
_PAIRS_PER_GENE = 20

# unique molecules are mostly counted once; reads of full-length protocols come in tens and hundreds
_READS_MEDIAN = 5

DatasetTransform = Literal["auto", "counts", "log_counts", "log_normalized"]
Pooling = Literal["once", "datasets", "balanced"]


@dataclass
class CellsOf:
    """Cells of one data set, however they are stored.

    Parameters
    ----------
    name
        The data set's name; two parts of the same name are one data set.
    species
        Species of the cells.
    tokens
        Own token of each column, -1 where unknown. Shape (columns,).
    n_cells
        Number of cells.
    blocks
        Called to read them: blocks of raw counts, shape (cells, columns), in a fixed order.
    record
        What goes into the metadata.
    """

    name: str
    species: str
    tokens: npt.NDArray[np.int64]
    n_cells: int
    blocks: Callable[[], Iterable[sp.csr_matrix]]
    record: dict[str, Any] = field(default_factory=dict)


def cells_of_file(
    source: Any,
    table: GeneTable,
    species: str,
    *,
    gene_species: str | None = None,
    name: str | None = None,
    **reading: Unpack[CellOptions],
) -> CellsOf:
    """Cells of a file or AnnData object, see `genecompass.tokenization.readers.open_cells`."""
    from ...tokenization.matching import match_columns
    from ...tokenization.readers import open_cells

    cells = open_cells(source, **reading)
    matched = match_columns(cells, table, species=species, gene_species=gene_species)
    is_file = isinstance(source, str | os.PathLike) and Path(source).is_file()
    record = source_record(source) if is_file else {"file": cells.name}
    return CellsOf(
        name=name or cells.name,
        species=species,
        tokens=np.asarray(matched.column_token, dtype=np.int64),
        n_cells=cells.n_cells,
        blocks=lambda: (block for _, block in cells.blocks()),
        record=record,
    )


def cells_of_corpus(folder: str | os.PathLike[str], table: GeneTable) -> list[CellsOf]:
    """Data sets of a corpus folder (parquet shards), one entry per species and data set.

    Raises
    ------
    InputError
        If the folder is no corpus, or has no cells of the vocabulary's species.
    """
    import pyarrow.dataset as ds

    folder = Path(folder)
    found: list[CellsOf] = []
    for species in table.species:
        shards = sorted((folder / "data" / species).glob("*.parquet"))
        axis_file = folder / "genes" / f"{species}.parquet"
        if not shards or not axis_file.is_file():
            continue
        axis = pd.read_parquet(axis_file)
        tokens = _axis_tokens(axis, table, species, str(axis_file))
        cells = ds.dataset([str(shard) for shard in shards], format="parquet")
        sizes = cells.to_table(columns=["dataset"]).column("dataset").to_pandas().value_counts(sort=False)
        for name in sorted(sizes.index):
            found.append(
                CellsOf(
                    name=str(name),
                    species=species,
                    tokens=tokens,
                    n_cells=int(sizes[name]),
                    blocks=_CorpusBlocks(cells, str(name), len(axis)),
                    record=_provenance(folder, str(name)),
                )
            )
    if not found:
        raise InputError(
            f"{folder}: no corpus with cells of {', '.join(table.species)} here "
            "(data/<species>/*.parquet and genes/<species>.parquet)"
        )
    return found


def _axis_tokens(axis: pd.DataFrame, table: GeneTable, species: str, where: str) -> npt.NDArray[np.int64]:
    """Own tokens, in `species`, of a corpus's gene axis, whose genes may be named in another species."""
    tokens = np.full(len(axis), -1, dtype=np.int64)
    for gene_species in axis["gene_species"].unique():
        if gene_species not in table.species:
            continue
        mine = np.flatnonzero(axis["gene_species"] == gene_species)
        names = axis["gene_id"].where(axis["gene_id"] != "", axis["symbol"]).iloc[mine]
        matched = match_names(names, table, gene_species, where=where).tokens
        tokens[mine] = table.index.as_cell_genes(matched, species)
    return tokens


def _provenance(folder: Path, name: str) -> dict[str, Any]:
    """What the corpus says about a data set: licence and citation, and the corpus itself by its manifest."""
    from ...tokenization.files import sha256_of

    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return {"corpus": folder.resolve().name, "manifest": "not recorded"}
    sources = json.loads(manifest.read_text(encoding="utf-8")).get("sources") or []
    mine = [entry for entry in sources if isinstance(entry, dict) and entry.get("dataset") == name]
    known = {key: entry[key] for entry in mine[:1] for key in ("licence", "citation") if entry.get(key)}
    return {"corpus": folder.resolve().name, "manifest": sha256_of(manifest), **known}


@dataclass(frozen=True)
class _CorpusBlocks:
    """Reads one data set of a corpus; other data sets' row groups are skipped where statistics allow."""

    cells: Any
    name: str
    columns: int

    def __call__(self) -> Iterator[sp.csr_matrix]:
        import pyarrow.dataset as ds

        wanted = ds.field("dataset") == self.name
        for batch in self.cells.to_batches(columns=["genes", "counts"], filter=wanted, use_threads=False):
            if not batch.num_rows:
                continue
            genes = batch.column("genes")
            indptr = np.asarray(genes.offsets) - genes.offsets[0].as_py()
            indices, counts = np.asarray(genes.flatten()), np.asarray(batch.column("counts").flatten())
            yield sp.csr_matrix((counts.astype(np.float64), indices, indptr), shape=(batch.num_rows, self.columns))


def dataset_pairs(
    cells: Sequence[CellsOf],
    *,
    cells_per_dataset: int | None = CELLS_PER_DATASET,
    transform: DatasetTransform = "auto",
    settings: CorrelationSettings | None = None,
    seed: int = 0,
    scratch: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Correlated pairs of every data set.

    Parameters
    ----------
    cells
        Data sets.
    cells_per_dataset
        Sample this many cells of each (seeded by its name); None takes all.
    transform
        See `CellSpool`. ``auto`` looks at each data set: ``log_normalized`` for read counts (median of the expressed
        entries 5 or more), whose depth differs between cells by orders of magnitude and would make every gene
        follow every other; ``counts`` for unique molecules, where dividing by the total makes rare genes agree.
    settings
        Threshold, floor on shared cells, device.
    seed
        Of the sample.
    scratch
        Folder of temporary files.
    progress
        Called with a line per data set.

    Returns
    -------
    pairs
        ``species``, ``dataset``, ``left``, ``right``, ``shared``, ``r``.
    records
        Per data set: cells, sampled cells, genes tested, pairs; those with too few cells say so.

    Raises
    ------
    InputError
        If every data set has fewer cells than the floor on shared cells.
    """
    settings = settings or CorrelationSettings()
    parts, records = [], []
    for (species, name), group in _by_dataset(cells):
        total = sum(part.n_cells for part in group)
        taken = total if cells_per_dataset is None else min(total, cells_per_dataset)
        record: dict[str, Any] = {"dataset": name, "species": species, "cells": total, "sampled": taken}
        record.update(group[0].record)
        records.append(record)
        if taken < settings.min_shared:
            record["pairs"], record["skipped"] = 0, f"fewer than {settings.min_shared} cells"
            continue
        rows = np.sort(_generator(seed, species, name).choice(total, taken, replace=False))
        with ExitStack() as stack:
            blocks = _sampled_blocks(group, rows)
            first = next(blocks)
            chosen: Transform = _transform_for(first) if transform == "auto" else transform
            record["transform"] = chosen
            spool = stack.enter_context(CellSpool(_all_tokens(group), transform=chosen, folder=scratch))
            for block in chain([first], blocks):
                spool.add(block)
            pairs = correlated_pairs(spool, settings)
            record["genes_tested"] = int((spool.expressed >= settings.min_shared).sum())
        record["pairs"] = len(pairs)
        parts.append(pairs.assign(species=species, dataset=name))
        if progress is not None:
            progress(f"{name}: {taken} {species} cells, {record['genes_tested']} genes, {len(pairs)} pairs")
    if not parts:
        most = max((record["cells"] for record in records), default=0)
        raise InputError(
            f"co-expression: no data set has the {settings.min_shared} cells that a pair must share (largest: {most}); "
            "lower min_shared or give more cells"
        )
    columns = ["species", "dataset", "left", "right", "shared", "r"]
    return pd.concat(parts, ignore_index=True)[columns], records


def _transform_for(counts: sp.csr_matrix) -> Transform:
    expressed = counts.data[counts.data >= 1]
    return "log_normalized" if len(expressed) and np.median(expressed) >= _READS_MEDIAN else "counts"


def _by_dataset(cells: Sequence[CellsOf]) -> list[tuple[tuple[str, str], list[CellsOf]]]:
    groups: dict[tuple[str, str], list[CellsOf]] = {}
    for part in cells:
        groups.setdefault((part.species, part.name), []).append(part)
    return sorted(groups.items())


def _generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *json.dumps(names).encode()])


def _all_tokens(group: Sequence[CellsOf]) -> npt.NDArray[np.int64]:
    return np.concatenate([part.tokens for part in group])


def _sampled_blocks(group: Sequence[CellsOf], rows: npt.NDArray[np.int64]) -> Iterator[sp.csr_matrix]:
    """The chosen rows of a data set's parts; every part keeps its own columns, side by side."""
    first_row, first_column = 0, 0
    width = sum(len(part.tokens) for part in group)
    for part in group:
        for block in part.blocks():
            mine = rows[np.searchsorted(rows, first_row) : np.searchsorted(rows, first_row + block.shape[0])]
            first_row += block.shape[0]
            if len(mine):
                chosen = sp.csr_matrix(block[mine - (first_row - block.shape[0])])
                shifted = (chosen.data, chosen.indices + first_column, chosen.indptr)
                yield sp.csr_matrix(shifted, shape=(chosen.shape[0], width))
        first_column += len(part.tokens)


def pool_pairs(pairs: pd.DataFrame, pooling: Pooling = "balanced") -> dict[str, Pairs]:
    """Pool the pairs of all data sets, species by species.

    Parameters
    ----------
    pairs
        As from `dataset_pairs`.
    pooling
        ``once``: a pair counts once however many data sets have it, as published. ``datasets``: it counts once
        for each. ``balanced``: as ``datasets``, but the pairs of one data set share at most 20 per gene, so that
        one of deep read counts with a million pairs does not drown the others.

    Raises
    ------
    InputError
        For an unknown pooling.
    """
    if pooling not in ("once", "datasets", "balanced"):
        raise InputError(f"pooling {pooling!r} is not known; choose once, datasets or balanced")
    pooled = {}
    for species, mine in pairs.groupby("species"):
        share = pd.Series(1.0, index=mine.index)
        if pooling == "balanced":
            for _, own in mine.groupby("dataset"):
                genes = len(np.unique(own[["left", "right"]].to_numpy()))
                share[own.index] = min(1.0, _PAIRS_PER_GENE * genes / len(own))
        counted = mine.assign(share=share).groupby(["left", "right"], as_index=False).agg({"share": "sum"})
        weight = np.ones(len(counted)) if pooling == "once" else counted["share"].to_numpy(np.float64)
        pooled[str(species)] = Pairs(counted["left"].to_numpy(), counted["right"].to_numpy(), weight)
    return pooled


def build_co_expression(
    cells: Sequence[CellsOf],
    table: GeneTable,
    *,
    cells_per_dataset: int | None = CELLS_PER_DATASET,
    transform: DatasetTransform = "auto",
    correlation: CorrelationSettings | None = None,
    pooling: Pooling = "balanced",
    settings: Gene2VecSettings | None = None,
    align: bool = True,
    missing: Missing = "zero",
    dtype: Literal["float32", "float16"] = "float32",
    scratch: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> PriorTable:
    """Build the co-expression table from cells.

    Parameters
    ----------
    cells
        Data sets: `cells_of_corpus` or `cells_of_file`.
    table
        The vocabulary.
    cells_per_dataset, transform, correlation, scratch, progress
        See `dataset_pairs`.
    pooling
        See `pool_pairs`.
    settings
        Of gene2vec; its seed also draws the cells.
    align
        See `vectors_of_all_species`.
    missing, dtype
        See `assemble`.

    Returns
    -------
    PriorTable

    Raises
    ------
    InputError
        If there are too few cells, or no pair reaches the threshold.

    Examples
    --------
    >>> table = GeneTable.read("genes.parquet")                                          # doctest: +SKIP
    >>> prior = build_co_expression(cells_of_corpus("corpus", table), table)             # doctest: +SKIP
    """
    settings = settings or Gene2VecSettings()
    correlation = correlation or CorrelationSettings()
    pairs, records = dataset_pairs(
        cells,
        cells_per_dataset=cells_per_dataset,
        transform=transform,
        settings=correlation,
        seed=settings.seed,
        scratch=scratch,
        progress=progress,
    )
    if pairs.empty:
        raise InputError(
            f"co-expression: no pair of genes reaches r >= {correlation.threshold} over {correlation.min_shared} "
            "shared cells; give more cells or lower the threshold"
        )
    tokens, vectors, learned = vectors_of_all_species(pool_pairs(pairs, pooling), table, settings, align=align)
    how = {key: value for key, value in asdict(correlation).items() if key != "device"}
    metadata = {
        "method": "gene2vec over pairs of genes correlated over the cells that express both",
        "sources": records,
        "settings": {
            **settings.record(),
            **how,
            "cells_per_dataset": cells_per_dataset,
            "transform": transform,
            "pooling": pooling,
            "align": align,
        },
        "species": learned,
        "versions": versions_of("gensim", "scipy", "torch"),
    }
    return assemble(
        "co_expression", tokens, vectors, table, missing=missing, seed=settings.seed, dtype=dtype, metadata=metadata
    )
