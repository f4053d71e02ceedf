"""10x Genomics output: ``.h5`` of Cell Ranger 2 and later, and folders with ``matrix.mtx``."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ..packed import refuse_bomb
from ..tables import read_table
from .hdf5 import open_hdf5
from .on_disk import CsrRows
from .source import CellSource
from .spool import spool_triplets

_GENE_FILES = ("features.tsv.gz", "genes.tsv", "features.tsv", "genes.tsv.gz")
_CELL_FILES = ("barcodes.tsv.gz", "barcodes.tsv")
_MATRIX_FILES = ("matrix.mtx.gz", "matrix.mtx")


def open_tenx_h5(path: Path, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open a 10x ``.h5``: genes by cells in CSC, which is cells by genes in CSR."""
    _only_x(path, counts)
    file = open_hdf5(path)
    groups = ["matrix"] if "matrix" in file else [name for name in file if "barcodes" in file[name]]
    if len(groups) != 1:
        held = ", ".join(list(file)[:5]) or "nothing"
        raise InputError(
            f"{path}: holds {len(groups)} genomes ({', '.join(groups)}); split it, one species each"
            if groups
            else f"{path}: not a 10x count file: it holds {held}; AnnData files end in .h5ad"
        )
    group = file[groups[0]]
    missing = [key for key in ("data", "indices", "indptr", "shape", "barcodes") if key not in group]
    if missing:
        raise InputError(f"{path}: not a 10x count file, it lacks {missing[0]!r}")
    features: Any = group.get("features", group)
    ids, symbols = (features["id"], features["name"]) if "features" in group else (group["genes"], group["gene_names"])
    kinds = _texts(features["feature_type"]) if "feature_type" in features else None
    n_genes, n_cells = (int(n) for n in group["shape"][:])
    return CellSource(
        CsrRows(group["data"], group["indices"], group["indptr"], (n_cells, n_genes)),
        name=path.name,
        obs=pd.DataFrame(index=pd.Index(_texts(group["barcodes"]))),
        var=_gene_frame(_texts(ids), _texts(symbols)),
        block_rows=block_rows,
        allow_fractional=allow_fractional,
        keep_columns=_is_expression(kinds, n_genes, path),
    )


def open_tenx_folder(path: Path, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``), gzipped or not.

    Or one matrix among files that begin alike, as archives keep them: ``GSM1_sample_matrix.mtx.gz``.
    """
    _only_x(path, counts)
    folder, prefix = (path, _prefix(path)) if path.is_dir() else (path.parent, path.name.partition("matrix.mtx")[0])
    matrix, cell_file, gene_file = (_find(folder, prefix, names) for names in (_MATRIX_FILES, _CELL_FILES, _GENE_FILES))
    for file in (cell_file, gene_file):
        refuse_bomb(file)
    cells = read_table(cell_file, sep="\t", header=None, dtype=str, keep_default_na=False)[0].tolist()
    genes = read_table(gene_file, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
    symbols = genes[1].tolist() if genes.shape[1] > 1 else genes[0].tolist()
    kinds = genes[2].tolist() if genes.shape[1] > 2 else None
    rows = spool_triplets(matrix, n_cells=len(cells), n_genes=len(genes))
    return CellSource(
        rows,
        name=path.name,
        obs=pd.DataFrame(index=pd.Index(cells)),
        var=_gene_frame(genes[0].tolist(), symbols),
        block_rows=block_rows,
        allow_fractional=allow_fractional,
        keep_columns=_is_expression(kinds, len(genes), path),
    )


def is_tenx_folder(path: Path) -> bool:
    """Whether a path is a folder of a 10x matrix, or the matrix itself."""
    return path.name.endswith(_MATRIX_FILES) if path.is_file() else bool(_matrices(path))


def _matrices(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if item.name.endswith(_MATRIX_FILES))


def _prefix(folder: Path) -> str:
    """What the names of a folder's files begin with, before ``matrix.mtx``."""
    found = {name.partition("matrix.mtx")[0] for name in _matrices(folder)}
    if len(found) > 1 and "" not in found:
        first = _matrices(folder)[0]
        raise InputError(f"{folder}: holds {len(found)} matrices; name one of them, such as {folder / first}")
    return "" if "" in found or not found else found.pop()


def _find(folder: Path, prefix: str, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / f"{prefix}{name}").is_file():
            return folder / f"{prefix}{name}"
    raise InputError(f"{folder}: lacks {prefix}{names[0]} (or {', '.join(prefix + name for name in names[1:])})")


def _only_x(path: Path, counts: str) -> None:
    if counts not in ("auto", "X"):
        raise InputError(f"{path}: no matrix {counts!r}; a 10x matrix has X alone")


def _gene_frame(ids: list[str], symbols: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"gene_id": ids, "gene_symbol": symbols}, index=pd.Index(symbols))


def _is_expression(kinds: list[str] | None, n_genes: int, path: Path) -> np.ndarray:
    """Genes alone: antibodies and guides carry gene names, but count something else."""
    if kinds is None:
        return np.ones(n_genes, dtype=bool)
    keep = np.array([kind == "Gene Expression" for kind in kinds])
    if not keep.any():
        raise InputError(f"{path}: holds no gene expression, only {', '.join(sorted(set(kinds)))}")
    return keep


def _texts(dataset: Any) -> list[str]:
    return [item.decode() if isinstance(item, bytes) else str(item) for item in dataset[:]]
