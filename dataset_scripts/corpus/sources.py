"""The table of inputs: which files a corpus is built from, and what is known about each."""

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.tables import read_table

from .layout import FIXED_COLUMNS

MANIFEST_COLUMNS = (
    "path",
    "dataset",
    "species",
    "gene_species",
    "sample",
    "counts",
    "obs_columns",
    "licence",
    "citation",
)
DEFAULT_OBS_COLUMNS = "cell_type, tissue"


@dataclass(frozen=True)
class Source:
    """One input of a corpus.

    Parameters
    ----------
    path
        The file, as an absolute path.
    dataset
        Name that every one of its cells carries; unique in the corpus.
    species
        A species' name, or ``obs:COLUMN`` where a column of ``obs`` names it cell by cell.
    gene_species
        The species whose genes the columns are, where that is not the cell's own (mouse cells stored in human
        orthologs); empty otherwise.
    sample
        ``obs:COLUMN`` naming the sample of each cell, for quality control; empty when the file is one sample.
    counts
        Where raw counts are: ``auto``, ``X``, ``raw`` or a layer's name.
    obs_columns
        Pairs of a corpus column and what fills it: a column of ``obs``, or a text in quotes for all cells.
    licence, citation
        For the provenance table of the dataset card.
    """

    path: str
    dataset: str
    species: str
    gene_species: str = ""
    sample: str = ""
    counts: str = "auto"
    obs_columns: tuple[tuple[str, str], ...] = ()
    licence: str = ""
    citation: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def column_or_constant(self, field: str) -> tuple[str | None, str]:
        """Split ``obs:COLUMN`` from a plain value: (column, "") or (None, value)."""
        value: str = getattr(self, field)
        return (value[4:], "") if value.startswith("obs:") else (None, value)


def source_from(values: dict[str, Any]) -> Source:
    """A source back from what `Source.to_dict` gave, also by way of JSON."""
    pairs = tuple((name, filling) for name, filling in values["obs_columns"])
    return Source(**(values | {"obs_columns": pairs}))


def read_sources(path: str | os.PathLike[str]) -> list[Source]:
    """Read a manifest: a tab- or comma-separated table with one input per row.

    Parameters
    ----------
    path
        The table. ``path`` (relative to the table's folder) and ``species`` are required. Optional: ``dataset``
        (default: the file's stem), ``gene_species``, ``sample``, ``counts``, ``obs_columns`` (comma-separated;
        ``name``, ``name=obs column`` or ``name='text'``; default ``cell_type, tissue`` where the file has them),
        ``licence``, ``citation``.

    Returns
    -------
    list of Source
        In the table's order.

    Raises
    ------
    InputError
        For a missing or unknown column, an empty cell where a value is needed, or a dataset named twice.

    Examples
    --------
    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp()) / "inputs.tsv"
    >>> _ = table.write_text("path\\tspecies\\nlung.h5ad\\thuman\\n")
    >>> read_sources(table)[0].dataset
    'lung'
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; write a table with the columns {', '.join(MANIFEST_COLUMNS)}")
    separator = "," if path.suffix == ".csv" else "\t"
    frame = read_table(path, sep=separator, dtype=str, keep_default_na=False, comment="#")
    frame.columns = frame.columns.str.strip()
    unknown = [column for column in frame.columns if column not in MANIFEST_COLUMNS]
    if unknown:
        raise InputError(f"{path}: unknown column {unknown[0]!r}; a manifest has {', '.join(MANIFEST_COLUMNS)}")
    for column in ("path", "species"):
        if column not in frame.columns:
            raise InputError(f"{path}: column {column!r} is missing (tab-separated, or comma-separated in a .csv)")
    if frame.empty:
        raise InputError(f"{path}: the manifest names no inputs")
    sources = [_source_of(row, path) for row in frame.to_dict("records")]
    names = pd.Series([source.dataset for source in sources])
    if names.duplicated().any():
        name = names[names.duplicated()].iloc[0]
        raise InputError(f"{path}: dataset {name!r} appears twice; give each input its own name in column 'dataset'")
    return sources


def _source_of(row: dict[Any, Any], manifest: Path) -> Source:
    values = {str(key): str(value).strip() for key, value in row.items()}
    for column in ("path", "species"):
        if not values[column]:
            raise InputError(f"{manifest}: a row has no {column!r}: {values}")
    file = Path(values["path"])
    file = file if file.is_absolute() else manifest.parent / file
    keep = values.get("obs_columns") or DEFAULT_OBS_COLUMNS
    return Source(
        path=os.path.abspath(file),
        dataset=values.get("dataset") or re.sub(r"\.(h5ad|h5|loom|zarr|mtx)$", "", file.name),
        species=values["species"],
        gene_species=values.get("gene_species", ""),
        sample=values.get("sample", ""),
        counts=values.get("counts") or "auto",
        obs_columns=_parse_obs_columns(keep, manifest),
        licence=values.get("licence", ""),
        citation=values.get("citation", ""),
    )


def _parse_obs_columns(text: str, manifest: Path) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for item in re.findall(r"(?:[^,']|'[^']*')+", text):
        name, _, filling = item.strip().partition("=")
        name = name.strip()
        if name in FIXED_COLUMNS or not re.fullmatch(r"\w+", name):
            raise InputError(f"{manifest}: obs_columns: {name!r} cannot be a corpus column; choose another name")
        pairs.append((name, filling.strip() or name))
    return tuple(pairs)
