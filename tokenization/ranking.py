"""Counts to ranked values: the arithmetic of GeneCompass, in NumPy alone, so that it travels with a checkpoint.

``value = log2(1 + count / median)``; the expressed genes of a cell, largest value first, ties by token. One sort of
packed 64-bit keys does it: the inverted bits of the stored float32 value above, the token below. Positive floats
order as their bits do, so the sort is exact on what is stored, and the same on every machine.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

# entries worked on at a time: the scratch arrays stay within a core's cache
_CHUNK = 1 << 17
# bits of the float32 16.0; a value's distance below it, in steps of 2^10, is the 16-bit code that pre-orders keys
_BITS_OF_16 = np.int32(0x41800000)


def merge_shared_tokens(
    indptr: npt.NDArray[np.int64],
    columns: npt.NDArray[np.integer],
    counts: npt.NDArray[np.generic],
    column_token: npt.NDArray[np.int32],
) -> npt.NDArray[np.generic]:
    """Sum, cell by cell, the counts of columns that share a token; the sum takes the place of the first of them.

    Parameters
    ----------
    indptr, columns, counts
        Rows of a CSR matrix, cells by columns.
    column_token
        Token of every column; -1 where the column has none. Shape (columns,).

    Returns
    -------
    array
        `counts`, unchanged where no two columns share a token; otherwise a float64 copy in which each shared token
        has its whole count in one entry of the cell and 0 in the others.

    Examples
    --------
    >>> merge_shared_tokens(np.array([0, 3]), np.array([0, 1, 2]), np.array([1, 2, 4]), np.array([7, 8, 7], np.int32))
    array([5., 2., 0.])
    """
    known = column_token[column_token >= 0]
    uses = np.bincount(known, minlength=1)
    if not len(known) or uses.max() < 2:
        return counts
    shared_column = np.zeros(len(column_token), dtype=bool)
    shared_column[column_token >= 0] = uses[known] > 1
    where = np.flatnonzero(shared_column[columns])
    if not len(where):
        return counts
    row = np.searchsorted(indptr, where, side="right") - 1
    key = (row.astype(np.int64) << 32) | column_token[columns[where]]
    order = np.argsort(key, kind="stable")
    key, where = key[order], where[order]
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    merged = counts.astype(np.float64)
    sums = np.add.reduceat(merged[where], first)
    merged[where] = 0
    merged[where[first]] = sums
    return merged


def rank_cells(
    indptr: npt.NDArray[np.int64],
    columns: npt.NDArray[np.integer],
    counts: npt.NDArray[np.generic],
    column_token: npt.NDArray[np.int32],
    column_median: npt.NDArray[np.float64],
    *,
    max_length: int = 2048,
    library_size: float | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Turn rows of a count matrix into tokens and values, largest value first.

    Parameters
    ----------
    indptr, columns, counts
        Rows of a CSR matrix of raw counts, cells by columns, without repeated columns in a row.
    column_token
        Token that each column takes in these cells; -1 leaves the column out. Columns that share a token are summed
        before the logarithm. Shape (columns,).
    column_median
        Non-zero median count of each column's gene. Shape (columns,).
    max_length
        Genes kept per cell.
    library_size
        Scale every cell's counts, those of unknown columns included, to this total first. None, as GeneCompass
        does it: counts are taken as they are.

    Returns
    -------
    indptr : int64 array (cells + 1,)
        Where each cell begins in the two arrays below.
    input_ids : int32 array
    values : float32 array
        ``log2(1 + count / median)``.

    Examples
    --------
    >>> rank_cells(np.array([0, 2]), np.array([0, 1]), np.array([1, 3]), np.array([5, 6], np.int32), np.ones(2))[1:]
    (array([6, 5], dtype=int32), array([2., 1.], dtype=float32))
    """
    indptr = np.asarray(indptr, dtype=np.int64)
    n_cells = len(indptr) - 1
    preordered = _few_ties(column_token, column_median)
    counts = merge_shared_tokens(indptr, columns, counts, column_token)
    ids = np.empty(int(np.minimum(np.diff(indptr), max_length).sum()), dtype=np.int32)
    values = np.empty(len(ids), dtype=np.float32)
    lengths = np.zeros(n_cells, dtype=np.int64)
    filled = 0
    start = 0
    while start < n_cells:
        stop = int(np.searchsorted(indptr, indptr[start] + _CHUNK, side="right")) - 1
        stop = min(max(stop, start + 1), n_cells)
        keys, codes, bounds = _keys(
            indptr[start : stop + 1] - indptr[start],
            columns[indptr[start] : indptr[stop]],
            counts[indptr[start] : indptr[stop]],
            column_token,
            column_median,
            library_size,
            preordered,
        )
        for cell, (begin, end) in enumerate(pairwise(bounds), start):
            row = keys[begin:end]
            if codes is None:
                row.sort()
            else:
                row = row.take(codes[begin:end].argsort(kind="stable"))
                row.sort(kind="stable")
            kept = row[:max_length]
            lengths[cell] = len(kept)
            np.copyto(ids[filled : filled + len(kept)], kept, casting="unsafe")
            np.copyto(values[filled : filled + len(kept)].view(np.uint32), ~(kept >> np.uint64(32)), casting="unsafe")
            filled += len(kept)
        start = stop
    return np.concatenate(([0], np.cumsum(lengths))), ids[:filled], values[:filled]


def _keys(
    indptr: npt.NDArray[np.int64],
    columns: npt.NDArray[np.integer],
    counts: npt.NDArray[np.generic],
    column_token: npt.NDArray[np.int32],
    column_median: npt.NDArray[np.float64],
    library_size: float | None,
    preordered: bool,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint16] | None, list[int]]:
    """Sort keys of the expressed, known genes of some cells, coarse codes if wanted, and where each cell begins.

    The codes are 16 bits of the values' order, largest first: what NumPy's radix sort takes in one pass.
    """
    token = column_token.take(columns)
    count = counts.astype(np.float64)
    if library_size is not None:
        occupied = np.flatnonzero(np.diff(indptr))
        totals = np.add.reduceat(count, indptr[occupied]) if len(occupied) else np.empty(0)
        scale = np.divide(library_size, totals, out=np.ones(len(totals)), where=totals > 0)
        count *= np.repeat(scale, np.diff(indptr)[occupied])
    if len(count) and (token.min() < 0 or count.min() <= 0):
        keep = (token >= 0) & (count > 0)
        token, count, columns = token[keep], count[keep], columns[keep]
        indptr = np.concatenate(([0], np.cumsum(keep)))[indptr]
    count /= column_median.take(columns)
    count += 1.0
    value = np.log2(count, out=count).astype(np.float32)
    keys = (~value.view(np.uint32)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= token.view(np.uint32)
    codes = None
    if preordered:
        steps = (_BITS_OF_16 - value.view(np.int32)) >> 10
        codes = np.clip(steps, 0, 65535, out=steps).astype(np.uint16)
    return keys, codes, indptr.tolist()


def _few_ties(column_token: npt.NDArray[np.int32], column_median: npt.NDArray[np.float64]) -> bool:
    """Whether pre-ordering by 16-bit codes leaves little to do for the exact sort that follows.

    Radix-sorting the codes and then merge-sorting the nearly ordered keys takes half the time of sorting the keys
    at once, unless many values are equal and their tokens stand in no order. The result is the same either way.
    """
    known = column_token >= 0
    tokens = column_token[known]
    if len(tokens) < 2 or bool((np.diff(tokens) > 0).all()):
        return True
    return len(np.unique(column_median[known])) > len(tokens) // 2
