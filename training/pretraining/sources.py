"""Where training cells come from: a corpus on disk or the Hub, or rows in memory."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from ...tokenization.errors import InputError
from ...tokenization.files import sha256_of
from ...tokenization.gene_table import GeneTable
from ...tokenization.tokenize import ALL_GENES
from .config import PretrainConfig
from .stream import Cells, Row

Corpus = str | os.PathLike[str] | Sequence[Row]


class MemoryCells:
    """Tokenised rows in memory with the interface of a corpus: shuffled, split over processes, resumable.

    Parameters
    ----------
    rows
        ``input_ids``, ``values``, ``species``, ``cell_id``.
    shuffle
        Another order every epoch.
    seed
        Seed of the order.
    rank, world_size
        This process and the number of processes; DataLoader workers split further.

    Examples
    --------
    >>> rows = [{"cell_id": str(i)} for i in range(4)]
    >>> cells = MemoryCells(rows, shuffle=False)
    >>> iterator = iter(cells)
    >>> next(iterator)["cell_id"], cells.state_dict()
    ('0', {'next': 1, 'next_worker': {'0': 0}})
    """

    def __init__(
        self, rows: Sequence[Row], *, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows = rows
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch = 0
        self._next = 0
        self._shift = 0

    def set_epoch(self, epoch: int) -> None:
        """Order of the given pass, from its beginning."""
        self._epoch, self._next, self._shift = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Position after the last row given out."""
        return {"next": self._next, "next_worker": {str(self.rank): self._shift}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position."""
        self._next = state["next"]
        self._shift = state["next_worker"].get(str(self.rank), 0)

    def __iter__(self) -> Iterator[Row]:
        order = np.arange(len(self.rows))
        if self.shuffle:
            np.random.default_rng([self.seed, self._epoch]).shuffle(order)
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        part = self.rank * workers + (number + self._shift) % workers
        mine = order[part :: self.world_size * workers]
        while self._next < len(mine):
            self._next += 1
            yield self.rows[mine[self._next - 1]]


def corpus_opener(corpus: Corpus, table: GeneTable, config: PretrainConfig) -> Callable[..., Cells]:
    """A function that opens the corpus anew: ``opener(shuffle, seed, rank, world_size)``.

    Parameters
    ----------
    corpus
        Folder or Hub dataset of raw counts, or tokenised rows in memory.
    table
        The vocabulary to tokenise with.
    config
        `data` says what is selected and how species are mixed.
    """
    if not isinstance(corpus, (str, os.PathLike)):
        rows = corpus

        def open_rows(*, shuffle: bool, seed: int, rank: int = 0, world_size: int = 1) -> Cells:
            return MemoryCells(rows, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size)

        return open_rows

    from ...dataset_scripts.corpus import open_corpus

    def open_stored(*, shuffle: bool, seed: int, rank: int = 0, world_size: int = 1) -> Cells:
        return open_corpus(
            corpus,
            table,
            # a split divides all counts of a cell; how many genes the network reads is drawn afterwards
            max_length=ALL_GENES if config.masking.task == "count_split" else config.data.max_length,
            select=config.data.select,
            # figures are taken on the cells as they are; only training mixes species
            species_probabilities=config.data.species_probabilities if shuffle else None,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    return open_stored


def fingerprint(corpus: Corpus) -> str:
    """What identifies a corpus: the checksum of its manifest, or of the ids of the rows in memory.

    Examples
    --------
    >>> fingerprint([{"cell_id": "a"}]) == fingerprint([{"cell_id": "b"}])
    False
    """
    if isinstance(corpus, (str, os.PathLike)):
        manifest = Path(corpus) / "manifest.json"
        return sha256_of(manifest) if manifest.is_file() else str(corpus)
    digest = hashlib.sha256()
    for row in corpus:
        digest.update(str(row["cell_id"]).encode() + b"\0")
    return digest.hexdigest()


def check_corpus(corpus: Corpus | None) -> Corpus:
    """Refuse what is no corpus with a line that says what to do."""
    if corpus is None:
        raise InputError("no corpus: set `corpus` to a folder made by `genecompass corpus build` or a Hub dataset")
    if isinstance(corpus, (str, os.PathLike)):
        path = Path(corpus)
        looks_local = path.is_absolute() or str(corpus).startswith((".", "~")) or str(corpus).count("/") != 1
        if looks_local and not path.is_dir():
            raise InputError(f"{corpus}: no such corpus folder; make one with `genecompass corpus build`")
    elif not len(corpus):
        raise InputError("the corpus is empty")
    return corpus


def count_cells(corpus: Corpus, opener: Callable[..., Cells]) -> int:
    """Cells of a corpus, or of the part of it that is selected."""
    if not isinstance(corpus, (str, os.PathLike)):
        return len(corpus)
    blocks: Any = opener(shuffle=False, seed=0)
    return round(float(blocks.reader.blocks.cells.sum()))
