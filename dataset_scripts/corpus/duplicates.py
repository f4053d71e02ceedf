"""Cells that a corpus holds twice: under one name, or under two, from files that measured different genes."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from .catalogue import Corpus, Shard

BANDS, HASHES_IN_BAND = 12, 5
FEWEST_ENTRIES = 20
LARGEST_BUCKET = 30
IDENTICAL_SHARE = 0.95
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class _Sketches:
    """Per cell: where it is, its name, and one key per band."""

    place: list[tuple[int, int, int]]
    names: list[tuple[str, str]]
    keys: list[npt.NDArray[np.uint64]]


def find_duplicates(corpus: Corpus, species: str) -> pd.DataFrame:
    """Find pairs of cells that are one cell.

    Counts of a cell are compared as pairs of gene symbol (without regard to capitals) and count, so that copies are
    found among files with different genes, gene names of an orthologous species, and other cell names. Candidates
    share a name, or a band of min-hashes over the genes with two counts or more; a candidate is a duplicate when at
    least 95 % of the genes expressed in both have the same count.

    Parameters
    ----------
    corpus
        What to look through; memory grows by about 200 bytes a cell.
    species
        Whose cells.

    Returns
    -------
    pandas.DataFrame
        ``dataset``, ``cell_id``, ``other_dataset``, ``other_cell_id``, ``shared_genes``, ``identical`` (share of
        these with the same count).
    """
    axis = corpus.gene_axis(species)
    label = np.array([zlib.crc32(symbol.upper().encode()) for symbol in axis["symbol"]], dtype=np.uint64)
    sketches = _Sketches([], [], [])
    shards = [(n, shard) for n, shard in enumerate(corpus.shards) if shard.species == species]
    for number, shard in shards:
        for row_group in range(corpus.n_row_groups(shard)):
            _sketch(corpus, number, shard, row_group, label, sketches)
    pairs = sorted(_candidates(sketches))
    cells = _fetch(corpus, sketches, {cell for pair in pairs for cell in pair}, label)
    found = []
    for one, other in pairs:
        shared, identical = _compare(cells[one], cells[other])
        fewest = min(len(cells[one][0]), len(cells[other][0]))
        if shared >= max(FEWEST_ENTRIES, fewest / 4) and identical >= IDENTICAL_SHARE:
            found.append((*sketches.names[one], *sketches.names[other], shared, identical))
    columns = ["dataset", "cell_id", "other_dataset", "other_cell_id", "shared_genes", "identical"]
    return pd.DataFrame(found, columns=columns)


def _flat(table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[Any]]:
    genes, counts = table["genes"].combine_chunks(), table["counts"].combine_chunks()
    offsets = genes.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], genes.flatten().to_numpy(), counts.flatten().to_numpy()


def _sketch(
    corpus: Corpus, number: int, shard: Shard, row_group: int, label: npt.NDArray[np.uint64], into: _Sketches
) -> None:
    table = corpus.read(shard, row_group, ["genes", "counts", "dataset", "cell_id"])
    offsets, genes, counts = _flat(table)
    telling = counts >= 2
    starts = np.concatenate(([0], np.cumsum(telling)))[offsets]
    entry = _scramble(label[genes[telling]] * np.uint64(2**20) + counts[telling].astype(np.uint64))
    keys: npt.NDArray[np.uint64] = np.zeros((table.num_rows, BANDS), dtype=np.uint64)
    enough = np.diff(starts) >= FEWEST_ENTRIES
    for band in range(BANDS):
        for hash_number in range(HASHES_IN_BAND):
            salt = np.uint64((band * HASHES_IN_BAND + hash_number + 1) * 0x100000001B3)
            if len(entry):
                safe = np.minimum(starts[:-1], len(entry) - 1)
                smallest = np.minimum.reduceat(_scramble(entry ^ salt), safe)
                keys[:, band] = _scramble(keys[:, band] ^ smallest)
    keys[~enough] = 0
    into.keys.append(keys)
    into.place += [(number, row_group, row) for row in range(table.num_rows)]
    into.names += list(zip(table["dataset"].to_pylist(), table["cell_id"].to_pylist(), strict=True))


def _scramble(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = (values ^ (values >> np.uint64(31))) * _MIX
    return np.asarray(mixed ^ (mixed >> np.uint64(29)))


def _candidates(sketches: _Sketches) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    by_name: dict[str, list[int]] = {}
    for cell, (_, name) in enumerate(sketches.names):
        by_name.setdefault(name, []).append(cell)
    for namesakes in by_name.values():
        pairs |= _pairs_in(namesakes)
    keys = np.concatenate(sketches.keys)
    for band in range(BANDS):
        filled = np.flatnonzero(keys[:, band])
        order = filled[np.argsort(keys[filled, band], kind="stable")]
        breaks = np.flatnonzero(np.diff(keys[order, band])) + 1
        for bucket in np.split(order, breaks):
            if len(bucket) > 1:
                pairs |= _pairs_in(bucket.tolist())
    return pairs


def _pairs_in(bucket: Iterable[int]) -> set[tuple[int, int]]:
    """All pairs of a small bucket; of a large one, which holds look-alikes, only neighbours."""
    cells = sorted(bucket)
    if len(cells) > LARGEST_BUCKET:
        return set(pairwise(cells))
    return {(one, other) for place, one in enumerate(cells) for other in cells[place + 1 :]}


Cell = tuple[npt.NDArray[np.uint64], npt.NDArray[Any]]


def _fetch(corpus: Corpus, sketches: _Sketches, wanted: set[int], label: npt.NDArray[np.uint64]) -> dict[int, Cell]:
    """Labels and counts of some cells, read block by block."""
    by_block: dict[tuple[int, int], list[int]] = {}
    for cell in wanted:
        by_block.setdefault(sketches.place[cell][:2], []).append(cell)
    cells: dict[int, Cell] = {}
    for (number, row_group), members in sorted(by_block.items()):
        offsets, genes, counts = _flat(corpus.read(corpus.shards[number], row_group, ["genes", "counts"]))
        for cell in members:
            row = sketches.place[cell][2]
            part = slice(offsets[row], offsets[row + 1])
            labels, first = np.unique(label[genes[part]], return_index=True)
            cells[cell] = (labels, counts[part][first])
    return cells


def _compare(one: Cell, other: Cell) -> tuple[int, float]:
    """Genes expressed in both cells, and the share of them with the same count."""
    _, mine, theirs = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    return len(mine), float((one[1][mine] == other[1][theirs]).mean()) if len(mine) else 0.0
