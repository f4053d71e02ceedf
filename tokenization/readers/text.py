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
_MOST_REMARKS = 1_000
# what counting programs write of a gene before its counts, numbers among it
_ABOUT_GENES = frozenset(
    (
        *("chr", "chrom", "chromosome", "start", "end", "strand", "length", "description"),
        *("gene_name", "gene_symbol", "symbol", "gene_type", "gene_biotype", "biotype"),
        *("gene_id", "geneid", "ensembl_id", "entrez", "entrezid"),
    )
)


def open_text(path: Path, *, counts: str, block_rows: int, allow_fractional: bool) -> CellSource:
    """Open a table with names in its first row and first column.

    Whether its rows are cells or genes is told from the names: Ensembl ids stand along one side only, and so do
    mitochondrial symbols (``MT-``); failing both, the side on which names are spelled like gene symbols.

    Columns of text directly after the names, and what counting programs write of genes there (`Chr`, `Length`, ...),
    are annotation of the rows; lines that begin with ``#`` above the header are skipped.
    """
    if counts not in ("auto", "X"):
        raise InputError(f"{path}: no matrix {counts!r}; a text table has X alone")
    separator, skipped = _sniff(path)
    columns, row_names = _names(path, separator, skipped)
    about = _annotation(path, separator, skipped, columns)
    columns = columns[about.shape[1] :]
    if not columns:
        raise InputError(f"{path}: holds no column of counts, only {', '.join(map(str, about.columns[:5]))}")
    by_cell = _gene_likeness(columns) >= _gene_likeness(row_names)
    cells, genes = (row_names, columns) if by_cell else (columns, row_names)
    spool = Spool((len(cells), len(genes)), by_cell=by_cell)
    start = 0
    for piece in _pieces(path, separator, skipped, about.shape[1], len(columns)):
        values = _numbers(piece, path)
        major, minor = np.nonzero(values)
        spool.add(major + start, minor, values[major, minor])
        start += len(piece)
    return CellSource(
        spool,
        name=path.name,
        obs=about.set_axis(cells, axis=0) if by_cell else pd.DataFrame(index=pd.Index(cells)),
        var=pd.DataFrame(index=pd.Index(genes)) if by_cell else about.set_axis(genes, axis=0),
        block_rows=block_rows,
        allow_fractional=allow_fractional,
    )


def _annotation(path: Path, separator: str, skipped: int, columns: list[str]) -> pd.DataFrame:
    """Columns after the names that say something of the rows and are no counts."""
    first = _frame(path, sep=separator, header=None, skiprows=skipped + 1, nrows=100)
    number = 0
    for place, name in enumerate(columns):
        values = first[place + 1].dropna()
        # one word among numbers is a damaged count, which is told as such
        words = bool(len(values)) and bool(pd.to_numeric(values, errors="coerce").isna().all())
        if not words and name.lower() not in _ABOUT_GENES:
            break
        number += 1
    wanted = list(range(1, number + 1))
    if not wanted:
        return pd.DataFrame(index=range(len(_first_column(path, separator, skipped))))
    table = _frame(path, sep=separator, header=None, skiprows=skipped + 1, usecols=wanted, dtype=str)
    return table.set_axis(columns[:number], axis=1)


def _first_column(path: Path, separator: str, skipped: int) -> list[str]:
    return _frame(path, sep=separator, header=None, skiprows=skipped + 1, usecols=[0], dtype=str)[0].fillna("").tolist()


def _sniff(path: Path) -> tuple[str, int]:
    """What separates the columns, and how many lines of remarks stand above them."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            skipped, first = 0, lines.readline(LONGEST_LINE)
            while first.startswith("#") and len(first) < LONGEST_LINE and skipped < _MOST_REMARKS:
                skipped, first = skipped + 1, lines.readline(LONGEST_LINE)
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())[:120]})") from error
    if len(first) >= LONGEST_LINE:
        raise InputError(f"{path}: its first line has more than {LONGEST_LINE:,} characters; not a table of counts")
    by_count = ";" if first.count(";") > first.count(",") else "," if "," in first else r"\s+"
    return ("\t" if "\t" in first else by_count), skipped


def _frame(path: Path, **options: object) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **options)  # type: ignore[call-overload]
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: the file is empty") from error
    except (pd.errors.ParserError, EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())[:120]})") from error


def _names(path: Path, separator: str, skipped: int) -> tuple[list[str], list[str]]:
    first = _frame(path, sep=separator, header=None, skiprows=skipped, nrows=1, dtype=str).iloc[0]
    header = [str(name).strip() for name in first.fillna("")]
    rows = _first_column(path, separator, skipped)
    width = _frame(path, sep=separator, header=None, skiprows=skipped + 1, nrows=1, dtype=str).shape[1]
    # R writes no name above the first column
    columns = header if len(header) == width - 1 else header[1:]
    if len(columns) != width - 1 or not rows or not columns:
        raise InputError(f"{path}: expected a table with names in the first row and the first column")
    return columns, rows


def _pieces(path: Path, separator: str, skipped: int, notes: int, n_columns: int) -> Iterator[pd.DataFrame]:
    step = max(1, _PARSED_AT_ONCE // n_columns)
    reader = _frame(path, sep=separator, header=None, skiprows=skipped + 1, chunksize=step)
    try:
        for piece in reader:  # type: ignore[union-attr]
            yield piece.iloc[:, 1 + notes :]  # type: ignore[attr-defined]
    except (pd.errors.ParserError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged ({' '.join(str(error).split())[:120]})") from error


def _numbers(piece: pd.DataFrame, path: Path) -> np.ndarray:
    wrong = [column for column in piece.columns if piece[column].dtype == object]
    if wrong:
        numbers = pd.to_numeric(piece[wrong[0]], errors="coerce")
        value = next(iter(piece[wrong[0]][numbers.isna()]), piece[wrong[0]].iloc[0])
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
