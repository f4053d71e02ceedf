"""AnnData: in memory, backed, ``.h5ad`` and ``.zarr``; finds which of its matrices holds the raw counts."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError
from .counts import reason_against
from .hdf5 import open_hdf5
from .memory import MemoryRows, SlicedRows
from .on_disk import rows_of
from .source import CellSource, Rows, readable

# layers that are called after raw counts, best first
COUNT_LAYERS = ("counts", "raw_counts", "count", "umi_counts", "umi", "raw")
# a part of the counts: taken only where nothing holds all of them
PARTIAL_LAYERS = ("spliced",)
_LOOK = 256

Candidate = tuple[str, Callable[[], Rows], Callable[[], pd.DataFrame]]


def open_anndata(adata: Any, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open an AnnData object, in memory or backed."""
    name = Path(adata.filename).name if getattr(adata, "isbacked", False) and adata.filename else "AnnData"

    def rows(matrix: Any) -> Rows:
        if hasattr(matrix, "group"):  # AnnData's view of a sparse matrix in a file: read it with checks of our own
            return rows_of(matrix.group, name=name)
        return SlicedRows(matrix, matrix.shape) if _on_disk(matrix) else MemoryRows(matrix)

    candidates: list[Candidate] = []
    if adata.raw is not None:
        candidates.append(("raw", lambda: rows(adata.raw.X), lambda: adata.raw.var))
    for layer in adata.layers:
        candidates.append((layer, partial(lambda name: rows(adata.layers[name]), layer), lambda: adata.var))
    if adata.X is not None:
        candidates.append(("X", lambda: rows(adata.X), lambda: adata.var))
    return _choose(candidates, counts, name, lambda: adata.obs, block_rows, allow_fractional)


def open_anndata_file(path: Path, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open ``.h5ad`` or ``.zarr`` without reading its matrices."""
    group = _open_group(path)
    name = path.name
    if "X" not in group and "raw" not in group and "layers" not in group:
        raise InputError(f"{path}: not an AnnData file: it holds {', '.join(sorted(group)[:5]) or 'nothing'}")
    legacy = _LegacyTables(path)

    def var() -> pd.DataFrame:
        return _table(group, "var", legacy)

    candidates: list[Candidate] = []
    if "raw" in group and "X" in group["raw"]:
        candidates.append(("raw", lambda: rows_of(group["raw/X"], name=name), lambda: _table(group, "raw/var", legacy)))
    elif "raw.X" in group:
        candidates.append(("raw", lambda: rows_of(group["raw.X"], name=name), lambda: _table(group, "raw.var", legacy)))
    for layer in group.get("layers", ()):
        candidates.append((layer, partial(lambda key: rows_of(group[key], name=name), f"layers/{layer}"), var))
    if "X" in group and not _is_null(group["X"]):
        candidates.append(("X", lambda: rows_of(group["X"], name=name), var))
    return _choose(candidates, counts, str(path), lambda: _table(group, "obs", legacy), block_rows, allow_fractional)


def _choose(
    candidates: list[Candidate],
    counts: str,
    name: str,
    obs: Callable[[], pd.DataFrame],
    block_rows: int,
    allow_fractional: bool,
) -> CellSource:
    """The matrix asked for; for "auto" the first that begins with raw counts: raw, a layer called so, X, spliced."""

    def open_one(candidate: Candidate) -> CellSource:
        where, rows, var = candidate
        return CellSource(
            rows(),
            name=Path(name).name,
            obs=obs(),
            var=var(),
            counts_from=where,
            block_rows=block_rows,
            allow_fractional=allow_fractional,
        )

    if not candidates:
        raise InputError(f"{name}: holds no matrix (X is empty, no raw, no layers)")
    if counts != "auto":
        chosen = [c for c in candidates if c[0] == counts]
        if not chosen:
            raise InputError(f"{name}: no matrix {counts!r}; there are {', '.join(c[0] for c in candidates)}")
        return open_one(chosen[0])
    preferred = ["raw", *COUNT_LAYERS, "X", *PARTIAL_LAYERS]
    ordered = sorted((c for c in candidates if c[0] in preferred), key=lambda c: preferred.index(c[0]))
    if not ordered:
        raise InputError(f"{name}: X is empty; name the layer of raw counts: {', '.join(c[0] for c in candidates)}")
    for candidate in ordered:
        if _begins_with_counts(candidate, name, allow_fractional):
            return open_one(candidate)
    # nothing fits: open X where there is one, else the last; its first block says what is wrong with it
    return open_one(next((candidate for candidate in ordered if candidate[0] == "X"), ordered[-1]))


def _begins_with_counts(candidate: Candidate, name: str, allow_fractional: bool) -> bool:
    rows = candidate[1]()
    n = rows.shape[0]
    for start in sorted({0, n // 2, max(0, n - _LOOK)}):
        for _, block in readable(rows.blocks(start, min(n, start + _LOOK), _LOOK), name):
            if reason_against(block, allow_fractional=allow_fractional) is not None:
                return False
    return True


def _on_disk(matrix: Any) -> bool:
    from scipy import sparse

    return not sparse.issparse(matrix) and type(matrix).__module__.split(".")[0] in ("anndata", "h5py", "zarr")


def _open_group(path: Path) -> Any:
    if path.is_dir() or path.suffix == ".zarr":
        import zarr

        try:
            return zarr.open_group(os.fspath(path), mode="r")
        except Exception as error:
            raise InputError(f"{path}: not a zarr group: {' '.join(str(error).split())[:200]}") from error
    return open_hdf5(path)


def _is_null(element: Any) -> bool:
    return not hasattr(element, "keys") and getattr(element, "shape", None) in (None, ())


class _LegacyTables:
    """Annotation of files that AnnData before 0.7 wrote, which only AnnData's own reader knows."""

    def __init__(self, path: Path) -> None:
        self._path, self._adata = path, None

    def __getitem__(self, key: str) -> pd.DataFrame:
        import anndata

        if self._adata is None:
            self._adata = anndata.read_h5ad(self._path, backed="r")
        adata: Any = self._adata
        return {"obs": adata.obs, "var": adata.var}[key] if key in ("obs", "var") else adata.raw.var


def _table(group: Any, key: str, legacy: _LegacyTables) -> pd.DataFrame:
    from anndata.io import read_elem

    element = group.get(key)
    if element is None:
        raise InputError(f"not an AnnData file: it has no {key!r}")
    if hasattr(element, "keys") and element.attrs.get("encoding-type") == "dataframe":
        return read_elem(element)
    return legacy[key]
