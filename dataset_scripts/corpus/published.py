"""The published corpus form - Arrow folders of padded tokens and values - as an input like any other."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import atomic_path
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.readers import CellSource
from scipy import sparse

PUBLISHED = "published"
"""What a manifest's ``counts`` column says of a published Arrow folder."""

_COLUMNS = ("input_ids", "values", "length", "species")
_BLOCK_CELLS = 2048
# float32 values of 16 bits of precision after the point still tell counts of a million apart this well
_LARGEST_DEVIATION = 2e-3


class PublishedRows:
    """Counts of the cells of one species, computed back from tokens and values.

    Parameters
    ----------
    cells
        Arrow table with ``input_ids``, ``values``, ``length``, ``species``.
    rows
        Which of its rows. Shape (n_cells,).
    column
        For every token, the column of its gene; -1 for none. Shape (vocab,).
    median
        For every column, the median that values were divided by. Shape (n_columns,).
    whole
        Counts are whole numbers, and what is not one, beyond rounding, is an error.
    """

    def __init__(
        self,
        cells: pa.Table,
        rows: npt.NDArray[np.int64],
        column: npt.NDArray[np.int64],
        median: npt.NDArray[np.float64],
        *,
        whole: bool,
    ) -> None:
        self._cells, self._rows, self._column, self._median, self._whole = cells, rows, column, median, whole
        self.shape = (len(rows), len(median))

    def blocks(self, start: int, stop: int, block_rows: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Blocks of rows."""
        step = min(block_rows, _BLOCK_CELLS)
        for first in range(start, stop, step):
            yield first, self._block(self._cells.take(self._rows[first : min(first + step, stop)]))

    def _block(self, cells: pa.Table) -> sparse.csr_matrix:
        length = _scalars(cells["length"])
        tokens, stored = _padded(cells["input_ids"]), _padded(cells["values"])
        filled = np.arange(tokens.shape[1]) < length[:, None]
        token, value = tokens[filled], stored[filled].astype(np.float64)
        column = self._column[np.clip(token, 0, len(self._column) - 1)]
        if (column < 0).any() or (token >= len(self._column)).any():
            bad = token[(column < 0) | (token >= len(self._column))][0]
            raise InputError(
                f"token {bad} is no gene of this species in the gene table: pass the table it was made with"
            )
        counts = np.expm1(value * np.log(2)) * self._median[column]
        if self._whole:
            whole = np.maximum(np.rint(counts), 1)
            if len(counts) and (np.abs(counts - whole) > _LARGEST_DEVIATION * np.maximum(whole, 1)).any():
                raise InputError(
                    "values do not give whole counts with this gene table's medians: pass the table with the medians "
                    "they were made with, or build a corpus of non-integer counts (--count-type float32)"
                )
            counts = whole
        indptr = np.concatenate(([0], np.cumsum(length)))
        block = sparse.csr_matrix((counts, column, indptr), shape=(cells.num_rows, self.shape[1]))
        block.sort_indices()
        return block


def _scalars(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A column of numbers, or of lists of one number, as the published folders have them."""
    array = column.combine_chunks()
    flat = array if not pa.types.is_list(array.type) and not pa.types.is_large_list(array.type) else array.flatten()
    return np.asarray(flat.to_numpy(), dtype=np.int64)


def _padded(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    array = column.combine_chunks()
    return np.asarray(array.flatten().to_numpy()).reshape(len(array), -1)


def open_published(
    folder: str | os.PathLike[str], *, species: str, table: str | None, allow_fractional: bool = False
) -> CellSource:
    """Open the cells of one species in a published Arrow folder as raw counts.

    A count is computed back from its value, ``median * (2^value - 1)``. Genes beyond the 2,048 that were kept are
    lost for good, and a gene that shares a human token comes back as the first gene of its species with that token.

    Parameters
    ----------
    folder
        As ``datasets.save_to_disk`` writes it: ``input_ids``, ``values``, ``length``, ``species``.
    species
        Whose cells; its place in the gene table is the number in column ``species``.
    table
        The gene table with the tokens and medians that the folder was made with.
    allow_fractional
        Take counts that are not whole.

    Raises
    ------
    InputError
        For a folder that is none of these, a missing table, or tokens and medians that do not fit.
    """
    if table is None:
        raise InputError(f"{folder}: published tokens need the gene table that they were made with: pass --gene-table")
    genes = GeneTable.read(table)
    cells = _read_folder(Path(folder))
    rows = np.flatnonzero(_scalars(cells["species"]) == genes.species_index(species))
    mine = np.flatnonzero((genes.frame["species"] == species).to_numpy())
    column = np.full(genes.vocab_size, -1, dtype=np.int64)
    column[mine] = np.arange(len(mine))
    own = genes.prior_rows(species)
    column = np.where(column[own] >= 0, column[own], column)
    frame = genes.frame.iloc[mine]
    var = pd.DataFrame(
        {"gene_id": frame["gene_id"].to_numpy()}, index=frame["symbol"].where(frame["symbol"] != "", frame["gene_id"])
    )
    return CellSource(
        PublishedRows(cells, rows, column, genes.index.value_medians[mine], whole=not allow_fractional),
        name=Path(folder).name,
        obs=pd.DataFrame(index=[f"cell-{row}" for row in rows]),
        var=var,
        counts_from="values",
        allow_fractional=allow_fractional,
    )


def _read_folder(folder: Path) -> pa.Table:
    import datasets

    if not (folder / "dataset_info.json").is_file():
        raise InputError(f"{folder}: not an Arrow folder (dataset_info.json is missing); name the folder of one split")
    loaded = datasets.load_from_disk(str(folder))
    missing = [name for name in _COLUMNS if name not in loaded.column_names]
    if missing:
        raise InputError(f"{folder}: no column {missing[0]!r}; published folders have {', '.join(_COLUMNS)}")
    return loaded.data.table.select(list(_COLUMNS))


def write_import_manifest(
    folders: list[Path], table: str | os.PathLike[str], manifest: Path, *, licence: str = "", citation: str = ""
) -> None:
    """Write the manifest that builds a corpus from published folders: a row per folder and species in it.

    Parameters
    ----------
    folders
        Arrow folders.
    table
        Gene table with the tokens they were made with.
    manifest
        Where to write it.
    licence, citation
        For the dataset card.
    """
    genes = GeneTable.read(table)
    rows = []
    for folder in folders:
        for index in np.unique(_scalars(_read_folder(folder)["species"])):
            if not 0 <= index < len(genes.species):
                raise InputError(f"{folder}: species {index}, but the gene table has {len(genes.species)}")
            species = genes.species[index]
            about = {"licence": licence, "citation": citation}
            path = os.path.abspath(folder)
            rows.append({"path": path, "dataset": f"{folder.name}_{species}", "species": species, **about})
    with atomic_path(manifest) as temporary:
        pd.DataFrame(rows).assign(counts=PUBLISHED).to_csv(temporary, sep="\t", index=False)
