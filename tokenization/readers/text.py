"""Tables of counts as text: ``.csv``, ``.tsv``, ``.txt``, gzipped or not; cells by genes or genes by cells."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..gene_index import bare_gene_id
from ..packed import LONGEST_LINE
from .source import CellSource
from .spool import Spool

_PARSED_AT_ONCE = 2_000_000


def open_text(path: Path, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open a table with names in its first row and first column.

    Whether its rows are cells or genes is told from the names: Ensembl ids stand along one side only, and so do
    mitochondrial symbols (``MT-``); failing both, the side on which names are spelled like gene symbols.
    """
    if counts not in ("auto", "X"):
        raise InputError(f"{path}: no matrix {counts!r}; a text table has X alone")
    separator = _sniff(path)
    columns, row_names = _names(path, separator)
    by_cell = _gene_likeness(columns) >= _gene_likeness(row_names)
    cells, genes = (row_names, columns) if by_cell else (columns, row_names)
    spool = Spool((len(cells), len(genes)), by_cell=by_cell)
    start = 0
    for piece in _pieces(path, separator, len(columns)):
        values = _numbers(piece, path)
        major, minor = np.nonzero(values)
        spool.add(major + start, minor, values[major, minor])
        start += len(piece)
    return CellSource(
        spool,
        name=path.name,
        obs=pd.DataFrame(index=pd.Index(cells)),
        var=pd.DataFrame(index=pd.Index(genes)),
        block_rows=block_rows,
        allow_fractional=allow_fractional,
    )


def _sniff(path: Path) -> str:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            first = lines.readline(LONGEST_LINE)
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())[:120]})") from error
    if len(first) >= LONGEST_LINE:
        raise InputError(f"{path}: its first line has more than {LONGEST_LINE:,} characters; not a table of counts")
    return "\t" if "\t" in first else "," if "," in first else r"\s+"


def _frame(path: Path, **options: object) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **options)  # type: ignore[call-overload]
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: the file is empty") from error
    except (pd.errors.ParserError, EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())[:120]})") from error


def _names(path: Path, separator: str) -> tuple[list[str], list[str]]:
    header = [str(name) for name in _frame(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].fillna("")]
    rows = _frame(path, sep=separator, header=None, skiprows=1, usecols=[0], dtype=str)[0].fillna("").tolist()
    width = _frame(path, sep=separator, header=None, skiprows=1, nrows=1, dtype=str).shape[1]
    # R writes no name above the first column
    columns = header if len(header) == width - 1 else header[1:]
    if len(columns) != width - 1 or not rows or not columns:
        raise InputError(f"{path}: expected a table with names in the first row and the first column")
    return columns, rows


def _pieces(path: Path, separator: str, n_columns: int) -> Iterator[pd.DataFrame]:
    step = max(1, _PARSED_AT_ONCE // n_columns)
    reader = _frame(path, sep=separator, header=None, skiprows=1, chunksize=step)
    try:
        for piece in reader:  # type: ignore[union-attr]
            yield piece.iloc[:, 1:]  # type: ignore[attr-defined]
    except (pd.errors.ParserError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged ({' '.join(str(error).split())[:120]})") from error


def _numbers(piece: pd.DataFrame, path: Path) -> np.ndarray:
    wrong = [column for column in piece.columns if piece[column].dtype == object]
    if wrong:
        value = next(v for v in piece[wrong[0]] if not isinstance(v, int | float))
        raise InputError(
            f"{path}: {value!r} in column {int(wrong[0]) + 1} is not a number; expected names and counts alone"
        )
    return piece.to_numpy(dtype=np.float64)


def _gene_likeness(names: list[str]) -> float:
    """How much names look like those of genes: share of Ensembl ids, then mitochondrial genes, then symbols."""
    n = len(names)
    ids = sum(bare_gene_id(name) is not None for name in names) / n
    mitochondrial = any(name.upper().startswith("MT-") for name in names)
    # barcodes are long, and numbered cells contain separators and lower-case words
    symbols = sum(len(name) <= 12 and name[:1].isalpha() and name.replace("-", "").isalnum() for name in names) / n
    distinct = len({name.rstrip("0123456789-._ ") for name in names}) / n
    return 4 * ids + 2 * mitochondrial + symbols * distinct
