"""Exact non-zero median count of every gene over any number of files, in one streaming pass that can be resumed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.gene_table import GeneTable
from ...tokenization.ranking import merge_shared_tokens
from ...tokenization.readers import open_cells
from ...tokenization.tokenize import match_cells

# counts below this are tallied in a dense table (genes x counts); larger and fractional ones as sorted pairs
_DENSE = 64
# pairs collected before they are folded into the sorted tally
_PENDING = 2_000_000


class CountTally:
    """How often each count occurs in each gene: all that an exact median needs.

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
                temporary, dense=self._dense, keys=self._keys, numbers=self._numbers, done=np.array(done, dtype=str)
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
                return tally, [str(name) for name in stored["done"]]
        except (OSError, KeyError) as error:
            raise InputError(f"{path}: not a tally of gene counts; remove it to start over ({error})") from error


def gene_medians(
    sources: Iterable[tuple[Any, str]],
    table: GeneTable,
    *,
    state: str | os.PathLike[str] | None = None,
    gene_species: str | None = None,
    gene_column: str | None = None,
    rescue_ids: bool = False,
    counts: str = "auto",
    allow_fractional: bool = False,
    progress: bool = False,
) -> npt.NDArray[np.float64]:
    """Exact non-zero median count of every gene of a vocabulary.

    Parameters
    ----------
    sources
        Pairs of a path or AnnData, and a species or ``obs`` column.
    table
        The vocabulary. Each gene has its own median, also where it takes a homolog's token.
    state
        A ``.npz`` file that keeps the tally after every file: a run that was interrupted goes on from there.
    gene_species, gene_column, rescue_ids, counts, allow_fractional
        As for `iter_tokenized`.
    progress
        Show a progress bar.

    Returns
    -------
    float64 array (vocab,)
        NaN where a gene was never expressed.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG00000254647"], "symbol": ["INS"],
    ...                                            "species": ["human"]}))
    >>> adata = anndata.AnnData(np.array([[1.0], [0.0], [5.0]]), var=pd.DataFrame(index=["INS"]))
    >>> gene_medians([(adata, "human")], table)
    array([nan, nan,  3.])
    """
    done: list[str] = []
    tally = CountTally(table.vocab_size)
    if state is not None and Path(state).exists():
        tally, done = CountTally.load(state, table.vocab_size)
    for source, species in tqdm(list(sources), desc="medians", unit="file", disable=not progress):
        name = _identity(source, species)
        if name in done:
            continue
        cells = open_cells(source, counts=counts, allow_fractional=allow_fractional)
        codes, matches = match_cells(
            cells, table, species=species, gene_species=gene_species, gene_column=gene_column, rescue_ids=rescue_ids
        )
        for first, block in cells.blocks():
            for code, match in enumerate(matches):
                mine = np.flatnonzero(codes[first : first + block.shape[0]] == code)
                part = block if len(mine) == block.shape[0] else block[mine]
                # columns of one gene are summed; genes that share a token are not, each has its own median
                own = match.column_token.astype(np.int32)
                merged = merge_shared_tokens(part.indptr, part.indices, part.data, own)
                kept = (own[part.indices] >= 0) & np.asarray(merged > 0)  # type: ignore[operator]
                tally.add(own[part.indices][kept], merged[kept])
        done.append(name)
        if state is not None:
            tally.save(state, done)
    return tally.medians()


def _identity(source: Any, species: str) -> str:
    """What tells one input from another when a run is resumed: path, size, time of change, species."""
    if not isinstance(source, str | os.PathLike):
        return f"{id(source)}|{species}"
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{species}"
