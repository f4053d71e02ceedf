"""Tell raw counts from log-normalised, scaled and damaged data, and say what to do about it."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ..errors import InputError

_ROWS_LOOKED_AT = 50


def check_counts(
    block: sparse.csr_matrix,
    *,
    where: str,
    cells: pd.Index,
    genes: pd.Index,
    allow_fractional: bool,
) -> None:
    """Refuse a block that holds anything but raw counts.

    Parameters
    ----------
    block
        Cells by genes.
    where
        File and matrix, for the message.
    cells, genes
        Names of rows and of columns, for the message.
    allow_fractional
        Take counts that are not whole, as some quantifiers estimate them.

    Raises
    ------
    InputError
        Naming the first offending cell, gene and value, what the data look like, and the way out.
    """
    reason = reason_against(block, allow_fractional=allow_fractional)
    if reason is None:
        return
    position, complaint, remedy = reason
    row = int(np.searchsorted(block.indptr, position, side="right")) - 1
    value = block.data[position]
    raise InputError(
        f"{where}: cell {cells[row]!r} has value {value:.6g} for gene {genes[int(block.indices[position])]!r}: "
        f"{complaint}; {remedy}"
    )


def reason_against(block: sparse.csr_matrix, *, allow_fractional: bool = False) -> tuple[int, str, str] | None:
    """Why a block does not hold raw counts: entry, complaint, remedy; None when it does.

    Examples
    --------
    >>> reason_against(sparse.csr_matrix([[1.0, 2.0]])) is None
    True
    >>> reason_against(sparse.csr_matrix([[1.0, -2.0]]))[1]
    'negative, so scaled or centred data'
    """
    data = block.data
    if not len(data) or data.dtype.kind in "ub":
        return None
    if data.dtype.kind not in "if":
        return 0, f"of type {data.dtype}", "expression must be numbers"
    elsewhere = "point to the raw counts (counts='raw', or the name of a layer)"
    if data.dtype.kind == "f" and not np.isfinite(data.sum(dtype=np.float64)):
        finite = np.isfinite(data)
        if not finite.all():
            return int(np.argmin(finite)), "not a number", "remove or repair such cells before reading"
    if data.min() < 0:
        return int(np.argmax(data < 0)), "negative, so scaled or centred data", elsewhere
    if data.dtype.kind == "i":
        return None
    whole = data == np.rint(data)
    if whole.all():
        return None
    first = int(np.argmin(whole))
    if looks_logged(block):
        return first, "log-normalised data, not raw counts", elsewhere
    if allow_fractional:
        return None
    if _rows_have_one_total(block):
        return first, "normalised to a fixed total per cell, not raw counts", elsewhere
    return first, "not a whole number", f"{elsewhere}, or allow estimated counts with allow_fractional=True"


def looks_logged(block: sparse.csr_matrix) -> bool:
    """Whether values are ``log1p`` of scaled counts: back on the linear scale, a cell's values are whole multiples.

    Any base of logarithm is caught that data come in (e, 2, 10).
    """
    looked, logged = 0, 0
    for row in range(block.shape[0]):
        values = np.unique(block.data[block.indptr[row] : block.indptr[row + 1]]).astype(np.float64)
        values = values[values > 0]
        # whole numbers are whole multiples on any scale: they tell nothing, and speak against a logarithm
        if len(values) < 3 or values[-1] > 30 or (values == np.rint(values)).mean() > 0.5:
            continue
        looked += 1
        logged += any(_whole_multiples(np.expm1(values * np.log(base))) for base in (np.e, 2.0, 10.0))
        if looked >= _ROWS_LOOKED_AT:
            break
    return looked > 0 and logged > looked / 2


def _whole_multiples(values: npt.NDArray[np.float64]) -> bool:
    multiples = values / values[0]
    small = multiples[multiples < 200]
    return len(small) >= 3 and bool(np.abs(small - np.rint(small)).max() < 0.02)


def _rows_have_one_total(block: sparse.csr_matrix) -> bool:
    totals = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
    totals = totals[totals > 0]
    return len(totals) > 2 and bool(np.ptp(totals) < 1e-3 * totals.mean())
