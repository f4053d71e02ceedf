"""Add entries to a copy of an ``.h5ad`` file, leaving everything else byte for byte as it was."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from ..tokenization.errors import InputError
from ..tokenization.files import atomic_path
from ..tokenization.readers.hdf5 import open_hdf5

_COPY_ROWS = 65536


def add_to_h5ad(
    source: Path,
    output: Path,
    *,
    obs: pd.DataFrame | None = None,
    obsm: Mapping[str, Sequence[npt.NDArray[Any]]] | None = None,
    varm: Mapping[str, npt.NDArray[Any]] | None = None,
    uns: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Copy `source` to `output` and add to the copy; `output` appears whole or not at all.

    Parameters
    ----------
    source, output
        ``.h5ad`` files.
    obs
        Columns to add, one row a cell in the file's order; a column of the same name is replaced.
    obsm
        Name to blocks of rows, which are written one after the other, never joined in memory.
    varm
        Name to matrix.
    uns
        Name to dictionary; merged into a dictionary of that name.

    Examples
    --------
    >>> add_to_h5ad(Path("in.h5ad"), Path("out.h5ad"), uns={"genecompass": {"model": "tiny"}})  # doctest: +SKIP
    """
    from anndata.io import read_elem, write_elem

    with atomic_path(output) as temporary:
        shutil.copyfile(source, temporary)
        open_hdf5(source).close()
        with h5py.File(temporary, "r+") as file:
            _modernise(file, source)
            for name, blocks in (obsm or {}).items():
                _write_blocks(_mapping(file, "obsm"), name, blocks)
            for name, matrix in (varm or {}).items():
                write_elem(_mapping(file, "varm"), name, matrix)
            for name, entries in (uns or {}).items():
                group = _mapping(file, "uns")
                known = read_elem(group[name]) if name in group else {}
                write_elem(group, name, {**(known if isinstance(known, dict) else {}), **entries})
            if obs is not None:
                _add_columns(file["obs"], obs)


def check_key(key: str, where: str) -> str:
    """A name under which results are to be kept, if files can keep it.

    Raises
    ------
    InputError
        An empty name, or one that a file would take for a path.
    """
    if not key or "/" in key or key.startswith("__"):
        raise InputError(f"key={key!r}: {where} keeps no such name; use letters, digits, '_', '-' and '.'")
    return key


def _modernise(file: h5py.File, source: Path) -> None:
    """Tables that old versions kept as compound data sets are written anew, as the present version keeps them."""
    import anndata
    from anndata.io import write_elem

    old = [name for name in ("obs", "var", "obsm", "varm") if isinstance(file.get(name), h5py.Dataset)]
    if not old:
        return
    adata = anndata.read_h5ad(source, backed="r")
    for name in old:
        content = getattr(adata, name)
        del file[name]
        write_elem(file, name, content if name in ("obs", "var") else dict(content))


def _add_columns(group: h5py.Group, columns: pd.DataFrame) -> None:
    """Put columns into a table; those of other names stay as they are written, byte for byte."""
    from anndata.io import read_elem, write_elem

    if "column-order" not in group.attrs or str(group.attrs.get("encoding-version")) != "0.2.0":
        frame = read_elem(group)
        for name in columns.columns:
            frame[name] = _values(columns[name])
        write_elem(group.parent, group.name.rpartition("/")[2], frame)
        return
    order = [str(name) for name in group.attrs["column-order"]]
    for name in columns.columns:
        write_elem(group, name, _values(columns[name]))
        order += [] if name in order else [name]
    group.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())


def _values(column: pd.Series) -> Any:
    return column.array if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()


def _mapping(file: h5py.File, name: str) -> h5py.Group:
    """The group of that name; made as AnnData would where the file has none."""
    if name not in file:
        group = file.create_group(name)
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "dict", "0.1.0"
    return file[name]


def _write_blocks(group: h5py.Group, name: str, blocks: Sequence[npt.NDArray[Any]]) -> None:
    if name in group:
        del group[name]
    rows = sum(len(block) for block in blocks)
    dataset = group.create_dataset(name, shape=(rows, blocks[0].shape[1]), dtype=blocks[0].dtype)
    dataset.attrs["encoding-type"], dataset.attrs["encoding-version"] = "array", "0.2.0"
    begin = 0
    for block in blocks:
        for first in range(0, len(block), _COPY_ROWS):
            part = np.asarray(block[first : first + _COPY_ROWS])
            dataset[begin + first : begin + first + len(part)] = part
        begin += len(block)
