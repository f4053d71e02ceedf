"""``.loom`` files: genes by cells, dense, in HDF5."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import sparse

from ..errors import InputError
from .counts import reason_against
from .hdf5 import open_hdf5
from .memory import dense_to_csr
from .source import MOST_ENTRIES, CellSource

_GENE_NAMES = ("Accession", "var_names", "Gene", "gene_ids", "GeneID", "gene_names")
_CELL_NAMES = ("CellID", "obs_names", "cell_names", "barcode", "cells")
_COUNT_LAYERS = ("counts", "raw_counts")


def open_loom(path: Path, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open a loom file; ``counts`` names a layer, "X" is the main matrix, "auto" the first that holds raw counts."""
    file = open_hdf5(path)
    if "matrix" not in file or not hasattr(file["matrix"], "shape"):
        raise InputError(f"{path}: not a loom file: it has no dense /matrix")
    matrices = {"X": file["matrix"], **{name: file["layers"][name] for name in file.get("layers", {})}}
    n_genes, n_cells = file["matrix"].shape

    def open_one(name: str) -> CellSource:
        return CellSource(
            _TransposedRows(matrices[name]),
            name=path.name,
            obs=_attributes(file, "col_attrs", n_cells, _CELL_NAMES),
            var=_attributes(file, "row_attrs", n_genes, _GENE_NAMES),
            counts_from=name,
            block_rows=block_rows,
            allow_fractional=allow_fractional,
        )

    if counts != "auto":
        if counts not in matrices:
            raise InputError(f"{path}: no matrix {counts!r}; there are {', '.join(matrices)}")
        return open_one(counts)
    for name in [layer for layer in (*_COUNT_LAYERS, "X", "spliced") if layer in matrices]:
        _, block = next(_TransposedRows(matrices[name]).blocks(0, min(n_cells, 64), 64), (0, None))
        if block is not None and reason_against(block, allow_fractional=allow_fractional) is None:
            return open_one(name)
    return open_one("X")


class _TransposedRows:
    """Cells of a genes-by-cells array: blocks of its columns, as wide as its chunks suggest."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.shape = (int(matrix.shape[1]), int(matrix.shape[0]))

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        step = max(1, min(block_rows, MOST_ENTRIES // max(1, self.shape[1])))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            yield first, dense_to_csr(self._matrix[:, first:last].T)


def _attributes(file: Any, key: str, n: int, names: tuple[str, ...]) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name in file.get(key, {}):
        values = file[key][name][:]
        if values.ndim == 1 and len(values) == n:
            columns[name] = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    index = next((columns[name] for name in names if name in columns), range(n))
    return pd.DataFrame(columns, index=pd.Index([str(name) for name in index]))
