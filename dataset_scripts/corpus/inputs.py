"""Opening an input, and what is known of its cells: species, names, the obs columns that the corpus keeps."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.readers import CellSource, open_cells

from .published import PUBLISHED, open_published
from .sources import Source

_SPECIES = re.compile(r"[a-z][a-z0-9_]*")


def open_source(source: Source, count_type: str, table: str | None = None) -> CellSource:
    """Open an input; estimated, non-integer counts only go into a corpus of their own.

    Parameters
    ----------
    source
        The input.
    count_type
        ``"int32"`` or ``"float32"``.
    table
        Gene table, which published token folders need.
    """
    fractional = count_type != "int32"
    if source.counts == PUBLISHED:
        try:
            return open_published(source.path, species=source.species, table=table, allow_fractional=fractional)
        except OSError as error:
            raise InputError(f"{source.path}: cannot be read ({' '.join(str(error).split())[:200]})") from error
    return open_cells(source.path, counts=source.counts, allow_fractional=fractional)


def cell_species(source: Source, obs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Species of every cell of an input, from its name or from a column of ``obs``. Shape (n_cells,).

    Raises
    ------
    InputError
        When the column is missing or a cell has no species.
    """
    column, name = source.column_or_constant("species")
    if column is None:
        check_species_name(name, source.dataset)
        return np.full(len(obs), name, dtype=object)
    if column not in obs.columns:
        raise InputError(f"{source.dataset}: obs has no column {column!r} to name the species; it has {list(obs)}")
    species = obs[column].astype(str).to_numpy(dtype=object)
    missing = pd.isna(obs[column]).to_numpy() | (species == "")
    if missing.any():
        raise InputError(f"{source.dataset}: cell {obs.index[missing][0]!r} has no species in obs column {column!r}")
    for found in sorted(set(species)):
        check_species_name(found, source.dataset)
    return species


def check_species_name(name: str, where: str) -> None:
    """Refuse a species that is no plain word: it becomes a folder, a configuration and part of a card.

    Examples
    --------
    >>> check_species_name("zebra_fish", "lung")
    """
    if not _SPECIES.fullmatch(name):
        raise InputError(
            f"{where}: species {name!r} must be a plain word of small letters, digits and _, such as 'human'"
        )


def cell_names(obs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Names of the cells, made unique as AnnData does where a file repeats one. Shape (n_cells,)."""
    names = pd.Series(obs.index.astype(str).to_numpy(), dtype=object)
    repeat = names.groupby(names).cumcount()
    return (names + repeat.map(lambda n: f"-{n}" if n else "")).to_numpy(dtype=object)


def obs_values(source: Source, obs: pd.DataFrame) -> dict[str, npt.NDArray[np.str_] | None]:
    """The obs columns that the corpus keeps, as text; None for one that this input lacks. Shapes (n_cells,)."""
    values: dict[str, Any] = {}
    for name, filling in source.obs_columns:
        if filling.startswith("'"):
            values[name] = np.full(len(obs), filling.strip("'"), dtype=object)
        elif filling in obs.columns:
            text = obs[filling].astype(object)
            values[name] = text.where(text.isna(), text.astype(str)).where(text.notna(), None).to_numpy()
        elif filling != name:
            raise InputError(f"{source.dataset}: obs has no column {filling!r} for {name!r}; it has {list(obs)}")
        else:
            values[name] = None
    return values


def cell_samples(source: Source, obs: pd.DataFrame) -> npt.NDArray[np.str_] | None:
    """Sample of every cell, for quality control; None when the whole input is one. Shape (n_cells,).

    Raises
    ------
    InputError
        When the column is missing.
    """
    column, _ = source.column_or_constant("sample")
    if column is None:
        return None
    if column not in obs.columns:
        raise InputError(f"{source.dataset}: obs has no column {column!r} to name the sample; it has {list(obs)}")
    return obs[column].astype(str).to_numpy(dtype=object)
