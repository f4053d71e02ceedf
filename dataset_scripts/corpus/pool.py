"""A pool: some blocks of the corpus, read as flat arrays and tokenised as a whole."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.matching import match_genes
from genecompass.tokenization.ranking import rank_cells

from .catalogue import Corpus
from .epoch import Blocks
from .selection import Selection


@dataclass(frozen=True)
class Pool:
    """Tokenised cells in flat arrays.

    Parameters
    ----------
    starts
        Where each cell begins in the flat arrays; int64 (n_cells + 1,).
    input_ids, values
        Tokens int32 and values float32 of all cells, end to end.
    species
        Species index of each cell. Shape (n_cells,).
    columns
        What else is known of each cell. Shapes (n_cells,).
    """

    starts: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    species: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.species)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Genes of each cell. Shape (n_cells,)."""
        return np.diff(self.starts)

    def row(self, cell: int) -> dict[str, Any]:
        """One cell."""
        begin, end = self.starts[cell], self.starts[cell + 1]
        return {
            "input_ids": self.input_ids[begin:end],
            "values": self.values[begin:end],
            "species": int(self.species[cell]),
            **{name: column[cell] for name, column in self.columns.items()},
        }


@dataclass(frozen=True)
class AxisTokens:
    """What a species' gene axis means to a vocabulary: token and median of every gene on it; -1 for no token."""

    token: npt.NDArray[np.int32]
    median: npt.NDArray[np.float64]


def axis_tokens(axis: pd.DataFrame, table: GeneTable, species: str) -> AxisTokens:
    """Look a gene axis up in a vocabulary.

    Parameters
    ----------
    axis
        ``gene_id``, ``symbol``, ``gene_species``; the last tells cells that are stored in another species' genes.
    table
        The vocabulary.
    species
        Species of the cells.

    Raises
    ------
    InputError
        When the vocabulary knows none of the genes.
    """
    token = np.full(len(axis), -1, dtype=np.int32)
    median = np.ones(len(axis))
    problem: InputError | None = None
    for gene_species, genes in axis.groupby("gene_species", sort=True):
        var = pd.DataFrame({"gene_id": genes["gene_id"].to_numpy()}, index=pd.Index(genes["symbol"]))
        try:
            match = match_genes(var, table, species=species, gene_species=str(gene_species))
        except InputError as error:
            problem = error
            continue
        token[genes.index], median[genes.index] = match.cell_token, match.column_median
    if problem is not None and not (token >= 0).any():
        raise problem
    return AxisTokens(token, median)


class PoolReader:
    """Reads pools of a corpus for a vocabulary.

    Parameters
    ----------
    corpus, table, selection
        What to read, in which vocabulary, and which cells.
    max_length
        Genes kept per cell.
    columns
        What rows carry besides tokens.
    """

    def __init__(
        self, corpus: Corpus, table: GeneTable, selection: Selection, *, max_length: int, columns: tuple[str, ...]
    ) -> None:
        if unknown := [name for name in columns if name not in (*corpus.columns, "n_counts")]:
            raise InputError(f"{corpus.source}: no column {unknown[0]!r}; there are {', '.join(corpus.columns)}")
        self.corpus, self.selection, self.max_length = corpus, selection, max_length
        self.columns = tuple(name for name in columns if name != "species")
        self.blocks = _chosen_blocks(corpus, selection)
        if not len(self.blocks):
            raise InputError(f"{corpus.source}: the selection leaves no cell")
        present = sorted(set(self.blocks.species.tolist()))
        self._species_index = {name: table.species_index(name) for name in present}
        self._tokens = {name: axis_tokens(corpus.gene_axis(name), table, name) for name in present}

    def read(self, blocks: npt.NDArray[np.int64]) -> Pool:
        """Read and tokenise some blocks.

        Parameters
        ----------
        blocks
            Their numbers in `blocks`.
        """
        parts = [part for block in blocks if (part := self._read_block(int(block))) is not None]
        if not parts:
            empty: dict[str, Any] = {name: np.empty(0, dtype=object) for name in self.columns}
            return Pool(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, int), empty)
        lengths = np.concatenate([part.lengths for part in parts])
        return Pool(
            np.concatenate(([0], np.cumsum(lengths))),
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.species for part in parts]),
            {name: np.concatenate([part.columns[name] for part in parts]) for name in self.columns},
        )

    def sizes(self) -> npt.NDArray[np.int64]:
        """Exact number of chosen cells of every block; reads the deciding columns where the manifest does not tell."""
        sizes = np.empty(len(self.blocks), dtype=np.int64)
        for block, (number, row_group) in enumerate(zip(self.blocks.shard, self.blocks.row_group, strict=True)):
            shard = self.corpus.shards[number]
            decisive = self.selection.columns_for(shard)
            if decisive:
                sizes[block] = self.selection.mask(self.corpus.read(shard, int(row_group), decisive)).sum()
            else:
                sizes[block] = shard.row_groups(self.corpus.row_group_cells)[row_group]
        return sizes

    def _read_block(self, block: int) -> Pool | None:
        shard = self.corpus.shards[self.blocks.shard[block]]
        row_group = int(self.blocks.row_group[block])
        mask = None
        if decisive := self.selection.columns_for(shard):
            # The deciding columns are a few kilobytes; genes and counts are read only where they name a cell.
            mask = self.selection.mask(self.corpus.read(shard, row_group, decisive))
            if not mask.any():
                return None
        table = self.corpus.read(shard, row_group, ["genes", "counts", *self.columns])
        if mask is not None and not mask.all():
            table = table.filter(pa.array(mask))
        axis = self._tokens[shard.species]
        genes, counts = table["genes"].combine_chunks(), table["counts"].combine_chunks()
        offsets = genes.offsets.to_numpy().astype(np.int64)
        starts, ids, values = rank_cells(
            offsets - offsets[0],
            genes.flatten().to_numpy(),
            counts.flatten().to_numpy(),
            axis.token,
            axis.median,
            max_length=self.max_length,
        )
        species = np.full(table.num_rows, self._species_index[shard.species])
        columns = {name: np.array(table[name].to_pylist(), dtype=object) for name in self.columns}
        return Pool(starts, ids, values, species, columns)


def _chosen_blocks(corpus: Corpus, selection: Selection) -> Blocks:
    shard, row_group, cells, species = [], [], [], []
    for number, entry in enumerate(corpus.shards):
        share = selection.share_of(entry)
        if share == 0:
            continue
        sizes = entry.row_groups(corpus.row_group_cells)
        shard.append(np.full(len(sizes), number))
        row_group.append(np.arange(len(sizes)))
        cells.append(np.array(sizes) * share)
        species.append(np.full(len(sizes), entry.species, dtype=object))
    if not shard:
        return Blocks(*(np.empty(0, dtype=kind) for kind in (np.int64, np.int64, np.float64, object)))
    return Blocks(*(np.concatenate(part) for part in (shard, row_group, cells, species)))
