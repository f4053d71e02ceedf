"""Median count and weight of every gene over any number of files, in one streaming pass that can be resumed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.gene_table import GeneTable
from ...tokenization.profile import gene_weights
from ...tokenization.progress import Progress
from ...tokenization.ranking import merge_shared_tokens
from ...tokenization.readers import CellOptions, open_cells
from ...tokenization.tokenize import match_cells

# counts below this are tallied in a dense table (genes x counts); larger and fractional ones as sorted pairs
_DENSE = 64
# pairs collected before they are folded into the sorted tally
_PENDING = 2_000_000


class CountTally:
    """How often each count occurs in each gene, and in which share of cells: all that medians and weights need.

    Memory grows with the number of different (gene, count) pairs, not with cells: 29 MB for the dense part of the
    published vocabulary, and 16 bytes for each pair with a count of 64 or more.

    Examples
    --------
    >>> tally = CountTally(3)
    >>> tally.add(np.array([2, 2, 2]), np.array([1.0, 4.0, 100.0]))
    >>> tally.medians()
    array([nan, nan,  4.])
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._dense = np.zeros((vocab_size, _DENSE), dtype=np.int64)
        self._keys = np.empty(0, dtype=np.int64)
        self._numbers = np.empty(0, dtype=np.int64)
        self._pending: list[npt.NDArray[np.int64]] = []
        self._pending_size = 0
        self._shares = np.zeros(vocab_size)
        self._measured = np.zeros(vocab_size, dtype=np.int64)

    def add(self, tokens: npt.NDArray[np.integer], counts: npt.NDArray[np.generic]) -> None:
        """Tally positive counts of genes, entry by entry."""
        single = counts.astype(np.float32)
        small = (single < _DENSE) & (single == np.rint(single))
        cell = tokens[small].astype(np.int64) * _DENSE + single[small].astype(np.int64)
        self._dense += np.bincount(cell, minlength=self._dense.size).reshape(self._dense.shape)
        # positive float32 numbers order as their bits do
        large = (tokens[~small].astype(np.int64) << 32) | single[~small].view(np.int32)
        self._pending.append(large)
        self._pending_size += len(large)
        if self._pending_size > _PENDING:
            self._fold()

    def add_data_set(self, expressed: npt.NDArray[np.int64], measured: npt.NDArray[np.bool_], cells: int) -> None:
        """Tally in how many of a data set's cells each token is expressed, where it is measured. Shapes (vocab,)."""
        self._shares[measured] += expressed[measured] / max(cells, 1)
        self._measured += measured

    def weights(self) -> npt.NDArray[np.float64]:
        """Weight of each token, by `gene_weights`; NaN where no data set measures it. Shape (vocab,)."""
        with np.errstate(invalid="ignore"):
            return gene_weights(self._shares / np.where(self._measured, self._measured, np.nan))

    def _fold(self) -> None:
        keys, numbers = np.unique(np.concatenate([*self._pending, self._keys[:0]]), return_counts=True)
        both = np.concatenate([self._keys, keys])
        weights = np.concatenate([self._numbers, numbers])
        self._keys, group = np.unique(both, return_inverse=True)
        self._numbers = np.bincount(group, weights=weights, minlength=len(self._keys)).astype(np.int64)
        self._pending, self._pending_size = [], 0

    def medians(self) -> npt.NDArray[np.float64]:
        """Median of the non-zero counts of each gene; NaN for a gene that was never seen. Shape (vocab,)."""
        self._fold()
        token, column = np.nonzero(self._dense)
        tokens = np.concatenate([token, self._keys >> 32])
        large = (self._keys & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
        counts = np.concatenate([column.astype(np.float64), large.astype(np.float64)])
        numbers = np.concatenate([self._dense[token, column], self._numbers])
        order = np.lexsort((counts, tokens))
        tokens, counts, numbers = tokens[order], counts[order], numbers[order]
        medians = np.full(self.vocab_size, np.nan)
        if not len(tokens):
            return medians
        seen, first = np.unique(tokens, return_index=True)
        ends = np.cumsum(numbers)
        before = np.concatenate(([0], ends))[first]
        size = np.add.reduceat(numbers, first)
        lower = counts[np.searchsorted(ends, before + (size - 1) // 2, side="right")]
        upper = counts[np.searchsorted(ends, before + size // 2, side="right")]
        medians[seen] = (lower + upper) / 2
        return medians

    def save(self, path: str | os.PathLike[str], done: Sequence[str]) -> None:
        """Write the tally and the names of the files that are in it, atomically."""
        self._fold()
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                dense=self._dense,
                keys=self._keys,
                numbers=self._numbers,
                shares=self._shares,
                measured=self._measured,
                done=np.array(done, dtype=str),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str], vocab_size: int) -> tuple["CountTally", list[str]]:
        """Read back what `save` wrote."""
        try:
            with np.load(path) as stored:
                tally = cls(vocab_size)
                if stored["dense"].shape != tally._dense.shape:
                    raise InputError(f"{path}: was made with another gene table; remove it to start over")
                tally._dense, tally._keys, tally._numbers = stored["dense"], stored["keys"], stored["numbers"]
                tally._shares, tally._measured = stored["shares"], stored["measured"]
                return tally, [str(name) for name in stored["done"]]
        except (OSError, KeyError) as error:
            raise InputError(f"{path}: not a tally of gene counts; remove it to start over ({error})") from error


@dataclass(frozen=True)
class GeneStatistics:
    """What is counted of every gene.

    Parameters
    ----------
    medians
        Median of the non-zero counts; NaN where a gene was never expressed. Shape (vocab,).
    weights
        `gene_weights` of the token that the gene takes in a cell; NaN where no file measures it. Shape (vocab,).
    """

    medians: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]

    def put_into(self, table: GeneTable) -> GeneTable:
        """The gene table with both columns."""
        return GeneTable(table.frame.assign(median=self.medians, weight=self.weights))


def gene_statistics(
    sources: Iterable[tuple[Any, str]],
    table: GeneTable,
    *,
    state: str | os.PathLike[str] | None = None,
    gene_species: str | None = None,
    progress: bool = False,
    **reading: Unpack[CellOptions],
) -> GeneStatistics:
    """Exact non-zero median count and weight of every gene of a vocabulary.

    Parameters
    ----------
    sources
        Pairs of a path or AnnData, and a species or ``obs`` column.
    table
        The vocabulary. Each gene has its own median, also where it takes a homolog's token.
    state
        A ``.npz`` file that keeps the tally after every file: a run that was interrupted goes on from there.
    gene_species
        As for `iter_tokenized`.
    progress
        Show a progress bar.
    **reading
        How files are read: `CellOptions`.

    Returns
    -------
    GeneStatistics

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG00000254647"], "symbol": ["INS"],
    ...                                            "species": ["human"]}))
    >>> adata = anndata.AnnData(np.array([[1.0], [0.0], [5.0]]), var=pd.DataFrame(index=["INS"]))
    >>> gene_statistics([(adata, "human")], table).medians
    array([nan, nan,  3.])
    """
    done: list[str] = []
    tally = CountTally(table.vocab_size)
    if state is not None and Path(state).exists():
        tally, done = CountTally.load(state, table.vocab_size)
    for source, species in Progress(list(sources), desc="medians", unit="file", disable=not progress):
        name = _identity(source, species)
        if name in done:
            continue
        cells = open_cells(source, **reading)
        codes, matches = match_cells(cells, table, species=species, gene_species=gene_species)
        expressed = [np.zeros(table.vocab_size, dtype=np.int64) for _ in matches]
        for first, block in cells.blocks():
            for code, match in enumerate(matches):
                mine = np.flatnonzero(codes[first : first + block.shape[0]] == code)
                part = block if len(mine) == block.shape[0] else block[mine]
                # columns of one gene are summed; genes that share a token are not, each has its own median
                own = match.column_token.astype(np.int32)
                merged = merge_shared_tokens(part.indptr, part.indices, part.data, own)
                kept = (own[part.indices] >= 0) & np.asarray(merged > 0)  # type: ignore[operator]
                tally.add(own[part.indices][kept], merged[kept])
                expressed[code] += np.bincount(_in_cells(part, match.cell_token), minlength=table.vocab_size)
        for code, match in enumerate(matches):
            measured = np.zeros(table.vocab_size, dtype=bool)
            measured[match.cell_token[match.cell_token >= 0]] = True
            tally.add_data_set(expressed[code], measured, int((codes == code).sum()))
        done.append(name)
        if state is not None:
            tally.save(state, done)
    # a gene weighs what the token weighs that it takes in a cell
    return GeneStatistics(tally.medians(), tally.weights()[table.token_in_cell])


def gene_medians(sources: Iterable[tuple[Any, str]], table: GeneTable, **options: Any) -> npt.NDArray[np.float64]:
    """Medians alone, as `gene_statistics` counts them. Shape (vocab,)."""
    return gene_statistics(sources, table, **options).medians


def _in_cells(block: Any, cell_token: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Tokens of a block, once for every cell that expresses them, whatever number of its columns share them."""
    token = cell_token.astype(np.int64)[block.indices]
    kept = (token >= 0) & np.asarray(block.data > 0)
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))[kept]
    uses = np.bincount(cell_token[cell_token >= 0], minlength=1)
    if uses.max(initial=0) < 2:
        return token[kept]
    return np.unique(rows * np.int64(2**32) + token[kept]) & np.int64(2**32 - 1)


def _identity(source: Any, species: str) -> str:
    """What tells one input from another when a run is resumed: path, size, time of change, species."""
    if not isinstance(source, str | os.PathLike):
        return f"{id(source)}|{species}"
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{species}"
