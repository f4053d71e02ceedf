"""Cells from any file: one door, `open_cells`, and one kind of thing behind it, `CellSource`."""

import copy
import os
from pathlib import Path
from typing import Any

from ..cell_options import LEAST_COVERAGE, CellOptions
from ..errors import InputError
from .source import CellSource

__all__ = ["CellOptions", "CellSource", "open_cells"]


def open_cells(
    source: Any,
    *,
    counts: str = "auto",
    gene_column: str | None = None,
    rescue_ids: bool = False,
    allow_fractional: bool = False,
    min_coverage: float = LEAST_COVERAGE,
    shared_genes: Any = None,
    block_rows: int = 4096,
) -> CellSource:
    """Open cells of a file or AnnData object for reading in blocks of rows; matrices are never read whole.

    Parameters
    ----------
    source
        AnnData, or a path: ``.h5ad``, ``.zarr``, 10x ``.h5``, a 10x folder with ``matrix.mtx``, ``.loom``,
        ``.csv`` / ``.tsv`` / ``.txt``, also with ``.gz``.
    counts
        ``"auto"`` finds the raw counts (``raw``, then a layer that is called after them, then ``X``); or ``"X"``,
        ``"raw"``, the name of a layer.
    gene_column, rescue_ids, allow_fractional, min_coverage, shared_genes
        As `CellOptions` describes them; what is said here holds wherever these cells are used.
    block_rows
        Largest number of cells in a block.

    Returns
    -------
    CellSource
        Accepted by every function that takes a file of cells. One that is open already is given back, with what is
        said here about its genes.

    Raises
    ------
    InputError
        For a missing, unknown, damaged or empty file; while blocks are read, for data that are not raw counts.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> open_cells(anndata.AnnData(np.array([[1.0, 0.0], [2.0, 5.0]])))
    CellSource('AnnData', 2 cells x 2 genes, counts from X)
    """
    options: dict[str, Any] = {"counts": counts, "block_rows": block_rows, "allow_fractional": allow_fractional}
    if block_rows < 1:
        raise InputError(f"block_rows is {block_rows}; it must be at least 1")
    if not 0 <= min_coverage <= 1:
        raise InputError(f"min_coverage is {min_coverage}; it is a share, from 0 to 1")
    cells = copy.copy(source) if isinstance(source, CellSource) else _open(source, options)
    cells.gene_column = gene_column or cells.gene_column
    cells.rescue_ids = rescue_ids or cells.rescue_ids
    if min_coverage != LEAST_COVERAGE:
        cells.min_coverage = min_coverage
    if shared_genes is not None:
        cells.shared_genes = open_cells(shared_genes)
    return cells


def _open(source: Any, options: dict[str, Any]) -> CellSource:
    if not isinstance(source, str | os.PathLike):
        if not (hasattr(source, "obs") and hasattr(source, "var") and hasattr(source, "X")):
            raise InputError(f"cannot read cells from a {type(source).__name__}; pass a path or an AnnData")
        from .annotated import open_anndata

        return open_anndata(source, **options)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: neither file nor folder, but a pipe or device; copy it into a file first")
    if path.is_file() and not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    try:
        return _open_path(path, options)
    except InputError as error:
        line = " ".join(str(error).split())
        raise InputError(line if path.name in line else f"{path}: {line}") from error
    except ImportError:
        raise
    except Exception as error:  # a damaged file can make a storage library say anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: cannot be read, it may be damaged ({type(error).__name__}: {reason})") from error


def _open_path(path: Path, options: dict[str, Any]) -> CellSource:
    name = path.name.lower()
    if name.endswith((".h5ad", ".zarr")) or (
        path.is_dir() and any((path / n).exists() for n in (".zgroup", "zarr.json"))
    ):
        from .annotated import open_anndata_file

        return open_anndata_file(path, **options)
    if name.endswith((".h5", ".hdf5")):
        from .tenx import open_tenx_h5

        return open_tenx_h5(path, **options)
    if name.endswith(".loom"):
        from .loom import open_loom

        return open_loom(path, **options)
    if path.is_dir() or ".mtx" in name:
        from .tenx import is_tenx_folder, open_tenx_folder

        if is_tenx_folder(path):
            return open_tenx_folder(path, **options)
    if name.endswith((".h5ad.gz", ".h5.gz", ".loom.gz", ".zip", ".tar", ".tar.gz", ".tgz")):
        raise InputError(f"{path}: is packed; unpack it first, these files are read in place and never whole")
    if path.is_file() and name.removesuffix(".gz").endswith((".csv", ".tsv", ".txt", ".tab")):
        from .text import open_text

        return open_text(path, **options)
    raise InputError(
        f"{path}: unknown kind of file; known are .h5ad, .zarr, 10x .h5 and mtx folders, .loom, .csv, .tsv"
    )
