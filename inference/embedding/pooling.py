"""What stands for a cell: the network's reading of it, its profile, which needs no network, or both side by side."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.profile import BAG_COLUMNS, bag, bag_matrix, counts_of_values, profiles
from .encode import POOLINGS, encode_cells, width_of

PROFILE = "profile"
CHOICES = ("auto", *POOLINGS, PROFILE, "mean+profile")


@dataclass(frozen=True)
class Pooling:
    """A way to make one vector of a cell.

    Parameters
    ----------
    network
        Pooling of `encode_cells`; None where no network is run.
    profile
        Whether the weighted profile, through a fixed matrix, is (also) taken.

    Examples
    --------
    >>> Pooling.choose("mean+profile", None).name
    'mean+profile'
    """

    network: str | None
    profile: bool

    @classmethod
    def choose(cls, name: str, config: Any) -> "Pooling":
        """By name; ``"auto"`` is the cell vector of a model that has one, else the mean over genes.

        Raises
        ------
        InputError
            No such pooling.
        """
        if name not in CHOICES:
            raise InputError(f"unknown pooling {name!r}; choose {', '.join(CHOICES)}")
        if name == "auto":
            return cls("cell" if config.cell_size else "mean", False)
        if name == PROFILE:
            return cls(None, True)
        network, _, more = name.partition("+")
        return cls(network, bool(more))

    @property
    def name(self) -> str:
        """As `choose` takes it."""
        return "+".join([part for part in (self.network, PROFILE if self.profile else None) if part])

    def whole_cells(self, config: Any) -> bool:
        """Whether all genes of a cell have to be at hand, not only those that the network reads."""
        return self.profile or bool(config.cell_size)

    def width(self, config: Any) -> int:
        """Numbers of a vector."""
        return (width_of(config, self.network) if self.network else 0) + BAG_COLUMNS * self.profile

    def embed(self, model: Any, tokenized: Any, table: GeneTable, **options: Any) -> npt.NDArray[np.float32]:
        """Vectors of cells, one row each.

        Parameters
        ----------
        model
            As for `encode_cells`.
        tokenized
            `TokenizedCells`, with all genes where `whole_cells` says so.
        table
            The vocabulary, with the weights of genes.
        **options
            More of `encode_cells`'.
        """
        parts = [encode_cells(model, tokenized, pooling=self.network, **options)] if self.network else []
        if self.profile:
            parts.append(bag(profiles_of(tokenized, table), _matrix(table.vocab_size)))
        return np.concatenate(parts, axis=1)


def profiles_of(tokenized: Any, table: GeneTable) -> sparse.csr_matrix:
    """Profiles of tokenised cells; see `genecompass.tokenization.profile.profiles`. Shape (cells, vocab)."""
    counts = counts_of(tokenized, table)
    return profiles(counts.indptr, counts.indices, counts.data, table.weights)


def counts_of(tokenized: Any, table: GeneTable) -> sparse.csr_matrix:
    """Counts of tokenised cells by token, read back from values. Shape (cells, vocab)."""
    medians = np.stack([table.cell_medians(name) for name in table.species])
    species = np.repeat(tokenized.species.astype(np.int64), np.diff(tokenized.indptr))
    tokens = tokenized.input_ids.astype(np.int64)
    counts = counts_of_values(tokenized.values, species * table.vocab_size + tokens, medians.ravel())
    return sparse.csr_matrix((counts, tokens, tokenized.indptr), shape=(len(tokenized), table.vocab_size))


@lru_cache(maxsize=1)
def _matrix(vocab_size: int) -> npt.NDArray[np.float32]:
    return bag_matrix(vocab_size)
