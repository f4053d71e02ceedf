"""Labelled cells prepared once: tokens for the model, counts in the same genes for the baselines, splits for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.model_selection import StratifiedKFold

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import open_cells
from ...tokenization.tokenize import TokenizedCells, match_cells, take_tokenized, tokenize_cells
from ...training.finetuning.data import find_groups


@dataclass(frozen=True)
class LabelledCells:
    """Cells of one data set with their labels, as every method sees them.

    Parameters
    ----------
    name
        For tables.
    tokenized
        The model's input.
    counts
        Cells x vocabulary, raw counts, in the tokens that genes take in cells: mouse genes stand in the column of
        their human homolog, so that baselines cross species by the same map as the model.
    labels
        One a cell.
    groups
        Donor, sample or batch by cell; None where cells carry none.
    species
        Name by cell.
    thinned
        The model's input with thinned counts, once for each share, for fine-tuning; see `FinetuneOptions`.

    Examples
    --------
    >>> cells = read_labelled("pbmc.h5ad", table, label="cell_type", species="human")  # doctest: +SKIP
    """

    name: str
    tokenized: TokenizedCells
    counts: sparse.csr_matrix
    labels: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_] | None
    species: npt.NDArray[np.str_]
    thinned: tuple[TokenizedCells, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, cells: npt.NDArray[np.integer]) -> "LabelledCells":
        """Some of the cells."""
        return LabelledCells(
            self.name,
            take_tokenized(self.tokenized, cells),
            self.counts[cells],
            self.labels[cells],
            None if self.groups is None else self.groups[cells],
            self.species[cells],
            tuple(take_tokenized(depth, cells) for depth in self.thinned),
        )


def read_labelled(
    path: Any,
    table: GeneTable,
    *,
    label: str,
    species: str,
    gene_species: str | None = None,
    max_length: int = 512,
    whole_cells: bool = False,
    group: str | None = "auto",
    name: str | None = None,
    thin: Sequence[float] = (),
) -> LabelledCells:
    """Read labelled cells; cells without a label are left out.

    Parameters
    ----------
    path
        Any file or cells that `open_cells` reads, with raw counts.
    table
        Vocabulary of the model.
    label
        ``obs`` column of labels.
    species
        Species, or an ``obs`` column that says it.
    gene_species
        Species of the gene names, where it is not the cells'.
    max_length
        Genes a cell for the model. Baselines see all genes of the vocabulary.
    whole_cells
        The model has a cell vector, which reads all genes too.
    group
        See `find_groups`.
    name
        For tables; the file's name where None.
    thin
        Shares of counts that thinned copies keep; see `FinetuneOptions`.

    Raises
    ------
    InputError
        No such column, no labelled cell, genes of another species.
    """
    source = open_cells(path)
    if label not in source.obs.columns:
        raise InputError(
            f"{source.name}: no column {label!r} in obs; it has: {', '.join(map(str, source.obs.columns))}"
        )
    values = source.obs[label]
    labelled = np.flatnonzero((values.notna() & (values.astype(str).str.strip() != "")).to_numpy())
    if not len(labelled):
        raise InputError(f"{source.name}: no cell has a label in {label!r}")
    options: dict[str, Any] = {"species": species, "gene_species": gene_species}
    tokenized, *thinned = (
        tokenize_cells(
            source,
            table,
            max_length=max_length,
            whole_cells=whole_cells,
            empty_cells="keep",
            keep_share=share,
            **options,
        )
        for share in (None, *thin)
    )
    groups, _ = find_groups(source.obs, group)
    whole = LabelledCells(
        name or source.name.removesuffix(".h5ad"),
        tokenized,
        token_counts(source, table, **options),
        values.astype(str).to_numpy(dtype=str),
        None if groups is None else groups.astype(str),
        _species_by_cell(source.obs, table, species),
        tuple(thinned),
    )
    return whole if len(labelled) == len(whole) else whole.take(labelled)


def token_counts(source: Any, table: GeneTable, *, species: str, gene_species: str | None = None) -> sparse.csr_matrix:
    """Raw counts by token: columns that take the same token are summed. Shape (cells, vocab)."""
    cells = open_cells(source)
    codes, matches = match_cells(cells, table, species=species, gene_species=gene_species)
    onto = []
    for match in matches:
        known = np.flatnonzero(match.cell_token >= 0)
        ones = np.ones(len(known), dtype=np.float32)
        shape = (cells.n_genes, table.vocab_size)
        onto.append(sparse.csr_matrix((ones, (known, match.cell_token[known])), shape=shape))
    blocks = []
    for first, block in cells.blocks():
        mine = codes[first : first + block.shape[0]]
        parts = [sparse.diags((mine == code).astype(np.float32)) @ block @ columns for code, columns in enumerate(onto)]
        blocks.append(sparse.csr_matrix(sum(parts[1:], start=parts[0])))
    return sparse.csr_matrix(sparse.vstack(blocks))


def _species_by_cell(obs: pd.DataFrame, table: GeneTable, species: str) -> npt.NDArray[np.str_]:
    if species in table.species:
        return np.full(len(obs), species)
    return obs[species].astype(str).to_numpy(dtype=str)


def pick_per_class(labels: npt.NDArray[np.str_], k: int | None, seed: int) -> npt.NDArray[np.int64]:
    """At most `k` random cells of every class (all where None), sorted. A class needs two cells to be learned.

    Examples
    --------
    >>> len(pick_per_class(np.array(["a"] * 9 + ["b"] * 3), 5, seed=0))
    8
    """
    generator = np.random.default_rng(seed)
    picked = []
    for name in np.unique(labels):
        members = np.flatnonzero(labels == name)
        if len(members) < 2:
            continue
        picked.append(members if k is None or k >= len(members) else generator.choice(members, k, replace=False))
    return np.sort(np.concatenate(picked))


def stratified_folds(
    labels: npt.NDArray[np.str_], folds: int = 5, seed: int = 0
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs of train and test positions, every class spread over all folds; for data of one sample only."""
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [(train, test) for train, test in splitter.split(labels, labels)]
